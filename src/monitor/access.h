// How to reach an endpoint: what libpq is told, and the commands that stand in for SQL. Holds
// passwords: never logged, never shown; `shown` is what people get to see.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "monitor/config.h"
#include "pgclient/pg_connection.h"

namespace bascule::monitor {

// argv[0] is the path of a program; no shell. Its environment: docs/monitor.md.
using CommandLine = std::vector<std::string>;

struct Access {
  pgclient::PgConnection::Parameters parameters;
  std::string shown;  // "postgresql://app@db1.example:5432/game"
  std::string user, database;
  CommandLine promote_command;  // empty: pg_promote()
  CommandLine fence_command;    // empty: by SQL only
};

struct Source {
  EndpointConfig config;  // host and port are those of the URL
  Access access;
};

enum class Ssl { kAsUrl, kRequire, kDisable };

// A URL or a "keyword=value" string of libpq with exactly one host. Errors never quote it: it may
// hold a password. https://www.postgresql.org/docs/15/libpq-connect.html#LIBPQ-CONNSTRING
Result<Source> parse_url(std::string_view url, Ssl ssl);

// Endpoints by the environment variables of the requirements (B2, D7, E4), sorted by name:
//   DB_<REGION>_URL, DB_<REGION>_REPLICA<n>_URL     "eu-west", "eu-west-replica1"
//     with _HEALTH_INTERVAL (ms), _FAILOVER_TIMEOUT (ms), _SSL, _PRIORITY of the region
//   DATABASE_URL, DATABASE_REPLICA_URL              "primary", "replica"
//   DB_HOST, DB_PORT, DB_NAME, DB_USER, DB_PASSWORD, DB_SSL   "primary", without DATABASE_URL
//   FAILOVER_HEALTH_CHECK_INTERVAL (ms)             of all that have none of their own
// An error names the variable, not its value.
using Environment = std::map<std::string, std::string>;
Result<std::vector<Source>> sources_from_environment(const Environment& environment);

}  // namespace bascule::monitor
