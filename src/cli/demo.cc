#include "cli/demo.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "cli/commands.h"
#include "cli/demo_workload.h"
#include "cli/exit_code.h"
#include "cli/local_cluster.h"
#include "cli/pid_file.h"
#include "cli/request.h"
#include "cli/signals.h"
#include "cli/store_session.h"
#include "cli/user.h"

namespace bascule::cli {
namespace {

constexpr Millis kPoll{20};
constexpr Millis kReadyTimeout{120'000};
constexpr Millis kRecoveryTimeout{90'000};
constexpr Millis kWarmUp{2'000};
constexpr Millis kSteadyBetween{1'500};
constexpr Millis kHostStaysDown{1'000};  // after the first write on the new primary

class Demo {
 public:
  Demo(const Platform& platform, const DemoOptions& options, LocalCluster cluster)
      : platform_(platform), options_(options), cluster_(std::move(cluster)) {
    report_.clients = options.clients;
    report_.fault = options.fault;
  }

  Status run() {
    say(fmt::format("starting {} PostgreSQL servers with an agent each, a proxy and the API",
                    cluster_.nodes.size()));
    if (auto s = start_supervisor(platform_, cluster_); !s) return s;
    const Say progress = [this](const std::string& line) { say("  " + line); };
    if (auto s = wait_until_ready(platform_, cluster_, kReadyTimeout, progress); !s) return s;
    auto session =
        StoreSession::open(platform_, {cluster_.cluster, cluster_.store(), cluster_.dir});
    if (!session) return std::unexpected(session.error());
    session_ = std::move(*session);
    if (auto s = Workload::create_table(cluster_); !s) return s;
    workload_.emplace(platform_, cluster_, options_.clients);
    say(fmt::format("{} clients write through the proxy (port {})", options_.clients,
                    cluster_.writer.port));
    report_.begun = platform_.clock.now();
    workload_->start();
    Status status = pause(kWarmUp);
    for (int run = 0; status && run < options_.repeat; ++run) {
      status = kill_primary(run);
      if (status) status = pause(kSteadyBetween);
      if (status) status = switch_over(run);
      if (status) status = pause(kSteadyBetween);
    }
    workload_->stop();
    report_.ended = platform_.clock.now();
    if (!status) return status;
    return check();
  }

  const DemoReport& report() const { return report_; }
  const LocalCluster& cluster() const { return cluster_; }

 private:
  void say(const std::string& line) const {
    fmt::print(options_.json ? stderr : stdout, "{}\n", line);
    std::fflush(options_.json ? stderr : stdout);
  }

  Status pause(Millis time) {
    const MonoTime end = platform_.clock.now() + time;
    while (platform_.clock.now() < end) {
      if (interrupted()) return fail(ErrorCode::kTimeout, "interrupted");
      platform_.process.sleep(kPoll);
    }
    return {};
  }

  std::string run_label(int run) const {
    return options_.repeat == 1 ? "" : fmt::format(" ({} of {})", run + 1, options_.repeat);
  }

  std::vector<std::string> event_files() const {
    std::vector<std::string> files = {cluster_.layout().home(kProxyProcess) + "/events.jsonl"};
    for (const LocalNode& node : cluster_.nodes) {
      files.push_back(cluster_.layout().run(node.name) + "/events.jsonl");
    }
    return files;
  }

  Result<std::string> primary() {
    const auto view = session_->view();
    if (!view) return std::unexpected(view.error());
    if (!view->leader || view->leader->value.phase != control::LeaderPhase::kRunning) {
      return fail(ErrorCode::kUnavailable, "there is no running primary");
    }
    return view->leader->value.holder.str();
  }

  // All pids at once first, then all signals: as near to one instant as user space gets. The agent
  // goes first, or it would tell the store what a dead host can't.
  void kill_host(const std::string& node) {
    const Layout at = cluster_.layout();
    (void)platform_.disk.write(at.hold_file(node), "", env::Durability::kNone);
    std::vector<std::unique_ptr<env::ProcessHandle>> handles;
    auto processes = processes_in(platform_, at.home(node));
    std::ranges::stable_sort(processes, {}, [](const LeftProcess& process) {
      if (process.title.find(" run -c ") != std::string::npos) return 0;
      return process.title.find(" guard ") != std::string::npos ? 1 : 2;
    });
    for (const LeftProcess& process : processes) {
      if (auto handle = platform_.process.open(process.pid)) handles.push_back(std::move(*handle));
    }
    for (const auto& handle : handles) (void)handle->signal(SIGKILL);
  }

  Status kill_primary(int run) {
    auto victim = primary();
    if (!victim) return std::unexpected(victim.error());
    const Layout at = cluster_.layout();
    DemoPhase phase{"kill", {}, {}, *victim, "", {}};
    EventFollower follower(event_files());
    if (options_.fault == DemoFault::kHost) {
      say(fmt::format("\nKill{}: SIGKILL of everything on {}'s \"host\": agent, guard, PostgreSQL",
                      run_label(run), *victim));
      phase.at = platform_.clock.now();
      kill_host(*victim);
    } else {
      const env::Pid pid = PidFile::read(platform_.disk, at.data(*victim) + "/postmaster.pid");
      auto postmaster = platform_.process.open(pid);
      if (pid <= 1 || !postmaster) {
        return fail(ErrorCode::kNotFound, fmt::format("{} has no postmaster", *victim));
      }
      say(fmt::format("\nKill{}: SIGKILL of {}'s postmaster (process {})", run_label(run), *victim,
                      pid));
      phase.at = platform_.clock.now();
      if (auto s = (*postmaster)->signal(SIGKILL); !s) return s;
    }
    show({phase.at, "demo", "killed", *victim}, phase);
    return follow_recovery(phase, follower);
  }

  Status switch_over(int run) {
    auto from = primary();
    if (!from) return std::unexpected(from.error());
    say(fmt::format("\nSwitchover{}: planned, away from {}", run_label(run), *from));
    DemoPhase phase{"switchover", {}, {}, *from, "", {}};
    EventFollower follower(event_files());
    control::RequestRecord request;
    request.id = platform_.entropy.hex(4);
    request.by = "bascule demo";
    const auto view = session_->view();
    if (!view) return std::unexpected(view.error());
    auto txn = open_request(*view, session_->keys(), request);
    if (!txn) return std::unexpected(txn.error());
    phase.at = platform_.clock.now();
    const auto result = session_->commit(std::move(*txn));
    if (result.outcome != store::TxnOutcome::kCommitted) {
      return fail(ErrorCode::kUnavailable,
                  "the switchover could not be asked for: " + result.error);
    }
    show({phase.at, "demo", "requested", "switchover " + request.id}, phase);
    if (auto s = follow_recovery(phase, follower); !s) return s;
    const auto after = session_->view();
    if (!after) return std::unexpected(after.error());
    const std::string outcome = after->request ? after->request->value.outcome : "";
    if (outcome != "done") {
      return fail(ErrorCode::kInternal, fmt::format("the switchover ended with: {}",
                                                    outcome.empty() ? "nothing" : outcome));
    }
    return {};
  }

  void show(DemoEvent event, DemoPhase& phase) {
    say(render_event(event, phase.at));
    phase.events.push_back(std::move(event));
  }

  // Shows what happens until another member is primary, clients write again and all others follow.
  Status follow_recovery(DemoPhase& phase, EventFollower& follower) {
    const MonoTime end = phase.at + kRecoveryTimeout;
    std::optional<MonoTime> first_write;
    bool held = options_.fault == DemoFault::kHost && phase.kind == "kill";
    while (true) {
      for (DemoEvent& event : follower.poll()) show(std::move(event), phase);
      if (!first_write) first_write = first_write_after_change(phase);
      const MonoTime now = platform_.clock.now();
      if (held && first_write && now >= *first_write + kHostStaysDown) {
        held = false;
        show({now, "demo", "host returns", phase.from}, phase);
        (void)platform_.disk.remove(cluster_.layout().hold_file(phase.from),
                                    env::Durability::kNone);
      }
      if (first_write && !held && recovered(phase)) break;
      if (interrupted()) return fail(ErrorCode::kTimeout, "interrupted");
      if (now >= end) return not_recovered(phase);
      platform_.process.sleep(kPoll);
    }
    phase.until = platform_.clock.now();
    for (DemoEvent& event : follower.poll()) show(std::move(event), phase);
    show({phase.until, "demo", "whole again",
          phase.to == phase.from ? fmt::format("{} leads again", phase.to)
                                 : fmt::format("{} leads, {} follows it", phase.to, phase.from)},
         phase);
    say(render_steps(phase));
    const PhaseResult result = measure(workload_->ledger(), phase);
    say(fmt::format("  longest write gap {:.0f} ms, errors seen by clients: {}", result.gap_ms,
                    result.errors.size()));
    report_.phases.push_back(phase);
    return {};
  }

  // The first write acknowledged after a record named a running primary again: another member, or
  // (asynchronous mode, on_crash: restart) the same one that said so after it was killed.
  std::optional<MonoTime> first_write_after_change(DemoPhase& phase) {
    const auto now_leads = primary();
    if (!now_leads) return std::nullopt;
    std::optional<MonoTime> routed;
    for (const DemoEvent& event : phase.events) {
      if (event.member == *now_leads && event.what == "routed") routed = event.at;
    }
    if (!routed) return std::nullopt;
    const auto first = workload_->ledger().first_write_after(*routed);
    if (!first) return std::nullopt;
    phase.to = *now_leads;
    show({*first, "clients", "first write", "acknowledged by " + phase.to}, phase);
    return first;
  }

  bool recovered(const DemoPhase& phase) {
    const auto view = session_->view();
    if (!view || !records_are_ready(*view, cluster_)) return false;
    const bool open = view->request && view->request->value.outcome.empty();
    if (open) return false;
    // With nobody confirmed as synchronous the next kill would have nobody to fail over to.
    const bool sync = view->config && view->config->value.synchronous();
    if (sync && (!view->sync || view->sync->value.generations.size() != 1 ||
                 view->sync->value.generations.back().voters.empty())) {
      return false;
    }
    return view->leader->value.holder.str() == phase.to;
  }

  Status not_recovered(const DemoPhase& phase) {
    return fail(ErrorCode::kTimeout,
                fmt::format("the cluster was not whole again {} after the {}",
                            format_duration(kRecoveryTimeout), phase.kind),
                fmt::format("Logs: {}", cluster_.layout().log_dir()));
  }

  Status check() {
    say("\nChecking every acknowledged row on the primary");
    const auto rows = Workload::count_rows(cluster_);
    if (!rows) return std::unexpected(rows.error());
    report_.ledger = workload_->ledger();
    report_.verdict = report_.ledger.verdict(*rows);
    return {};
  }

  const Platform& platform_;
  const DemoOptions& options_;
  const LocalCluster cluster_;
  DemoReport report_;
  std::unique_ptr<StoreSession> session_;
  std::optional<Workload> workload_;
};

Result<LocalCluster> prepare(const Platform& platform, const DemoOptions& options) {
  NewCluster wanted;
  wanted.dir = options.dir.empty()
                   ? "/tmp/bascule-demo-" + platform.entropy.hex(4)
                   : std::filesystem::absolute(options.dir).lexically_normal().string();
  wanted.pg_version = options.pg_version;
  wanted.etcd_members = options.etcd_members;
  wanted.defaults = options.defaults;
  if (platform.disk.exists(wanted.dir)) {
    return fail(ErrorCode::kInvalid, fmt::format("{} exists already", wanted.dir),
                "The demo makes its own directory: name one that is not there");
  }
  const auto user = choose_user(platform, options.user);
  if (!user) return std::unexpected(user.error());
  if (auto s = make_directory_for(*user, wanted.dir); !s) return std::unexpected(s.error());
  if (auto s = become(platform, *user); !s) return std::unexpected(s.error());
  wanted.user = user->name;
  return create_cluster(platform, wanted);
}

}  // namespace

int demo_command(const Platform& platform, const DemoOptions& options) {
  install_interrupt_flag();
  auto cluster = prepare(platform, options);
  if (!cluster) return report(cluster.error());
  const std::string dir = cluster->dir;
  int code = kExitOk;
  {
    Demo demo(platform, options, *cluster);
    if (const Status status = demo.run(); !status) {
      code = std::max<int>(kExitFailed, report(status.error()));
    } else if (options.json) {
      fmt::print("{}\n", report_json(demo.report()).dump(2));
    } else {
      fmt::print("{}", render_report(demo.report()));
    }
    if (code == kExitOk && !demo.report().verdict.ok()) code = kExitFailed;
  }
  if (options.keep) {
    fmt::print(stderr,
               "\nThe cluster goes on: bascule status --dir {0}; bascule down --dir {0} --purge\n",
               dir);
    return code;
  }
  if (const auto s = destroy_cluster(platform, *cluster); !s) return report(s.error());
  return code;
}

}  // namespace bascule::cli
