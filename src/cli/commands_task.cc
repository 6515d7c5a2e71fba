// restart, reload, reinit, tasks, cancel.
#include <fmt/format.h>

#include <algorithm>

#include "api/documents.h"
#include "cli/cluster_access.h"
#include "cli/commands.h"
#include "cli/confirm.h"
#include "cli/exit_code.h"
#include "cli/table.h"
#include "cli/task.h"
#include "cli/units.h"

namespace bascule::cli {
namespace {

using Kind = api::Command::Kind;

Result<api::Command> command_of(const Platform& platform, const TaskOptions& options, Kind kind) {
  api::Command command;
  command.kind = kind;
  command.by = who(platform);
  command.only_pending = options.pending;
  command.by_switchover = options.by_switchover;
  for (const std::string& text : options.members) {
    const auto name = NodeName::parse(text);
    if (!name) return std::unexpected(name.error());
    if (std::ranges::find(command.members, *name) == command.members.end()) {
      command.members.push_back(*name);
    }
  }
  if (!options.at.empty()) {
    const auto at = parse_when(options.at, platform.clock.wall_now());
    if (!at) return std::unexpected(at.error());
    command.at = *at;
  }
  if (!options.timeout.empty()) {
    const auto timeout = parse_duration(options.timeout);
    if (!timeout) return std::unexpected(timeout.error());
    command.timeout = *timeout;
  }
  return command;
}

const control::TaskRecord* find_task(const control::ClusterView& view, const std::string& id) {
  const auto found = view.tasks.find(id);
  return found == view.tasks.end() ? nullptr : &found->second.value;
}

int follow_task(ClusterAccess& access, const std::string& id, Millis limit, bool json) {
  std::string shown;
  control::TaskRecord last;
  const bool ended = access.follow(limit, [&](const control::ClusterView& view) {
    const control::TaskRecord* task = find_task(view, id);
    if (task == nullptr) {
      last.outcome = "failed: its record is gone";
      return true;
    }
    last = *task;
    const std::string text = describe_task(last);
    if (std::exchange(shown, text) != text && last.outcome.empty()) {
      fmt::print(stderr, "  {}\n", text);
    }
    return !last.outcome.empty();
  });
  if (json) fmt::print("{}\n", api::task_json(last).dump(2));
  if (!ended) {
    return report(
        {ErrorCode::kTimeout,
         fmt::format("task {} has not ended within {}: {}", id, format_duration(limit), shown),
         "It goes on; `bascule tasks` shows it"});
  }
  if (!last.outcome.starts_with("done")) return report({ErrorCode::kInternal, last.outcome, ""});
  if (!json) fmt::print("{}\n", last.outcome);
  return kExitOk;
}

}  // namespace

int task_command(const Platform& platform, const TaskOptions& options, Kind kind) {
  const auto wait = parse_duration(options.wait.empty() ? "10min" : options.wait);
  if (!wait) return report(wait.error());
  auto command = command_of(platform, options, kind);
  if (!command) return report(command.error());
  if (kind == Kind::kReinit) {
    fmt::print(stderr, "The data directory of {} is deleted and copied anew.\n",
               options.members.empty() ? "?" : options.members.front());
    if (!options.yes && !confirm("reinitialise it")) return kExitUsage;
  }
  if (kind == Kind::kRemove && !options.yes && !confirm("take it out of the cluster")) {
    return kExitUsage;
  }
  auto access = ClusterAccess::open(platform, options);
  if (!access) return report(access.error());
  const auto id = (*access)->ask(*command);
  if (!id) return report(id.error());
  const bool later = command->at != WallTime{};
  if (options.json && (later || *wait == 0ms)) return print_asked(*id, command->at);
  if (later) {
    fmt::print("scheduled at {} ({}); `bascule cancel {}` takes it back\n", to_iso8601(command->at),
               *id, *id);
    return kExitOk;
  }
  if (!options.json) fmt::print("asked for ({})\n", *id);
  std::fflush(stdout);
  if (*wait == 0ms) return kExitOk;
  const int result = follow_task(**access, *id, *wait, options.json);
  if (kind == Kind::kRemove && result == kExitOk && !options.json) {
    fmt::print(
        "On its host: stop the daemon (systemctl disable --now bascule), then delete the "
        "data directory.\n");
  }
  return result;
}

int tasks_command(const Platform& platform, const ClusterOptions& options) {
  auto access = ClusterAccess::open(platform, options);
  if (!access) return report(access.error());
  const auto view = (*access)->view();
  if (!view) return report(view.error());
  std::vector<const control::TaskRecord*> tasks;
  for (const auto& [id, task] : view->tasks) tasks.push_back(&task.value);
  std::ranges::stable_sort(tasks, std::greater{}, &control::TaskRecord::asked_at);
  if (options.json) {
    auto out = api::Json::array();
    for (const auto* task : tasks) out.push_back(api::task_json(*task));
    fmt::print("{}\n", out.dump(2));
    return kExitOk;
  }
  Table table({{"Id"}, {"What"}, {"Asked at"}, {"By"}, {"Progress"}});
  for (const auto* task : tasks) {
    table.add({task->id, std::string(to_string(task->kind)), to_iso8601(task->asked_at), task->by,
               describe_task(*task)});
  }
  fmt::print("{}", tasks.empty() ? "No tasks.\n" : table.render());
  return kExitOk;
}

int audit_command(const Platform& platform, const ClusterOptions& options) {
  auto access = ClusterAccess::open(platform, options);
  if (!access) return report(access.error());
  const auto audit = (*access)->audit();
  if (!audit) return report(audit.error());
  Table table({{"Time"}, {"Who"}, {"What"}, {"Outcome"}});
  for (const AuditEntry& entry : *audit) {
    if (options.json) fmt::print("{}\n", audit_line(entry));
    table.add({entry.at, entry.by, entry.what, entry.outcome});
  }
  if (!options.json)
    fmt::print("{}", audit->empty() ? "Nothing was asked for yet.\n" : table.render());
  return kExitOk;
}

int cancel_command(const Platform& platform, const CancelOptions& options) {
  api::Command command;
  command.kind = Kind::kCancel;
  command.cancels = options.kind;
  command.id = options.id;
  command.by = who(platform);
  auto access = ClusterAccess::open(platform, options);
  if (!access) return report(access.error());
  if (const auto done = (*access)->ask(command); !done) return report(done.error());
  return print_done("cancelled", options.json);
}

}  // namespace bascule::cli
