#include "api/documents.h"

#include <fmt/format.h>

#include <algorithm>

#include "api/health.h"
#include "api/monitor_documents.h"
#include "control/loss_bound.h"

namespace bascule::api {
namespace {

using control::ClusterView;
using control::HistoryRecord;
using control::MemberRecord;
using control::PgRun;

template <typename T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

std::string_view run_name(PgRun run) {
  switch (run) {
    case PgRun::kStopped:
      return "stopped";
    case PgRun::kStarting:
      return "starting";
    case PgRun::kStandby:
    case PgRun::kPrimary:
      return "running";
    case PgRun::kUnresponsive:
      return "unresponsive";
  }
  return "unknown";
}

Json tags_json(const MemberRecord& member) {
  Json tags = Json::object();
  if (member.nofailover) tags["nofailover"] = true;
  if (member.tags.nosync) tags["nosync"] = true;
  if (member.tags.noloadbalance) tags["noloadbalance"] = true;
  if (member.tags.clonefrom) tags["clonefrom"] = true;
  if (!member.tags.replicatefrom.empty()) tags["replicatefrom"] = member.tags.replicatefrom.str();
  tags["failover_priority"] = member.priority;
  if (!member.region.empty()) tags["region"] = member.region;
  return tags;
}

Json replication_json(const control::PgStatus& postgres) {
  Json out = Json::array();
  for (const auto& sender : postgres.senders) {
    const bool sync = std::ranges::count(postgres.sync_standbys, sender.application_name) > 0;
    out.push_back({{"application_name", sender.application_name},
                   {"state", sender.streaming ? "streaming" : "startup"},
                   {"sync_state", sync ? "sync" : "async"}});
  }
  return out;
}

Json positions_json(const control::PgStatus& postgres) {
  if (postgres.run == PgRun::kPrimary) return {{"location", postgres.flush_lsn.value}};
  return {{"received_location", postgres.flush_lsn.value},
          {"replayed_location", postgres.replay_lsn.value}};
}

Json member_json(const Snapshot& snapshot, const MemberRecord& member) {
  const auto& view = snapshot.view;
  const auto* leader = leader_of(view);
  const bool leads = leader && leader->holder == member.name;
  const bool sync = !leads && is_sync_voter(view, member);
  Json out = {{"name", member.name.str()},
              {"role", leads  ? "leader"
                       : sync ? (quorum_mode(view) ? "quorum_standby" : "sync_standby")
                              : "replica"},
              {"state", leads && member.state.empty() ? "running" : member.state},
              {"api_url", member.api_url},
              {"host", member.host},
              {"port", member.port},
              {"timeline", member.timeline.value}};
  if (!leads) {
    const auto lag = lag_bytes(view, member);
    out["lag"] = lag ? Json(*lag) : Json("unknown");
  }
  out["tags"] = tags_json(member);
  if (member.pending_restart) out["pending_restart"] = true;
  if (member.disk_full != control::DiskFull::kNo) out["diskFull"] = to_string(member.disk_full);
  if (!member.upstream.empty()) out["upstream"] = member.upstream.str();
  if (!member.slots.empty()) out["slots"] = member.slots;
  if (!member.config_problem.empty()) out["configProblem"] = member.config_problem;
  out["epoch"] = member.epoch.value;
  out["reason"] = member.reason;
  out["region"] = member.region;
  out["flushLsn"] = member.flush_lsn.to_string();
  out["replayLsn"] = member.replay_lsn.to_string();
  out["writtenAt"] = to_iso8601(member.written_at);
  return out;
}

bool is_failover(const HistoryRecord& record) { return record.parent_epoch.value != 0; }

NodeName leader_of_epoch(const ClusterView& view, Epoch epoch) {
  const auto found = view.history.find(epoch);
  return found == view.history.end() ? NodeName() : found->second.leader;
}

// Wall time of a moment on the monotonic clock, for people.
std::string wall_of(const Snapshot& snapshot, MonoTime then) {
  const auto ago = std::chrono::duration_cast<Millis>(snapshot.taken_at - then);
  return to_iso8601(snapshot.wall - ago);
}

}  // namespace

Json patroni_json(const Snapshot& snapshot, MonoTime now) {
  Json out = Json::object();
  if (snapshot.local) {
    const auto& local = *snapshot.local;
    const auto* member = snapshot.view.member(local.name);
    const bool primary = is_primary(snapshot, now);
    out["state"] = run_name(local.postgres.run);
    out["role"] = primary                            ? "primary"
                  : is_standby_leader(snapshot, now) ? "standby_leader"
                                                     : "replica";
    out["xlog"] = positions_json(local.postgres);
    out["timeline"] = local.postgres.timeline.value;
    if (primary) {
      out["replication"] = replication_json(local.postgres);
      // What a proxy without a store goes by (control/lease.h); milliseconds of our own clock.
      out["lease"] = {{"epoch", local.leading_epoch.value},
                      {"clockMs", to_ms(now.time_since_epoch())},
                      {"provedMs", to_ms(local.proved_at.time_since_epoch())},
                      {"deadlineMs", to_ms(local.deadline.time_since_epoch())}};
    }
    if (is_sync_replica(snapshot, now)) {
      out[quorum_mode(snapshot.view) ? "quorum_standby" : "sync_standby"] = true;
    }
    if (local.postgres.pending_restart) out["pending_restart"] = true;
    if (local.postgres.receiver_streaming) out["replication_state"] = "streaming";
    if (member) out["tags"] = tags_json(*member);
    out["database_system_identifier"] = std::to_string(local.postgres.system_id);
    out["phase"] = control::to_string(local.phase);
    out["reason"] = local.reason;
  }
  if (!leader_of(snapshot.view)) out["cluster_unlocked"] = true;
  if (snapshot.view.paused) out["pause"] = true;
  if (snapshot.view.leader) out["epoch"] = snapshot.view.leader->value.epoch.value;
  if (snapshot.store_seen_at) {
    const auto age =
        std::chrono::duration_cast<Millis>(snapshot.taken_at - *snapshot.store_seen_at);
    out["dcs_last_seen"] =
        std::chrono::floor<std::chrono::seconds>(snapshot.wall - age).time_since_epoch().count();
  }
  out["patroni"] = {{"version", snapshot.version},
                    {"scope", snapshot.cluster},
                    {"name", snapshot.local ? snapshot.local->name.str() : ""}};
  return out;
}

Json health_json(const Snapshot& snapshot, MonoTime now) {
  const auto health = cluster_health(snapshot, now);
  const auto* leader = leader_of(snapshot.view);
  size_t standbys = 0, connected = 0;
  for (const auto& [name, member] : snapshot.view.members) {
    if (leader && leader->holder == name) continue;
    ++standbys;
    connected += health.state != FailoverState::kUnknown && standby_is_healthy(snapshot, member);
  }
  std::string_view status = "degraded";
  if (health.state == FailoverState::kHealthy) status = "healthy";
  if (!health.primary_healthy) status = "unhealthy";
  Json out = {{"status", status},
              {"db_primary", health.primary_healthy ? "connected" : "disconnected"},
              {"db_replica", standbys == 0    ? "not_configured"
                             : connected == 0 ? "disconnected"
                                              : "connected"},
              {"reason", health.reason}};
  out.update(patroni_json(snapshot, now));
  out["reason"] = health.reason;
  return out;
}

Json cluster_json(const Snapshot& snapshot, MonoTime now) {
  const auto& view = snapshot.view;
  Json out = {{"members", Json::array()}, {"scope", snapshot.cluster}};
  for (const auto& [name, member] : view.members) {
    out["members"].push_back(member_json(snapshot, member));
  }
  if (view.paused) out["pause"] = true;
  const auto health = cluster_health(snapshot, now);
  out["epoch"] = view.leader ? view.leader->value.epoch.value : 0;
  out["leader"] = leader_of(view) ? Json(view.leader->value.holder.str()) : Json(nullptr);
  out["phase"] = view.leader ? control::to_string(view.leader->value.phase) : "unknown";
  out["state"] = to_string(health.state);
  out["reason"] = health.reason;
  if (view.request) out["request"] = operation_json(view.request->value);
  for (const auto& [id, task] : view.tasks) {
    const bool scheduled = task.value.outcome.empty() && task.value.at != WallTime{};
    if (!scheduled || task.value.kind != control::TaskKind::kSwitchover) continue;
    out["scheduled_switchover"] = {{"at", to_iso8601(task.value.at)}, {"id", id}};
    if (leader_of(view)) out["scheduled_switchover"]["from"] = view.leader->value.holder.str();
    if (!task.value.candidate.empty())
      out["scheduled_switchover"]["to"] = task.value.candidate.str();
  }
  out["problems"] = view.problems;
  return out;
}

Json history_json(const Snapshot& snapshot) {
  Json out = Json::array();
  for (const auto& [epoch, record] : snapshot.view.history) {
    if (!is_failover(record)) continue;
    out.push_back({record.fork.timeline.value, record.fork.lsn.value, record.reason,
                   to_iso8601(record.at), record.leader.str()});
  }
  return out;
}

Json failover_status_json(const Snapshot& snapshot, MonoTime now) {
  const auto& view = snapshot.view;
  const auto health = cluster_health(snapshot, now);
  const auto* leader = leader_of(view);
  const auto checked =
      snapshot.store_seen_at ? Json(wall_of(snapshot, *snapshot.store_seen_at)) : Json(nullptr);
  Json primary = {{"healthy", health.primary_healthy},
                  {"lastHealthCheck", checked},
                  {"failureCount", snapshot.tally.primary_failures},
                  {"responseTime", nullptr},
                  {"downSince", nullptr}};
  if (snapshot.tally.primary_down_since) {
    primary["downSince"] = wall_of(snapshot, *snapshot.tally.primary_down_since);
  }
  Json standbys = Json::array();
  for (const auto& [name, member] : view.members) {
    if (leader && leader->holder == name) continue;
    const bool healthy = standby_is_healthy(snapshot, member);
    const auto lag = snapshot.tally.lag.find(name);
    const auto failures = snapshot.tally.standby_failures.find(name);
    standbys.push_back(
        {{"name", name.str()},
         {"healthy", healthy},
         {"lastHealthCheck", checked},
         {"failureCount", failures == snapshot.tally.standby_failures.end() ? 0 : failures->second},
         {"responseTime", nullptr},
         {"promotionEligible", healthy && !member.nofailover},
         {"lagBytes", or_null(lag_bytes(view, member))},
         {"lagMs", lag == snapshot.tally.lag.end() ? Json(nullptr) : Json(to_ms(lag->second))}});
  }
  const auto failovers = std::ranges::count_if(
      view.history, [](const auto& entry) { return is_failover(entry.second); });
  Json last = nullptr;
  for (const auto& [epoch, record] : view.history) {
    if (is_failover(record)) last = to_iso8601(record.at);
  }
  Json out = {{"state", to_string(health.state)},
              {"currentPrimary", leader ? Json(leader->holder.str()) : Json(nullptr)},
              {"primary", primary},
              {"standbys", standbys},
              {"lastFailoverTime", last},
              {"failoverCount", failovers},
              {"epoch", view.leader ? view.leader->value.epoch.value : 0},
              {"reason", health.reason}};
  add_health_checks(snapshot, out, now);
  return out;
}

namespace {

// By an agent: whether it got to lead; by a monitor, whose record has a duration at its end only.
const char* outcome_of(const control::ClusterView& view, const control::HistoryRecord& record) {
  const bool by_agent = record.silent_ms >= 0 || record.promote_ms >= 0 || !view.members.empty();
  const bool led = record.following || record.parent_epoch.value == 0 || record.promote_ms >= 0 ||
                   (by_agent ? !record.lacks_origin() : record.gap_ms >= 0);
  const auto* leader = leader_of(view);
  const bool newest = leader != nullptr && leader->epoch == record.epoch;
  if (led || (newest && leader->phase == control::LeaderPhase::kRunning)) return "done";
  return newest && !leader->vacant() ? "under way" : "came to nothing";
}

}  // namespace

int64_t duration_ms(const control::HistoryRecord& record) {
  if (record.gap_ms < 0) return -1;
  return record.gap_ms + std::max<int64_t>(0, record.silent_ms) +
         std::max<int64_t>(0, record.promote_ms) + std::max<int64_t>(0, record.route_ms);
}

Json failover_history_json(const Snapshot& snapshot, size_t limit) {
  const auto& view = snapshot.view;
  const auto known = [](int64_t number) { return number < 0 ? Json(nullptr) : Json(number); };
  Json out = Json::array();
  for (auto it = view.history.rbegin(); it != view.history.rend() && out.size() < limit; ++it) {
    const auto& record = it->second;
    const auto from = leader_of_epoch(view, record.parent_epoch);
    const Millis before{record.silent_ms < 0 ? 0 : record.silent_ms + record.gap_ms};
    out.push_back({{"id", fmt::format("epoch-{}", record.epoch.value)},
                   {"epoch", record.epoch.value},
                   {"from", from.empty() ? Json(nullptr) : Json(from.str())},
                   {"to", record.leader.str()},
                   {"trigger", record.trigger},
                   {"reason", record.reason},
                   {"startedAt", to_iso8601(record.at - before)},
                   {"takenOverAt", to_iso8601(record.at)},
                   {"durationMs", known(duration_ms(record))},
                   {"split",
                    {{"detectMs", known(record.silent_ms)},
                     {"fenceMs", nullptr},  // by the leader's own deadline, while it is silent
                     {"electMs", view.members.empty() ? Json(nullptr) : known(record.gap_ms)},
                     {"promoteMs", known(record.promote_ms)},
                     {"routeMs", known(record.route_ms)}}},
                   {"lostBytes", known(record.lost_bytes)},
                   {"outcome", outcome_of(view, record)},
                   {"timeline", record.timeline.value},
                   {"fork", record.fork.to_string()}});
  }
  return out;
}

Json records_json(const Snapshot& snapshot, MonoTime now) {
  const auto& view = snapshot.view;
  Json records = Json::object();
  const auto add = [&](const std::string& key, const std::string& text, store::Revision revision) {
    records[key] = {{"revision", revision}, {"value", Json::parse(text, nullptr, false)}};
  };
  const auto add_versioned = [&](const char* key, const auto& record) {
    if (record) add(key, control::encode(record->value), record->revision);
  };
  add_versioned("leader", view.leader);
  add_versioned("config", view.config);
  add_versioned("init", view.init);
  add_versioned("roster", view.roster);
  add_versioned("sync", view.sync);
  add_versioned("request", view.request);
  if (view.paused) add("pause", "{}", view.revision);
  for (const auto& [id, task] : view.tasks) {
    add("tasks/" + id, control::encode(task.value), task.revision);
  }
  for (const auto& [name, member] : view.members) {
    add("members/" + name.str(), control::encode(member), view.revision);
  }
  for (const auto& [name, ballot] : view.ballots) {
    add("ballots/" + name.str(), control::encode(ballot.value), ballot.revision);
  }
  const std::string prefix = control::Keys("x").prefix;
  for (const auto& [epoch, history] : view.history) {
    add(control::Keys("x").history(epoch).substr(prefix.size()), control::encode(history),
        view.revision);
  }
  return {{"cluster", snapshot.cluster},
          {"identity", view.identity},
          {"revision", view.revision},
          {"ageMs", snapshot.store_seen_at ? Json(to_ms(now - *snapshot.store_seen_at)) : Json()},
          {"records", std::move(records)}};
}

Json operation_json(const control::RequestRecord& request) {
  const bool open = request.outcome.empty();
  return {{"id", request.id},
          {"kind", request.kind == control::RequestKind::kSwitchover ? "switchover" : "failover"},
          {"candidate", request.candidate.empty() ? Json(nullptr) : Json(request.candidate.str())},
          {"by", request.by},
          {"done", !open},
          {"progress", request.progress},
          {"outcome", open ? Json(nullptr) : Json(request.outcome)}};
}

Json task_json(const control::TaskRecord& task) {
  const bool open = task.outcome.empty();
  Json steps = Json::array();
  bool begun = false;
  for (const control::TaskStep& step : task.steps) {
    begun = begun || step.state != control::StepState::kWaiting;
    steps.push_back({{"member", step.member.str()},
                     {"state", control::to_string(step.state)},
                     {"note", step.note}});
  }
  const bool scheduled = open && !begun && task.at != WallTime{};
  Json out = {{"id", task.id},
              {"kind", control::to_string(task.kind)},
              {"steps", std::move(steps)},
              {"by", task.by},
              {"askedAt", to_iso8601(task.asked_at)},
              {"scheduledAt", task.at == WallTime{} ? Json(nullptr) : Json(to_iso8601(task.at))},
              {"done", !open},
              {"progress", !open       ? "ended"
                           : scheduled ? "scheduled"
                           : begun     ? "running"
                                       : "waiting"},
              {"outcome", open ? Json(nullptr) : Json(task.outcome)}};
  if (task.kind == control::TaskKind::kRestart) {
    out["pendingOnly"] = task.only_pending;
    out["bySwitchover"] = task.by_switchover;
  }
  if (task.kind == control::TaskKind::kSwitchover) {
    out["candidate"] = task.candidate.empty() ? Json(nullptr) : Json(task.candidate.str());
    out["region"] = task.region.empty() ? Json(nullptr) : Json(task.region);
  }
  return out;
}

Json operations_json(const Snapshot& snapshot) {
  std::vector<const control::TaskRecord*> tasks;
  for (const auto& [id, task] : snapshot.view.tasks) tasks.push_back(&task.value);
  std::ranges::stable_sort(tasks, std::greater{}, &control::TaskRecord::asked_at);
  Json out = Json::array();
  if (snapshot.view.request) out.push_back(operation_json(snapshot.view.request->value));
  for (const auto* task : tasks) out.push_back(task_json(*task));
  return out;
}

Json failover_preview_json(const Snapshot& snapshot) {
  Json members = Json::array();
  for (const control::LossBound& bound : control::loss_bounds(snapshot.view)) {
    members.push_back({{"member", bound.member.str()},
                       {"acknowledgedLost", bound.none ? Json(false) : Json(true)},
                       {"lostBytesKnown", bound.bytes ? Json(*bound.bytes) : Json(nullptr)},
                       {"unknownMs", bound.unknown.count()},
                       {"longerByPledges", bound.longer_by_pledges},
                       {"text", bound.text}});
  }
  return {{"leader", snapshot.view.leader ? snapshot.view.leader->value.holder.str() : ""},
          {"epoch", snapshot.view.leader ? snapshot.view.leader->value.epoch.value : 0},
          {"members", std::move(members)}};
}

}  // namespace bascule::api
