// How durable the commits of a client are, by database, user and application name: a start-up
// parameter that the proxy adds. Like every other one it is the session's alone: where clients
// share servers, a server has the settings of the client that it works for before anything of that
// client is sent. By table: TableDurability. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/server_login.h"
#include "proxy/table_durability.h"

namespace bascule::proxy {

struct DurabilityRule {
  std::string database, user, application_name;  // empty: any
  std::string synchronous_commit;                // off, local, remote_write, on, remote_apply
  bool even_if_strict = false;  // also where the cluster demands a standby for each commit
  std::string table;  // "name" or "schema.name" as in the catalog; empty: a rule for the client
  bool operator==(const DurabilityRule&) const = default;
};

// A commit that is acknowledged may be on the primary's disk alone, or on nobody's.
bool is_weak(std::string_view synchronous_commit);

enum class Demands { kNothing, kStandby };  // kStandby: sync_strict

// The level that the first fitting rule without a table gives; empty: none fits, the rule is too
// weak for what the cluster demands, or the client has said itself what it wants.
std::string_view durability_of(const std::vector<DurabilityRule>& rules, std::string_view database,
                               std::string_view user, const Parameters& startup, Demands demands);
// Likewise of the rules with tables; nothing: no such rule fits.
std::optional<TableDurability> table_durability_of(const std::vector<DurabilityRule>& rules,
                                                   std::string_view database, std::string_view user,
                                                   const Parameters& startup, Demands demands);

}  // namespace bascule::proxy
