#include "control/removal.h"

#include <fmt/format.h>

#include <algorithm>

#include "control/sync_set.h"

namespace bascule::control {
namespace {

bool in_roster(const ClusterView& view, const NodeName& member) {
  return view.roster &&
         std::ranges::find(view.roster->value.members, member) != view.roster->value.members.end();
}

// As many as commits wait for could be waited for without it.
bool has_substitute(const ClusterView& view, const NodeName& member) {
  const auto others = std::ranges::count_if(view.members, [&](const auto& entry) {
    const auto& [name, m] = entry;
    return name != member && m.role == "replica" && m.state == "streaming" &&
           may_be_waited_for(m) && in_roster(view, name) && m.epoch == view.leader->value.epoch;
  });
  const bool quorum = view.config && view.config->value.sync_mode == SyncMode::kQuorum;
  return static_cast<size_t>(others) >= (quorum ? view.config->value.sync_count : 1);
}

RemovalStep end_task(const Keys& keys, const Versioned<TaskRecord>& task, StepState state,
                     std::string outcome) {
  RemovalStep out;
  TaskRecord record = task.value;
  record.outcome = outcome;
  for (TaskStep& step : record.steps) step.state = state;
  out.txn.compares = {{keys.task(record.id), task.revision}};
  out.txn.writes = {{keys.task(record.id), encode(record)}};
  out.outcome = std::move(outcome);
  return out;
}

}  // namespace

std::string removal_obstacle(const ClusterView& view, const NodeName& member) {
  if (!view.leader || view.leader->value.vacant()) return "the cluster has no leader now";
  if (!view.members.contains(member) && !in_roster(view, member)) return "there is no such member";
  if (view.leader->value.holder == member) return "it is the leader: switch over first";
  const MemberRecord* m = view.member(member);
  const bool votes =
      m && view.sync && std::ranges::any_of(view.sync->value.generations, [&](const Generation& g) {
        return std::ranges::find(g.voters, m->sync_name) != g.voters.end();
      });
  if (votes && !has_substitute(view, member)) {
    return "commits wait for it and no other member can take its place: add one, or set sync=off "
           "first";
  }
  return "";
}

bool is_expendable(const ClusterView& view, const NodeName& member) {
  if (in_roster(view, member)) return false;
  const MemberRecord* m = view.member(member);
  if (!m || !view.sync) return true;
  return std::ranges::none_of(view.sync->value.generations, [&](const Generation& g) {
    return std::ranges::find(g.voters, m->sync_name) != g.voters.end();
  });
}

std::optional<RemovalStep> removal_step(const Keys& keys, const ClusterView& view,
                                        const Versioned<TaskRecord>& task) {
  if (task.value.steps.size() != 1) {
    return end_task(keys, task, StepState::kFailed, "failed: it names not exactly one member");
  }
  const TaskStep& step = task.value.steps.front();
  const NodeName& member = step.member;
  if (step.state == StepState::kWaiting) {
    if (const std::string why = removal_obstacle(view, member); !why.empty()) {
      return end_task(keys, task, StepState::kFailed,
                      fmt::format("failed: {}: {}", member.str(), why));
    }
    // From now on it may not be elected, and is not chosen to be waited for.
    RemovalStep out;
    TaskRecord record = task.value;
    record.steps.front().state = StepState::kRunning;
    out.txn.compares = {{keys.task(record.id), task.revision}};
    out.txn.writes = {{keys.task(record.id), encode(record)}};
    if (in_roster(view, member)) {
      RosterRecord roster = view.roster->value;
      std::erase(roster.members, member);
      out.txn.compares.push_back({keys.roster(), view.roster->revision});
      out.txn.writes.push_back({keys.roster(), encode(roster)});
    }
    return out;
  }
  if (view.leader && view.leader->value.holder == member) {
    return end_task(keys, task, StepState::kFailed,
                    fmt::format("failed: {} became the leader", member.str()));
  }
  if (!is_expendable(view, member)) return std::nullopt;
  RemovalStep out = end_task(keys, task, StepState::kDone, "done");
  const MemberRecord* m = view.member(member);
  out.txn.writes.push_back({keys.member(member), std::nullopt});
  out.txn.writes.push_back({keys.ballot(member), std::nullopt});
  if (m) {
    out.txn.writes.push_back(
        {keys.removed(member), encode(RemovedRecord{m->sync_name, task.value.by})});
  }
  return out;
}

}  // namespace bascule::control
