// Entries of [databases] and [users] of a PgBouncer configuration, as entries of proxy.databases
// and proxy.pools. Pure. Values may be secrets: they never get into a text for people.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "cli/pgbouncer_ini.h"
#include "cli/units.h"

namespace bascule::cli {

// A YAML scalar that can't be misread.
std::string yaml_text(std::string_view text);
std::optional<int64_t> whole(std::string_view text);
// PgBouncer's times are seconds, with fractions.
std::optional<int64_t> milliseconds(std::string_view text);
// "a, b" and "a b"
std::vector<std::string> split_list(std::string_view text);

struct ImportedDatabase {
  std::string name;
  std::vector<HostPort> hosts;                            // at least one
  std::vector<std::pair<std::string, std::string>> keys;  // but for the hosts, values as in YAML
  std::string lost;  // what was not carried over, in words; empty: everything was

  // `usual`: the server of the proxy, which need not be named.
  std::string yaml(const HostPort& usual) const;
};
// kInvalid: what was expected.
Result<ImportedDatabase> import_database(const IniEntry& entry);

struct ImportedUser {
  std::string yaml;  // empty: nothing
  std::string lost;
};
Result<ImportedUser> import_user(const IniEntry& entry);

}  // namespace bascule::cli
