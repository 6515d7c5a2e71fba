#include "proxy/server_login.h"

#include <algorithm>

#include "pgwire/md5.h"
#include "pgwire/messages.h"

namespace bascule::proxy {

using pgwire::AuthenticationKind;
using pgwire::Scan;
using pgwire::ScanKind;

void set_parameter(Parameters& parameters, std::string_view name, std::string_view value) {
  for (auto& [known, old] : parameters) {
    if (known == name) {
      old = value;
      return;
    }
  }
  parameters.emplace_back(name, value);
}

std::string_view find_parameter(const Parameters& parameters, std::string_view name) {
  for (const auto& [known, value] : parameters) {
    if (known == name) return value;
  }
  return {};
}

ServerLogin::ServerLogin(Parameters startup, ServerCredential credential, std::string nonce)
    : startup_(std::move(startup)), credential_(std::move(credential)), nonce_(std::move(nonce)) {}

void ServerLogin::restart(std::string nonce) {
  nonce_ = std::move(nonce);
  state_ = State::kRunning;
  authenticated_ = false;
  scanner_ = pgwire::FrameScanner(pgwire::kBackendStartupPolicy);
  scram_.reset();
  derived_.reset();
  parameters_.clear();
  failure_ = {};
}

std::string ServerLogin::first(pgwire::ChannelBinding binding, Privacy privacy) {
  binding_ = std::move(binding);
  privacy_ = privacy;
  std::string packet;
  // What an older server answers is that it speaks 3.0: nothing but the cancel key is different.
  pgwire::append_startup(packet, pgwire::kProtocol32, startup_);
  return packet;
}

bool ServerLogin::Failure::transient() const {
  // 57P01..03: stopping or starting; 53xxx: out of connections or memory; 08xxx: the connection.
  return sqlstate.starts_with("57P0") || sqlstate.starts_with("53") || sqlstate.starts_with("08");
}

void ServerLogin::fail(std::string sqlstate, std::string message) {
  failure_ = {std::move(sqlstate), std::move(message)};
  state_ = State::kFailed;
}

size_t ServerLogin::on_bytes(std::string_view bytes, std::string& reply) {
  size_t done = 0;
  while (state_ == State::kRunning && done < bytes.size()) {
    const Scan message = scanner_.next(bytes.substr(done));
    if (message.kind == ScanKind::kNeedMore) break;
    if (message.kind == ScanKind::kBad) {
      fail("08P01", "the server does not speak the PostgreSQL protocol");
      break;
    }
    on_message(message, reply);
    done += message.bytes.size();
  }
  return done;
}

void ServerLogin::on_message(const Scan& message, std::string& reply) {
  const std::string_view payload = message.payload();
  switch (message.type) {
    case 'R':
      return on_authentication(payload, reply);
    case 'S':
      if (const auto p = pgwire::parse_parameter_status(payload)) {
        set_parameter(parameters_, p->name, p->value);
      }
      return;
    case 'K':
      if (auto key = pgwire::parse_backend_key_data(payload)) cancel_key_ = std::move(*key);
      return;
    case 'E': {
      const auto error = pgwire::parse_error(payload);
      if (!error) return fail("08P01", "the server sent an error that can't be read");
      return fail(std::string(error->sqlstate), std::string(error->message));
    }
    case 'Z':
      if (!authenticated_) return fail("08P01", "the server was ready before it authenticated us");
      state_ = State::kReady;
      return;
    case 'v': {
      const auto negotiated = pgwire::parse_negotiate_protocol_version(payload);
      // No options were asked for.
      if (!negotiated || negotiated->newest > pgwire::kProtocol32 ||
          !negotiated->unknown_options.empty()) {
        return fail("08P01", "the server negotiates what was not asked for");
      }
      return;
    }
    default:
      return;  // N
  }
}

void ServerLogin::begin_scram(bool plus_offered, std::string& reply) {
  if (!credential_.keys && credential_.password.empty()) {
    return fail("28P01", "the proxy has no secret for this user that SCRAM could use");
  }
  pgwire::ChannelBinding binding;
  if (!binding_.data.empty() && plus_offered) {
    binding = binding_;
  } else if (!binding_.data.empty()) {
    // The server notices if somebody in between took its offer away.
    binding.support = pgwire::ChannelBinding::Support::kClientSupports;
  }
  scram_.emplace(credential_.keys ? pgwire::ScramClient::Credential(*credential_.keys)
                                  : pgwire::ScramClient::Credential(credential_.password),
                 nonce_, std::move(binding));
  const auto first = scram_->first();
  if (!first) return fail("08P01", first.error().message);
  pgwire::append_sasl_initial_response(reply, scram_->mechanism(), *first);
}

void ServerLogin::answer_md5(const pgwire::Authentication& request, std::string& reply) {
  if (credential_.password.empty() && credential_.md5_secret.empty()) {
    return fail("28P01", "the server asks for md5, and the proxy does not know the password");
  }
  const Result<std::string> secret =
      credential_.password.empty()
          ? credential_.md5_secret
          : pgwire::md5_secret(find_parameter(startup_, "user"), credential_.password);
  const auto answer = secret ? pgwire::md5_response(*secret, request.salt) : secret;
  if (!answer) return fail("28P01", answer.error().message);
  pgwire::append_password(reply, *answer);
}

void ServerLogin::on_authentication(std::string_view payload, std::string& reply) {
  const auto auth = pgwire::parse_authentication(payload);
  if (!auth) return fail("08P01", auth.error().message);
  switch (auth->kind) {
    case AuthenticationKind::kOk:
      if (scram_ && !scram_->done()) {
        return fail("28P01", "the server did not prove that it knows the password");
      }
      if (scram_ && !credential_.keys) derived_ = scram_->keys();
      authenticated_ = true;
      return;
    case AuthenticationKind::kSasl: {
      const auto offers = [&](std::string_view mechanism) {
        return std::ranges::find(auth->mechanisms, mechanism) != auth->mechanisms.end();
      };
      if (scram_) return fail("08P01", "the server began SASL twice");
      const bool plus = offers(pgwire::kScramSha256Plus);
      if (!offers(pgwire::kScramSha256) && !(plus && !binding_.data.empty())) {
        return fail("28000", "the server offers no SASL mechanism that the proxy knows");
      }
      return begin_scram(plus, reply);
    }
    case AuthenticationKind::kSaslContinue: {
      if (!scram_) return fail("08P01", "SCRAM continues that was never begun");
      const auto answer = scram_->on_continue(auth->data);
      if (!answer) return fail("28P01", answer.error().message);
      pgwire::append_sasl_response(reply, *answer);
      return;
    }
    case AuthenticationKind::kSaslFinal: {
      if (!scram_) return fail("08P01", "SCRAM ends that was never begun");
      if (const auto final = scram_->on_final(auth->data); !final) {
        return fail("28P01", final.error().message);
      }
      return;
    }
    case AuthenticationKind::kMd5:
      return answer_md5(*auth, reply);
    case AuthenticationKind::kCleartext:
      if (privacy_ == Privacy::kNone) {
        return fail("28000", "the server asks for the password in clear, and there is no TLS");
      }
      if (credential_.password.empty()) {
        return fail("28P01", "the server asks for the password, and the proxy does not know it");
      }
      return pgwire::append_password(reply, credential_.password);
    default:
      return fail("28000",
                  "the server asks for a method of authentication that the proxy does "
                  "not offer");
  }
}

}  // namespace bascule::proxy
