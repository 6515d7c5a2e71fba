// What a session has set, apart from the server's own defaults for its user and database, and how a
// server connection is brought from one such state to another. A client of a transaction pool has
// the settings of its start-up message and those that it SET; a server connection remembers the
// ones that it was left with. Equal states are one object: the hot path compares pointers.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/intern.h"
#include "proxy/server_login.h"

namespace bascule::proxy {

struct Setting {
  std::string name;  // as PostgreSQL compares it: lower case; "role", "session authorization", ...
  std::string sql;   // one statement without ';' that sets it
  bool operator==(const Setting&) const = default;
};

class Settings {
 public:
  std::vector<Setting> list;  // in the order to apply
  // Equal for states under which the same text means the same prepared statement.
  uint32_t plan_id = 0;
  uint64_t plan_hash = 0;  // likewise, and the same in all workers
  const Setting* find(std::string_view name) const;
};
using SettingsRef = std::shared_ptr<const Settings>;
using ParametersRef = std::shared_ptr<const Parameters>;

class SettingsTable {
 public:
  SettingsTable() : none_(settings({})) {}
  const SettingsRef& none() const { return none_; }
  SettingsRef settings(std::vector<Setting> list);
  ParametersRef parameters(const Parameters& parameters);

 private:
  void plan(Settings& settings);
  InternTable<Settings> settings_;
  InternTable<Parameters> parameters_;
  std::map<std::string, uint32_t> plans_;
  uint32_t next_plan_ = 0;
  SettingsRef none_;
};

// SQL that turns `from` into `to`; empty if they are equal.
std::string difference(const Settings& from, const Settings& to);
// A statement of difference() might be refused by a server that is like the one that took it before
// (a role that is gone, a setting of an extension): nothing of the client may be sent before it is
// known to have worked.
bool may_fail(const Settings& from, const Settings& to);

// Of a start-up message, without user, database and replication.
struct StartupSettings {
  std::vector<Setting> settings;
  Parameters rest;  // what only a server's own start-up can take: unusual switches in `options`
};
StartupSettings split_startup(const Parameters& startup);

// "SET name = 'value'" for a value as a start-up message or a ParameterStatus has it.
Setting make_setting(std::string_view name, std::string_view value);

}  // namespace bascule::proxy
