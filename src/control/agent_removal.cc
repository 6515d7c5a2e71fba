// A member that was taken out of the cluster (removal.h): as the leader that does it, and as the
// member that learns of it.
#include "control/removal.h"

#include "control/agent_impl.h"

namespace bascule::control {

// With the copy that it had then. A new one, on an empty data directory, is a new member.
bool Agent::Impl::removed_here() const {
  const auto found = view_->removed.find(config_.name);
  return found != view_->removed.end() && !held_ && is_sync_name(found->second.value.sync_name) &&
         pg_.data != DataDir::kEmpty && pg_.data != DataDir::kHalfCloned;
}

// Its slot is gone: it would fall behind unnoticed, and answer reads for ever from what it has.
void Agent::Impl::stay_away() {
  set_phase(Phase::kRefused,
            fmt::format("this member was removed from the cluster by {}: stop its daemon. To add "
                        "it again, empty its data directory",
                        view_->removed.at(config_.name).value.by));
  if (pg_.run == PgRun::kStopped || op_running() || !may_retry()) return;
  run(op::Kill{});
}

bool Agent::Impl::being_removed(const NodeName& member) const {
  return std::ranges::any_of(view_->tasks, [&](const auto& entry) {
    const TaskRecord& task = entry.second.value;
    return task.kind == TaskKind::kRemove && task.outcome.empty() && task.steps.size() == 1 &&
           task.steps.front().member == member && task.steps.front().state == StepState::kRunning;
  });
}

bool Agent::Impl::belongs(const MemberRecord& m) const {
  const auto gone = view_->removed.find(m.name);
  const bool removed = gone != view_->removed.end() && gone->second.value.sync_name == m.sync_name;
  return !removed && !being_removed(m.name);
}

void Agent::Impl::remove_member(const Versioned<TaskRecord>& task) {
  auto step = removal_step(keys_, *view_, task);
  if (!step) return wake_at(now_ + 100ms);
  if (!step->outcome.empty()) {
    note(LogLevel::kInfo, "task ended", step->outcome, {{"id", task.value.id}});
  }
  leader_commit(held_->record, std::move(step->txn));
  request_read();
}

}  // namespace bascule::control
