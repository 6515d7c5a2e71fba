// From a client's first byte to its authentication, without any I/O: start-up packet, refusal of
// TLS, cancel requests, SCRAM-SHA-256. Hostile until it ends: everything is bounded.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "pgwire/scram.h"
#include "pgwire/startup.h"
#include "proxy/users.h"

namespace bascule::proxy {

class ClientLogin {
 public:
  // kFull: the start-up packet is answered by 53300. (Not the connection itself: a driver that asks
  // for TLS first takes an error there for a broken server.) Cancel requests are let in.
  enum class Room { kFree, kFull };
  ClientLogin(const Users& users, env::Entropy& entropy, Room room)
      : users_(users), entropy_(entropy), room_(room) {}

  enum class State {
    kStartup,
    kSaslInitial,
    kSaslResponse,
    kAuthenticated,  // AuthenticationOk is in the reply; the caller goes on from there
    kCancel,         // a cancel request: nothing is answered
    kFailed,         // the reply, if any, says why: send it and close
  };
  // Consumes whole packets; appends what to answer to `reply`.
  size_t on_bytes(std::string_view bytes, std::string& reply);
  State state() const { return state_; }

  const pgwire::StartupMessage& startup() const { return startup_; }
  const pgwire::CancelKey& cancel_key() const { return cancel_; }
  // After kAuthenticated: logs in to servers that have the same verifier.
  const pgwire::ScramKeys& keys() const { return scram_->keys(); }

 private:
  void on_startup(std::string_view packet, std::string& reply);
  void begin_sasl(std::string& reply);
  void on_password(std::string_view payload, std::string& reply);
  void fail(std::string_view sqlstate, std::string_view message, std::string& reply);

  const Users& users_;
  env::Entropy& entropy_;
  Room room_;
  State state_ = State::kStartup;
  int encryption_requests_ = 0;
  pgwire::StartupMessage startup_;
  pgwire::CancelKey cancel_;
  std::optional<pgwire::ScramServer> scram_;
};

}  // namespace bascule::proxy
