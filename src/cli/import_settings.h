// What becomes of each setting of PgBouncer that needs no thought: a table, and nothing else.
#pragma once

#include <string_view>

#include "cli/import_pgbouncer.h"

namespace bascule::cli {

struct PlainSetting {
  std::string_view name;
  Fate fate;
  std::string_view note;
};

// Of [pgbouncer]; sorted by name. Those with a place in bascule.yaml are in import_pgbouncer.cc.
extern const PlainSetting kPlainSettings[];
extern const size_t kPlainSettingsCount;

}  // namespace bascule::cli
