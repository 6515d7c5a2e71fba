#include "api/health.h"

#include "api/monitor_documents.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <tuple>

namespace bascule::api {
namespace {

using control::ClusterView;
using control::LeaderPhase;
using control::LeaderRecord;
using control::MemberRecord;
using control::PgRun;
using control::Phase;

// How long "failover_complete" is said while members are still missing.
constexpr Millis kCompleteFor{60000};

bool is_rejoining(const MemberRecord& member) {
  return member.state == "rewinding" || member.state == "cloning" || member.state == "starting";
}

// The members that should be there: the roster, or all that have reported when there is none.
std::vector<NodeName> expected_members(const ClusterView& view) {
  if (view.roster && !view.roster->value.members.empty()) return view.roster->value.members;
  std::vector<NodeName> names;
  for (const auto& [name, member] : view.members) names.push_back(name);
  return names;
}

ClusterHealth running_health(const Snapshot& snapshot, const LeaderRecord& leader) {
  const auto& view = snapshot.view;
  ClusterHealth health{FailoverState::kHealthy, "", true};
  const bool following = leader.phase == LeaderPhase::kFollowing;
  const std::string leads =
      leader.holder.str() + (following ? " is standby leader" : " is primary");
  std::string missing;
  bool rejoining = false;
  for (const auto& name : expected_members(view)) {
    if (name == leader.holder) continue;
    const auto* member = view.member(name);
    if (member && standby_is_healthy(snapshot, *member)) continue;
    rejoining = rejoining || (member && is_rejoining(*member));
    const std::string state = member ? member->state : "no report";
    missing += fmt::format("{}{} ({})", missing.empty() ? "" : ", ", name.str(), state);
  }
  if (missing.empty()) {
    health.reason = leads + ", every standby follows";
    return health;
  }
  health.reason = fmt::format("{}; not following: {}", leads, missing);
  health.state = FailoverState::kDegraded;
  if (rejoining) {
    health.state = FailoverState::kRecoveryInProgress;
  } else if (!view.history.empty()) {
    const auto& last = view.history.rbegin()->second;
    const bool recent = snapshot.wall - last.at < kCompleteFor;
    if (last.parent_epoch.value != 0 && recent) health.state = FailoverState::kFailoverComplete;
  }
  return health;
}

}  // namespace

std::string_view to_string(FailoverState state) {
  switch (state) {
    case FailoverState::kUnknown:
      return "unknown";
    case FailoverState::kHealthy:
      return "healthy";
    case FailoverState::kDegraded:
      return "degraded";
    case FailoverState::kFailoverInProgress:
      return "failover_in_progress";
    case FailoverState::kFailoverComplete:
      return "failover_complete";
    case FailoverState::kRecoveryInProgress:
      return "recovery_in_progress";
  }
  return "unknown";
}

const LeaderRecord* leader_of(const ClusterView& view) {
  return view.leader && !view.leader->value.vacant() ? &view.leader->value : nullptr;
}

Millis freshness(const Snapshot& snapshot) {
  return snapshot.view.config ? snapshot.view.config->value.ttl : control::ClusterConfig{}.ttl;
}

bool store_is_fresh(const Snapshot& snapshot, MonoTime now) {
  return snapshot.store_seen_at && now - *snapshot.store_seen_at <= freshness(snapshot);
}

bool agent_is_alive(const Snapshot& snapshot, MonoTime now) {
  const auto& local = snapshot.local;
  return now - (local ? local->taken_at : snapshot.taken_at) <= freshness(snapshot);
}

bool is_primary(const Snapshot& snapshot, MonoTime now) {
  const auto* leader = leader_of(snapshot.view);
  if (!snapshot.local || !leader) return false;
  const auto& local = *snapshot.local;
  const bool open =
      leader->phase == LeaderPhase::kRunning || leader->phase == LeaderPhase::kDraining;
  const bool leading = local.phase == Phase::kLeading || local.phase == Phase::kDraining;
  return open && leading && leader->holder == local.name && leader->epoch == local.leading_epoch &&
         now < local.deadline && local.postgres.run == PgRun::kPrimary;
}

bool is_standby_leader(const Snapshot& snapshot, MonoTime now) {
  const auto* leader = leader_of(snapshot.view);
  if (!snapshot.local || !leader) return false;
  const auto& local = *snapshot.local;
  return leader->phase == LeaderPhase::kFollowing && local.phase == Phase::kStandbyLeading &&
         leader->holder == local.name && leader->epoch == local.leading_epoch &&
         now < local.deadline && local.postgres.run == PgRun::kStandby;
}

bool is_replica(const Snapshot& snapshot, MonoTime now) {
  return snapshot.local && agent_is_alive(snapshot, now) &&
         snapshot.local->phase == Phase::kFollowing &&
         snapshot.local->postgres.run == PgRun::kStandby;
}

bool quorum_mode(const ClusterView& view) {
  return view.config && view.config->value.sync_mode == control::SyncMode::kQuorum;
}

bool is_sync_voter(const ClusterView& view, const MemberRecord& member) {
  if (!view.sync || view.sync->value.generations.empty() || member.sync_name.empty()) return false;
  const auto& generation = view.sync->value.generations.back();
  const auto* leader = leader_of(view);
  return leader && generation.epoch == leader->epoch &&
         std::ranges::count(generation.voters, member.sync_name) > 0;
}

bool is_sync_replica(const Snapshot& snapshot, MonoTime now) {
  if (!is_replica(snapshot, now) || !snapshot.local->postgres.receiver_streaming) return false;
  const auto* member = snapshot.view.member(snapshot.local->name);
  return member && is_sync_voter(snapshot.view, *member);
}

bool postgres_is_up(const Snapshot& snapshot, MonoTime now) {
  if (!snapshot.local || !agent_is_alive(snapshot, now)) return false;
  const auto run = snapshot.local->postgres.run;
  return run == PgRun::kPrimary || run == PgRun::kStandby;
}

std::optional<uint64_t> local_lag_bytes(const Snapshot& snapshot) {
  if (!snapshot.local) return std::nullopt;
  const auto& postgres = snapshot.local->postgres;
  if (!postgres.replay_lsn.valid()) return std::nullopt;
  Lsn newest = postgres.upstream_lsn;
  const auto* leader = leader_of(snapshot.view);
  const auto* primary = leader ? snapshot.view.member(leader->holder) : nullptr;
  if (primary && primary->timeline == postgres.timeline) {
    newest = std::max(newest, primary->flush_lsn);
  }
  if (!newest.valid()) return std::nullopt;
  return newest > postgres.replay_lsn ? newest.value - postgres.replay_lsn.value : 0;
}

std::optional<uint64_t> lag_bytes(const ClusterView& view, const MemberRecord& member) {
  const auto* leader = leader_of(view);
  const auto* primary = leader ? view.member(leader->holder) : nullptr;
  if (!primary || !primary->flush_lsn.valid() || !member.flush_lsn.valid()) return std::nullopt;
  // Positions of two timelines can't be subtracted.
  if (primary->timeline != member.timeline) return std::nullopt;
  // Members publish at different moments: a replica may look ahead of its primary.
  return primary->flush_lsn > member.flush_lsn ? primary->flush_lsn.value - member.flush_lsn.value
                                               : 0;
}

Result<uint64_t> parse_bytes(std::string_view text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string unit;
  for (const char* c = end; c != text.data() + text.size(); ++c) {
    unit.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(*c))));
  }
  static constexpr std::string_view kUnits[] = {"", "kb", "mb", "gb", "tb"};
  const auto found = std::ranges::find(kUnits, unit == "b" ? "" : unit);
  const int shift = 10 * static_cast<int>(found - std::begin(kUnits));
  if (error != std::errc() || found == std::end(kUnits) || number > (UINT64_MAX >> shift)) {
    return fail(ErrorCode::kInvalid, "lag: not a size", "Give bytes, or a number with kB, MB, GB");
  }
  return number << shift;
}

