#include "cli/route_tracker.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "cli/status.h"
#include "monitor/proxy_permit.h"

namespace bascule::cli {
namespace {

using control::ClusterView;
using control::LeaderPhase;
using control::LeaderRecord;
using control::MemberRecord;

std::optional<proxy::RouteMember> route_to(const MemberRecord& member) {
  if (member.host.empty() || member.port < 1 || member.port > 65535) return std::nullopt;
  proxy::RouteMember route;
  route.name = member.name.str();
  route.endpoint = {member.host, static_cast<uint16_t>(member.port)};
  route.region = member.region;
  return route;
}

bool same_routes(const proxy::RouteTable& a, const proxy::RouteTable& b) {
  // Lag changes all the time: a new table is worth a doubling of it, beyond 1 MB and 2 s.
  const auto bytes = [](uint64_t lag) { return std::bit_width(lag >> 20); };
  const auto time = [](Nanos lag) {
    return std::bit_width(static_cast<uint64_t>(std::max<int64_t>(to_ms(lag), 0)) / 2'000);
  };
  const auto same_members = [&](const auto& x, const auto& y) {
    return x.name == y.name && x.endpoint == y.endpoint && x.healthy == y.healthy &&
           x.region == y.region && bytes(x.lag_bytes) == bytes(y.lag_bytes) &&
           time(x.lag_time) == time(y.lag_time);
  };
  return a.epoch == b.epoch && a.primary == b.primary && a.state == b.state &&
         a.reason == b.reason && a.read_only == b.read_only && a.sync_strict == b.sync_strict &&
         std::ranges::equal(a.replicas, b.replicas, same_members);
}

void set_primary(const ClusterView& view, const LeaderRecord& leader, proxy::RouteTable& table) {
  const MemberRecord* member = view.member(leader.holder);
  if (member != nullptr) table.primary = route_to(*member);
  if (!table.primary) {
    table.reason = fmt::format("{} leads, and its address is not known yet", leader.holder.str());
  }
}

}  // namespace

proxy::RouteTable make_route_table(const ClusterView& view) {
  proxy::RouteTable table;
  if (!view.leader) {
    table.reason = view.leader_unreadable ? "the leader record can't be read"
                                          : "the cluster has no leader yet";
    return table;
  }
  const LeaderRecord& leader = view.leader->value;
  table.epoch = leader.epoch;
  const auto& config = view.config;
  table.sync_strict =
      !view.monitor && (!config || (config->value.sync_strict && config->value.synchronous()));
  switch (leader.phase) {
    case LeaderPhase::kRunning:
      set_primary(view, leader, table);
      break;
    // The standby leader refuses what writes itself (25006), and answers what reads.
    case LeaderPhase::kFollowing:
      set_primary(view, leader, table);
      table.read_only = true;
      break;
    case LeaderPhase::kDraining:
      set_primary(view, leader, table);
      table.state = proxy::RouteState::kDraining;
      table.reason = leader.why;
      break;
    case LeaderPhase::kStopping:
      table.reason = leader.why;
      break;
    case LeaderPhase::kPreparing:
      table.reason = fmt::format("{} is becoming primary", leader.holder.str());
      break;
    case LeaderPhase::kVacant:
      table.reason = leader.why.empty() ? "no leader" : leader.why;
      break;
  }
  for (const auto& [name, member] : view.members) {
    if (name == leader.holder || member.state != "streaming") continue;
    if (member.tags.noloadbalance) continue;
    if (member.timeline != leader.timeline) continue;
    auto route = route_to(member);
    if (!route) continue;
    const int64_t lag = lag_bytes(view, member);
    route->lag_bytes = lag < 0 ? 0 : static_cast<uint64_t>(lag);
    route->replayed = member.replay_lsn;
    table.replicas.push_back(std::move(*route));
  }
  return table;
}

void RouteTracker::measure_lag(const ClusterView& view, MonoTime begun, proxy::RouteTable& table) {
  if (!view.leader) return;
  const LeaderRecord& leader = view.leader->value;
  if (leader.epoch != lag_epoch_) {
    lag_epoch_ = leader.epoch;
    lag_clock_.reset();
  }
  if (leader.flush_lsn.valid()) lag_clock_.primary_at(leader.flush_lsn, begun);
  for (proxy::RouteMember& replica : table.replicas) {
    if (!replica.replayed.valid()) continue;
    replica.lag_time = lag_clock_.lag(replica.replayed, begun);
    // What readers see is what has been replayed, not what has been received.
    if (leader.flush_lsn > replica.replayed) {
      replica.lag_bytes =
          std::max(replica.lag_bytes, leader.flush_lsn.value - replica.replayed.value);
    }
  }
}

bool RouteTracker::move_permit(const ClusterView& view, MonoTime begun, bool new_epoch) {
  const bool changed = view.leader_revision != leader_revision_;
  if (changed && last_read_ && view.leader) {
    const LeaderRecord& leader = view.leader->value;
    const Millis fence_after = leader.ttl * 6 / 10;
    const MonoTime until = std::min(begun, *last_read_ + leader.ttl / 5) + fence_after;
    permit_until_ = new_epoch ? until : std::max(permit_until_, until);
  }
  return changed;
}

bool RouteTracker::move_monitors_permit(const ClusterView& view, MonoTime begun) {
  const auto until = monitor::proxy_permit(view, proxy_id_, begun);
  if (until) permit_until_ = *until;
  return until.has_value();
}

RouteTracker::Change RouteTracker::on_lease(Epoch epoch, MonoTime until) {
  Change change;
  change.epoch = epoch;
  if (!table_ || table_->epoch != epoch || until <= permit_until_) return change;
  change.extend = permit_until_ = until;
  return change;
}

RouteTracker::Change RouteTracker::on_read(const ClusterView& view, MonoTime begun) {
  Change change;
  proxy::RouteTable table = make_route_table(view);
  change.epoch = table.epoch;
  // A store that went back (restored from a backup) does not turn clients to an earlier primary.
  if (table_ && table.epoch < table_->epoch) {
    last_read_ = begun;
    return change;
  }
  measure_lag(view, begun, table);
  const bool new_epoch = !table_ || table_->epoch != table.epoch;
  const bool moved =
      view.monitor ? move_monitors_permit(view, begun) : move_permit(view, begun, new_epoch);
  leader_revision_ = view.leader_revision;
  last_read_ = begun;
  table.permit_until = permit_until_;
  if (!table_ || !same_routes(*table_, table)) {
    table_ = table;
    change.publish = std::move(table);
  } else if (moved) {
    change.extend = permit_until_;
  }
  return change;
}

}  // namespace bascule::cli
