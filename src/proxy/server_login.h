// From an open connection to a server's first ReadyForQuery, without any I/O.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pgwire/frames.h"
#include "pgwire/messages.h"
#include "pgwire/scram.h"
#include "pgwire/startup.h"

namespace bascule::proxy {

using Parameters = std::vector<std::pair<std::string, std::string>>;

// What the proxy can prove itself with. Secrets.
struct ServerCredential {
  std::optional<pgwire::ScramKeys> keys;  // preferred for SCRAM
  std::string password;                   // empty: unknown
  std::string md5_secret = {};            // "md5..."; empty: unknown
  std::string unavailable = {};           // not empty: there is none at the moment, and why
};

class ServerLogin {
 public:
  // `startup`: user, database and the client's start-up parameters. `nonce`: of make_nonce().
  enum class Privacy { kNone, kPrivate };
  ServerLogin(Parameters startup, ServerCredential credential, std::string nonce);

  // What to send when connected. kPrivate: nobody can read along (TLS, or a unix socket).
  std::string first(pgwire::ChannelBinding binding, Privacy privacy);
  // For another connection, after a failure.
  void restart(std::string nonce);

  enum class State { kRunning, kReady, kFailed };
  size_t on_bytes(std::string_view bytes, std::string& reply);
  State state() const { return state_; }

  // kReady.
  Parameters& parameters() { return parameters_; }
  const pgwire::CancelKey& cancel_key() const { return cancel_key_; }
  // After SCRAM with a password: what saves the key derivation next time.
  const std::optional<pgwire::ScramKeys>& derived_keys() const { return derived_; }

  // kFailed. Transient: the server is starting, stopping or full; trying again makes sense.
  struct Failure {
    std::string sqlstate, message;
    bool transient() const;
  };
  const Failure& failure() const { return failure_; }

 private:
  void on_message(const pgwire::Scan& message, std::string& reply);
  void on_authentication(std::string_view payload, std::string& reply);
  void begin_scram(bool plus_offered, std::string& reply);
  void answer_md5(const pgwire::Authentication& request, std::string& reply);
  void fail(std::string sqlstate, std::string message);

  Parameters startup_;
  ServerCredential credential_;
  std::string nonce_;
  pgwire::ChannelBinding binding_;
  Privacy privacy_ = Privacy::kNone;
  State state_ = State::kRunning;
  bool authenticated_ = false;
  pgwire::FrameScanner scanner_{pgwire::kBackendStartupPolicy};
  std::optional<pgwire::ScramClient> scram_;
  std::optional<pgwire::ScramKeys> derived_;
  Parameters parameters_;
  pgwire::CancelKey cancel_key_;
  Failure failure_;
};

void set_parameter(Parameters& parameters, std::string_view name, std::string_view value);
std::string_view find_parameter(const Parameters& parameters, std::string_view name);

}  // namespace bascule::proxy
