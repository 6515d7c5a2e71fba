// Where standbys stream and are copied from (tags replicatefrom and clonefrom), and the slots that
// hold WAL for them.
#include "control/agent_impl.h"
#include "control/relays.h"

namespace bascule::control {

// A relay that did not serve is passed by for a while, and as long as it says nothing new.
bool Agent::Impl::is_avoided(const MemberRecord& relay) const {
  const auto found = relays_avoided_.find(relay.name);
  return found != relays_avoided_.end() &&
         (now_ < found->second.until || relay.written_at == found->second.written_at);
}

// By the tag replicatefrom, or because the cluster has one stream to each region.
NodeName Agent::Impl::wanted_relay(const LeaderRecord& leader) const {
  if (!config_.tags.replicatefrom.empty()) return config_.tags.replicatefrom;
  if (!config().region_relays) return {};
  // Commits wait for members that stream from the leader itself: the relay has to be one that can
  // be waited for, and where they wait for several, nobody of these goes behind a relay.
  // As may_be_waited_for() says of its record, which would have to be made for that.
  const bool votes = config().synchronous() && !config_.nofailover && !config_.tags.nosync &&
                     pg_.disk_full != DiskFull::kWal;
  if (votes && config().sync_mode == SyncMode::kQuorum && config().sync_count > 1) return {};
  const NodeName relay =
      relay_of_region(*view_, leader, config_.region, [&](const MemberRecord& m) {
        return is_avoided(m) || being_removed(m.name) ||
               (config().synchronous() && !may_be_waited_for(m));
      });
  return relay == config_.name ? NodeName() : relay;
}

// Commits wait for what this member acknowledges, or did when its leader went down.
bool Agent::Impl::is_recorded_voter() const {
  if (!view_->sync || view_->sync->value.generations.empty()) return false;
  const auto& voters = view_->sync->value.generations.back().voters;
  return std::ranges::any_of(voters, [this](const std::string& v) { return is_sync_name(v); });
}

// The leader, or a relay as long as that serves.
NodeName Agent::Impl::source_of(const LeaderRecord& leader) const {
  // It may be waiting for this very standby before it lets clients in, and where no other one is in
  // the roster (which grows only afterwards) for ever.
  if (leader.phase == LeaderPhase::kPreparing && is_recorded_voter()) return leader.holder;
  const NodeName wanted = wanted_relay(leader);
  const MemberRecord* relay = wanted.empty() ? nullptr : view_->member(wanted);
  if (relay == nullptr || relay->host.empty() || is_avoided(*relay)) return leader.holder;
  // Members that are configured in a circle would change places for ever.
  const MemberRecord* at = relay;
  for (int i = 0; i < kRelaysMax && at != nullptr; ++i) {
    if (at->tags.replicatefrom == config_.name) return leader.holder;
    at = view_->member(at->tags.replicatefrom);
  }
  return reaches_leader(*view_, *relay, leader, config_.name) ? wanted : leader.holder;
}

op::Clone Agent::Impl::copy_of(const LeaderRecord& leader) const {
  op::Clone copy{upstream_of(leader.holder), following_epoch(leader.epoch)};
  if (now_ < copies_avoided_until_) return copy;
  const NodeName relay = wanted_relay(leader);
  for (const auto& [name, m] : view_->members) {
    const bool wanted = m.tags.clonefrom || name == relay;
    if (!wanted || name == config_.name || name == leader.holder) continue;
    if (m.role != "replica" || m.host.empty() || !reaches_leader(*view_, m, leader, config_.name))
      continue;
    copy.source = upstream_of(name);
    copy.from_replica = true;
  }
  return copy;
}

// Who may be waited for.
std::vector<SyncCandidate> Agent::Impl::voters() const {
  std::vector<SyncCandidate> out = sync_candidates();
  const bool choice = std::ranges::any_of(
      out, [&](const SyncCandidate& c) { return may_be_waited_for(*view_->member(c.member)); });
  for (SyncCandidate& c : out) {
    const MemberRecord& m = *view_->member(c.member);
    // One without room still acknowledges: better than nobody.
    c.leaving = m.tags.nosync || (choice && !may_be_waited_for(m));
    c.preferred = in_preferred_region(m);
  }
  for (const auto& [name, m] : view_->members) {
    if (being_removed(name)) out.push_back({m.sync_name, name, m.priority, m.flush_lsn, true});
  }
  return out;
}

bool Agent::Impl::in_preferred_region(const MemberRecord& m) const {
  switch (config().sync_region) {
    case SyncRegion::kAny:
      return false;
    case SyncRegion::kOther:
      return !m.region.empty() && m.region != config_.region;
    case SyncRegion::kSame:
      return m.region == config_.region;
  }
  return false;
}

// Not of those that stream from another member: a slot that nobody moves holds WAL for ever.
std::vector<std::string> Agent::Impl::slots() const {
  std::vector<std::string> out;
  for (const auto& [name, m] : view_->members) {
    const bool elsewhere =
        held_ && follows(m, held_->record) && !m.upstream.empty() && m.upstream != config_.name;
    if (name != config_.name && !elsewhere) out.push_back(slot_name(name));
  }
  return out;
}

std::vector<std::string> Agent::Impl::stale_slots() const {
  std::vector<std::string> out = known_slots_;
  const auto wanted = slots();
  std::erase_if(out, [&](const std::string& slot) {
    return std::ranges::find(wanted, slot) != wanted.end();
  });
  // Another leader of before may have left one.
  for (const auto& [name, m] : view_->members) {
    const std::string slot = slot_name(name);
    const auto is = [&](const auto& list) { return std::ranges::find(list, slot) != list.end(); };
    if (name != config_.name && !is(wanted) && !is(out)) out.push_back(slot);
  }
  return out;
}

}  // namespace bascule::control
