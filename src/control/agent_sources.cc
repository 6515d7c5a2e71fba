// Where standbys stream and are copied from (tags replicatefrom and clonefrom), and the slots that
// hold WAL for them.
#include "control/agent_impl.h"

namespace bascule::control {
namespace {

constexpr int kRelaysMax = 16;  // in a row

bool follows(const MemberRecord& m, const LeaderRecord& leader) {
  return m.state == "streaming" && m.epoch == leader.epoch && m.timeline == leader.timeline;
}

}  // namespace

// By way of others, none of which is this member.
bool Agent::Impl::reaches_leader(const MemberRecord& relay, const LeaderRecord& leader) const {
  const MemberRecord* at = &relay;
  for (int i = 0; i < kRelaysMax && at != nullptr && follows(*at, leader); ++i) {
    if (at->name == config_.name) return false;
    if (at->upstream == leader.holder) return true;
    at = view_.member(at->upstream);
  }
  return false;
}

// The leader, or the member that `replicatefrom` names as long as that serves.
NodeName Agent::Impl::source_of(const LeaderRecord& leader) const {
  const NodeName& wanted = config_.tags.replicatefrom;
  const MemberRecord* relay = wanted.empty() ? nullptr : view_.member(wanted);
  if (relay == nullptr || relay->host.empty() || now_ < relay_avoided_until_) return leader.holder;
  // Members that are configured in a circle would change places for ever.
  const MemberRecord* at = relay;
  for (int i = 0; i < kRelaysMax && at != nullptr; ++i) {
    if (at->tags.replicatefrom == config_.name) return leader.holder;
    at = view_.member(at->tags.replicatefrom);
  }
  return reaches_leader(*relay, leader) ? wanted : leader.holder;
}

op::Clone Agent::Impl::copy_of(const LeaderRecord& leader) const {
  op::Clone copy{upstream_of(leader.holder)};
  if (now_ < copies_avoided_until_) return copy;
  for (const auto& [name, m] : view_.members) {
    const bool wanted = m.tags.clonefrom || name == config_.tags.replicatefrom;
    if (!wanted || name == config_.name || name == leader.holder) continue;
    if (m.role != "replica" || m.host.empty() || !reaches_leader(m, leader)) continue;
    copy.source = upstream_of(name);
    copy.from_replica = true;
  }
  return copy;
}

// Who may be waited for.
std::vector<SyncCandidate> Agent::Impl::voters() const {
  std::vector<SyncCandidate> out = sync_candidates();
  std::erase_if(out, [&](const SyncCandidate& c) { return view_.member(c.member)->tags.nosync; });
  return out;
}

// Not of those that stream from another member: a slot that nobody moves holds WAL for ever.
std::vector<std::string> Agent::Impl::slots() const {
  std::vector<std::string> out;
  for (const auto& [name, m] : view_.members) {
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
  for (const auto& [name, m] : view_.members) {
    const std::string slot = slot_name(name);
    const auto is = [&](const auto& list) { return std::ranges::find(list, slot) != list.end(); };
    if (name != config_.name && !is(wanted) && !is(out)) out.push_back(slot);
  }
  return out;
}

}  // namespace bascule::control
