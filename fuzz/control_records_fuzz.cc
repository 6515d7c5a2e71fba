// The store's records and the member's local state: whatever the bytes, parsing ends, and what was
// accepted survives being written and read again.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "control/election.h"
#include "control/events.h"
#include "control/records.h"

namespace {

using namespace bascule::control;

template <typename Decode>
void round_trip(std::string_view text, Decode decode) {
  const auto value = decode(text);
  if (!value) return;
  const auto again = decode(encode(*value));
  if (!again) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  round_trip(text, decode_config);
  round_trip(text, decode_leader);
  round_trip(text, decode_member);
  round_trip(text, decode_ballot);
  round_trip(text, decode_sync);
  round_trip(text, decode_history);
  round_trip(text, decode_request);
  round_trip(text, decode_init);
  round_trip(text, decode_roster);
  round_trip(text, decode_seed);
  round_trip(text, decode_task);
  round_trip(text, decode_peer_request);
  round_trip(text, decode_peer_reply);
  round_trip(text, decode_local_state);

  // A whole snapshot: lines "key=value".
  const Keys keys("c");
  bascule::store::Snapshot snapshot{"id", 9, {}};
  for (size_t at = 0; at < text.size() && snapshot.entries.size() < 64;) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    const size_t equals = line.find('=');
    if (equals != std::string_view::npos) {
      snapshot.entries.push_back({keys.prefix + std::string(line.substr(0, equals)),
                                  std::string(line.substr(equals + 1)), 1 + at});
    }
    at = end + 1;
  }
  const ClusterView view = parse_cluster(keys, snapshot);
  if (view.leader) elect(view);
  return 0;
}
