#include "api/monitor_documents.h"

#include <algorithm>
#include <map>

namespace bascule::api {
namespace {

using control::EndpointHealth;
using control::MemberRecord;
using control::MonitorHealth;

constexpr size_t kExported = 1000;

const MonitorHealth* monitor_of(const Snapshot& snapshot) {
  const auto& monitor = snapshot.view.monitor;
  return monitor && monitor->health ? &*monitor->health : nullptr;
}

Json number_or_null(int64_t value) { return value < 0 ? Json(nullptr) : Json(value); }
Json time_or_null(WallTime time) {
  return time == WallTime{} ? Json(nullptr) : Json(to_iso8601(time));
}

std::string_view role_of(const Snapshot& snapshot, const MemberRecord& member) {
  const auto* leader = leader_of(snapshot.view);
  return leader && leader->holder == member.name ? "primary" : "replica";
}

bool is_healthy(const Snapshot& snapshot, const MemberRecord& member, MonoTime now) {
  if (const auto* check = check_of(snapshot, member.name)) {
    return check->healthy && !monitors_are_silent(snapshot, now);
  }
  if (role_of(snapshot, member) == "primary") return cluster_health(snapshot, now).primary_healthy;
  return standby_is_healthy(snapshot, member);
}

Json endpoint_json(const Snapshot& snapshot, const MemberRecord& member, MonoTime now) {
  Json out = {{"name", member.name.str()},   {"region", member.region},
              {"priority", member.priority}, {"host", member.host},
              {"port", member.port},         {"role", role_of(snapshot, member)},
              {"state", member.state},       {"healthy", is_healthy(snapshot, member, now)},
              {"reason", member.reason}};
  const auto lag = lag_bytes(snapshot.view, member);
  out["lagBytes"] = lag ? Json(*lag) : Json(nullptr);
  const auto* check = check_of(snapshot, member.name);
  if (check == nullptr) return out;
  out["lagBytes"] = number_or_null(check->lag_bytes);
  out["lagMs"] = number_or_null(check->lag_ms);
  out["responseTime"] = number_or_null(check->response_ms);
  out["failureCount"] = check->failures;
  out["failuresTotal"] = check->failures_total;
  out["lastHealthCheck"] = time_or_null(check->last_check);
  out["downSince"] = time_or_null(check->down_since);
  out["promotionEligible"] = check->eligible;
  out["fenced"] = check->fenced;
  if (!check->why.empty()) out["reason"] = check->why;
  return out;
}

Json endpoints_json(const Snapshot& snapshot, MonoTime now) {
  Json out = Json::array();
  for (const auto& [name, member] : snapshot.view.members) {
    out.push_back(endpoint_json(snapshot, member, now));
  }
  return out;
}

std::string_view overall(const ClusterHealth& health) {
  if (health.state == FailoverState::kHealthy) return "healthy";
  return health.primary_healthy ? "degraded" : "unhealthy";
}

std::string primary_region(const Snapshot& snapshot) {
  const auto* leader = leader_of(snapshot.view);
  const auto* member = leader ? snapshot.view.member(leader->holder) : nullptr;
  return member ? member->region : "";
}

Json alert_json(const Alert& alert) {
  return {{"id", alert.id},
          {"type", alert.type},
          {"severity", alert.severity},
          {"endpoint", alert.endpoint.empty() ? Json(nullptr) : Json(alert.endpoint)},
          {"message", alert.message},
          {"since", to_iso8601(alert.since)},
          {"resolvedAt", alert.resolved_at ? Json(to_iso8601(*alert.resolved_at)) : Json(nullptr)}};
}

Json count_of(const Snapshot& snapshot, const char* name) {
  for (const MetricPoint& point : snapshot.metrics) {
    if (point.name == name) return point.value;
  }
  return nullptr;
}

}  // namespace

const EndpointHealth* check_of(const Snapshot& snapshot, const NodeName& name) {
  const auto* monitor = monitor_of(snapshot);
  if (monitor == nullptr) return nullptr;
  const auto found = std::ranges::find(monitor->endpoints, name, &EndpointHealth::name);
  return found == monitor->endpoints.end() ? nullptr : &*found;
}

bool monitors_are_silent(const Snapshot& snapshot, MonoTime now) {
  if (monitor_of(snapshot) == nullptr) return false;
  const auto& lease = snapshot.view.monitor->lease;
  const Millis ttl = lease ? lease->value.ttl : Millis{5000};
  return snapshot.tally.monitor_seen_at && now - *snapshot.tally.monitor_seen_at > 3 * ttl;
}

std::optional<ClusterHealth> monitored_health(const Snapshot& snapshot, MonoTime now) {
  const auto* monitor = monitor_of(snapshot);
  if (monitor == nullptr) return std::nullopt;
  if (monitors_are_silent(snapshot, now)) {
    return ClusterHealth{FailoverState::kUnknown, "no monitor has been heard of for a while",
                         false};
  }
  const auto* leader = leader_of(snapshot.view);
  const auto* primary = leader ? check_of(snapshot, leader->holder) : nullptr;
  return ClusterHealth{static_cast<FailoverState>(monitor->state), monitor->reason,
                       primary && primary->healthy};
}

void add_health_checks(const Snapshot& snapshot, Json& status, MonoTime now) {
  if (monitor_of(snapshot) == nullptr) return;
  const bool silent = monitors_are_silent(snapshot, now);
  const auto add = [&](const EndpointHealth& check, Json& to) {
    to["lastHealthCheck"] = time_or_null(check.last_check);
    to["failureCount"] = check.failures;
    to["responseTime"] = number_or_null(check.response_ms);
  };
  const auto* leader = leader_of(snapshot.view);
  if (const auto* check = leader ? check_of(snapshot, leader->holder) : nullptr) {
    add(*check, status["primary"]);
    if (!silent) status["primary"]["downSince"] = time_or_null(check->down_since);
  }
  for (Json& standby : status["standbys"]) {
    const auto name = NodeName::parse(standby["name"].get<std::string>());
    const auto* check = name ? check_of(snapshot, *name) : nullptr;
    if (check == nullptr) continue;
    add(*check, standby);
    standby["healthy"] = check->healthy && !silent;
    standby["promotionEligible"] = check->eligible;
    standby["lagBytes"] = number_or_null(check->lag_bytes);
    standby["lagMs"] = number_or_null(check->lag_ms);
    standby["reason"] = check->why;
  }
  status["monitor"] = snapshot.view.monitor->lease
                          ? Json(snapshot.view.monitor->lease->value.holder)
                          : Json(nullptr);
}

Json failover_metrics_json(const Snapshot& snapshot, MonoTime now) {
  const auto* monitor = monitor_of(snapshot);
  size_t failovers = 0;
  int64_t total_ms = 0, longest_ms = 0, measured = 0;
  for (const auto& [epoch, record] : snapshot.view.history) {
    if (record.parent_epoch.value == 0) continue;
    ++failovers;
    const int64_t took_ms = duration_ms(record);
    if (took_ms < 0) continue;
    ++measured;
    total_ms += took_ms;
    longest_ms = std::max(longest_ms, took_ms);
  }
  const Json unknown = nullptr;
  return {{"state", to_string(cluster_health(snapshot, now).state)},
          {"failovers", failovers},
          {"recoveries", monitor ? monitor->recoveries : snapshot.tally.recoveries},
          {"healthCheckFailures",
           monitor ? monitor->check_failures : snapshot.tally.health_check_failures},
          {"meanDurationMs", measured > 0 ? Json(total_ms / measured) : unknown},
          {"longestDurationMs", measured > 0 ? Json(longest_ms) : unknown}};
}

Json failover_health_json(const Snapshot& snapshot, MonoTime now) {
  const auto health = cluster_health(snapshot, now);
  return {{"state", to_string(health.state)},
          {"reason", health.reason},
          {"endpoints", endpoints_json(snapshot, now)}};
}

Json database_status_json(const Snapshot& snapshot, MonoTime now) {
  std::map<std::string, Json> regions;
  std::map<std::string, int> priorities;
  for (const auto& [name, member] : snapshot.view.members) {
    auto [at, fresh] = regions.try_emplace(member.region, Json::array());
    at->second.push_back(endpoint_json(snapshot, member, now));
    int& priority = priorities[member.region];
    priority = fresh ? member.priority : std::max(priority, member.priority);
  }
  Json list = Json::array();
  for (auto& [region, endpoints] : regions) {
    list.push_back(
        {{"region", region}, {"priority", priorities[region]}, {"endpoints", endpoints}});
  }
  return {{"primaryRegion", primary_region(snapshot)},
          {"regions", list},
          {"pools", database_connections_json(snapshot)}};
}

Json database_health_json(const Snapshot& snapshot, MonoTime now) {
  const auto health = cluster_health(snapshot, now);
  Json alerts = Json::array();
  for (const Alert& alert : snapshot.tally.alerts) {
    if (!alert.resolved_at) alerts.push_back(alert_json(alert));
  }
  return {{"systemHealth",
           {{"overall", overall(health)},
            {"primaryHealthy", health.primary_healthy},
            {"activeAlerts", alerts.size()}}},
          {"endpoints", endpoints_json(snapshot, now)},
          {"alerts", alerts}};
}

Json database_connections_json(const Snapshot& snapshot) {
  const Json size = count_of(snapshot, "bascule_proxy_servers");
  const Json idle = count_of(snapshot, "bascule_proxy_servers_idle");
  const bool known = size.is_number() && idle.is_number();
  return {{"size", size},
          {"active", known ? Json(size.get<double>() - idle.get<double>()) : Json(nullptr)},
          {"idle", idle},
          {"waiting", count_of(snapshot, "bascule_proxy_held_clients")},
          {"clients", count_of(snapshot, "bascule_proxy_clients")}};
}

Json database_dashboard_json(const Snapshot& snapshot, MonoTime now) {
  const Json health = database_health_json(snapshot, now);
  size_t replicas = 0, good = 0;
  int64_t total_ms = 0, answered = 0;
  for (const auto& [name, member] : snapshot.view.members) {
    const auto* check = check_of(snapshot, name);
    if (check != nullptr && check->response_ms >= 0) total_ms += check->response_ms, ++answered;
    if (role_of(snapshot, member) == "primary") continue;
    ++replicas;
    good += is_healthy(snapshot, member, now);
  }
  const Json last = failover_history_json(snapshot, 1);
  const Json unknown = nullptr;
  return {{"systemHealth", health["systemHealth"]},
          {"primaryRegion", primary_region(snapshot)},
          {"activeAlerts", health["alerts"].size()},
          {"avgResponseTime", answered > 0 ? Json(total_ms / answered) : unknown},
          {"replicaHealth", {{"healthy", good}, {"total", replicas}}},
          {"lastFailover", last.empty() ? unknown : last[0]}};
}

Json database_export_json(const Snapshot& snapshot, MonoTime now) {
  return {{"cluster", snapshot.cluster},
          {"exportedAt", to_iso8601(snapshot.wall)},
          {"status", database_status_json(snapshot, now)},
          {"health", database_health_json(snapshot, now)},
          {"dashboard", database_dashboard_json(snapshot, now)},
          {"failoverMetrics", failover_metrics_json(snapshot, now)},
          {"failoverHistory", failover_history_json(snapshot, kExported)}};
}

Json database_alerts_json(const Snapshot& snapshot, size_t limit) {
  Json active = Json::array(), recent = Json::array();
  for (const Alert& alert : snapshot.tally.alerts) {
    Json& to = alert.resolved_at ? recent : active;
    if (active.size() + recent.size() >= limit) break;
    to.push_back(alert_json(alert));
  }
  return {{"active", std::move(active)}, {"recent", std::move(recent)}};
}

Json database_metrics_json(const Snapshot& snapshot, std::string_view endpoint, size_t limit) {
  Json out = Json::array();
  for (const auto& [name, samples] : snapshot.tally.samples) {
    if (!endpoint.empty() && name.str() != endpoint) continue;
    Json list = Json::array();
    for (size_t i = samples.size() > limit ? samples.size() - limit : 0; i < samples.size(); ++i) {
      const EndpointSample& s = samples[i];
      list.push_back({{"at", to_iso8601(s.at)},
                      {"healthy", s.healthy},
                      {"responseTime", number_or_null(s.response_ms)},
                      {"lagBytes", number_or_null(s.lag_bytes)},
                      {"lagMs", number_or_null(s.lag_ms)}});
    }
    out.push_back({{"endpoint", name.str()}, {"samples", std::move(list)}});
  }
  return {{"everySeconds", 10}, {"endpoints", std::move(out)}};
}

Json database_performance_json(const Snapshot& snapshot) {
  Json out = Json::array();
  for (const auto& [name, samples] : snapshot.tally.samples) {
    std::vector<int64_t> times;
    size_t bad = 0;
    int64_t total = 0;
    for (const EndpointSample& s : samples) {
      if (!s.healthy) ++bad;
      if (s.response_ms < 0) continue;
      times.push_back(s.response_ms);
      total += s.response_ms;
    }
    std::ranges::sort(times);
    const auto quantile = [&](size_t percent) -> Json {
      if (times.empty()) return nullptr;
      return times[std::min(times.size() - 1, times.size() * percent / 100)];
    };
    const auto count = static_cast<int64_t>(times.size());
    out.push_back({{"endpoint", name.str()},
                   {"checks", samples.size()},
                   {"failedChecks", bad},
                   {"responseTime",
                    {{"mean", times.empty() ? Json(nullptr) : Json(total / count)},
                     {"p50", quantile(50)},
                     {"p95", quantile(95)},
                     {"p99", quantile(99)}}}});
  }
  return {{"endpoints", std::move(out)}};
}

NodeName candidate_in_region(const Snapshot& snapshot, std::string_view region) {
  const MemberRecord* best = nullptr;
  const auto* leader = leader_of(snapshot.view);
  for (const auto& [name, member] : snapshot.view.members) {
    if (member.region != region || member.nofailover || (leader && leader->holder == name))
      continue;
    const auto* check = check_of(snapshot, name);
    const bool may = check ? check->eligible : standby_is_healthy(snapshot, member);
    if (may && (best == nullptr || rather_leads(member, *best))) best = &member;
  }
  return best ? best->name : NodeName();
}

bool has_region(const Snapshot& snapshot, std::string_view region) {
  return std::ranges::any_of(snapshot.view.members,
                             [&](const auto& entry) { return entry.second.region == region; });
}

}  // namespace bascule::api
