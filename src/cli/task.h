// Restarts, reloads, reinitialisations and scheduled switchovers, checked against what the cluster
// looks like now: pure decisions about refusing, and the transactions that ask (control/tasks.h).
#pragma once

#include <string>

#include "api/routes.h"
#include "base/result.h"
#include "control/records.h"
#include "store/store.h"

namespace bascule::cli {

inline constexpr size_t kTasksKept = 20;  // that have ended

// The transaction that asks for the task `id` as the command says. kConflict: refused, with the
// reason and what to do.
Result<store::Txn> open_task(const control::ClusterView& view, const control::Keys& keys,
                             const api::Command& command, const std::string& id, WallTime now);

// Ends what has not been carried out yet: the task `command.id`, or all scheduled ones of a kind.
// A member that has its turn goes through with it.
struct Cancelled {
  store::Txn txn;
  std::string ids;  // for people
};
Result<Cancelled> cancel_tasks(const control::ClusterView& view, const control::Keys& keys,
                               const api::Command& command);

// Whoever of that region may take over best; it leads no longer in the region that is left.
Result<NodeName> candidate_of_region(const control::ClusterView& view, const std::string& region);

// "2026-11-21T23:00:00Z", "23:00" (the next one, UTC) or "+10min".
Result<WallTime> parse_when(std::string_view text, WallTime now);

// "n1 done, n2 restarting, n3 waiting"
std::string describe_task(const control::TaskRecord& task);

}  // namespace bascule::cli
