#include "api/metrics.h"

#include <prometheus/text_serializer.h>

#include <algorithm>
#include <map>
#include <vector>

#include "api/health.h"

namespace bascule::api {
namespace {

using Labels = std::vector<std::pair<std::string, std::string>>;
using Kind = MetricPoint::Kind;

// Families in the order of their first point; the format wants each family in one piece.
class Families {
 public:
  void add(Kind kind, const std::string& name, const std::string& help, const Labels& labels,
           double value) {
    auto [found, first] = index_.try_emplace(name, families_.size());
    if (first) {
      const auto type =
          kind == Kind::kCounter ? prometheus::MetricType::Counter : prometheus::MetricType::Gauge;
      families_.push_back({name, help, type, {}});
    }
    prometheus::ClientMetric metric;
    for (const auto& [key, text] : labels) metric.label.push_back({key, text});
    metric.gauge.value = value;
    metric.counter.value = value;
    families_[found->second].metric.push_back(std::move(metric));
  }
  void gauge(const std::string& name, const std::string& help, const Labels& labels, double value) {
    add(Kind::kGauge, name, help, labels, value);
  }
  void counter(const std::string& name, const std::string& help, const Labels& labels,
               double value) {
    add(Kind::kCounter, name, help, labels, value);
  }
  std::string text() const { return prometheus::TextSerializer().Serialize(families_); }

