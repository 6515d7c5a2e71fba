// Message framing of the PostgreSQL protocol (type byte, big-endian length that counts itself,
// payload): https://www.postgresql.org/docs/15/protocol-overview.html
// No I/O, no buffers, no allocation: views into the caller's bytes, valid as long as those are.
//
// The relay keeps three cursors into what it received, done <= parse <= recv. FrameScanner moves
// `parse`: each call of next() takes one piece off the front of the unread bytes. The caller marks
// the piece send, skip or handle, and forwards it from where it lies. Large messages pass in pieces
// as they come; only the few bytes that a FrameRule asks for are waited for.
//
//   while (true) {
//     Scan s = scanner.next(unread);
//     if (s.kind == ScanKind::kNeedMore) break;   // keep `unread` in front of the next read
//     if (s.kind == ScanKind::kBad) { close; break; }
//     if (s.kind == ScanKind::kStart) tracker.received(s.type, s.payload());
//     send(s.bytes); unread.remove_prefix(s.bytes.size());
//   }
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace bascule::pgwire {

inline constexpr size_t kFrameHeaderSize = 5;
// PQ_LARGE_MESSAGE_LIMIT: PostgreSQL itself takes no message of 1 GiB or more.
inline constexpr uint32_t kMaxPayload = 0x3fffffff - 1 - 4;

enum class FrameState { kIncomplete, kComplete, kBad };

// One message looked at where it lies. `type` and `payload_length` are valid once the header is
// there (header_known); `payload` only if kComplete.
struct Frame {
  FrameState state = FrameState::kIncomplete;
  bool header_known = false;
  char type = 0;
  uint32_t payload_length = 0;  // without type and length field
  std::string_view payload;
  size_t size() const { return kFrameHeaderSize + payload_length; }
};

// The message at the front of `bytes`. kBad: the length is impossible or above `max_payload`
// (known as soon as five bytes are there, so nobody waits for a gigabyte that never comes).
Frame peek_frame(std::string_view bytes, uint32_t max_payload);

// What to do with a type of message in one direction and phase.
enum class FrameAction : uint8_t {
  kReject,  // not allowed here: kBad
  kRelay,   // of no interest: neighbours of any relayed type come as one piece of kind kRun
  kReport,  // each message comes as kStart (and kContinue)
};
struct FrameRule {
  FrameAction action = FrameAction::kReject;
  uint32_t max_payload = 0;  // longer: kBad
  // kReport: kStart waits until this many payload bytes (or all, if fewer) are there. A rule with
  // prefix >= max_payload yields whole messages only. Bounds what the caller has to keep.
  uint32_t prefix = 0;
};
// Indexed by type; types >= 128 are rejected. constexpr tables, shared by all connections.
using FramePolicy = std::array<FrameRule, 128>;

// From a client during authentication: only 'p', whole, at most 65,535 bytes.
extern const FramePolicy kFrontendAuthPolicy;
// From a client after authentication. Payloads stream; S, H, X, c must be empty.
extern const FramePolicy kFrontendPolicy;
// From a server until its first ReadyForQuery: R, S, K, v, E, N, Z, all whole, at most 64 KiB.
extern const FramePolicy kBackendStartupPolicy;
// From a server after that. Whole: Z, S, K, v, C. Prefix: 1 KiB of E and N (severity and SQLSTATE
// come first), 32 KiB of T (which columns: some 1,000), 4 bytes of A. Relayed: D, d. Others are
// reported by their header.
extern const FramePolicy kBackendPolicy;

enum class ScanKind {
  kNeedMore,  // keep the unread bytes; useless to call again before `needed` of them are there
  kStart,     // a message begins: header and what is there of its payload (at least the prefix)
  kContinue,  // more payload of the message begun before
  kRun,       // header(s) and payload of relayed messages, may begin or end within one
  kBad,       // the stream can't be followed any more; `type` and `payload_length` say by what
};

struct Scan {
  ScanKind kind = ScanKind::kNeedMore;
  char type = 0;                // kStart, kContinue, kBad
  bool ends = false;            // kStart, kContinue: the message ends with these bytes
  uint32_t payload_length = 0;  // kStart, kContinue: of the whole message
  uint32_t messages = 0;        // kRun: how many messages begin in `bytes`
  size_t needed = 0;            // kNeedMore: counted from the front of the unread bytes
  std::string_view bytes = {};  // the piece: a prefix of the unread bytes

  // kStart: the payload as far as it is there; kContinue: the piece.
  std::string_view payload() const {
    return kind == ScanKind::kStart ? bytes.substr(kFrameHeaderSize) : bytes;
  }
};

// Follows one direction of one connection. 24 bytes. The policy must outlive it.
class FrameScanner {
 public:
  explicit FrameScanner(const FramePolicy& policy) : policy_(&policy) {}

  // `unread`: everything received and not yet taken, beginning right after the last piece. The
  // sequence of messages is the same however the stream is cut into chunks. After kBad: kBad.
  Scan next(std::string_view unread);

  // For a change of phase; only at a message boundary.
  void set_policy(const FramePolicy& policy);

  // No message is half seen. (Unread bytes in the caller's hands may still begin one.)
  bool at_boundary() const { return remaining_ == 0 && !bad_; }
  // Payload bytes of the current message still to come.
  uint32_t remaining() const { return remaining_; }

 private:
  Scan start(std::string_view unread);
  Scan run(std::string_view unread);
  Scan fail(char type, uint32_t payload_length);

  const FramePolicy* policy_;
  uint32_t remaining_ = 0;
  uint32_t payload_length_ = 0;
  char type_ = 0;
  bool relaying_ = false;  // the current message is of action kRelay
  bool bad_ = false;
};

}  // namespace bascule::pgwire
