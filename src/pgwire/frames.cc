#include "pgwire/frames.h"

#include <algorithm>

namespace bascule::pgwire {
namespace {

// PQ_SMALL_MESSAGE_LIMIT and PG_MAX_AUTH_TOKEN_LENGTH of PostgreSQL.
constexpr uint32_t kSmall = 10'000;
constexpr uint32_t kAuthToken = 65'535;
constexpr uint32_t kStartupReply = 64 * 1024;
constexpr uint32_t kErrorPrefix = 1024;
constexpr uint32_t kColumnsPrefix = 32 * 1024;
// Reported parameters hold user text (application_name, search_path): generous, still bounded.
constexpr uint32_t kParameterStatus = 64 * 1024;
constexpr uint32_t kTag = 1024;
constexpr uint32_t kProcessId = 4;  // a notification begins with it

constexpr FrameRule report(uint32_t max_payload, uint32_t prefix = 0) {
  return {FrameAction::kReport, max_payload, prefix};
}
constexpr FrameRule whole(uint32_t max_payload) { return report(max_payload, max_payload); }
constexpr FrameRule relay() { return {FrameAction::kRelay, kMaxPayload, 0}; }

constexpr FramePolicy frontend_auth() {
  FramePolicy p{};
  p['p'] = whole(kAuthToken);
  return p;
}

constexpr FramePolicy frontend() {
  FramePolicy p{};
  for (char type : {'Q', 'P', 'B', 'F'}) p[static_cast<size_t>(type)] = report(kMaxPayload);
  for (char type : {'D', 'C', 'E', 'f'}) p[static_cast<size_t>(type)] = report(kSmall);
  for (char type : {'S', 'H', 'X', 'c'}) p[static_cast<size_t>(type)] = report(0);
  p['d'] = relay();
  return p;
}

constexpr FramePolicy backend_startup() {
  FramePolicy p{};
  for (char type : {'R', 'S', 'K', 'v', 'E', 'N'}) {
    p[static_cast<size_t>(type)] = whole(kStartupReply);
  }
  p['Z'] = whole(1);
  return p;
}

constexpr FramePolicy backend() {
  FramePolicy p{};
  for (char type : {'t', 'G', 'H', 'W', 'V'}) p[static_cast<size_t>(type)] = report(kMaxPayload);
  for (char type : {'1', '2', '3', 'n', 'I', 's', 'c'}) p[static_cast<size_t>(type)] = report(0);
  for (char type : {'D', 'd'}) p[static_cast<size_t>(type)] = relay();
  p['A'] = report(kMaxPayload, kProcessId);
  p['T'] = report(kMaxPayload, kColumnsPrefix);
  for (char type : {'E', 'N'}) {
    p[static_cast<size_t>(type)] = report(kMaxPayload, kErrorPrefix);
  }
  p['C'] = whole(kTag);
  p['S'] = whole(kParameterStatus);
  p['K'] = whole(kSmall);
  p['v'] = whole(kSmall);
  p['Z'] = whole(1);
  return p;
}

constexpr FrameRule kRejected{};

static_assert(sizeof(FrameScanner) <= 24, "two a session: part of the price of an idle client");

const FrameRule& rule_for(const FramePolicy& policy, char type) {
  const auto index = static_cast<unsigned char>(type);
  return index < policy.size() ? policy[index] : kRejected;
}

uint32_t length_field(std::string_view header) {
  const auto byte = [&](size_t i) { return uint32_t{static_cast<unsigned char>(header[i])}; };
  return byte(1) << 24 | byte(2) << 16 | byte(3) << 8 | byte(4);
}

}  // namespace

constinit const FramePolicy kFrontendAuthPolicy = frontend_auth();
constinit const FramePolicy kFrontendPolicy = frontend();
constinit const FramePolicy kBackendStartupPolicy = backend_startup();
constinit const FramePolicy kBackendPolicy = backend();

Frame peek_frame(std::string_view bytes, uint32_t max_payload) {
  Frame frame;
  if (bytes.size() < kFrameHeaderSize) return frame;
  frame.header_known = true;
  frame.type = bytes[0];
  const uint32_t length = length_field(bytes);
  if (length < 4 || length - 4 > std::min(max_payload, kMaxPayload)) {
    frame.state = FrameState::kBad;
    return frame;
  }
  frame.payload_length = length - 4;
  if (bytes.size() < frame.size()) return frame;
  frame.state = FrameState::kComplete;
  frame.payload = bytes.substr(kFrameHeaderSize, frame.payload_length);
  return frame;
}

void FrameScanner::set_policy(const FramePolicy& policy) { policy_ = &policy; }

Scan FrameScanner::next(std::string_view unread) {
  if (bad_) return fail(type_, payload_length_);
  if (remaining_ == 0) return start(unread);
  if (unread.empty()) return {.needed = 1};
  if (relaying_) return run(unread);
  const size_t taken = std::min<size_t>(remaining_, unread.size());
  remaining_ -= static_cast<uint32_t>(taken);
  return {.kind = ScanKind::kContinue,
          .type = type_,
          .ends = remaining_ == 0,
          .payload_length = payload_length_,
          .bytes = unread.substr(0, taken)};
}

Scan FrameScanner::start(std::string_view unread) {
  if (unread.size() < kFrameHeaderSize) return {.needed = kFrameHeaderSize};
  const char type = unread[0];
  const FrameRule& rule = rule_for(*policy_, type);
  const uint32_t length = length_field(unread);
  if (rule.action == FrameAction::kReject || length < 4 || length - 4 > rule.max_payload) {
    return fail(type, length < 4 ? 0 : length - 4);
  }
  if (rule.action == FrameAction::kRelay) return run(unread);

  const uint32_t payload = length - 4;
  const size_t needed = kFrameHeaderSize + std::min(rule.prefix, payload);
  if (unread.size() < needed) return {.type = type, .payload_length = payload, .needed = needed};
  const size_t taken = std::min<size_t>(kFrameHeaderSize + payload, unread.size());
  type_ = type;
  relaying_ = false;
  payload_length_ = payload;
  remaining_ = static_cast<uint32_t>(kFrameHeaderSize + payload - taken);
  return {.kind = ScanKind::kStart,
          .type = type,
          .ends = remaining_ == 0,
          .payload_length = payload,
          .bytes = unread.substr(0, taken)};
}

// Results of many small rows are the bulk of what passes: their headers are walked in one go, so
// that they cost a few nanoseconds each and leave in one piece.
Scan FrameScanner::run(std::string_view unread) {
  relaying_ = true;
  size_t taken = std::min<size_t>(remaining_, unread.size());
  remaining_ -= static_cast<uint32_t>(taken);
  uint32_t messages = 0;
  while (remaining_ == 0 && unread.size() - taken >= kFrameHeaderSize) {
    const std::string_view rest = unread.substr(taken);
    const FrameRule& rule = rule_for(*policy_, rest[0]);
    const uint32_t length = length_field(rest);
    if (rule.action != FrameAction::kRelay || length < 4 || length - 4 > rule.max_payload) break;
    const size_t whole_size = size_t{length} + 1;
    const size_t here = std::min(whole_size, rest.size());
    taken += here;
    remaining_ = static_cast<uint32_t>(whole_size - here);
    ++messages;
  }
  return {.kind = ScanKind::kRun, .messages = messages, .bytes = unread.substr(0, taken)};
}

Scan FrameScanner::fail(char type, uint32_t payload_length) {
  bad_ = true;
  type_ = type;
  payload_length_ = payload_length;
  return {.kind = ScanKind::kBad, .type = type, .payload_length = payload_length};
}

}  // namespace bascule::pgwire
