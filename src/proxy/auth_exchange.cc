#include "proxy/auth_exchange.h"

#include <utility>

#include "pgwire/md5.h"
#include "pgwire/messages.h"

namespace bascule::proxy {

AuthExchange::AuthExchange(const Users& users, std::string user, std::optional<UserSecret> secret,
                           AuthMethod method, pgwire::ChannelBinding binding, env::Entropy& entropy)
    : users_(users), user_(std::move(user)), secret_(std::move(secret)) {
  const UserSecret::Kind kind = secret_ ? secret_->kind() : users.usual_kind();
  if (method == AuthMethod::kPassword) {
    step_ = Step::kPassword;
  } else if (method == AuthMethod::kMd5 && kind != UserSecret::Kind::kScram) {
    step_ = Step::kMd5;
    entropy.fill(salt_);
  } else {
    // An md5 secret can't be used for SCRAM: as PostgreSQL, an exchange that fails.
    if (secret_ && kind == UserSecret::Kind::kMd5) secret_.reset();
    bound_ = !binding.data.empty();
    scram_.emplace(secret_ ? users.verifier(user_, *secret_) : users.mock(user_),
                   pgwire::make_nonce(random_bytes(entropy, pgwire::kScramNonceBytes)),
                   std::move(binding));
  }
}

void AuthExchange::begin(std::string& reply) {
  static constexpr std::string_view kOffered[] = {pgwire::kScramSha256Plus, pgwire::kScramSha256};
  switch (step_) {
    case Step::kPassword:
      return pgwire::append_authentication_cleartext(reply);
    case Step::kMd5:
      return pgwire::append_authentication_md5(reply, salt_);
    default:
      return pgwire::append_authentication_sasl(reply, std::span(kOffered).subspan(bound_ ? 0 : 1));
  }
}

AuthExchange::State AuthExchange::broken(std::string message) {
  protocol_error_ = std::move(message);
  return State::kBroken;
}

AuthExchange::State AuthExchange::on_message(std::string_view payload, std::string& reply) {
  switch (step_) {
    case Step::kMd5:
      return on_md5(payload);
    case Step::kPassword:
      return on_password(payload);
    default:
      return on_scram(payload, reply);
  }
}

AuthExchange::State AuthExchange::on_scram(std::string_view payload, std::string& reply) {
  Result<std::string> answer;
  if (step_ == Step::kScramFirst) {
    const auto initial = pgwire::parse_sasl_initial_response(payload);
    if (!initial) return broken(initial.error().message);
    answer = scram_->on_first(initial->mechanism, initial->data);
  } else {
    answer = scram_->on_final(payload);
  }
  if (!answer) {
    if (scram_->failure() == pgwire::ScramFailure::kProtocol) {
      return broken(answer.error().message);
    }
    return State::kRefused;
  }
  if (step_ == Step::kScramFirst) {
    pgwire::append_authentication_sasl_continue(reply, *answer);
    step_ = Step::kScramFinal;
    return State::kRunning;
  }
  pgwire::append_authentication_sasl_final(reply, *answer);
  return State::kDone;
}

AuthExchange::State AuthExchange::on_md5(std::string_view payload) {
  const auto given = pgwire::parse_password(payload);
  if (!given) return broken(given.error().message);
  // The same work for a user that does not exist.
  Result<std::string> secret =
      secret_ && secret_->kind() == UserSecret::Kind::kMd5
          ? Result<std::string>(secret_->text())
          : pgwire::md5_secret(user_, secret_ ? secret_->text() : users_.mock(user_).salt);
  const auto expected = secret ? pgwire::md5_response(*secret, salt_) : secret;
  if (!expected) return broken(expected.error().message);
  return pgwire::secrets_equal(*expected, *given) && secret_ ? State::kDone : State::kRefused;
}

AuthExchange::State AuthExchange::on_password(std::string_view payload) {
  const auto given = pgwire::parse_password(payload);
  if (!given) return broken(given.error().message);
  if (given->empty()) return State::kRefused;  // as PostgreSQL: never a password
  if (!secret_) {
    (void)pgwire::password_matches(users_.mock(user_), *given);  // takes the time of a verifier
    return State::kRefused;
  }
  if (!users_.matches(user_, *secret_, *given)) return State::kRefused;
  password_ = *given;
  return State::kDone;
}

const pgwire::ScramKeys* AuthExchange::server_keys() const {
  // One made here from a password has a salt of its own.
  const bool shared = scram_ && secret_ && secret_->kind() == UserSecret::Kind::kScram;
  return shared ? &scram_->keys() : nullptr;
}

}  // namespace bascule::proxy
