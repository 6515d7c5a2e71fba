#include "proxy/databases.h"

#include <algorithm>

namespace bascule::proxy {

const DatabaseRule* find_database(const std::vector<DatabaseRule>& rules, std::string_view name) {
  const auto named = [&](std::string_view wanted) {
    return std::ranges::find(rules, wanted, &DatabaseRule::name);
  };
  auto found = named(name);
  if (found == rules.end()) found = named("*");
  return found == rules.end() ? nullptr : &*found;
}

bool leads_elsewhere(const DatabaseRule& a, const DatabaseRule& b) {
  return a.hosts != b.hosts || a.dbname != b.dbname || a.user != b.user || a.secret != b.secret ||
         a.connect_query != b.connect_query || a.settings != b.settings;
}

}  // namespace bascule::proxy
