// Commands that look at a cluster through its store, or ask something of it.
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "cli/commands.h"
#include "cli/config.h"
#include "cli/exit_code.h"
#include "cli/request.h"
#include "cli/signals.h"
#include "cli/status.h"
#include "cli/store_session.h"

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

struct Opened {
  ClusterAt at;
  std::unique_ptr<StoreSession> session;
};
Result<Opened> open_cluster(const Platform& platform, const ClusterOptions& options) {
  auto at = find_cluster(platform, options.dir, options.config_file);
  if (!at) return std::unexpected(at.error());
  auto session = StoreSession::open(platform, *at);
  if (!session) return std::unexpected(session.error());
  return Opened{std::move(*at), std::move(*session)};
}

// A read that shows nothing at all is a store that nobody has used under this name.
Result<control::ClusterView> read_view(StoreSession& session) { return session.view(); }

std::string who(const Platform& platform) {
  char host[256] = "localhost";
  (void)gethostname(host, sizeof host - 1);
  return fmt::format("{}@{}", platform.environment("SUDO_USER").value_or(platform.process.user()),
                     host);
}

int commit_outcome(const store::TxnResult& result, const std::string& done) {
  switch (result.outcome) {
    case store::TxnOutcome::kCommitted:
      fmt::print("{}\n", done);
      return kExitOk;
    case store::TxnOutcome::kConflict:
      return report({ErrorCode::kConflict, "somebody else changed it in the same moment",
                     "Look at `bascule status` and try again"});
    case store::TxnOutcome::kUnknown:
      break;
  }
  return report({ErrorCode::kUnknown,
                 fmt::format("it is not known whether it was written: {}", result.error),
                 "`bascule status` shows it"});
}

