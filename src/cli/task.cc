#include "cli/task.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "api/health.h"
#include "base/time_text.h"
#include "cli/request.h"
#include "cli/units.h"
#include "control/removal.h"

namespace bascule::cli {
namespace {

using api::Command;
using control::ClusterView;
using control::StepState;
using control::TaskKind;
using control::TaskRecord;

constexpr size_t kOpenMax = 20;
constexpr auto kAheadMax = std::chrono::days(90);
constexpr Millis kReinitTimeout = std::chrono::hours(24);

auto refuse(std::string what, std::string hint) {
  return fail(ErrorCode::kConflict, std::move(what), std::move(hint));
}

TaskKind kind_of(Command::Kind kind) {
  switch (kind) {
    case Command::Kind::kReload:
      return TaskKind::kReload;
    case Command::Kind::kReinit:
      return TaskKind::kReinit;
    case Command::Kind::kRemove:
      return TaskKind::kRemove;
    case Command::Kind::kSwitchover:
      return TaskKind::kSwitchover;
    default:
      return TaskKind::kRestart;
  }
}

Status check_time(WallTime at, WallTime now) {
  if (at == WallTime{}) return {};
  if (at < now) {
    return fail(ErrorCode::kInvalid, fmt::format("{} is over already", to_iso8601(at)),
                fmt::format("It is {} now", to_iso8601(now)));
  }
  if (at > now + kAheadMax) {
    return fail(ErrorCode::kInvalid, fmt::format("{} is too far ahead", to_iso8601(at)),
                "At most 90 days");
  }
  return {};
}

Status check_members(const ClusterView& view, const TaskRecord& task) {
  for (const control::TaskStep& step : task.steps) {
    if (task.kind == TaskKind::kRemove) {
      const std::string why = control::removal_obstacle(view, step.member);
      if (why.empty()) continue;
      return refuse(fmt::format("{}: {}", step.member.str(), why), "");
    }
    if (view.member(step.member) == nullptr) {
      return refuse(fmt::format("there is no member \"{}\"", step.member.str()),
                    "`bascule status` lists them");
    }
    const bool leads = view.leader && view.leader->value.holder == step.member;
    if (task.kind == TaskKind::kReinit && leads) {
      return refuse(fmt::format("{} is the leader: its data is the cluster's", step.member.str()),
                    "`bascule switchover` first");
    }
  }
  return {};
}

// The regions that members have, for people.
std::string regions_of(const ClusterView& view) {
  std::vector<std::string> out;
  for (const auto& [name, member] : view.members) {
    if (!member.region.empty()) out.push_back(member.region);
  }
  std::ranges::sort(out);
  const auto repeated = std::ranges::unique(out);
  out.erase(repeated.begin(), repeated.end());
  return out.empty() ? "No member has a region" : fmt::format("Regions: {}", fmt::join(out, ", "));
}

// Who streams is known only when the hour has come; who may lead, and that the name exists, now.
Status check_later_target(const ClusterView& view, const TaskRecord& task) {
  if (task.kind != TaskKind::kSwitchover) return {};
  if (auto good = check_candidate(view, task.candidate, Accept::kEligible); !good) return good;
  if (task.region.empty()) return {};
  if (view.leader) {
    const auto* leader = view.member(view.leader->value.holder);
    if (leader != nullptr && leader->region == task.region) {
      return refuse(
          fmt::format("{} leads, and is of region {} already", leader->name.str(), task.region),
          "");
    }
  }
  const bool anybody = std::ranges::any_of(view.members, [&](const auto& entry) {
    return entry.second.region == task.region && !entry.second.nofailover;
  });
  if (anybody) return {};
  return refuse(fmt::format("nobody of region \"{}\" may lead", task.region), regions_of(view));
}

// Ended ones beyond those that are kept, the oldest first.
void drop_old(const ClusterView& view, const control::Keys& keys, store::Txn& txn) {
  std::vector<const TaskRecord*> ended;
  for (const auto& [id, task] : view.tasks) {
    if (!task.value.outcome.empty()) ended.push_back(&task.value);
  }
  if (ended.size() < kTasksKept) return;
  std::ranges::sort(ended, {}, [](const TaskRecord* t) { return t->asked_at; });
  ended.resize(ended.size() + 1 - kTasksKept);
  for (const TaskRecord* task : ended) txn.writes.push_back({keys.task(task->id), std::nullopt});
}

bool begun(const TaskRecord& task) {
  return std::ranges::any_of(task.steps,
                             [](const auto& s) { return s.state != StepState::kWaiting; });
}

}  // namespace

Result<store::Txn> open_task(const ClusterView& view, const control::Keys& keys,
                             const Command& command, const std::string& id, WallTime now) {
  TaskRecord task;
  task.id = id;
  task.kind = kind_of(command.kind);
  task.at = command.at;
  task.only_pending = command.only_pending;
  task.by_switchover = command.by_switchover;
  if (task.kind == TaskKind::kReinit) task.step_timeout = kReinitTimeout;
  if (command.timeout > Millis(0)) task.step_timeout = command.timeout;
  task.candidate = command.candidate;
  task.region = command.region;
  task.by = command.by;
  task.asked_at = now;
  if (view.monitor) {
    return refuse(fmt::format("a monitor leads this cluster: nobody would carry out a {}{}",
                              task.at == WallTime{} ? "" : "scheduled ", to_string(task.kind)),
                  task.kind == TaskKind::kSwitchover
                      ? "Without --at (scheduled_at) it is carried out at once"
                      : "Without an agent beside the database it is to be done on its host");
  }
  if (task.kind != TaskKind::kSwitchover) {
    for (const NodeName& name : command.members) task.steps.push_back({name, {}, ""});
    if (command.members.empty()) {
      for (const auto& [name, member] : view.members) task.steps.push_back({name, {}, ""});
    }
    if (task.steps.empty()) return refuse("the cluster has no members yet", "");
  }
  if (view.paused) return refuse("the cluster is paused", "`bascule resume` first");
  const auto open = std::ranges::count_if(
      view.tasks, [](const auto& entry) { return entry.second.value.outcome.empty(); });
  if (open >= static_cast<long>(kOpenMax)) {
    return refuse(fmt::format("{} tasks are open already", open), "`bascule tasks` lists them");
  }
  if (auto good = check_time(task.at, now); !good) return std::unexpected(good.error());
  if (auto good = check_members(view, task); !good) return std::unexpected(good.error());
  if (auto good = check_later_target(view, task); !good) return std::unexpected(good.error());
  store::Txn txn;
  txn.compares = {{keys.task(id), 0}, {keys.pause(), 0}};
  txn.writes = {{keys.task(id), encode(task)}};
  drop_old(view, keys, txn);
  return txn;
}

Result<Cancelled> cancel_tasks(const ClusterView& view, const control::Keys& keys,
                               const Command& command) {
  const TaskKind kind = kind_of(command.cancels);
  Cancelled out;
  for (const auto& [id, task] : view.tasks) {
    const TaskRecord& t = task.value;
    if (!t.outcome.empty()) continue;
    const bool scheduled = t.kind == kind && t.at != WallTime{} && !begun(t);
    if (command.id.empty() ? !scheduled : id != command.id) continue;
    TaskRecord ended = t;
    ended.outcome = "cancelled by " + command.by;
    out.txn.compares.push_back({keys.task(id), task.revision});
    out.txn.writes.push_back({keys.task(id), encode(ended)});
    out.ids += fmt::format("{}{}", out.ids.empty() ? "" : ", ", id);
  }
  if (!out.ids.empty()) return out;
  if (view.request && !command.id.empty() && view.request->value.id == command.id) {
    return refuse("a switchover that has begun can't be cancelled", "");
  }
  return fail(ErrorCode::kNotFound,
              command.id.empty() ? fmt::format("no {} is scheduled", to_string(kind))
                                 : fmt::format("no open task {}", command.id),
              "`bascule tasks` lists them");
}

Result<NodeName> candidate_of_region(const ClusterView& view, const std::string& region) {
  const control::MemberRecord* best = nullptr;
  std::string regions;
  for (const auto& [name, member] : view.members) {
    if (member.region != region) {
      if (!member.region.empty() && regions.find(member.region) == std::string::npos) {
        regions += fmt::format("{}{}", regions.empty() ? "" : ", ", member.region);
      }
      continue;
    }
    if (view.leader && view.leader->value.holder == name) {
      return refuse(fmt::format("{} leads, and is of region {} already", name.str(), region), "");
    }
    if (member.nofailover || member.state != "streaming") continue;
    if (!best || api::rather_leads(member, *best)) best = &member;
  }
  if (best) return best->name;
  return refuse(fmt::format("nobody of region \"{}\" streams and may lead", region),
                regions.empty() ? "No member has a region" : "Other regions: " + regions);
}

Result<WallTime> parse_when(std::string_view text, WallTime now) {
  if (const auto time = parse_iso8601(text)) return *time;
  if (text.starts_with('+')) {
    const auto wait = parse_duration(text.substr(1));
    if (!wait) return std::unexpected(wait.error());
    return now + *wait;
  }
  const auto today = std::chrono::floor<std::chrono::days>(now);
  const std::string date = to_iso8601(WallTime(today)).substr(0, 11);
  if (const auto time = parse_iso8601(date + std::string(text)); time && text.size() >= 5) {
    return *time < now ? *time + std::chrono::days(1) : *time;
  }
  return fail(ErrorCode::kInvalid, fmt::format("\"{}\" is not a time", text.substr(0, 40)),
              "As in 2026-11-21T23:00:00Z, 23:00 (UTC) or +10min");
}

std::string describe_task(const TaskRecord& task) {
  if (!task.outcome.empty()) return task.outcome;
  if (!begun(task) && task.at != WallTime{}) return "scheduled at " + to_iso8601(task.at);
  std::string out;
  for (const control::TaskStep& step : task.steps) {
    out += fmt::format("{}{} {}", out.empty() ? "" : ", ", step.member.str(),
                       step.state == StepState::kRunning ? "has its turn" : to_string(step.state));
  }
  return out.empty() ? "waiting for the leader to take it up" : out;
}

}  // namespace bascule::cli