 private:
  std::vector<prometheus::MetricFamily> families_;
  std::map<std::string, size_t> index_;
};

double seconds(Nanos duration) { return std::chrono::duration<double>(duration).count(); }
double number(uint64_t value) { return static_cast<double>(value); }
double flag(bool value) { return value ? 1 : 0; }

// The names that the sources fix, with their label `instance`.
void add_failover(Families& out, const Snapshot& snapshot, MonoTime now) {
  const Labels instance = {{"instance", snapshot.instance}};
  const auto health = cluster_health(snapshot, now);
  out.gauge("failover_state",
            "0 unknown, 1 healthy, 2 degraded, 3 failover_in_progress, 4 failover_complete, "
            "5 recovery_in_progress",
            instance, static_cast<double>(health.state));
  const auto failovers = std::ranges::count_if(snapshot.view.history, [](const auto& entry) {
    return entry.second.parent_epoch.value != 0 && entry.second.trigger != "switchover";
  });
  out.counter("failover_total", "Unplanned changes of the primary in the cluster's history",
              instance, static_cast<double>(failovers));
  const control::MonitorHealth* monitored = snapshot.view.monitor && snapshot.view.monitor->health
                                                ? &*snapshot.view.monitor->health
                                                : nullptr;
  out.counter("failover_recoveries_total",
              "Members that followed again after a time of not doing so, seen by this process",
              instance, number(monitored ? monitored->recoveries : snapshot.tally.recoveries));
  out.counter("failover_health_check_failures_total",
              "Samples of the local PostgreSQL that were not answered in time", instance,
              number(monitored ? monitored->check_failures : snapshot.tally.health_check_failures));
  out.gauge("failover_primary_healthy", "1 when a writable primary holds the leader record",
            instance, flag(health.primary_healthy));
  if (monitored != nullptr) {
    for (const auto& endpoint : monitored->endpoints) {
      const Labels labels = {{"endpoint", endpoint.name.str()}, {"instance", snapshot.instance}};
      out.counter("database_connection_failures_total",
                  "Health checks of the database that failed, since its monitor acts", labels,
                  number(endpoint.failures_total));
      if (endpoint.response_ms < 0) continue;
      out.gauge("bascule_database_response_seconds", "Time that the last health check took", labels,
                static_cast<double>(endpoint.response_ms) / 1000);
    }
  }
  const auto* leader = leader_of(snapshot.view);
  for (const auto& [name, member] : snapshot.view.members) {
    if (leader && leader->holder == name) continue;
    out.gauge("failover_standby_healthy", "1 when the standby follows the primary",
              {{"instance", snapshot.instance}, {"standby", name.str()}},
              flag(standby_is_healthy(snapshot, member)));
  }
  for (const auto& [name, lag] : snapshot.tally.lag) {
    out.gauge("database_replication_lag_seconds",
              "Age of the newest replayed position, as precise as members publish theirs",
              {{"endpoint", name.str()}, {"instance", snapshot.instance}}, seconds(lag));
  }
}

void add_cluster(Families& out, const Snapshot& snapshot, MonoTime now) {
  const Labels scope = {{"cluster", snapshot.cluster}};
  const auto& view = snapshot.view;
  out.gauge("bascule_build_info", "Always 1", {{"version", snapshot.version}}, 1);
  if (view.leader) {
    const auto& leader = view.leader->value;
    out.gauge("bascule_epoch", "Fencing token: plus one at each change of leader", scope,
              number(leader.epoch.value));
    out.gauge("bascule_timeline", "Timeline that the leader writes", scope, leader.timeline.value);
    out.counter("bascule_leader_renewals_total", "Renewals of the leader record", scope,
                number(leader.counter));
  }
  out.gauge("bascule_paused", "1 when the cluster is paused", scope, flag(view.paused));
  out.gauge("bascule_store_revision", "Revision of the last snapshot of the store", scope,
            number(view.revision));
  if (snapshot.store_seen_at) {
    out.gauge("bascule_store_age_seconds", "Time since the store last answered", scope,
              seconds(now - *snapshot.store_seen_at));
  }
  out.gauge("bascule_store_problems", "Records in the store that could not be read", scope,
            number(view.problems.size()));
  if (view.sync && !view.sync->value.generations.empty()) {
    out.gauge("bascule_sync_voters", "Standbys in the newest generation of the synchronous set",
              scope, number(view.sync->value.generations.back().voters.size()));
  }
  for (const auto& [name, member] : view.members) {
    const Labels labels = {{"cluster", snapshot.cluster}, {"member", name.str()}};
    out.gauge("bascule_member_info", "Always 1; what the member last published",
              {{"cluster", snapshot.cluster},
               {"member", name.str()},
               {"region", member.region},
               {"role", member.role},
               {"state", member.state}},
              1);
    if (const auto lag = lag_bytes(view, member)) {
      out.gauge("bascule_member_lag_bytes", "WAL of the primary that the member has not received",
                labels, number(*lag));
    }
    out.gauge("bascule_member_timeline", "Timeline that the member is on", labels,
              member.timeline.value);
  }
}

void add_local(Families& out, const Snapshot& snapshot, MonoTime now) {
  if (!snapshot.local) return;
  const auto& local = *snapshot.local;
  const Labels labels = {{"cluster", snapshot.cluster}, {"member", local.name.str()}};
  const bool primary = is_primary(snapshot, now);
  out.gauge("bascule_is_leader", "1 when this member is the writable primary", labels,
            flag(primary));
  out.gauge("bascule_postgres_up", "1 when PostgreSQL accepts connections", labels,
            flag(postgres_is_up(snapshot, now)));
  out.gauge("bascule_is_synchronous", "1 when the primary waits for this member", labels,
            flag(is_sync_replica(snapshot, now)));
  if (local.leading_epoch.value != 0) {
    out.gauge("bascule_leader_deadline_seconds", "Time left until this leader must be fenced",
              labels, seconds(local.deadline - now));
  }
  out.gauge("bascule_wal_flush_bytes", "End of WAL on disk here, as a position", labels,
            number(local.postgres.flush_lsn.value));
  if (local.postgres.replay_lsn.valid()) {
    out.gauge("bascule_wal_replay_bytes", "End of replayed WAL, as a position", labels,
              number(local.postgres.replay_lsn.value));
  }
  for (const auto& sender : local.postgres.senders) {
    const Labels standby = {{"member", local.name.str()}, {"standby", sender.application_name}};
    out.gauge("bascule_walsender_flush_bytes", "End of WAL that the standby has flushed", standby,
              number(sender.flush_lsn.value));
    out.gauge("bascule_walsender_streaming", "1 when the standby streams", standby,
              flag(sender.streaming));
  }
}

void add_loops(Families& out, const Snapshot& snapshot) {
  for (const auto& [name, stats] : snapshot.loops) {
    const Labels loop = {{"loop", name}};
    out.counter("bascule_loop_turns_total", "Turns of the event loop", loop, number(stats.turns));
    out.counter("bascule_loop_events_total", "Descriptors reported ready", loop,
                number(stats.events));
    out.counter("bascule_loop_posted_total", "Functions posted to the loop", loop,
                number(stats.posted));
    out.counter("bascule_loop_timers_total", "Timers fired", loop, number(stats.timers_fired));
    out.counter("bascule_loop_busy_seconds_total", "Time outside the wait for events", loop,
                seconds(stats.busy));
    out.gauge("bascule_loop_longest_turn_seconds", "Longest turn since the start", loop,
              seconds(stats.longest_turn));
  }
}

}  // namespace

std::string metrics_text(const Snapshot& snapshot, MonoTime now) {
  Families families;
  add_failover(families, snapshot, now);
  add_cluster(families, snapshot, now);
  add_local(families, snapshot, now);
  add_loops(families, snapshot);
  for (const auto& point : snapshot.metrics) {
    families.add(point.kind, point.name, point.help, point.labels, point.value);
  }
  return families.text();
}

}  // namespace bascule::api
