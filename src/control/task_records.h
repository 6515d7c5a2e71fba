// What operators ask the members to do one after the other, or at a given time: tasks/<id>. Written
// by whoever asks (once, and to cancel) and by the leader, which gives the members their turn.
//
// Restart, reload, reinitialise: one step a member, never two under way. A member begins its step
// when the record says "running", remembers that on its own disk first, and so does it once at
// most. Removing a member is the leader's work alone: the member may be gone for good.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "base/types.h"

namespace bascule::control {

enum class TaskKind { kRestart, kReload, kReinit, kSwitchover, kRemove };
std::string_view to_string(TaskKind kind);

enum class StepState { kWaiting, kRunning, kDone, kFailed, kSkipped };
std::string_view to_string(StepState state);

struct TaskStep {
  NodeName member;
  StepState state = StepState::kWaiting;
  std::string note;  // why it failed or was left out; "switchover": done by one
  bool operator==(const TaskStep&) const = default;
};

struct TaskRecord {
  std::string id;
  TaskKind kind = TaskKind::kRestart;
  std::vector<TaskStep> steps;  // none for a switchover; the leader's turn is the last
  WallTime at{};                // not before; {}: at once
  bool only_pending = false;    // restart: members that wait for one
  bool by_switchover = false;   // restart: instead of restarting the primary in place
  Millis step_timeout{120000};  // a member that is not back by then has failed
  NodeName candidate;           // switchover: empty: the best one
  std::string region;           // switchover: to the best of that region, which is preferred then
  std::string by;
  WallTime asked_at{};
  std::string outcome;  // "" while open, else "done...", "failed: ...", "cancelled ..."
  bool operator==(const TaskRecord&) const = default;
};
std::string encode(const TaskRecord&);
Result<TaskRecord> decode_task(std::string_view json);

}  // namespace bascule::control
