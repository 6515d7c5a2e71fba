// From PgBouncer's configuration to bascule.yaml: what can be said in both, what differs, what
// can't be carried over, line by line. Pure. The table of settings is docs/proxy-migration.md.
#pragma once

#include <string>
#include <vector>

#include "cli/pgbouncer_ini.h"

namespace bascule::cli {

enum class Fate {
  kKept,     // the same in bascule.yaml
  kChanged,  // in bascule.yaml, with a difference that `note` tells
  kNoNeed,   // Bascule does it by itself, or it has no meaning there
  kLost,     // no equivalent: look at it before you switch over
  kUnknown,  // no setting of PgBouncer 1.25
};
std::string_view to_string(Fate fate);  // "kept", "changed", "not needed", "lost", "unknown"

struct ImportNote {
  std::string file;
  int line = 0;
  std::string setting;  // "pgbouncer.pool_mode", "databases.shop"; without values: secrets
  Fate fate = Fate::kKept;
  std::string to;    // "proxy.pool_mode"; empty: nowhere
  std::string note;  // for people; empty if there is nothing to say
};

struct Import {
  std::string yaml;
  std::vector<ImportNote> notes;  // in the order of the file
  // Databases with a password of their own, and other things that need a hand.
  bool complete() const;  // nothing is lost or unknown
};

Import import_pgbouncer(const Ini& ini);

// For people: one line a note, and a summary.
std::string render_import(const Import& import);
std::string import_json(const Import& import);

// PgBouncer's settings that this knows, for the test that the documentation has them all.
std::vector<std::string> known_pgbouncer_settings();

}  // namespace bascule::cli
