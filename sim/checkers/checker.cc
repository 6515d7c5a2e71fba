#include "sim/checkers/checker.h"

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
