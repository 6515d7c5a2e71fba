#include "api/tally.h"

#include <algorithm>
#include <utility>

#include "api/health.h"
#include "api/monitor_documents.h"

namespace bascule::api {

const TallyCounts& Tally::observe(Snapshot& snapshot, MonoTime now) {
  observe_monitor(snapshot, now);
  snapshot.tally.monitor_seen_at = counts_.monitor_seen_at;  // what follows judges by it
  observe_members(snapshot);
  observe_local(snapshot);
  observe_lag(snapshot, now);
  if (cluster_health(snapshot, now).primary_healthy) {
    counts_.primary_failures = 0;
    counts_.primary_down_since.reset();
  } else {
    ++counts_.primary_failures;
    if (!counts_.primary_down_since) counts_.primary_down_since = now;
  }
  alerts_.observe(snapshot, counts_.lag, now);
  counts_.alerts = alerts_.list();
  take_samples(snapshot, now);
  snapshot.tally = counts_;
  return snapshot.tally;
}

void Tally::take_samples(const Snapshot& snapshot, MonoTime now) {
  if (sampled_at_ && now - *sampled_at_ < kSampleEvery) return;
  sampled_at_ = now;
  std::erase_if(counts_.samples,
                [&](const auto& entry) { return !snapshot.view.members.contains(entry.first); });
  const auto* leader = leader_of(snapshot.view);
  for (const auto& [name, member] : snapshot.view.members) {
    EndpointSample sample;
    sample.at = snapshot.wall;
    const bool leads = leader && leader->holder == name;
    sample.healthy = leads ? cluster_health(snapshot, now).primary_healthy
                           : standby_is_healthy(snapshot, member);
    if (const auto lag = lag_bytes(snapshot.view, member)) {
      sample.lag_bytes = static_cast<int64_t>(*lag);
    }
    if (const auto lag = counts_.lag.find(name); lag != counts_.lag.end()) {
      sample.lag_ms = to_ms(lag->second);
    }
    if (const auto* check = check_of(snapshot, name)) {
      sample.response_ms = check->response_ms;
      sample.healthy = check->healthy && !monitors_are_silent(snapshot, now);
      if (check->lag_ms >= 0) sample.lag_ms = check->lag_ms;
    }
    auto& kept = counts_.samples[name];
    if (kept.size() >= kSamplesKept) kept.erase(kept.begin());
    kept.push_back(sample);
  }
}

void Tally::observe_members(const Snapshot& snapshot) {
  const auto* leader = leader_of(snapshot.view);
  for (const auto& [name, member] : snapshot.view.members) {
    const bool leads = leader && leader->holder == name;
    const bool follows = leads || standby_is_healthy(snapshot, member);
    const auto [before, first] = followed_.try_emplace(name, follows);
    if (!first && follows && !before->second && !leads) ++counts_.recoveries;
    before->second = follows;
    auto& failures = counts_.standby_failures[name];
    failures = follows ? 0 : failures + 1;
  }
}

void Tally::observe_local(const Snapshot& snapshot) {
  if (!snapshot.local) return;
  const auto& postgres = snapshot.local->postgres;
  if (postgres.sampled_at == last_sample_) return;
  last_sample_ = postgres.sampled_at;
  if (postgres.run == control::PgRun::kUnresponsive) ++counts_.health_check_failures;
}

void Tally::observe_monitor(const Snapshot& snapshot, MonoTime now) {
  if (!snapshot.view.monitor) return;
  const control::Revision lease = snapshot.view.monitor->lease_revision;
  if (std::exchange(lease_, lease) == lease) return;
  counts_.monitor_seen_at = now;
}

void Tally::observe_lag(const Snapshot& snapshot, MonoTime now) {
  counts_.lag.clear();
  const auto* leader = leader_of(snapshot.view);
  const auto* primary = leader ? snapshot.view.member(leader->holder) : nullptr;
  if (!primary || !primary->flush_lsn.valid()) return;
  if (primary->timeline != primary_timeline_) primary_.clear();
  primary_timeline_ = primary->timeline;
  if (primary_.empty() || primary->flush_lsn > primary_.back().second) {
    primary_.emplace_back(now, primary->flush_lsn);
    if (primary_.size() > kPositionsMax) primary_.pop_front();
  }
  for (const auto& [name, member] : snapshot.view.members) {
    if (name == leader->holder || member.timeline != primary_timeline_) continue;
    if (!member.replay_lsn.valid()) continue;
    const auto beyond = std::ranges::find_if(
        primary_, [&](const auto& seen) { return seen.second > member.replay_lsn; });
    counts_.lag[name] = beyond == primary_.end() ? Nanos(0) : now - beyond->first;
  }
}

}  // namespace bascule::api
