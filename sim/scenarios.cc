#include "sim/scenarios.h"

#include <algorithm>

#include "sim/scenario_kit.h"

namespace bascule::sim {

const std::vector<Scenario>& scenarios() {
  static const std::vector<Scenario> all = [] {
    std::vector<Scenario> list;
    for (const auto group : {fault_scenarios(), data_scenarios(), policy_scenarios(),
                             server_scenarios(), slot_scenarios(), outside_scenarios()}) {
      list.insert(list.end(), group.begin(), group.end());
    }
    std::ranges::stable_sort(list, {},
                             [](const Scenario& s) { return std::stoi(std::string(s.id)); });
    return list;
  }();
  return all;
}

const Scenario* find_scenario(std::string_view id) {
  const auto it = std::ranges::find(scenarios(), id, &Scenario::id);
  return it == scenarios().end() ? nullptr : &*it;
}

}  // namespace bascule::sim
