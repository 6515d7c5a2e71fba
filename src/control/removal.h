// Taking a member out of the cluster: may it go, and how far is it. Pure; the leader carries it out
// (agent_removal.cc).
#pragma once

#include <optional>
#include <string>

#include "control/records.h"

namespace bascule::control {

// Why `member` can't be removed now; empty: it can. The primary never; nor the last standby that
// commits wait for, as long as nobody can take its place: commits would wait for ever (strict), or
// be with the primary alone.
std::string removal_obstacle(const ClusterView& view, const NodeName& member);

// No acknowledged commit depends on it: it votes in no generation and may not be elected.
bool is_expendable(const ClusterView& view, const NodeName& member);

// What the leader writes next, beside the leader record; none: wait (for the synchronous set).
struct RemovalStep {
  store::Txn txn;
  std::string outcome;  // of the task, when it is over
};
std::optional<RemovalStep> removal_step(const Keys& keys, const ClusterView& view,
                                        const Versioned<TaskRecord>& task);

}  // namespace bascule::control
