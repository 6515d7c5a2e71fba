// The untyped packets that open a connection: StartupMessage, SSLRequest, GSSENCRequest,
// CancelRequest: https://www.postgresql.org/docs/18/protocol-message-formats.html
// The client is not authenticated: everything is bounded before it is looked at.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"
#include "pgwire/frames.h"

namespace bascule::pgwire {

inline constexpr size_t kMaxStartupPacket = 10'000;  // MAX_STARTUP_PACKET_LENGTH
inline constexpr size_t kMaxStartupParameters = 64;
inline constexpr size_t kMinCancelSecret = 4;
inline constexpr size_t kMaxCancelSecret = 256;

struct ProtocolVersion {
  uint16_t major = 3;
  uint16_t minor = 0;
  auto operator<=>(const ProtocolVersion&) const = default;
  uint32_t wire() const { return (uint32_t{major} << 16) | minor; }
  static ProtocolVersion from_wire(uint32_t value) {
    return {static_cast<uint16_t>(value >> 16), static_cast<uint16_t>(value)};
  }
};
inline constexpr ProtocolVersion kProtocol30{3, 0};
inline constexpr ProtocolVersion kProtocol32{3, 2};

enum class ReplicationMode { kNone, kPhysical, kLogical };

struct StartupMessage {
  ProtocolVersion version;
  // In the order of the packet, without `_pq_.` options; a repeated name is kept as sent, the last
  // one counts, as in PostgreSQL.
  std::vector<std::pair<std::string, std::string>> parameters;
  std::vector<std::string> protocol_options;  // names that begin with "_pq_."
  ReplicationMode replication = ReplicationMode::kNone;

  // Empty if absent. Not user input made safe: bound and escape before logging.
  std::string_view find(std::string_view name) const;
  std::string_view user() const { return find("user"); }
  // As PostgreSQL: the user's name if no database is given.
  std::string_view database() const;
};

// Who may cancel what: BackendKeyData as the server gave it. The secret has 4 bytes in protocol
// 3.0, up to 256 in 3.2; compare with secrets_equal().
struct CancelKey {
  uint32_t pid = 0;
  std::string secret;
};
bool secrets_equal(std::string_view a, std::string_view b);  // time depends on the lengths only

struct SslRequest {};
struct GssEncRequest {};
struct CancelRequest {
  CancelKey key;
};
using StartupPacket = std::variant<StartupMessage, SslRequest, GssEncRequest, CancelRequest>;

// Is a packet there? `size`: of the whole packet with its length field, once 4 bytes are there.
// kBad: shorter than 8 or longer than kMaxStartupPacket bytes. A direct TLS hello (first byte
// 0x16) is kBad too: look for it first with is_tls_hello().
struct StartupFrame {
  FrameState state = FrameState::kIncomplete;
  size_t size = 0;
};
StartupFrame peek_startup(std::string_view bytes);
bool is_tls_hello(std::string_view bytes);

// `packet`: exactly the bytes that peek_startup() found. kInvalid with a message to show to the
// client (SQLSTATE 08P01; 0A000 for an unsupported version) if: unknown code, major version not 3,
// no user, a name or value without its NUL, trailing bytes, too many parameters, a cancel
// secret of a wrong size, `replication` not a boolean or "database".
Result<StartupPacket> parse_startup(std::string_view packet);

// What to answer to the version and the options asked for. If `tell_client`, a
// NegotiateProtocolVersion (messages.h) goes out before authentication.
struct Negotiation {
  ProtocolVersion version;
  bool tell_client = false;
};
Negotiation negotiate(const StartupMessage& startup, ProtocolVersion newest_supported);

// Builders append to `out`. Strings end at their first NUL.
void append_startup(std::string& out, ProtocolVersion version,
                    const std::vector<std::pair<std::string, std::string>>& parameters);
void append_ssl_request(std::string& out);
void append_gssenc_request(std::string& out);
void append_cancel_request(std::string& out, const CancelKey& key);

}  // namespace bascule::pgwire
