#include "control/relays.h"

namespace bascule::control {
bool follows(const MemberRecord& m, const LeaderRecord& leader) {
  return m.state == "streaming" && m.epoch == leader.epoch && m.timeline == leader.timeline;
}

bool reaches_leader(const ClusterView& view, const MemberRecord& relay, const LeaderRecord& leader,
                    const NodeName& without) {
  const MemberRecord* at = &relay;
  for (int i = 0; i < kRelaysMax && at != nullptr && follows(*at, leader); ++i) {
    if (at->name == without) return false;
    if (at->upstream == leader.holder) return true;
    at = view.member(at->upstream);
  }
  return false;
}

NodeName relay_of_region(const ClusterView& view, const LeaderRecord& leader,
                         const std::string& region,
                         const std::function<bool(const MemberRecord&)>& avoided) {
  const MemberRecord* holder = view.member(leader.holder);
  if (region.empty() || holder == nullptr || holder->region == region) return {};
  const MemberRecord* best = nullptr;
  for (const auto& [name, m] : view.members) {
    const bool direct = follows(m, leader) && m.upstream == leader.holder;
    if (m.region != region || !direct || m.host.empty()) continue;
    if (!m.tags.replicatefrom.empty() || avoided(m)) continue;
    // By name among equals: it does not change when a position does.
    if (best == nullptr || m.priority > best->priority) best = &m;
  }
  return best == nullptr ? NodeName() : best->name;
}

}  // namespace bascule::control
