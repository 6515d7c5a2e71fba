// A stream cut anywhere gives the same messages as in one piece and as a naive reader sees, is
// reproduced byte for byte by the pieces, and never makes the relay keep more than a rule asks for.
// Input: byte 0 the policy, byte 1 the chunk size, then the stream.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "fuzz/check.h"
#include "pgwire/frames.h"

namespace {

using namespace bascule::pgwire;

struct Seen {
  std::string bytes;
  std::vector<std::string> reported;  // type and as much of the payload as came
  uint32_t relayed = 0;
  bool bad = false;
  bool operator==(const Seen&) const = default;
};

size_t keep_limit(const FramePolicy& policy) {
  uint32_t prefix = 0;
  for (const FrameRule& rule : policy) prefix = std::max(prefix, rule.prefix);
  return kFrameHeaderSize + prefix;
}

Seen read_in_chunks(const FramePolicy& policy, std::string_view stream, size_t chunk) {
  Seen seen;
  FrameScanner scanner(policy);
  size_t parsed = 0;
  for (size_t received = 0; received < stream.size() && !seen.bad;) {
    received = std::min(received + chunk, stream.size());
    while (true) {
      const auto unread = stream.substr(parsed, received - parsed);
      const Scan scan = scanner.next(unread);
      if (scan.kind == ScanKind::kBad) {
        seen.bad = true;
        break;
      }
      if (scan.kind == ScanKind::kNeedMore) {
        BASCULE_FUZZ_CHECK(scan.needed > unread.size());
        BASCULE_FUZZ_CHECK(scan.needed <= keep_limit(policy));
        break;
      }
      BASCULE_FUZZ_CHECK(!scan.bytes.empty());
      BASCULE_FUZZ_CHECK(scan.bytes.data() == unread.data());
      seen.bytes += scan.bytes;
      parsed += scan.bytes.size();
      if (scan.kind == ScanKind::kRun) {
        seen.relayed += scan.messages;
        continue;
      }
      if (scan.kind == ScanKind::kStart) seen.reported.emplace_back(1, scan.type);
      seen.reported.back() += scan.payload();
      if (scan.ends) {
        BASCULE_FUZZ_CHECK(seen.reported.back().size() == 1 + size_t{scan.payload_length});
      }
    }
  }
  return seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const FramePolicy* policies[] = {&kFrontendAuthPolicy, &kFrontendPolicy, &kBackendStartupPolicy,
                                   &kBackendPolicy};
  const FramePolicy& policy = *policies[data[0] % 4];
  const std::string_view stream(reinterpret_cast<const char*>(data) + 2, size - 2);
  const Seen whole = read_in_chunks(policy, stream, stream.size() + 1);
  const Seen parts = read_in_chunks(policy, stream, size_t{data[1]} + 1);
  BASCULE_FUZZ_CHECK(stream.starts_with(whole.bytes));
  BASCULE_FUZZ_CHECK(whole == parts);

  size_t at = 0;
  size_t reported = 0;
  uint32_t relayed = 0;
  while (true) {
    const Frame frame = peek_frame(stream.substr(at), kMaxPayload);
    if (frame.state != FrameState::kComplete) break;
    const auto type = static_cast<unsigned char>(frame.type);
    if (type >= policy.size() || policy[type].action == FrameAction::kReject ||
        frame.payload_length > policy[type].max_payload) {
      BASCULE_FUZZ_CHECK(whole.bad);
      break;
    }
    if (policy[type].action == FrameAction::kRelay) {
      ++relayed;
    } else {
      const std::string& message = whole.reported.at(reported++);
      BASCULE_FUZZ_CHECK(message[0] == frame.type);
      BASCULE_FUZZ_CHECK(message.substr(1) == frame.payload);
    }
    at += frame.size();
  }
  BASCULE_FUZZ_CHECK(whole.relayed == relayed || whole.relayed == relayed + 1);
  BASCULE_FUZZ_CHECK(whole.reported.size() <= reported + 1);
  return 0;
}