bool standby_is_healthy(const Snapshot& snapshot, const MemberRecord& member) {
  const auto& local = snapshot.local;
  if (local && local->leading_epoch.value != 0 && local->name != member.name) {
    return std::ranges::any_of(local->postgres.senders, [&](const control::WalSender& sender) {
      return sender.application_name == member.sync_name && sender.streaming;
    });
  }
  return member.state == "streaming";
}

bool rather_leads(const MemberRecord& a, const MemberRecord& b) {
  return std::tie(a.priority, a.flush_lsn) > std::tie(b.priority, b.flush_lsn);
}

ClusterHealth cluster_health(const Snapshot& snapshot, MonoTime now) {
  const auto& view = snapshot.view;
  if (!store_is_fresh(snapshot, now)) {
    if (is_primary(snapshot, now)) {
      return {FailoverState::kDegraded,
              fmt::format("{} leads on; the store has not answered for longer than the ttl",
                          snapshot.local->name.str()),
              true};
    }
    return {FailoverState::kUnknown, "the store has not answered for longer than the ttl", false};
  }
  if (view.leader_unreadable)
    return {FailoverState::kUnknown, "the leader record is unreadable", false};
  if (!view.leader) return {FailoverState::kUnknown, "the cluster is not bootstrapped yet", false};
  if (auto monitored = monitored_health(snapshot, now)) return *std::move(monitored);
  const auto& leader = view.leader->value;
  switch (leader.phase) {
    case LeaderPhase::kVacant:
      return {FailoverState::kFailoverInProgress, "no leader: " + leader.why, false};
    case LeaderPhase::kPreparing:
      return {FailoverState::kFailoverInProgress,
              fmt::format("{} prepares: {}", leader.holder.str(), leader.why), false};
    case LeaderPhase::kDraining:
    case LeaderPhase::kStopping:
      return {FailoverState::kFailoverInProgress,
              fmt::format("{} is {}: {}", leader.holder.str(), control::to_string(leader.phase),
                          leader.why),
              leader.phase == LeaderPhase::kDraining};
    case LeaderPhase::kRunning:
    case LeaderPhase::kFollowing:
      break;
  }
  return running_health(snapshot, leader);
}

}  // namespace bascule::api