// Follows the request to its outcome.
int follow_request(StoreSession& session, const control::RequestRecord& request, Millis limit) {
  std::string shown;
  std::string outcome;
  const bool ended = session.follow(limit, [&](const control::ClusterView& view) {
    if (!view.request || view.request->value.id != request.id) {
      outcome = "replaced by another request";
      return true;
    }
    const std::string text = describe_progress(view.request->value);
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
  if (!ended) {
    return report({ErrorCode::kTimeout,
                   fmt::format("request {} has not ended within {}: {}", request.id,
                               format_duration(limit), shown),
                   "It goes on; `bascule status --watch` follows it"});
  }
  if (outcome.starts_with("done")) {
    fmt::print("{}\n", outcome);
    return kExitOk;
  }
  const bool refused = outcome.starts_with("refused");
  return report({refused ? ErrorCode::kConflict : ErrorCode::kInternal, outcome, ""});
}

}  // namespace

int report(const Error& error) {
  fmt::print(stderr, "bascule: {}\n", error.to_string());
  return exit_code_of(error);
}

int status_command(const Platform& platform, const StatusOptions& options) {
  auto opened = open_cluster(platform, options);
  if (!opened) return report(opened.error());
  if (options.watch) install_interrupt_flag();
  bool first = true;
  do {
    if (!std::exchange(first, false)) platform.process.sleep(kWatchEvery);
    const auto view = read_view(*opened->session);
    if (!view) {
      if (!options.watch) return report(view.error());
      fmt::print("{}\n", view.error().to_string());
      continue;
    }
    const std::string text =
        options.json ? status_json(*view, opened->at.cluster).dump(options.watch ? -1 : 2) + "\n"
                     : render_status(*view, opened->at.cluster, render_options(platform));
    // Home, print, clear what is left of the old picture: no flicker.
    const bool redraw = options.watch && !options.json && isatty(STDOUT_FILENO) != 0;
    fmt::print("{}{}{}", redraw ? "\x1b[H\x1b[2J" : "", text, options.watch && !redraw ? "\n" : "");
    std::fflush(stdout);
  } while (options.watch && !interrupted());
  return kExitOk;
}

int history_command(const Platform& platform, const ClusterOptions& options) {
  auto opened = open_cluster(platform, options);
  if (!opened) return report(opened.error());
  const auto view = read_view(*opened->session);
  if (!view) return report(view.error());
  fmt::print("{}", options.json ? history_json(*view).dump(2) + "\n"
                                : render_history(*view, render_options(platform)));
  return kExitOk;
}

int config_show_command(const Platform& platform, const ClusterOptions& options) {
  auto opened = open_cluster(platform, options);
  if (!opened) return report(opened.error());
  const auto view = read_view(*opened->session);
  if (!view) return report(view.error());
  if (!view->config) {
    return report({ErrorCode::kNotFound, "the cluster has no configuration yet",
                   "It gets the `defaults` of the member that bootstraps it"});
  }
  fmt::print("{}", options.json ? control::encode(view->config->value) + "\n"
                                : render_cluster_config(view->config->value));
  return kExitOk;
}

int config_set_command(const Platform& platform, const ClusterOptions& options,
                       const std::vector<std::string>& assignments) {
  auto opened = open_cluster(platform, options);
  if (!opened) return report(opened.error());
  const auto view = read_view(*opened->session);
  if (!view) return report(view.error());
  if (!view->config) {
    return report({ErrorCode::kConflict, "the cluster has no configuration yet",
                   "Wait until it is bootstrapped"});
  }
  YAML::Node wanted(YAML::NodeType::Map);
  for (const std::string& assignment : assignments) {
    const size_t equals = assignment.find('=');
    if (equals == std::string::npos || equals == 0) {
      return report({ErrorCode::kInvalid, fmt::format("\"{}\" is not KEY=VALUE", assignment), ""});
    }
    wanted[assignment.substr(0, equals)] = assignment.substr(equals + 1);
  }
  control::ClusterConfig config = view->config->value;
  Problems problems;
  MapReader reader(problems, wanted, "");
  read_cluster_config(reader, config);
  reader.finish();
  if (!problems.list.empty()) {
    const Problem& problem = problems.list.front();
    return report({ErrorCode::kInvalid, fmt::format("{}: {}", problem.key, problem.what), ""});
  }
  if (auto s = control::validate(config); !s) return report(s.error());
  const control::Keys& keys = opened->session->keys();
  const auto result = opened->session->commit(
      {{{keys.config(), view->config->revision}}, {{keys.config(), control::encode(config)}}});
  return commit_outcome(result, "changed");
}

int request_command(const Platform& platform, const RequestOptions& options,
                    control::RequestKind kind) {
  // `--wait` alone is what it does anyway.
  const auto wait = parse_duration(options.wait.empty() ? "60s" : options.wait);
  if (!wait) return report(wait.error());
  control::RequestRecord request;
  if (!options.candidate.empty()) {
    const auto candidate = NodeName::parse(options.candidate);
    if (!candidate) return report(candidate.error());
    request.candidate = *candidate;
  }
  request.id = platform.entropy.hex(4);
  request.kind = kind;
  request.force = options.force;
  request.by = who(platform);
  auto opened = open_cluster(platform, options);
  if (!opened) return report(opened.error());
  const auto view = read_view(*opened->session);
  if (!view) return report(view.error());
  auto txn = open_request(*view, opened->session->keys(), request);
  if (!txn) return report(txn.error());
  const auto result = opened->session->commit(std::move(*txn));
  const int code = commit_outcome(
      result, fmt::format("{} requested ({})",
                          kind == control::RequestKind::kSwitchover ? "switchover" : "failover",
                          request.id));
  std::fflush(stdout);
  if (code != kExitOk || *wait == 0ms) return code;
  return follow_request(*opened->session, request, *wait);
}

int pause_command(const Platform& platform, const ClusterOptions& options, PauseCommand command) {
  auto opened = open_cluster(platform, options);
  if (!opened) return report(opened.error());
  const auto view = read_view(*opened->session);
  if (!view) return report(view.error());
  const bool pause = command == PauseCommand::kPause;
  auto txn = change_pause(*view, opened->session->keys(),
                          pause ? PauseChange::kPause : PauseChange::kResume, who(platform));
  if (!txn) return report(txn.error());
  return commit_outcome(opened->session->commit(std::move(*txn)),
                        pause ? "paused: no automatic failover until `bascule resume`" : "resumed");
}

}  // namespace bascule::cli
