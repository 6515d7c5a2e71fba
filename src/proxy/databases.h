// What a database that clients name leads to, where that differs from the cluster's database of the
// same name: PgBouncer's [databases]. Plain data; secrets inside: never logged.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/time.h"
#include "env/net.h"

namespace bascule::proxy {

// When a client gives its server back.
enum class PoolMode {
  kSession,      // when it leaves
  kTransaction,  // whenever no transaction is open
  kStatement,    // the same; transactions of more than one message are refused
};

struct DatabaseRule {
  std::string name;  // as clients call it; "*": every name that has no rule of its own
  // Servers of its own, beside the cluster: clients of every port are led to them, and no failover
  // is watched for. Empty: the cluster's, by port.
  std::vector<env::Endpoint> hosts;
  enum class Balance { kRoundRobin, kFirst } balance = Balance::kRoundRobin;
  std::string dbname;  // the servers' name for it; empty: the clients'
  // Not empty: all its clients share servers that are logged in as this user, with `secret` (a
  // password; empty: as this user anywhere).
  std::string user, secret;
  std::optional<PoolMode> mode;
  std::optional<int> pool_size, min_pool_size, reserve_pool_size;
  std::optional<int> max_connections;  // server connections of all its users
  std::optional<int> max_clients;
  std::optional<Nanos> server_lifetime;
  std::string connect_query;  // run on each new server connection before it is used
  // Start-up parameters of its servers where a client gives none: application_name, timezone, ...
  std::vector<std::pair<std::string, std::string>> settings;
  bool operator==(const DatabaseRule&) const = default;
};

// The rule that counts for a name; null: there is none.
const DatabaseRule* find_database(const std::vector<DatabaseRule>& rules, std::string_view name);
// Server connections made by one are no good for the other.
bool leads_elsewhere(const DatabaseRule& a, const DatabaseRule& b);

}  // namespace bascule::proxy
