// Until when a proxy may believe a primary in a cluster that a monitor leads. Pure; the other half
// of the argument is Monitor's closing (monitor_operation.cc).
#pragma once

#include <optional>
#include <string>

#include "base/time.h"
#include "control/records.h"

namespace bascule::monitor {

// From a read begun at `begun`. nullopt: this read gives no permit, one given before still holds.
//
// A monitor that closes the record at C waits until each registered proxy acts by the closed one or
// until C + 1.1 ttl. A read that shows it open was begun before C, so the permit ends in time; and
// a proxy that is not seen registered is not waited for, so it gets none.
inline std::optional<MonoTime> proxy_permit(const control::ClusterView& view,
                                            const std::string& proxy_id, MonoTime begun) {
  if (!view.leader || !view.monitor || !view.monitor->proxies.contains(proxy_id)) {
    return std::nullopt;
  }
  const control::LeaderRecord& leader = view.leader->value;
  const bool open = leader.phase == control::LeaderPhase::kRunning ||
                    leader.phase == control::LeaderPhase::kDraining;
  if (!open) return std::nullopt;
  return begun + leader.ttl;
}

}  // namespace bascule::monitor
