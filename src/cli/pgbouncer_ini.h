// PgBouncer's configuration file as its own parser reads it: [section], key = value, whole-line
// comments with ; or #, %include. https://www.pgbouncer.org/config.html
// Pure: files are read by a function that is handed in.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace bascule::cli {

struct IniEntry {
  std::string file;
  int line = 0;
  std::string section;  // "pgbouncer", "databases", "users", "peers"
  std::string key;      // databases and users: without quotes
  std::string value;
};

struct IniProblem {
  std::string file;
  int line = 0;
  std::string what;
};

struct Ini {
  std::vector<IniEntry> entries;  // in order; of one key the last counts
  std::vector<IniProblem> problems;
};

using ReadText = std::function<Result<std::string>(const std::string& path)>;

// Bounds: 1 MiB a file, 20 files, 10 levels of %include, 100,000 entries, 16 KiB a line. Beyond
// them the rest is left out and a problem says so. A path of %include that is not absolute is taken
// from the folder of `file`.
Ini parse_pgbouncer_ini(std::string_view text, const std::string& file, const ReadText& read);

// host=a port=1 password='it''s': the value of an entry of [databases] or [users]. Of a key that is
// there twice the last value counts. kInvalid: not one.
Result<std::vector<std::pair<std::string, std::string>>> parse_connect_string(
    std::string_view text);

}  // namespace bascule::cli
