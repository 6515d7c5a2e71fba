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

bool Truth::safe_member_electable() const {
  uint32_t timeline = 0;
  uint64_t end = 0;
  for (const auto& m : members) {
    const DataDirectory& d = m->pg().data();
    if (d.state != control::DataDir::kReady || d.timeline < timeline) continue;
    end = d.timeline > timeline ? d.end() : std::max(end, d.end());
    timeline = d.timeline;
  }
  for (const auto& m : members) {
    const DataDirectory& d = m->pg().data();
    if (!m->config().nofailover && d.state == control::DataDir::kReady && d.timeline == timeline &&
        d.end() >= end) {
      return true;
    }
  }
  return false;
}

std::vector<std::unique_ptr<Checker>> all_checkers(Truth& truth) {
  std::vector<std::unique_ptr<Checker>> all;
  all.push_back(make_reasons(truth));
  all.push_back(make_fencing(truth));
  all.push_back(make_ballots(truth));
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
