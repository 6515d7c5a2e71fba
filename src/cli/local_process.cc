// Starting and stopping the processes of a local cluster (local_cluster.h).
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <map>
#include <set>

#include "base/log.h"
#include "cli/exit_code.h"
#include "cli/local_cluster.h"
#include "cli/pg_client.h"
#include "cli/pid_file.h"
#include "cli/signals.h"
#include "cli/status.h"
#include "cli/store_session.h"

namespace bascule::cli {
namespace {

constexpr Millis kPoll{50};
constexpr Millis kSupervisorStarts{5'000};
constexpr Millis kSupervisorStops{90'000};  // three groups of Supervisor::kStopTimeout, and some
constexpr Millis kLeftoversStop{15'000};
constexpr Millis kLeftoversDie{10'000};
constexpr size_t kProgressBytesMax = 150;

// The user may be unable to walk to the binary (below /root, say); the link always works.
std::string program(const Platform& platform) {
  std::string path = platform.process.self_program();
  return access(path.c_str(), X_OK) == 0 ? path : "/proc/self/exe";
}

std::string stop_order_file(const LocalCluster& cluster) { return cluster.dir + "/stop-order"; }

// Clients first, then replicas, then the primary: nobody has a reason to fail over.
std::vector<std::vector<std::string>> stop_order(const Platform& platform,
                                                 const LocalCluster& cluster) {
  std::string leader;
  const ClusterAt at{cluster.cluster, cluster.store(), cluster.dir};
  if (auto session = StoreSession::open(platform, at)) {
    if (const auto view = (*session)->view(); view && view->leader) {
      leader = view->leader->value.holder.str();
    }
  }
  std::vector<std::string> replicas;
  for (const LocalNode& node : cluster.nodes) {
    if (node.name != leader) replicas.push_back(node.name);
  }
  // The rest comes last: etcd, which the primary needs to the end.
  return {{std::string(kProxyProcess)}, replicas, {leader}};
}

std::vector<std::vector<std::string>> read_stop_order(env::Disk& disk, const std::string& file) {
  std::vector<std::vector<std::string>> groups;
  const auto text = disk.read(file, 64 << 10);
  if (!text) return groups;
  groups.emplace_back();
  std::string word;
  for (const char c : *text) {
    if (c != ' ' && c != '\n') {
      word += c;
      continue;
    }
    if (!word.empty()) groups.back().push_back(std::exchange(word, {}));
    if (c == '\n') groups.emplace_back();
  }
  return groups;
}

template <typename Condition>
bool wait_for(const Platform& platform, Millis limit, Condition condition) {
  const MonoTime end = platform.clock.now() + limit;
  while (!condition()) {
    if (platform.clock.now() >= end) return false;
    platform.process.sleep(kPoll);
  }
  return true;
}

Status stop_supervisor(const Platform& platform, const LocalCluster& cluster, const Say& say) {
  const auto pid = PidFile::holder(platform.disk, cluster.layout().supervisor_pid());
  if (!pid) return {};
  std::string order;
  for (const auto& group : stop_order(platform, cluster)) {
    order += fmt::format("{}\n", fmt::join(group, " "));
  }
  (void)platform.disk.write(stop_order_file(cluster), order, env::Durability::kNone);
  auto supervisor = platform.process.open(*pid);
  if (!supervisor) return {};
  say("stopping: proxy, replicas, primary");
  if (auto s = (*supervisor)->signal(SIGTERM); !s) return s;
  if (!wait_for(platform, kSupervisorStops, [&] { return !(*supervisor)->alive(); })) {
    (void)(*supervisor)->signal(SIGKILL);
    say("the supervisor did not end in time and was killed");
  }
  return {};
}

std::string summary(const std::vector<LeftProcess>& left) {
  std::string text;
  for (const LeftProcess& process : left) {
    text += fmt::format("\n  {} {}", process.pid, process.title.substr(0, 100));
  }
  return text;
}

void signal_left(const Platform& platform, const std::vector<LeftProcess>& left, int number) {
  for (const LeftProcess& process : left) {
    if (auto handle = platform.process.open(process.pid)) (void)(*handle)->signal(number);
  }
}

// Guards outlive agents on purpose, and so may PostgreSQL.
Status stop_leftovers(const Platform& platform, const LocalCluster& cluster, const Say& say) {
  auto left = processes_in(platform, cluster.dir);
  if (left.empty()) return {};
  for (const LocalNode& node : cluster.nodes) {
    const env::Pid postmaster =
        PidFile::read(platform.disk, cluster.layout().data(node.name) + "/postmaster.pid");
    const bool ours = std::ranges::any_of(left, [&](const auto& p) { return p.pid == postmaster; });
    if (!ours || postmaster <= 1) continue;
    say(fmt::format("stopping PostgreSQL of {}, which no agent looks after", node.name));
    if (auto handle = platform.process.open(postmaster)) (void)(*handle)->signal(SIGINT);
  }
  const auto gone = [&] {
    left = processes_in(platform, cluster.dir);
    return left.empty();
  };
  // A guard that still has a PostgreSQL to guard ignores SIGTERM: told again until it has none.
  const auto told_and_gone = [&] {
    if (gone()) return true;
    std::vector<LeftProcess> tell;
    std::ranges::copy_if(left, std::back_inserter(tell), [](const LeftProcess& p) {
      return p.title.find(" guard ") != std::string::npos ||
             p.title.find(" run ") != std::string::npos ||
             p.title.find(" --data-dir ") != std::string::npos;
    });
    signal_left(platform, tell, SIGTERM);
    return false;
  };
  if (wait_for(platform, kLeftoversStop, told_and_gone)) return {};
  say("killing what did not stop:" + summary(left));
  signal_left(platform, left, SIGKILL);
  if (wait_for(platform, kLeftoversDie, gone)) return {};
  return fail(ErrorCode::kTimeout, "these processes are still there:" + summary(left),
              "Look at them with ps; one in state D waits for its disk");
}

// An election of its own must be over long before a leader's record expires.
constexpr Millis kEtcdElection{500};

std::vector<SupervisedProcess> etcd_processes(const Platform& platform,
                                              const LocalCluster& cluster) {
  const Layout at = cluster.layout();
  const auto url = [](const HostPort& address) { return "http://" + address.to_string(); };
  std::string all;
  for (const LocalEtcd& member : cluster.etcd) {
    all += fmt::format("{}{}={}", all.empty() ? "" : ",", member.name, url(member.peer));
  }
  const std::string program_path =
      platform.disk.exists("/usr/bin/etcd") ? "/usr/bin/etcd" : "/usr/local/bin/etcd";
  std::vector<SupervisedProcess> out;
  for (const LocalEtcd& member : cluster.etcd) {
    std::vector<std::string> argv = {program_path, "--name", member.name};
    const std::pair<const char*, std::string> options[] = {
        {"--data-dir", at.home(member.name) + "/data"},
        {"--listen-client-urls", url(member.client)},
        {"--advertise-client-urls", url(member.client)},
        {"--listen-peer-urls", url(member.peer)},
        {"--initial-advertise-peer-urls", url(member.peer)},
        {"--initial-cluster", all},
        {"--initial-cluster-token", cluster.cluster},
        {"--heartbeat-interval", std::to_string(kEtcdElection.count() / 10)},
        {"--election-timeout", std::to_string(kEtcdElection.count())},
        // Every renewal is a revision; what is not compacted fills its quota.
        {"--auto-compaction-mode", "revision"},
        {"--auto-compaction-retention", "1000"},
        {"--logger", "zap"},
        {"--log-level", "warn"}};
    for (const auto& [name, value] : options) argv.insert(argv.end(), {name, value});
    out.push_back({member.name, std::move(argv), at.log(member.name), at.pid_file(member.name),
                   at.hold_file(member.name), SupervisedProcess::PidFileBy::kSupervisor});
  }
  return out;
}

// What a person who waits wants to know of the cluster, one line a member.
std::map<std::string, std::string> progress_lines(const control::ClusterView& view) {
  std::map<std::string, std::string> lines;
  for (const auto& [name, member] : view.members) {
    std::string text = member.state;
    if (!member.reason.empty()) text += text.empty() ? member.reason : ": " + member.reason;
    if (text.size() > kProgressBytesMax) text = text.substr(0, kProgressBytesMax) + " ...";
    lines[name.str()] = text;
  }
  return lines;
}

// Why the last attempt to make the cluster failed; empty: none has, or it is there.
std::string why_not_made(const control::ClusterView& view) {
  const bool made = view.init && view.init->value.system_id != 0;
  return !made && view.leader && view.leader->value.vacant() ? view.leader->value.why : "";
}

}  // namespace

bool records_are_ready(const control::ClusterView& view, const LocalCluster& cluster) {
  if (!view.leader) return false;
  const bool following = view.leader->value.phase == control::LeaderPhase::kFollowing;
  if (!following && view.leader->value.phase != control::LeaderPhase::kRunning) return false;
  const bool synchronous =
      !following && view.config && view.config->value.synchronous() && cluster.nodes.size() > 1;
  // Until a standby is recorded only the primary has everything, and nobody could replace it.
  if (synchronous && (!view.sync || view.sync->value.generations.empty() ||
                      view.sync->value.generations.back().voters.empty())) {
    return false;
  }
  return std::ranges::all_of(cluster.nodes, [&](const LocalNode& node) {
    const auto name = NodeName::parse(node.name);
    if (*name == view.leader->value.holder) return true;
    const control::MemberRecord* member = view.member(*name);
    return member != nullptr && member->state == "streaming" &&
           member->timeline == view.leader->value.timeline;
  });
}

std::vector<SupervisedProcess> processes_of(const Platform& platform, const LocalCluster& cluster) {
  const Layout at = cluster.layout();
  std::vector<SupervisedProcess> out = etcd_processes(platform, cluster);
  for (const std::string& name : cluster.processes()) {
    out.push_back({name,
                   {program(platform), "run", "-c", at.config(name)},
                   at.log(name),
                   at.pid_file(name),
                   at.hold_file(name),
                   SupervisedProcess::PidFileBy::kItself});
  }
  return out;
}

bool supervisor_runs(const Platform& platform, const LocalCluster& cluster) {
  return PidFile::holder(platform.disk, cluster.layout().supervisor_pid()).has_value();
}

Status start_supervisor(const Platform& platform, const LocalCluster& cluster) {
  env::Command command;
  command.argv = {program(platform), "supervise", "--dir", cluster.dir};
  const std::string log_file = cluster.layout().log("supervisor");
  const auto handle = platform.process.spawn_detached(command, log_file);
  if (!handle) return std::unexpected(handle.error());
  const bool up = wait_for(platform, kSupervisorStarts, [&] {
    return supervisor_runs(platform, cluster) || !(*handle)->alive();
  });
  if (up && supervisor_runs(platform, cluster)) return {};
  return fail(ErrorCode::kInternal, "the supervisor did not start",
              fmt::format("Its log says why: {}", log_file));
}

int run_supervisor(const Platform& platform, const std::string& dir) {
  const auto failed = [](const Error& error) {
    fmt::print(stderr, "bascule: {}\n", error.to_string());
    return exit_code_of(error);
  };
  const auto cluster = load_cluster(platform, dir);
  if (!cluster) return failed(cluster.error());
  const auto pid_file =
      PidFile::create(platform.disk, platform.process, cluster->layout().supervisor_pid());
  if (!pid_file) return failed(pid_file.error());
  const auto loop = platform.make_loop();
  Supervisor supervisor(*loop, platform.process, platform.disk, processes_of(platform, *cluster));
  bool stopping = false;
  StopSignals signals(*loop, [&] {
    if (std::exchange(stopping, true)) return supervisor.kill_all();
    const std::string file = stop_order_file(*cluster);
    auto groups = read_stop_order(platform.disk, file);
    (void)platform.disk.remove(file, env::Durability::kNone);
    supervisor.stop(std::move(groups), [&] { loop->stop(); });
  });
  supervisor.start();
  loop->run();
  (void)platform.disk.remove(cluster->layout().supervisor_pid(), env::Durability::kNone);
  return kExitOk;
}

Status wait_until_ready(const Platform& platform, const LocalCluster& cluster, Millis limit,
                        const Say& say) {
  const MonoTime end = platform.clock.now() + limit;
  const auto left = [&] { return std::chrono::duration_cast<Millis>(end - platform.clock.now()); };
  const ClusterAt at{cluster.cluster, cluster.store(), cluster.dir};
  const auto made = [&] { return at.store.etcd || platform.disk.exists(at.store.path); };
  if (!wait_for(platform, left(), made)) {
    return fail(ErrorCode::kTimeout, "no agent made the store",
                fmt::format("Their logs say why: {}", cluster.layout().log_dir()));
  }
  auto session = StoreSession::open(platform, at);
  if (!session) return std::unexpected(session.error());
  std::set<std::string> shown;  // what is tried again and again is said once
  bool following = false;
  // An attempt of before we came says nothing: what it failed for may be mended.
  std::optional<store::Revision> before;
  std::string failed;
  const bool ready = (*session)->follow(left(), [&](const control::ClusterView& view) {
    const store::Revision leader = view.leader ? view.leader->revision : 0;
    if (leader != before.value_or(leader)) failed = why_not_made(view);
    if (!before) before = leader;
    following = view.leader && view.leader->value.phase == control::LeaderPhase::kFollowing;
    for (const auto& [name, text] : progress_lines(view)) {
      const std::string line = fmt::format("{}: {}", name, text);
      if (shown.insert(line).second) say(line);
    }
    return !failed.empty() || records_are_ready(view, cluster) || interrupted();
  });
  if (!failed.empty()) {
    return fail(ErrorCode::kInternal, "the cluster could not be made: " + failed,
                fmt::format("Its logs are in {}", cluster.layout().log_dir()));
  }
  if (interrupted()) return fail(ErrorCode::kTimeout, "interrupted");
  if (!ready) {
    return fail(ErrorCode::kTimeout,
                fmt::format("not every member was ready within {}", format_duration(limit)),
                fmt::format("`bascule status --dir {}` shows where it stands, {} has the logs",
                            cluster.dir, cluster.layout().log_dir()));
  }
  const PgClient::Options options = {{"host", cluster.writer.host},
                                     {"port", std::to_string(cluster.writer.port)},
                                     {"user", cluster.app_user},
                                     {"dbname", cluster.database},
                                     {"passfile", cluster.layout().secret("pgpass")},
                                     {"connect_timeout", "5"}};
  std::string reason = "no answer";
  const bool writable = wait_for(platform, std::max(left(), Millis{5000}), [&] {
    auto client = PgClient::connect(options);
    const auto answer =
        client ? client->query("SELECT pg_is_in_recovery()") : std::unexpected(client.error());
    if (!answer) reason = answer.error().to_string();
    return (answer && (*answer)[0][0] == (following ? "t" : "f")) || interrupted();
  });
  if (writable) return {};
  return fail(ErrorCode::kTimeout,
              fmt::format("the primary can't be reached through the proxy: {}", reason),
              fmt::format("Its log says more: {}", cluster.layout().log(kProxyProcess)));
}

Status stop_cluster(const Platform& platform, const LocalCluster& cluster, const Say& say) {
  if (auto s = stop_supervisor(platform, cluster, say); !s) return s;
  return stop_leftovers(platform, cluster, say);
}

Status destroy_cluster(const Platform& platform, const LocalCluster& cluster) {
  // The supervisor first, again and again: it may be starting something in this moment.
  std::vector<LeftProcess> left;
  const auto killed = [&] {
    left = processes_in(platform, cluster.dir);
    signal_left(platform, left, SIGKILL);
    return left.empty();
  };
  if (const auto pid = PidFile::holder(platform.disk, cluster.layout().supervisor_pid())) {
    if (auto supervisor = platform.process.open(*pid)) (void)(*supervisor)->signal(SIGKILL);
  }
  if (!wait_for(platform, kLeftoversDie, killed)) {
    return fail(ErrorCode::kTimeout, "these processes are still there:" + summary(left));
  }
  if (auto s = platform.disk.remove_contents(cluster.dir); !s) return s;
  std::error_code error;
  std::filesystem::remove(cluster.dir, error);
  return {};
}

std::vector<LeftProcess> processes_in(const Platform& platform, const std::string& dir) {
  std::vector<LeftProcess> out;
  const auto entries = platform.disk.list("/proc");
  if (!entries) return out;
  const std::string below = dir + "/";
  for (const std::string& entry : *entries) {
    env::Pid pid = 0;
    const auto [stop, error] = std::from_chars(entry.data(), entry.data() + entry.size(), pid);
    if (error != std::errc() || stop != entry.data() + entry.size()) continue;
    if (pid == platform.process.self()) continue;
    const std::string title = platform.process.title(pid);
    std::error_code unreadable;
    const auto proc = std::filesystem::path("/proc") / entry;
    const std::string exe = std::filesystem::read_symlink(proc / "exe", unreadable).filename();
    const std::string cwd = std::filesystem::read_symlink(proc / "cwd", unreadable);
    const bool postgres = exe == "postgres" || exe == "pg_basebackup" || exe == "pg_rewind" ||
                          exe == "initdb" || exe == "etcd" || exe.starts_with("postgres (");
    const bool daemon = title.find(" run -c ") != std::string::npos ||
                        title.find(" guard ") != std::string::npos ||
                        title.find(" supervise ") != std::string::npos;
    const bool here = (title + "/").find(below) != std::string::npos || cwd.starts_with(below);
    if (here && (postgres || daemon)) out.push_back({pid, title});
  }
  return out;
}

}  // namespace bascule::cli
