#include "cli/status.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "cli/table.h"
#include "cli/task.h"
#include "cli/units.h"
#include "control/sync_set.h"

namespace bascule::cli {
namespace {

using control::ClusterView;
using control::HistoryRecord;
using control::LeaderRecord;
using control::MemberRecord;
using nlohmann::ordered_json;

const LeaderRecord* leader_of(const ClusterView& view) {
  return view.leader ? &view.leader->value : nullptr;
}

// Voters are sync names; people know members. A voter whose member was rebuilt since has no member.
std::vector<std::string> voters_of(const ClusterView& view) {
  std::vector<std::string> out;
  if (!view.sync || view.sync->value.generations.empty()) return out;
  for (const std::string& voter : view.sync->value.generations.back().voters) {
    const auto found = std::ranges::find_if(
        view.members, [&](const auto& entry) { return entry.second.sync_name == voter; });
    out.push_back(found == view.members.end() ? voter : found->first.str());
  }
  return out;
}

std::string role_of(const ClusterView& view, const MemberRecord& member) {
  const LeaderRecord* leader = leader_of(view);
  if (leader != nullptr && leader->holder == member.name) {
    return leader->phase == control::LeaderPhase::kFollowing ? "standby leader" : "leader";
  }
  if (member.role == "replica" && std::ranges::count(voters_of(view), member.name.str()) > 0)
    return "sync replica";
  return member.role.empty() ? "none" : member.role;
}

std::string sync_line(const ClusterView& view) {
  if (!view.config) return "";
  const control::ClusterConfig& config = view.config->value;
  if (const LeaderRecord* leader = leader_of(view);
      leader != nullptr && leader->phase == control::LeaderPhase::kFollowing) {
    const auto& from = config.standby_cluster;
    return "standby cluster" + (from ? " of " + from->host : ", about to lead itself");
  }
  if (config.sync_mode == control::SyncMode::kOff) return "sync off";
  std::string text =
      fmt::format("sync {}{}", to_string(config.sync_mode), config.sync_strict ? ", strict" : "");
  if (!view.sync || view.sync->value.generations.empty()) return text;
  const auto voters = voters_of(view);
  if (voters.empty()) return text + " (alone: nobody else has the newest commits)";
  if (config.sync_mode == control::SyncMode::kQuorum) {
    // What is in force may be less than asked for; the record says it.
    const auto& newest = view.sync->value.generations.back();
    return fmt::format("{} (any {} of {})", text, setting_of(newest).count,
                       fmt::join(voters, ", "));
  }
  return fmt::format("{} ({})", text, fmt::join(voters, ", "));
}

std::string header(const ClusterView& view, const std::string& cluster) {
  std::string text = "Cluster " + cluster;
  const LeaderRecord* leader = leader_of(view);
  if (leader == nullptr) {
    text += view.leader_unreadable ? " · leader record unreadable" : " · not bootstrapped yet";
  } else if (leader->vacant()) {
    text += fmt::format(" · epoch {} · no leader: {}", leader->epoch.value, leader->why);
  } else {
    text += fmt::format(" · epoch {} · leader {} ({}) · timeline {}", leader->epoch.value,
                        leader->holder.str(), to_string(leader->phase), leader->timeline.value);
  }
  if (const std::string sync = sync_line(view); !sync.empty()) text += " · " + sync;
  if (view.config) text += " · ttl " + format_duration(view.config->value.ttl);
  if (view.paused) text += " · PAUSED";
  return text + "\n";
}

std::string request_line(const ClusterView& view) {
  if (!view.request || !view.request->value.outcome.empty()) return "";
  const control::RequestRecord& request = view.request->value;
  return fmt::format("Request {}: {}{}, {}\n", request.id,
                     request.kind == control::RequestKind::kSwitchover ? "switchover" : "failover",
                     request.candidate.empty() ? "" : " to " + request.candidate.str(),
                     request.progress.empty() ? "not begun" : request.progress);
}

std::vector<std::string> tags_of(const MemberRecord& member) {
  std::vector<std::string> out;
  if (member.nofailover) out.emplace_back("nofailover");
  if (member.tags.nosync) out.emplace_back("nosync");
  if (member.tags.noloadbalance) out.emplace_back("noloadbalance");
  if (member.tags.clonefrom) out.emplace_back("clonefrom");
  const NodeName& relay = member.tags.replicatefrom;
  if (!relay.empty()) out.push_back("replicatefrom " + relay.str());
  return out;
}

std::string task_lines(const ClusterView& view) {
  std::string out;
  for (const auto& [id, task] : view.tasks) {
    if (!task.value.outcome.empty()) continue;
    out +=
        fmt::format("Task {}: {}, {}\n", id, to_string(task.value.kind), describe_task(task.value));
  }
  return out;
}

std::string known(uint64_t value) { return value == 0 ? "" : fmt::format("{}", value); }

std::string seconds(int64_t ms) { return ms < 0 ? "" : fmt::format("{:.2f} s", ms / 1000.0); }

}  // namespace

int64_t lag_bytes(const ClusterView& view, const MemberRecord& member) {
  const LeaderRecord* leader = leader_of(view);
  if (leader == nullptr || leader->vacant()) return -1;
  if (leader->holder == member.name) return 0;
  const MemberRecord* primary = view.member(leader->holder);
  if (primary == nullptr || !primary->flush_lsn.valid() || !member.flush_lsn.valid()) return -1;
  // Positions of two timelines can't be subtracted.
  if (primary->timeline != member.timeline) return -1;
  // Members publish at different moments: a replica may look ahead of its primary.
  return member.flush_lsn > primary->flush_lsn
             ? 0
             : static_cast<int64_t>(primary->flush_lsn.value - member.flush_lsn.value);
}

std::string render_status(const ClusterView& view, const std::string& cluster,
                          const RenderOptions& options) {
  Table table({{"Member"},
               {"Host"},
               {"Role"},
               {"State"},
               {"TL", Align::kRight},
               {"Lag", Align::kRight},
               {"Region"},
               {"Epoch", Align::kRight},
               {"Reason"}});
  for (const auto& [name, member] : view.members) {
    const int64_t lag = lag_bytes(view, member);
    const bool is_leader = role_of(view, member).ends_with("leader");
    std::string reason = member.reason;
    if (member.pending_restart) reason += reason.empty() ? "pending restart" : ", pending restart";
    if (member.disk_full != control::DiskFull::kNo) {
      reason += (reason.empty() ? "" : ", ") +
                fmt::format("no room for {}", control::to_string(member.disk_full));
    }
    for (const std::string& tag : tags_of(member)) reason += (reason.empty() ? "" : ", ") + tag;
    for (const auto& [slot, state] : member.slots) {
      reason += fmt::format("{}slot {}: {}", reason.empty() ? "" : ", ", slot, state);
    }
    if (!member.config_problem.empty()) {
      reason += (reason.empty() ? "" : ", ") + ("configuration refused: " + member.config_problem);
    }
    table.add({name.str(), fmt::format("{}:{}", member.host, member.port), role_of(view, member),
               member.state, known(member.timeline.value),
               is_leader ? ""
               : lag < 0 ? "?"
                         : human_bytes(static_cast<uint64_t>(lag)),
               member.region, known(member.epoch.value), reason});
  }
  std::string text = header(view, cluster) + request_line(view) + task_lines(view) + "\n";
  text += view.members.empty() ? "No member has reported yet.\n" : table.render(options.width_max);
  for (const std::string& problem : view.problems) text += "Problem: " + problem + "\n";
  return text;
}

ordered_json status_json(const ClusterView& view, const std::string& cluster) {
  ordered_json out = {{"cluster", cluster}};
  const LeaderRecord* leader = leader_of(view);
  out["epoch"] = leader != nullptr ? leader->epoch.value : 0;
  out["leader"] = leader != nullptr && !leader->vacant() ? ordered_json(leader->holder.str())
                                                         : ordered_json(nullptr);
  out["phase"] = leader != nullptr ? to_string(leader->phase) : "unknown";
  out["timeline"] = leader != nullptr ? leader->timeline.value : 0;
  out["why"] = leader != nullptr ? leader->why : "";
  out["paused"] = view.paused;
  if (view.config && view.config->value.standby_cluster) {
    const auto& from = *view.config->value.standby_cluster;
    out["standbyCluster"] = {{"host", from.host}, {"port", from.port}};
  }
  ordered_json sync = {{"mode", "unknown"}, {"strict", false}};
  if (view.config) {
    sync["mode"] = to_string(view.config->value.sync_mode);
    sync["strict"] = view.config->value.sync_strict;
    out["ttlMs"] = view.config->value.ttl.count();
  }
  sync["voters"] = ordered_json::array();
  sync["quorum"] = 0;
  if (view.sync && !view.sync->value.generations.empty()) {
    sync["voters"] = voters_of(view);
    sync["quorum"] = view.sync->value.generations.back().quorum;
    sync["acknowledgements"] =
        voters_of(view).empty() ? 0 : setting_of(view.sync->value.generations.back()).count;
    sync["generations"] = view.sync->value.generations.size();
  }
  out["sync"] = sync;
  out["members"] = ordered_json::array();
  for (const auto& [name, member] : view.members) {
    const int64_t lag = lag_bytes(view, member);
    out["members"].push_back({{"name", name.str()},
                              {"host", member.host},
                              {"port", member.port},
                              {"role", role_of(view, member)},
                              {"state", member.state},
                              {"reason", member.reason},
                              {"timeline", member.timeline.value},
                              {"flushLsn", member.flush_lsn.to_string()},
                              {"replayLsn", member.replay_lsn.to_string()},
                              {"lagBytes", lag < 0 ? ordered_json(nullptr) : ordered_json(lag)},
                              {"region", member.region},
                              {"priority", member.priority},
                              {"nofailover", member.nofailover},
                              {"epoch", member.epoch.value},
                              {"tags", tags_of(member)},
                              {"upstream", member.upstream.str()},
                              {"pendingRestart", member.pending_restart},
                              {"diskFull", control::to_string(member.disk_full)},
                              {"slots", member.slots},
                              {"configProblem", member.config_problem},
                              {"writtenAt", to_iso8601(member.written_at)}});
  }
  if (view.request) {
    const control::RequestRecord& request = view.request->value;
    out["request"] = {
        {"id", request.id},
        {"kind", request.kind == control::RequestKind::kSwitchover ? "switchover" : "failover"},
        {"candidate", request.candidate.str()},
        {"progress", request.progress},
        {"outcome", request.outcome}};
  }
  out["tasks"] = ordered_json::array();
  for (const auto& [id, task] : view.tasks) {
    if (!task.value.outcome.empty()) continue;
    out["tasks"].push_back({{"id", id},
                            {"kind", to_string(task.value.kind)},
                            {"progress", describe_task(task.value)}});
  }
  out["problems"] = view.problems;
  return out;
}

std::string render_history(const ClusterView& view, const RenderOptions& options) {
  Table table({{"Epoch", Align::kRight},
               {"Leader"},
               {"TL", Align::kRight},
               {"Time"},
               {"Trigger"},
               {"Gap", Align::kRight},
               {"Reason"}});
  for (const auto& [epoch, record] : view.history) {
    table.add({fmt::format("{}", epoch.value), record.leader.str(), known(record.timeline.value),
               to_iso8601(record.at), record.trigger, seconds(record.gap_ms), record.reason});
  }
  return view.history.empty() ? "No leader has been elected yet.\n"
                              : table.render(options.width_max);
}

ordered_json history_json(const ClusterView& view) {
  const auto or_null = [](int64_t number) {
    return number < 0 ? ordered_json(nullptr) : ordered_json(number);
  };
  ordered_json out = ordered_json::array();
  for (const auto& [epoch, record] : view.history) {
    out.push_back({{"epoch", epoch.value},
                   {"leader", record.leader.str()},
                   {"parentEpoch", record.parent_epoch.value},
                   {"timeline", record.timeline.value},
                   {"fork", record.fork.to_string()},
                   {"at", to_iso8601(record.at)},
                   {"trigger", record.trigger},
                   {"reason", record.reason},
                   {"gapMs", or_null(record.gap_ms)},
                   {"silentMs", or_null(record.silent_ms)},
                   {"promoteMs", or_null(record.promote_ms)},
                   {"routeMs", or_null(record.route_ms)},
                   {"lostBytes", or_null(record.lost_bytes)}});
  }
  return out;
}

}  // namespace bascule::cli
