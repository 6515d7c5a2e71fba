#include "api/alerts.h"

#include <fmt/format.h>

#include <algorithm>

#include "api/health.h"
#include "api/snapshot.h"

namespace bascule::api {
namespace {

// The specification's thresholds.
constexpr Nanos kPrimaryDown = 10s;
constexpr Nanos kReplicaDown = 300s;
constexpr Nanos kLagMedium = 30s, kLagCritical = 300s;
constexpr Nanos kLagHolds = 10s;
constexpr Nanos kAloneHolds = 30s;
constexpr Nanos kDiskHolds = 2s;
constexpr Nanos kStoreSilent = 10s;
constexpr Nanos kResolveAfter = 5s;  // a condition that comes and goes is one alert

bool alone(const control::ClusterView& view) {
  if (!view.config || view.config->value.sync_mode == control::SyncMode::kOff) return false;
  if (!view.sync || view.sync->value.generations.empty()) return false;
  return view.sync->value.generations.back().voters.empty();
}

}  // namespace

std::vector<AlertBook::Condition> AlertBook::conditions(const Snapshot& snapshot,
                                                        const std::map<NodeName, Nanos>& lag,
                                                        MonoTime now) const {
  std::vector<Condition> out;
  if (!snapshot.store_seen_at || now - *snapshot.store_seen_at > kStoreSilent) {
    // One that has never been read may only be read a moment after the start.
    out.push_back({"store_unreachable", "critical", "", "the store does not answer",
                   snapshot.store_seen_at ? 0s : kStoreSilent});
    return out;  // the rest is old
  }
  const auto health = cluster_health(snapshot, now);
  const auto* leader = leader_of(snapshot.view);
  if (!health.primary_healthy) {
    out.push_back({"endpoint_down", "critical", leader ? leader->holder.str() : "",
                   "no writable primary: " + health.reason, kPrimaryDown});
  }
  for (const auto& [name, member] : snapshot.view.members) {
    const bool leads = leader && leader->holder == name;
    if (member.disk_full != control::DiskFull::kNo) {
      out.push_back({"disk_full", leads ? "critical" : "high", name.str(),
                     fmt::format("no room for {}", control::to_string(member.disk_full)),
                     kDiskHolds});
    }
    if (leads) continue;
    if (!standby_is_healthy(snapshot, member)) {
      out.push_back(
          {"endpoint_down", "high", name.str(),
           fmt::format("{}{}{}", member.state, member.reason.empty() ? "" : ": ", member.reason),
           kReplicaDown});
    }
    const auto behind = lag.find(name);
    if (behind == lag.end() || behind->second < kLagMedium) continue;
    out.push_back({"replication_lag", behind->second < kLagCritical ? "medium" : "critical",
                   name.str(), fmt::format("{} s behind", to_ms(behind->second) / 1000),
                   kLagHolds});
  }
  if (alone(snapshot.view)) {
    out.push_back({"sync_alone", "high", "",
                   "no synchronous standby: only the primary has the newest commits", kAloneHolds});
  }
  return out;
}

void AlertBook::resolve(Alert alert, WallTime at) {
  alert.resolved_at = at;
  resolved_.push_back(std::move(alert));
  if (resolved_.size() > kResolvedKept) resolved_.pop_front();
}

// What happened and is over: an alert that is resolved as it is raised.
void AlertBook::note_failovers(const Snapshot& snapshot) {
  const auto& view = snapshot.view;
  if (!view.leader) return;
  const Epoch epoch = view.leader->value.epoch;
  const auto before = std::exchange(epoch_, epoch);
  if (!before || *before >= epoch) return;
  for (auto it = view.history.upper_bound(*before); it != view.history.end(); ++it) {
    const auto& record = it->second;
    const bool planned = record.trigger == "switchover";
    Alert alert;
    alert.type = "failover_completed";
    alert.severity = planned ? "low" : "high";
    alert.endpoint = record.leader.str();
    alert.message = fmt::format("{} leads in epoch {} ({}): {}", record.leader.str(),
                                record.epoch.value, record.trigger, record.reason);
    alert.since = record.at;
    alert.id = fmt::format("failover-{}", record.epoch.value);
    resolve(std::move(alert), record.at);
  }
}

void AlertBook::observe(const Snapshot& snapshot, const std::map<NodeName, Nanos>& lag,
                        MonoTime now) {
  note_failovers(snapshot);
  for (Condition& c : conditions(snapshot, lag, now)) {
    const auto [at, fresh] = open_.try_emplace(c.type + "-" + c.endpoint);
    Open& open = at->second;
    if (fresh) {
      open.begun = now;
      open.alert.since = snapshot.wall;
      open.alert.id = fmt::format("{}-{}-{}", c.type, c.endpoint.empty() ? "cluster" : c.endpoint,
                                  snapshot.wall.time_since_epoch().count());
    }
    open.seen = now;
    open.raised = open.raised || now - open.begun >= c.after;
    open.alert.type = std::move(c.type);
    open.alert.severity = std::move(c.severity);
    open.alert.endpoint = std::move(c.endpoint);
    open.alert.message = std::move(c.message);
  }
  for (auto it = open_.begin(); it != open_.end();) {
    if (now - it->second.seen < kResolveAfter) {
      ++it;
      continue;
    }
    if (it->second.raised) resolve(std::move(it->second.alert), snapshot.wall);
    it = open_.erase(it);
  }
}

std::vector<Alert> AlertBook::list() const {
  std::vector<Alert> out;
  for (const auto& [key, open] : open_) {
    if (open.raised) out.push_back(open.alert);
  }
  std::ranges::stable_sort(out, std::greater{}, &Alert::since);
  out.insert(out.end(), resolved_.rbegin(), resolved_.rend());
  return out;
}

}  // namespace bascule::api
