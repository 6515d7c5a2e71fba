#include "cli/durability_section.h"

namespace bascule::cli {

void read_durability(MapReader& proxy, Problems& problems,
                     std::vector<proxy::DurabilityRule>& out) {
  constexpr size_t kRulesMax = 1000;
  const std::vector<std::string> levels = {"off", "local", "remote_write", "on", "remote_apply"};
  const YAML::Node list = proxy.raw("durability");
  if (!list) return;
  if (!list.IsSequence() || list.size() > kRulesMax) {
    return proxy.problem(
        "durability",
        "expected a list of {database, user, application_name, table, synchronous_commit}");
  }
  for (const auto& item : list) {
    MapReader entry(problems, item, "proxy.durability");
    proxy::DurabilityRule rule;
    entry.text("database", rule.database);
    entry.text("user", rule.user);
    entry.text("application_name", rule.application_name);
    entry.text("table", rule.table);
    const size_t dot = rule.table.find('.');
    if (dot == 0 || (dot != std::string::npos && dot + 1 == rule.table.size())) {
      entry.problem("table", "expected a name or schema.name");
    }
    std::optional<int> level;
    if (entry.choice("synchronous_commit", level, levels)) {
      rule.synchronous_commit = levels[static_cast<size_t>(*level)];
    } else if (!entry.has("synchronous_commit")) {
      entry.problem("synchronous_commit", "is required");
    }
    entry.flag("even_if_strict", rule.even_if_strict);
    entry.finish();
    out.push_back(std::move(rule));
  }
}

}  // namespace bascule::cli
