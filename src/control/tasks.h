// What the leader does next about the operators' tasks: whose turn it is, and how the last one
// ended. Pure. A member's own turn: agent_tasks.cc.
#pragma once

#include <optional>

#include "base/time.h"
#include "control/records.h"

namespace bascule::control {

// A scheduled task that could not be begun for so long is given up: the hour that was chosen is
// over.
inline constexpr std::chrono::minutes kTaskLateMax{10};

struct TaskSituation {
  NodeName leader;  // who asks
  WallTime wall{};
  Nanos running_for{};        // since the leader saw the running step, as far as it knows
  std::string own_task;       // the leader's own last turn ...
  std::string own_result;     // ... and its result; empty: under way
  bool own_turn_now = false;  // the leader is at it
  Lsn flush_lsn;              // of the leader
};

struct TaskAdvance {
  std::optional<TaskRecord> record;      // to be written; none: nothing to do now
  std::optional<RequestRecord> request;  // to be written with it, if none is open
  bool restart_leader = false;           // the record says that it is the leader's turn
};

// The open task that is due and comes first: one that has begun, then the oldest. Null: none.
const Versioned<TaskRecord>* due_task(const ClusterView& view, WallTime wall);
TaskAdvance advance(const TaskRecord& task, const ClusterView& view, const TaskSituation& now);

// The member's step that is under way, if there is one.
struct Turn {
  const TaskRecord* task = nullptr;
  const TaskStep* step = nullptr;
};
std::optional<Turn> turn_of(const ClusterView& view, const NodeName& member);

}  // namespace bascule::control
