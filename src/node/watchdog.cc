#include "node/watchdog.h"

#include <algorithm>

#include "control/records.h"

namespace bascule::node {

std::optional<WatchdogTimes> watchdog_times(Millis ttl) {
  const Millis fence_after = control::ClusterConfig::fence_after(ttl);
  const Millis clock_error = ttl / 20;
  WatchdogTimes times;
  times.reset_after = ttl - fence_after - clock_error;
  times.timeout = std::max(1s, std::chrono::duration_cast<std::chrono::seconds>(ttl - fence_after));
  // How long after the last renewal the guard may still pat.
  const Millis patted_for = fence_after + times.reset_after - times.timeout;
  if (patted_for < ttl / 4) return std::nullopt;
  return times;
}

}  // namespace bascule::node
