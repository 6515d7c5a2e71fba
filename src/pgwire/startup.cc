#include "pgwire/startup.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <array>

#include "pgwire/wire.h"

namespace bascule::pgwire {
namespace {

constexpr uint32_t kCancelCode = 80877102;
constexpr uint32_t kSslCode = 80877103;
constexpr uint32_t kGssEncCode = 80877104;
constexpr std::string_view kProtocolOptionPrefix = "_pq_.";
constexpr char kTlsHandshake = 0x16;

std::unexpected<Error> bad(std::string_view message) {
  return fail(ErrorCode::kInvalid, "start-up packet: " + std::string(message));
}

char ascii_lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

// parse_bool() of PostgreSQL: unique prefixes count, in any case.
bool abbreviates(std::string_view value, std::string_view word, size_t shortest) {
  return value.size() >= shortest && value.size() <= word.size() &&
         std::equal(value.begin(), value.end(), word.begin(),
                    [](char a, char b) { return ascii_lower(a) == b; });
}

Result<ReplicationMode> parse_replication(std::string_view value) {
  if (value == "database") return ReplicationMode::kLogical;
  if (abbreviates(value, "true", 1) || abbreviates(value, "yes", 1) ||
      abbreviates(value, "on", 2) || value == "1") {
    return ReplicationMode::kPhysical;
  }
  if (abbreviates(value, "false", 1) || abbreviates(value, "no", 1) ||
      abbreviates(value, "off", 2) || value == "0") {
    return ReplicationMode::kNone;
  }
  return bad("\"replication\" must be a boolean or \"database\"");
}

Result<StartupPacket> parse_message(ProtocolVersion version, wire::Reader reader) {
  StartupMessage message;
  message.version = version;
  while (reader.left() > 1) {
    if (message.parameters.size() + message.protocol_options.size() >= kMaxStartupParameters) {
      return bad("more than " + std::to_string(kMaxStartupParameters) + " parameters");
    }
    const std::string_view name = reader.text();
    if (reader.ok() && name.empty()) return bad("bytes after its end");
    const std::string_view value = reader.text();
    if (!reader.ok()) return bad("a parameter without its end");
    if (name.starts_with(kProtocolOptionPrefix)) {
      message.protocol_options.emplace_back(name);
    } else {
      message.parameters.emplace_back(name, value);
    }
  }
  if (reader.u8() != 0 || !reader.ok_at_end()) return bad("no terminator at its end");
  if (message.user().empty()) return bad("no user name");
  for (const auto& [name, value] : message.parameters) {
    if (name != "replication") continue;
    const auto mode = parse_replication(value);
    if (!mode) return std::unexpected(mode.error());
    message.replication = *mode;
  }
  return message;
}

}  // namespace

std::string_view StartupMessage::find(std::string_view name) const {
  for (size_t i = parameters.size(); i-- > 0;) {
    if (parameters[i].first == name) return parameters[i].second;
  }
  return {};
}

std::string_view StartupMessage::database() const {
  const std::string_view named = find("database");
  return named.empty() ? user() : named;
}

bool secrets_equal(std::string_view a, std::string_view b) {
  return a.size() == b.size() && (a.empty() || CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0);
}

bool is_tls_hello(std::string_view bytes) { return !bytes.empty() && bytes[0] == kTlsHandshake; }

StartupFrame peek_startup(std::string_view bytes) {
  if (bytes.size() < 4) return {};
  wire::Reader reader(bytes);
  const uint32_t size = reader.u32();
  if (size < 8 || size > kMaxStartupPacket) return {FrameState::kBad, size};
  return {bytes.size() < size ? FrameState::kIncomplete : FrameState::kComplete, size};
}

Result<StartupPacket> parse_startup(std::string_view packet) {
  const StartupFrame frame = peek_startup(packet);
  if (frame.state != FrameState::kComplete || frame.size != packet.size()) {
    return bad("its length field does not match");
  }
  wire::Reader reader(packet.substr(4));
  const uint32_t code = reader.u32();
  switch (code) {
    case kSslCode:
      return reader.ok_at_end() ? Result<StartupPacket>(SslRequest{}) : bad("SSLRequest too long");
    case kGssEncCode:
      return reader.ok_at_end() ? Result<StartupPacket>(GssEncRequest{})
                                : bad("GSSENCRequest too long");
    case kCancelCode: {
      CancelKey key{.pid = reader.u32(), .secret = {}};
      key.secret = reader.rest();
      if (!reader.ok() || key.secret.size() < kMinCancelSecret ||
          key.secret.size() > kMaxCancelSecret) {
        return bad("CancelRequest with a secret of a wrong size");
      }
      return CancelRequest{std::move(key)};
    }
    default:
      break;
  }
  const ProtocolVersion version = ProtocolVersion::from_wire(code);
  if (version.major != 3) {
    return fail(ErrorCode::kInvalid,
                "unsupported frontend protocol " + std::to_string(version.major) + "." +
                    std::to_string(version.minor),
                "supported are 3.0 and 3.2");
  }
  return parse_message(version, reader);
}

Negotiation negotiate(const StartupMessage& startup, ProtocolVersion newest_supported) {
  const bool too_new = startup.version > newest_supported;
  return {.version = too_new ? newest_supported : startup.version,
          .tell_client = too_new || !startup.protocol_options.empty()};
}

void append_startup(std::string& out, ProtocolVersion version,
                    const std::vector<std::pair<std::string, std::string>>& parameters) {
  wire::Message message(out);
  message.u32(version.wire());
  for (const auto& [name, value] : parameters) message.text(name).text(value);
  message.u8('\0');
}

void append_ssl_request(std::string& out) { wire::Message(out).u32(kSslCode); }

void append_gssenc_request(std::string& out) { wire::Message(out).u32(kGssEncCode); }

void append_cancel_request(std::string& out, const CancelKey& key) {
  wire::Message(out).u32(kCancelCode).u32(key.pid).bytes(key.secret);
}

}  // namespace bascule::pgwire
