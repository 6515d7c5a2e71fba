#include "sim/checkers/checker.h"

#include <algorithm>

namespace bascule::sim {

const Member* Truth::leading() const {
  const Member* found = nullptr;
  for (const auto& m : members) {
    if (m->agent() == nullptr || m->agent()->phase() != control::Phase::kLeading) continue;
    if (found != nullptr) return nullptr;
    found = m.get();
  }
  return found;
}

bool Truth::excused(Endpoint host) {
  if (!parted && rolled_back(host)) {
    parted = true;
    world.count("exception.rolled_back_store");
  }
  return parted;
}

bool Truth::lawful(Endpoint host, uint32_t timeline) const {
  const auto& leader = view().leader;
  return !runs_by_hand(host) && leader && !leader->value.vacant() &&
         leader->value.timeline.value == timeline &&
         leader->value.holder == members[static_cast<size_t>(host)]->name();
}

bool Truth::forced_since(uint32_t timeline, uint32_t up_to) const {
  return std::ranges::any_of(view().history, [&](const auto& epoch) {
    const uint32_t its = epoch.second.timeline.value;
    return its > timeline && its <= up_to && epoch.second.trigger == "forced";
  });
}

bool Truth::bound_until(Member& leader, MonoTime deadline) const {
  const auto bound = [&](const NodeName& name) {
    for (const auto& m : members) {
      const auto& p = pledges[static_cast<size_t>(m->host())];
      if (m->name() != name) continue;
      return p && p->to == leader.name() && p->epoch == leader.agent()->leading_epoch() &&
             p->until_for_leader >= deadline;
    }
    return false;
  };
  const control::ClusterView& now = view();
  if (now.sync && !now.sync->value.generations.empty() &&
      now.sync->value.generations.back().quorum > 0) {
    const control::Generation& g = now.sync->value.generations.back();
    size_t free = 0;  // voters that may ballot
    for (const std::string& voter : g.voters) {
      const auto holder = std::ranges::find_if(members, [&](const auto& m) {
        return voter == m->name().str() + "_" + m->persisted().incarnation;
      });
      if (holder != members.end() && !bound((*holder)->name())) ++free;
    }
    if (free < g.quorum) return true;
  }
  // A voter that was removed may still ballot; it lets somebody else of the roster be elected.
  const auto others_bound = [&](const NodeName& name) {
    return name == leader.name() || bound(name);
  };
  return !now.roster || std::ranges::all_of(now.roster->value.members, others_bound);
}

uint64_t Truth::system_id() const {
  const auto& init = view().init;
  return init ? init->value.system_id : 0;
}

std::vector<std::unique_ptr<Checker>> all_checkers(Truth& truth) {
  std::vector<std::unique_ptr<Checker>> all;
  all.push_back(make_reasons(truth));
  all.push_back(make_fencing(truth));
  all.push_back(make_ballots(truth));
  all.push_back(make_pledges(truth));
  all.push_back(make_sync_rule(truth));
  all.push_back(make_data_directory(truth));
  all.push_back(make_wal_identity(truth));
  all.push_back(make_one_writer(truth));
  all.push_back(make_durability(truth));
  all.push_back(make_requests(truth));
  all.push_back(make_stability(truth));
  return all;
}

}  // namespace bascule::sim
