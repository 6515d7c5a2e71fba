// A client proves its password, by the method that a rule demands: SCRAM-SHA-256(-PLUS), md5 or
// password. As PostgreSQL: where md5 is demanded and the secret is a SCRAM verifier, SCRAM is used.
// A user that does not exist goes through the same exchange, and fails at its end. No I/O.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "env/entropy.h"
#include "pgwire/scram.h"
#include "proxy/users.h"

namespace bascule::proxy {

class AuthExchange {
 public:
  // `secret`: of `users` or of somewhere else; none: an unknown user. `binding`: of the client's
  // TLS connection, empty if there is none. `users` must outlive the exchange.
  AuthExchange(const Users& users, std::string user, std::optional<UserSecret> secret,
               AuthMethod method, pgwire::ChannelBinding binding, env::Entropy& entropy);

  void begin(std::string& reply);  // appends the first request
  enum class State { kRunning, kDone, kRefused, kBroken };
  // The payload of a 'p' message. kDone: AuthenticationOk is the caller's to append.
  State on_message(std::string_view payload, std::string& reply);
  const std::string& protocol_error() const { return protocol_error_; }  // kBroken: what was wrong

  // ---- kDone ---------------------------------------------------------------------------------
  // Keys that a client proved, if its verifier may be that of servers too.
  const pgwire::ScramKeys* server_keys() const;
  // What the client sent in clear; empty unless the method was password.
  const std::string& password() const { return password_; }

 private:
  enum class Step { kScramFirst, kScramFinal, kMd5, kPassword };
  State on_scram(std::string_view payload, std::string& reply);
  State on_md5(std::string_view payload);
  State on_password(std::string_view payload);
  State broken(std::string message);

  const Users& users_;
  std::string user_;
  std::optional<UserSecret> secret_;
  Step step_ = Step::kScramFirst;
  bool bound_ = false;  // -PLUS is offered
  std::optional<pgwire::ScramServer> scram_;
  std::array<uint8_t, 4> salt_{};
  std::string password_;
  std::string protocol_error_;
};

}  // namespace bascule::proxy
