// Commands that look at a cluster through its store, or ask something of it.
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "api/documents.h"
#include "cli/cluster_access.h"
#include "cli/commands.h"
#include "cli/config.h"
#include "cli/confirm.h"
#include "cli/exit_code.h"
#include "cli/query_analysis.h"
#include "cli/request.h"
#include "cli/signals.h"
#include "cli/status.h"
#include "cli/task.h"
#include "control/loss_bound.h"

namespace bascule::cli {
namespace {

constexpr Millis kWatchEvery{500};

RenderOptions render_options(const Platform& platform) {
  RenderOptions options;
  options.now = platform.clock.wall_now();
  winsize size{};
  if (isatty(STDOUT_FILENO) != 0 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0) {
    options.width_max = size.ws_col;
  }
  return options;
}

// Follows the request to its outcome.
int follow_request(ClusterAccess& access, const std::string& id, Millis limit, bool json) {
  control::RequestRecord last;
  last.id = id;
  std::string shown;
  std::string outcome;
  const bool ended = access.follow(limit, [&](const control::ClusterView& view) {
    if (!view.request || view.request->value.id != id) {
      outcome = "replaced by another request";
      return true;
    }
    last = view.request->value;
    const std::string text = describe_progress(last);
    if (std::exchange(shown, text) != text && view.request->value.outcome.empty()) {
      fmt::print(stderr, "  {}\n", text);
    }
    outcome = view.request->value.outcome;
    if (outcome == "done" && view.leader) {
      outcome += fmt::format(": {} leads in epoch {}", view.leader->value.holder.str(),
                             view.leader->value.epoch.value);
    }
    return !outcome.empty();
  });
  last.outcome = outcome;
  if (json) fmt::print("{}\n", api::operation_json(last).dump(2));
  if (!ended) {
    return report(
        {ErrorCode::kTimeout,
         fmt::format("request {} has not ended within {}: {}", id, format_duration(limit), shown),
         "It goes on; `bascule status --watch` follows it"});
  }
  if (outcome.starts_with("done")) {
    if (!json) fmt::print("{}\n", outcome);
    return kExitOk;
  }
  const bool refused = outcome.starts_with("refused");
  return report({refused ? ErrorCode::kConflict : ErrorCode::kInternal, outcome, ""});
}

// What would be lost, before anybody says yes to it. False: they don't, or can't be asked.
bool confirm_loss(ClusterAccess& access, const RequestOptions& options) {
  const auto view = access.view();
  if (!view) return report(view.error()), false;
  fmt::print(stderr, "A forced failover may lose acknowledged commits. Lost, if it takes over:\n");
  for (const control::LossBound& bound : control::loss_bounds(*view)) {
    const bool named = options.candidate.empty() || options.candidate == bound.member.str();
    if (named) fmt::print(stderr, "  {}: {}\n", bound.member.str(), bound.text);
  }
  if (view->leader && !view->leader->value.vacant() && !options.old_primary_dead) {
    fmt::print(
        stderr,
        "{} has not released the leader record: should it go on without the store, by what the "
        "others have pledged, nobody is forced beside it. Is its host off? --old-primary-is-dead "
        "says so.\n",
        view->leader->value.holder.str());
  }
  return options.yes || confirm("force the failover");
}

}  // namespace

std::string who(const Platform& platform) {
  char host[256] = "localhost";
  (void)gethostname(host, sizeof host - 1);
  return fmt::format("{}@{}", platform.environment("SUDO_USER").value_or(platform.process.user()),
                     host);
}

int report(const Error& error) {
  fmt::print(stderr, "bascule: {}\n", error.to_string());
  return exit_code_of(error);
}

int print_asked(const std::string& id, WallTime at) {
  nlohmann::ordered_json out = {{"operation", id}};
  if (at != WallTime{}) out["scheduledAt"] = to_iso8601(at);
  fmt::print("{}\n", out.dump(2));
  return kExitOk;
}

int print_done(const std::string& text, bool json) {
  fmt::print("{}\n", json ? nlohmann::json{{"message", text}}.dump(2) : text);
  return kExitOk;
}

int status_command(const Platform& platform, const StatusOptions& options) {
  auto access = ClusterAccess::open(platform, options);
  if (!access) return report(access.error());
  if (options.watch) install_interrupt_flag();
  bool first = true;
  do {
    if (!std::exchange(first, false)) platform.process.sleep(kWatchEvery);
    const auto view = (*access)->view();
    if (!view) {
      if (!options.watch) return report(view.error());
      fmt::print("{}\n", view.error().to_string());
      continue;
    }
    const std::string& cluster = (*access)->cluster();
    const std::string text = options.json
                                 ? status_json(*view, cluster).dump(options.watch ? -1 : 2) + "\n"
                                 : render_status(*view, cluster, render_options(platform));
    // Home, print, clear what is left of the old picture: no flicker.
    const bool redraw = options.watch && !options.json && isatty(STDOUT_FILENO) != 0;
    fmt::print("{}{}{}", redraw ? "\x1b[H\x1b[2J" : "", text, options.watch && !redraw ? "\n" : "");
    std::fflush(stdout);
  } while (options.watch && !interrupted());
  return kExitOk;
}

int history_command(const Platform& platform, const ClusterOptions& options) {
  auto access = ClusterAccess::open(platform, options);
  if (!access) return report(access.error());
  const auto view = (*access)->view();
  if (!view) return report(view.error());
  fmt::print("{}", options.json ? history_json(*view).dump(2) + "\n"
                                : render_history(*view, render_options(platform)));
  return kExitOk;
}

int config_show_command(const Platform& platform, const ClusterOptions& options) {
  auto access = ClusterAccess::open(platform, options);
  if (!access) return report(access.error());
  const auto view = (*access)->view();
  if (!view) return report(view.error());
  if (!view->config) {
    return report({ErrorCode::kNotFound, "the cluster has no configuration yet",
                   "It gets the `defaults` of the member that bootstraps it"});
  }
  fmt::print("{}", options.json ? control::encode(view->config->value) + "\n"
                                : render_cluster_config(view->config->value));
  return kExitOk;
}

int config_history_command(const Platform& platform, const ClusterOptions& options) {
  auto access = ClusterAccess::open(platform, options);
  if (!access) return report(access.error());
  const auto history = (*access)->config_history();
  if (!history) return report(history.error());
  if (options.json) {
    fmt::print("{}\n", config_history_json(*history).dump(2));
    return kExitOk;
  }
  for (const ConfigChange& change : *history) {
    std::string text;
    for (const auto& [key, pair] : change.changes) {
      text += fmt::format("{}{}: {} -> {}", text.empty() ? "" : ", ", key, pair.first, pair.second);
    }
    fmt::print("{}  {}  {}\n", change.at, change.by, text);
  }
  return kExitOk;
}

int config_set_command(const Platform& platform, const ClusterOptions& options,
                       const std::vector<std::string>& assignments) {
  api::Command command;
  command.kind = api::Command::Kind::kConfig;
  command.by = who(platform);
  for (const std::string& assignment : assignments) {
    const size_t equals = assignment.find('=');
    if (equals == std::string::npos || equals == 0) {
      return report({ErrorCode::kInvalid, fmt::format("\"{}\" is not KEY=VALUE", assignment), ""});
    }
    command.changes[assignment.substr(0, equals)] = assignment.substr(equals + 1);
  }
  auto access = ClusterAccess::open(platform, options);
  if (!access) return report(access.error());
  if (const auto done = (*access)->ask(command); !done) return report(done.error());
  return print_done("changed", options.json);
}

int request_command(const Platform& platform, const RequestOptions& options,
                    control::RequestKind kind) {
  // `--wait` alone is what it does anyway.
  const auto wait = parse_duration(options.wait.empty() ? "60s" : options.wait);
  if (!wait) return report(wait.error());
  const bool planned = kind == control::RequestKind::kSwitchover;
  api::Command command;
  command.kind = planned ? api::Command::Kind::kSwitchover : api::Command::Kind::kFailover;
  if (!options.candidate.empty()) {
    const auto candidate = NodeName::parse(options.candidate);
    if (!candidate) return report(candidate.error());
    command.candidate = *candidate;
  }
  command.force = options.force;
  command.old_primary_dead = options.old_primary_dead;
  command.region = options.region;
  command.by = who(platform);
  if (!options.at.empty()) {
    const auto at = parse_when(options.at, platform.clock.wall_now());
    if (!at) return report(at.error());
    command.at = *at;
  }
  auto access = ClusterAccess::open(platform, options);
  if (!access) return report(access.error());
  if (options.force && !confirm_loss(**access, options)) return kExitUsage;
  const auto id = (*access)->ask(command);
  if (!id) return report(id.error());
  const bool later = command.at != WallTime{};
  if (options.json && (later || *wait == 0ms)) return print_asked(*id, command.at);
  if (later) {
    fmt::print("switchover scheduled at {} ({}); `bascule switchover --cancel` takes it back\n",
               to_iso8601(command.at), *id);
    return kExitOk;
  }
  if (!options.json) fmt::print("{} requested ({})\n", planned ? "switchover" : "failover", *id);
  std::fflush(stdout);
  if (*wait == 0ms) return kExitOk;
  return follow_request(**access, *id, *wait, options.json);
}

int pause_command(const Platform& platform, const ClusterOptions& options, PauseCommand wanted) {
  const bool pause = wanted == PauseCommand::kPause;
  api::Command command;
  command.kind = pause ? api::Command::Kind::kPause : api::Command::Kind::kResume;
  command.by = who(platform);
  auto access = ClusterAccess::open(platform, options);
  if (!access) return report(access.error());
  if (const auto done = (*access)->ask(command); !done) return report(done.error());
  return print_done(pause ? "paused: no automatic failover until `bascule resume`" : "resumed",
                    options.json);
}

int reconnect_command(const Platform& platform, const ReconnectOptions& options) {
  api::Command command;
  command.kind = api::Command::Kind::kReconnect;
  command.region = options.region;
  command.by = who(platform);
  auto access = ClusterAccess::open(platform, options);
  if (!access) return report(access.error());
  const auto done = (*access)->ask(command);
  if (!done) return report(done.error());
  return print_done(*done, options.json);
}

int check_health_command(const Platform& platform, const ClusterOptions& options) {
  api::Command command;
  command.kind = api::Command::Kind::kCheckHealth;
  command.by = who(platform);
  auto access = ClusterAccess::open(platform, options);
  if (!access) return report(access.error());
  if (const auto done = (*access)->ask(command); !done) return report(done.error());
  return print_done("every database is checked now", options.json);
}

int analyze_query_command(const std::string& query) {
  const auto analysis = analyze_query(query);
  if (!analysis) return report(analysis.error());
  fmt::print("{}\n", *analysis);
  return kExitOk;
}

int token_command(const Platform& platform, const TokenOptions& options) {
  const auto name = NodeName::parse(options.name);
  if (!name) return report(name.error());
  constexpr size_t kTokenBytes = 24;
  const std::string token = platform.entropy.hex(kTokenBytes);
  fmt::print("{}\n", token);
  fmt::print(stderr,
             "\nKeep the token; it is not stored anywhere. For bascule.yaml:\n"
             "api:\n  tokens:\n    - {{name: {}, role: {}, sha256: {}}}\n",
             name->str(), options.role, api::sha256_hex(token));
  return kExitOk;
}

}  // namespace bascule::cli
