#include "proxy/client_login.h"

#include <array>
#include <utility>
#include <variant>

#include "pgwire/messages.h"

namespace bascule::proxy {

using pgwire::FrameState;

namespace {

// PostgreSQL's own limit for messages before authentication.
constexpr uint32_t kAuthMessageMax = 65'535;

}  // namespace

size_t ClientLogin::on_bytes(std::string_view bytes, std::string& reply) {
  size_t done = 0;
  while (done < bytes.size()) {
    const std::string_view rest = bytes.substr(done);
    if (state_ == State::kStartup) {
      const pgwire::StartupFrame frame = pgwire::peek_startup(rest);
      if (frame.state == FrameState::kIncomplete) break;
      if (frame.state == FrameState::kBad) {
        fail("08P01", "invalid length of startup packet", reply);
        break;
      }
      on_startup(rest.substr(0, frame.size), reply);
      done += frame.size;
    } else if (state_ == State::kSaslInitial || state_ == State::kSaslResponse) {
      const pgwire::Frame frame = pgwire::peek_frame(rest, kAuthMessageMax);
      if (frame.header_known && frame.type != 'p') {
        fail("08P01", "expected a password response", reply);
        break;
      }
      if (frame.state == FrameState::kIncomplete) break;
      if (frame.state == FrameState::kBad) {
        fail("08P01", "invalid message length", reply);
        break;
      }
      on_password(frame.payload, reply);
      done += frame.size();
    } else {
      break;
    }
  }
  return done;
}

void ClientLogin::on_startup(std::string_view packet, std::string& reply) {
  auto parsed = pgwire::parse_startup(packet);
  if (!parsed) return fail("08P01", parsed.error().message, reply);
  if (auto* cancel = std::get_if<pgwire::CancelRequest>(&*parsed)) {
    cancel_ = std::move(cancel->key);
    state_ = State::kCancel;
    return;
  }
  if (!std::holds_alternative<pgwire::StartupMessage>(*parsed)) {
    // One request for TLS and one for GSSAPI at most, as in PostgreSQL.
    if (++encryption_requests_ > 2) return fail("08P01", "too many encryption requests", reply);
    reply += 'N';
    return;
  }
  if (room_ == Room::kFull) return fail("53300", "too many clients already (proxy)", reply);
  startup_ = std::move(std::get<pgwire::StartupMessage>(*parsed));
  if (startup_.replication != pgwire::ReplicationMode::kNone) {
    return fail("0A000", "replication connections don't go through the proxy", reply);
  }
  const pgwire::Negotiation negotiation = pgwire::negotiate(startup_, pgwire::kProtocol30);
  if (negotiation.tell_client) {
    pgwire::append_negotiate_protocol_version(reply, negotiation.version,
                                              startup_.protocol_options);
  }
  begin_sasl(reply);
}

void ClientLogin::begin_sasl(std::string& reply) {
  scram_.emplace(users_.verifier_for(startup_.user()),
                 pgwire::make_nonce(random_bytes(entropy_, pgwire::kScramNonceBytes)));
  static constexpr std::array<std::string_view, 1> kMechanisms = {pgwire::kScramSha256};
  pgwire::append_authentication_sasl(reply, kMechanisms);
  state_ = State::kSaslInitial;
}

void ClientLogin::on_password(std::string_view payload, std::string& reply) {
  Result<std::string> answer;
  if (state_ == State::kSaslInitial) {
    const auto initial = pgwire::parse_sasl_initial_response(payload);
    if (!initial) return fail("08P01", initial.error().message, reply);
    answer = scram_->on_first(initial->mechanism, initial->data);
  } else {
    answer = scram_->on_final(payload);
  }
  if (!answer) {
    if (scram_->failure() == pgwire::ScramFailure::kProtocol) {
      return fail("08P01", answer.error().message, reply);
    }
    return fail("28P01",
                "password authentication failed for user \"" + std::string(startup_.user()) + "\"",
                reply);
  }
  if (state_ == State::kSaslInitial) {
    pgwire::append_authentication_sasl_continue(reply, *answer);
    state_ = State::kSaslResponse;
    return;
  }
  pgwire::append_authentication_sasl_final(reply, *answer);
  pgwire::append_authentication_ok(reply);
  state_ = State::kAuthenticated;
}

void ClientLogin::fail(std::string_view sqlstate, std::string_view message, std::string& reply) {
  pgwire::append_error_response(reply,
                                {.severity = "FATAL", .sqlstate = sqlstate, .message = message});
  state_ = State::kFailed;
}

}  // namespace bascule::proxy
