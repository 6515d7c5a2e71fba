#include "proxy/client_login.h"

#include <fmt/format.h>

#include <utility>
#include <variant>

#include "pgwire/messages.h"
#include "proxy/console.h"
#include "proxy/proxy_protocol.h"

namespace bascule::proxy {

using pgwire::FrameState;

namespace {

// PostgreSQL's own limit for messages before authentication.
constexpr uint32_t kAuthMessageMax = 65'535;
constexpr std::string_view kClearTextHint =
    "This could be either a client-software bug or evidence of an attempted man-in-the-middle "
    "attack.";

}  // namespace

ClientLogin::ClientLogin(std::shared_ptr<const Access> access, env::Entropy& entropy, Room room,
                         ClientOrigin origin)
    : access_(std::move(access)),
      entropy_(entropy),
      room_(room),
      origin_(std::move(origin)),
      connected_from_(origin_.host) {
  const auto address = parse_address(origin_.host);
  for (const Network& network : access_->proxy_protocol_from) {
    if (address && network.contains(*address)) state_ = State::kProxyHeader;
  }
}

size_t ClientLogin::on_bytes(std::string_view bytes, std::string& reply) {
  size_t done = 0;
  while (done < bytes.size()) {
    const size_t n = on_packet(bytes.substr(done), reply);
    if (n == 0) break;
    done += n;
  }
  return done;
}

size_t ClientLogin::on_packet(std::string_view bytes, std::string& reply) {
  switch (state_) {
    case State::kProxyHeader:
      return on_proxy_header(bytes, reply);
    case State::kStartup:
      return on_startup_bytes(bytes, reply);
    case State::kExchange:
      return on_message(bytes, reply);
    default:
      return 0;
  }
}

size_t ClientLogin::on_proxy_header(std::string_view bytes, std::string& reply) {
  const ProxyHeader header = parse_proxy_header(bytes);
  if (header.state == FrameState::kIncomplete) return 0;
  if (header.state == FrameState::kBad) {
    // Not a PostgreSQL client: it gets no answer that it could not read.
    failure_ = "expected a PROXY protocol header from " + origin_.host;
    state_ = State::kFailed;
    return 0;
  }
  (void)reply;
  if (!header.host.empty()) origin_.host = header.host;
  state_ = State::kStartup;
  return header.size;
}

size_t ClientLogin::on_startup_bytes(std::string_view bytes, std::string& reply) {
  if (first_packet_ && access_->client_tls && pgwire::is_tls_hello(bytes)) {
    direct_tls_ = true;
    state_ = State::kStartTls;
    return 0;
  }
  const pgwire::StartupFrame frame = pgwire::peek_startup(bytes);
  if (frame.state == FrameState::kIncomplete) return 0;
  if (frame.state == FrameState::kBad) {
    fail("08P01", "invalid length of startup packet", reply);
    return 0;
  }
  on_startup(bytes.substr(0, frame.size), bytes.size() == frame.size, reply);
  return frame.size;
}

size_t ClientLogin::on_message(std::string_view bytes, std::string& reply) {
  const pgwire::Frame frame = pgwire::peek_frame(bytes, kAuthMessageMax);
  if (frame.header_known && frame.type != 'p') {
    fail("08P01", "expected a password response", reply);
    return 0;
  }
  if (frame.state == FrameState::kIncomplete) return 0;
  if (frame.state == FrameState::kBad) {
    fail("08P01", "invalid message length", reply);
    return 0;
  }
  switch (exchange_->on_message(frame.payload, reply)) {
    case AuthExchange::State::kRunning:
      break;
    case AuthExchange::State::kDone:
      succeed(reply);
      break;
    case AuthExchange::State::kRefused:
      refuse_password(reply);
      break;
    case AuthExchange::State::kBroken:
      fail("08P01", exchange_->protocol_error(), reply);
      break;
  }
  return frame.size();
}

// ---- Start-up ----------------------------------------------------------------------------------

void ClientLogin::on_startup(std::string_view packet, bool alone, std::string& reply) {
  first_packet_ = false;
  auto parsed = pgwire::parse_startup(packet);
  if (!parsed) return fail("08P01", parsed.error().message, reply);
  if (auto* cancel = std::get_if<pgwire::CancelRequest>(&*parsed)) {
    cancel_ = std::move(cancel->key);
    state_ = State::kCancel;
    return;
  }
  if (std::holds_alternative<pgwire::StartupMessage>(*parsed)) {
    startup_ = std::move(std::get<pgwire::StartupMessage>(*parsed));
    return on_startup_message(reply);
  }
  // One request for TLS and one for GSSAPI at most, as in PostgreSQL.
  if (++encryption_requests_ > 2 || tls_) {
    return fail("08P01", "too many encryption requests", reply);
  }
  if (std::holds_alternative<pgwire::SslRequest>(*parsed)) return on_ssl_request(alone, reply);
  reply += 'N';
}

void ClientLogin::on_ssl_request(bool alone, std::string& reply) {
  // Not over unix sockets, as in PostgreSQL: nobody is in between.
  if (!access_->client_tls || origin_.host.empty()) {
    reply += 'N';
    return;
  }
  // CVE-2021-23214: what lies behind the request was sent before the handshake, perhaps by somebody
  // in between, and must not be taken for what the client says through TLS.
  if (!alone) {
    return fail("08P01", "received unencrypted data after SSL request", reply, kClearTextHint);
  }
  reply += 'S';
  state_ = State::kStartTls;
}

void ClientLogin::on_secured(env::TlsInfo info, std::string& reply) {
  tls_ = std::move(info);
  if (direct_tls_ && !tls_->postgresql_alpn) {
    return fail("08P01",
                "received direct SSL connection request without ALPN protocol negotiation "
                "extension",
                reply);
  }
  state_ = State::kStartup;
}

void ClientLogin::on_startup_message(std::string& reply) {
  // Where nobody else gets in, whoever is to find out why does.
  if (room_ == Room::kFull && !Console::is_database(access_->config, startup_.database())) {
    return fail("53300", "too many clients already (proxy)", reply);
  }
  const pgwire::Negotiation negotiation = pgwire::negotiate(startup_, pgwire::kProtocol32);
  if (negotiation.tell_client) {
    pgwire::append_negotiate_protocol_version(reply, negotiation.version,
                                              startup_.protocol_options);
  }
  if (!encrypted_enough(reply)) return;
  if (access_->rules.needs_roles()) {
    question_ = {.secret = false, .roles = true};
    // Both in one go: hardly any user whose roles matter needs no secret.
    question_.secret = access_->users.find(startup_.user()) == nullptr;
    state_ = State::kLookup;
    return;
  }
  check_rules(reply);
}

bool ClientLogin::encrypted_enough(std::string& reply) {
  const SslMode mode = access_->config.client_tls;
  if (origin_.host.empty() || mode < SslMode::kRequire) return true;
  if (!tls_) {
    fail("28000", "the proxy demands TLS (client_tls)", reply);
    return false;
  }
  if (mode >= SslMode::kVerifyCa && !tls_->peer_verified) {
    fail("28000", "connection requires a valid client certificate", reply);
    return false;
  }
  if (mode == SslMode::kVerifyFull && tls_->peer_common_name != startup_.user()) {
    fail("28000", "the common name of the client certificate is not the user's", reply);
    return false;
  }
  return true;
}

// ---- Rules -------------------------------------------------------------------------------------

void ClientLogin::check_rules(std::string& reply) {
  HbaClient client;
  client.address = parse_address(origin_.host);
  client.tls = tls_.has_value();
  client.replication = startup_.replication == pgwire::ReplicationMode::kPhysical;
  client.user = startup_.user();
  client.database = startup_.database();
  if (answer_) client.roles = &answer_->roles;
  const HbaRule* rule = access_->rules.match(client);
  if (rule != nullptr && rule->method != AuthMethod::kReject) return follow_rule(*rule, reply);
  const std::string where = origin_.host.empty() ? "[local]" : origin_.host;
  const std::string_view encryption = tls_ ? "SSL encryption" : "no encryption";
  fail("28000",
       fmt::format(
           "{} host \"{}\", user \"{}\", database \"{}\", {} (proxy)",
           rule != nullptr ? "pg_hba.conf rejects connection for" : "no pg_hba.conf entry for",
           where, startup_.user(), startup_.database(), encryption),
       reply);
}

bool ClientLogin::certificate_ok(const HbaRule& rule, std::string& reply) {
  const bool full =
      rule.method == AuthMethod::kCert || rule.client_cert == HbaRule::ClientCert::kVerifyFull;
  if (!full && rule.client_cert == HbaRule::ClientCert::kNone) return true;
  if (!tls_ || !tls_->peer_verified) {
    fail("28000", "connection requires a valid client certificate", reply);
    return false;
  }
  if (!full) return true;
  const std::string& name = rule.match_subject ? tls_->peer_subject : tls_->peer_common_name;
  if (access_->rules.allows(rule.map, name, startup_.user())) return true;
  fail("28000", fmt::format("certificate authentication failed for user \"{}\"", startup_.user()),
       reply);
  return false;
}

void ClientLogin::follow_rule(const HbaRule& rule, std::string& reply) {
  if (!certificate_ok(rule, reply)) return;
  switch (rule.method) {
    case AuthMethod::kTrust:
    case AuthMethod::kCert:
      return succeed(reply);
    case AuthMethod::kPeer:
      if (!access_->rules.allows(rule.map, origin_.unix_user(), startup_.user())) {
        return fail("28000",
                    fmt::format("Peer authentication failed for user \"{}\"", startup_.user()),
                    reply);
      }
      return succeed(reply);
    case AuthMethod::kPassword:
      if (!tls_ && !origin_.host.empty() && !access_->config.password_in_clear) {
        return fail("28000", "method \"password\" is offered over TLS only", reply);
      }
      break;
    default:
      break;
  }
  const bool listed = access_->users.find(startup_.user()) != nullptr;
  if (!listed && !answer_ && !access_->config.auth_query.user.empty()) {
    question_ = {.secret = true, .roles = false};
    state_ = State::kLookup;
    return;
  }
  begin_exchange(rule, reply);
}

void ClientLogin::on_answer(UserAnswer answer, std::string& reply) {
  answer_ = std::move(answer);
  check_rules(reply);
}

void ClientLogin::begin_exchange(const HbaRule& rule, std::string& reply) {
  std::optional<UserSecret> secret;
  if (const UserSecret* known = access_->users.find(startup_.user())) {
    secret = *known;
  } else if (answer_) {
    secret = answer_->secret;
  }
  pgwire::ChannelBinding binding;
  if (tls_) binding.data = tls_->server_end_point;
  exchange_.emplace(access_->users, std::string(startup_.user()), std::move(secret), rule.method,
                    std::move(binding), entropy_);
  exchange_->begin(reply);
  state_ = State::kExchange;
}

// ---- The end -----------------------------------------------------------------------------------

void ClientLogin::succeed(std::string& reply) {
  pgwire::append_authentication_ok(reply);
  state_ = State::kAuthenticated;
}

const pgwire::ScramKeys* ClientLogin::server_keys() const {
  return exchange_ ? exchange_->server_keys() : nullptr;
}

std::string_view ClientLogin::password() const {
  return exchange_ ? std::string_view(exchange_->password()) : std::string_view();
}

void ClientLogin::refuse_password(std::string& reply) {
  fail("28P01", fmt::format("password authentication failed for user \"{}\"", startup_.user()),
       reply);
}

void ClientLogin::fail(std::string_view sqlstate, std::string_view message, std::string& reply,
                       std::string_view hint) {
  pgwire::append_error_response(
      reply,
      {.severity = "FATAL", .sqlstate = sqlstate, .message = message, .detail = {}, .hint = hint});
  failure_ = message;
  state_ = State::kFailed;
}

}  // namespace bascule::proxy
