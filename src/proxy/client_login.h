// From a client's first byte to its authentication, without any I/O: PROXY header, TLS request,
// start-up packet, rules, exchange. Hostile until it ends: everything is bounded. The caller does
// what a state asks for.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pgwire/startup.h"
#include "proxy/access.h"
#include "proxy/auth_exchange.h"

namespace bascule::proxy {

// Where a client comes from.
struct ClientOrigin {
  std::string host;  // an address; empty: a unix socket
  // Asked for by method peer only: it may be slow. Must work as long as the log-in lives.
  std::move_only_function<std::string()> unix_user;
};

// What is to be found out about a user outside of this process.
struct UserQuestion {
  bool secret = false;
  bool roles = false;
};
struct UserAnswer {
  std::optional<UserSecret> secret;  // none: there is no such user, or it has no password
  std::vector<std::string> roles;    // that it is a member of, itself included
};

class ClientLogin {
 public:
  // kFull: the start-up packet is answered by 53300. (Not the connection itself: a driver that asks
  // for TLS first takes an error there for a broken server.) Cancel requests are let in.
  enum class Room { kFree, kFull };
  ClientLogin(std::shared_ptr<const Access> access, env::Entropy& entropy, Room room,
              ClientOrigin origin);

  enum class State {
    kProxyHeader,
    kStartup,
    kStartTls,   // send the reply, start TLS with access().client_tls, then on_secured()
    kHandshake,  // it is under way: on_secured()
    kLookup,     // answer question() about startup().user() with on_answer()
    kExchange,
    kAuthenticated,  // AuthenticationOk is in the reply; the caller goes on from there
    kCancel,         // a cancel request: nothing is answered
    kFailed,         // the reply, if any, says why: send it and close
  };
  // Consumes whole packets; appends what to answer to `reply`. Nothing while in kStartTls,
  // kHandshake and kLookup, except that of a direct TLS hello nothing is consumed in kStartTls:
  // start TLS while handling these bytes.
  size_t on_bytes(std::string_view bytes, std::string& reply);
  void tls_started() { state_ = State::kHandshake; }
  void on_secured(env::TlsInfo info, std::string& reply);
  void on_answer(UserAnswer answer, std::string& reply);

  State state() const { return state_; }
  const Access& access() const { return *access_; }
  UserQuestion question() const { return question_; }
  // It failed with a secret that was looked up, perhaps some time ago.
  bool doubts_answer() const { return state_ == State::kFailed && exchange_ && answer_; }
  const std::string& host() const { return origin_.host; }  // the PROXY header's, if there was one
  const std::string& connected_from() const { return connected_from_; }  // never the header's
  // Why it failed, for the log; without secrets.
  const std::string& failure() const { return failure_; }

  const pgwire::StartupMessage& startup() const { return startup_; }
  const pgwire::CancelKey& cancel_key() const { return cancel_; }
  // kAuthenticated: what it proved that may log in to servers too; null or empty: nothing.
  const pgwire::ScramKeys* server_keys() const;
  std::string_view password() const;
  // The secret that was looked up; null: none was.
  const UserSecret* looked_up() const {
    return answer_ && answer_->secret ? &*answer_->secret : nullptr;
  }

 private:
  // Of what is left of `bytes`: consumed, or 0 if it waits for more or for the caller.
  size_t on_packet(std::string_view bytes, std::string& reply);
  size_t on_proxy_header(std::string_view bytes, std::string& reply);
  size_t on_startup_bytes(std::string_view bytes, std::string& reply);
  size_t on_message(std::string_view bytes, std::string& reply);
  void on_startup(std::string_view packet, bool alone, std::string& reply);
  void on_ssl_request(bool alone, std::string& reply);
  void on_startup_message(std::string& reply);
  void check_rules(std::string& reply);
  void follow_rule(const HbaRule& rule, std::string& reply);
  void begin_exchange(const HbaRule& rule, std::string& reply);
  bool certificate_ok(const HbaRule& rule, std::string& reply);
  bool encrypted_enough(std::string& reply);
  void succeed(std::string& reply);
  void fail(std::string_view sqlstate, std::string_view message, std::string& reply,
            std::string_view hint = {});
  void refuse_password(std::string& reply);

  std::shared_ptr<const Access> access_;
  env::Entropy& entropy_;
  Room room_;
  ClientOrigin origin_;
  const std::string connected_from_;
  State state_ = State::kStartup;
  bool first_packet_ = true;
  bool direct_tls_ = false;
  int encryption_requests_ = 0;
  std::optional<env::TlsInfo> tls_;
  pgwire::StartupMessage startup_;
  pgwire::CancelKey cancel_;
  UserQuestion question_;
  std::optional<UserAnswer> answer_;
  std::optional<AuthExchange> exchange_;
  std::string failure_;
};

}  // namespace bascule::proxy
