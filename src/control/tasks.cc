#include "control/tasks.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

namespace bascule::control {
namespace {

constexpr char kBySwitchover[] = "switchover";

bool begun(const TaskRecord& task) {
  return std::ranges::any_of(task.steps,
                             [](const TaskStep& s) { return s.state != StepState::kWaiting; });
}

TaskStep* find(TaskRecord& task, StepState state) {
  const auto it = std::ranges::find(task.steps, state, &TaskStep::state);
  return it == task.steps.end() ? nullptr : &*it;
}

std::string summary(const TaskRecord& task) {
  const auto skipped = std::ranges::count(task.steps, StepState::kSkipped, &TaskStep::state);
  const auto done = std::ranges::count(task.steps, StepState::kDone, &TaskStep::state);
  if (skipped == 0) return "done";
  return fmt::format("done: {} of {} members, {} not needed", done, task.steps.size(), skipped);
}

// One failure ends it: what broke one member would break the next.
void give_up(TaskRecord& task, TaskStep& failed, std::string why) {
  failed.state = StepState::kFailed;
  failed.note = why;
  for (TaskStep& step : task.steps) {
    if (step.state == StepState::kWaiting) step.state = StepState::kSkipped;
  }
  task.outcome = fmt::format("failed: {}: {}", failed.member.str(), why);
}

// A switchover stops and starts the old primary; it has had its turn when it follows again.
std::optional<std::string> switchover_result(const TaskStep& step, const TaskRecord& task,
                                             const ClusterView& view, const TaskSituation& now) {
  if (step.member == now.leader) {
    const RequestRecord* request = view.request ? &view.request->value : nullptr;
    if (!request || request->id != task.id) return "the switchover was replaced by another request";
    return request->outcome.empty() ? std::nullopt : std::optional(request->outcome);
  }
  const MemberRecord* m = view.member(step.member);
  const bool follows =
      m && view.leader && m->state == "streaming" && m->epoch == view.leader->value.epoch;
  return follows ? std::optional<std::string>("done") : std::nullopt;
}

// None: it is still at it.
std::optional<std::string> result_of(const TaskStep& step, const TaskRecord& task,
                                     const ClusterView& view, const TaskSituation& now) {
  if (step.note == kBySwitchover) return switchover_result(step, task, view, now);
  if (step.member == now.leader) {
    if (now.own_task == task.id && !now.own_result.empty()) return now.own_result;
    if (now.own_turn_now) return std::nullopt;
    return "this member became or remained the leader without having taken its turn";
  }
  const MemberRecord* m = view.member(step.member);
  if (m && m->task == task.id && !m->task_result.empty()) return m->task_result;
  return std::nullopt;
}

// PostgreSQL keeps a standby from having less max_connections and the like than its primary: what
// is lowered is lowered there first, what is raised there last.
bool leader_goes_first(const TaskRecord& task, const ClusterView& view, const NodeName& leader) {
  const MemberRecord* m = view.member(leader);
  return task.kind == TaskKind::kRestart && m && m->restart_first;
}

// What the others have to have replayed before their turn, so that they start with what it lowered.
constexpr std::string_view kFirst = "went first, at ";
bool has_replayed_it(const TaskRecord& task, const MemberRecord& m) {
  return std::ranges::all_of(task.steps, [&](const TaskStep& step) {
    if (!step.note.starts_with(kFirst)) return true;
    const auto lsn = Lsn::parse(std::string_view(step.note).substr(kFirst.size()));
    return !lsn || m.replay_lsn >= *lsn;
  });
}

void begin_leader(TaskRecord& task, TaskStep& step, const ClusterView& view, TaskAdvance& out) {
  if (task.kind == TaskKind::kReinit) {
    return give_up(task, step, "it is the leader: switch over first");
  }
  const bool first = leader_goes_first(task, view, step.member);
  if (first) step.note = kFirst;  // where, is known when it is back
  if (task.kind == TaskKind::kRestart && task.by_switchover && !first) {
    if (view.request && view.request->value.outcome.empty()) {
      out.record.reset();  // another switchover is under way: wait for it
      return;
    }
    step.note = kBySwitchover;
    out.request.emplace();
    out.request->id = task.id;
    out.request->by = task.by;
  } else {
    out.restart_leader = true;
  }
  step.state = StepState::kRunning;
}

// Whose turn is next; the leader's is the last.
TaskStep* next_step(TaskRecord& task, const ClusterView& view, const NodeName& leader) {
  const auto own = std::ranges::find(task.steps, leader, &TaskStep::member);
  const bool waits = own != task.steps.end() && own->state == StepState::kWaiting;
  if (waits && leader_goes_first(task, view, leader)) return &*own;
  TaskStep* last = nullptr;
  for (TaskStep& step : task.steps) {
    if (step.state != StepState::kWaiting) continue;
    if (step.member != leader) return &step;
    last = &step;
  }
  return last;
}

TaskAdvance advance_switchover(TaskAdvance out, const ClusterView& view) {
  if (view.request && view.request->value.outcome.empty()) return {};
  out.request.emplace();
  out.request->id = out.record->id;
  out.request->by = out.record->by;
  out.request->candidate = out.record->candidate;
  out.record->outcome = "done: the switchover was begun";
  return out;
}

}  // namespace

const Versioned<TaskRecord>* due_task(const ClusterView& view, WallTime wall) {
  const Versioned<TaskRecord>* first = nullptr;
  const auto order = [](const TaskRecord& t) {
    return std::tuple(!begun(t), t.at, t.asked_at, std::string_view(t.id));
  };
  for (const auto& [id, task] : view.tasks) {
    if (!task.value.outcome.empty() || task.value.at > wall) continue;
    if (!first || order(task.value) < order(first->value)) first = &task;
  }
  return first;
}

TaskAdvance advance(const TaskRecord& task, const ClusterView& view, const TaskSituation& now) {
  TaskAdvance out;
  out.record = task;
  TaskRecord& t = *out.record;
  if (TaskStep* running = find(t, StepState::kRunning)) {
    const auto result = result_of(*running, t, view, now);
    if (result && result->starts_with("done")) {
      running->state = StepState::kDone;
      if (running->note == kFirst) {
        running->note += now.flush_lsn.to_string();
      } else {
        running->note = *result == "done" ? "" : *result;
      }
      return out;
    }
    if (result) {
      give_up(t, *running, *result);
    } else if (now.running_for > t.step_timeout) {
      give_up(t, *running, fmt::format("not back within {} s", to_ms(t.step_timeout) / 1000));
    } else {
      out.record.reset();
    }
    return out;
  }
  const bool late = t.at != WallTime{} && now.wall - t.at > kTaskLateMax;
  if (!begun(t) && late) {
    t.outcome = "failed: it could not be begun within 10 minutes of its time";
    return out;
  }
  if (view.paused) return {};
  if (t.kind == TaskKind::kSwitchover) return advance_switchover(std::move(out), view);
  TaskStep* next = next_step(t, view, now.leader);
  if (next == nullptr) {
    t.outcome = summary(t);
    return out;
  }
  const MemberRecord* m = view.member(next->member);
  if (m == nullptr) {
    give_up(t, *next, "there is no such member");
  } else if (t.only_pending && !m->pending_restart) {
    next->state = StepState::kSkipped;
    next->note = "no restart is pending";
  } else if (next->member == now.leader) {
    begin_leader(t, *next, view, out);
  } else if (has_replayed_it(t, *m)) {
    next->state = StepState::kRunning;
  } else {
    return {};
  }
  return out;
}

std::optional<Turn> turn_of(const ClusterView& view, const NodeName& member) {
  for (const auto& [id, task] : view.tasks) {
    if (!task.value.outcome.empty()) continue;
    for (const TaskStep& step : task.value.steps) {
      if (step.member == member && step.state == StepState::kRunning) {
        return Turn{&task.value, &step};
      }
    }
  }
  return std::nullopt;
}

}  // namespace bascule::control
