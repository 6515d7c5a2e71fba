// What a proxy is told once, at start. Plain data; durations, counts and bytes as named.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "env/net.h"
#include "proxy/access_config.h"
#include "proxy/databases.h"
#include "proxy/durability.h"
#include "proxy/monitor.h"
#include "proxy/routing.h"

namespace bascule::proxy {

// What a port promises: the writer port always leads to the primary, the reader port to a healthy
// replica, or to the primary if there is none; the splitting port sends what is proven read-only to
// either, the rest to the primary. Clients of it are pooled by transaction at least.
enum class PortKind { kWriter, kReader, kSplit };

struct ProxyListener {
  env::Endpoint endpoint;
  PortKind kind = PortKind::kWriter;
};

// What differs for some clients. Of several rules that fit the first counts.
struct PoolRule {
  std::string user, database;  // empty: any
  std::optional<PoolMode> mode;
  std::optional<int> pool_size;          // instead of default_pool_size
  std::optional<int> reserve_pool_size;  // instead of the general one
  std::optional<int> max_connections;    // instead of max_user_connections
  std::optional<int> max_clients;        // instead of max_user_client_connections
};

// What the console asks of the process that the proxy is a part of. Called on a worker's thread: to
// be passed on, not waited for. Empty: the console refuses the command.
struct ProcessHooks {
  // Reads the configuration anew and calls Proxy::reload(); then `done`, once, on any thread.
  std::function<void(std::function<void(Status)> done)> reload;
  std::function<void()> shut_down;
  // A cancel request that may be for a client of the process that this one has replaced; `done`,
  // once, on any thread, when that has delivered it.
  std::function<void(uint32_t pid, const std::string& secret, env::Callback done)> pass_cancel;
};

struct ProxyConfig {
  std::string cluster = "bascule";  // for messages
  std::vector<ProxyListener> listeners;
  int workers = 1;
  env::EngineKind engine = env::EngineKind::kAuto;
  AccessConfig access;  // can be replaced: Proxy::reload()
  ProcessHooks process;
  Nanos stats_period = 60s;  // of the averages that the console shows

  // Other proxies behind the same address: who may know a cancel request that nobody here knows.
  std::vector<env::Endpoint> peers;

  RoutingPolicy routing;
  // Where no cluster tells the route by publish(): the servers to find it out from.
  MonitorConfig monitor;
  // Splitting ports: how long what is known of a database's functions counts.
  Nanos catalog_refresh = 60s;
  Nanos catalog_expire = 300s;
  PoolMode pool_mode = PoolMode::kSession;
  std::vector<PoolRule> pools;
  // Not empty: others than these do not exist for clients.
  std::vector<DatabaseRule> databases;
  std::vector<DurabilityRule> durability;
  // Server connections of one user to one database, all workers together. 0: pool_size alone
  // counts.
  int default_pool_size = 0;
  int reserve_pool_size = 0;  // beyond that, for clients that have waited for
  Nanos reserve_pool_timeout = 5s;
  // Opened ahead, where a pool has clients: of one user to one database, all workers together.
  int min_pool_size = 0;
  int max_db_connections = 0;           // to one database, 0: no limit
  int max_user_connections = 0;         // of one user
  int max_db_client_connections = 0;    // clients that are logged in, to one database; 0: no limit
  int max_user_client_connections = 0;  // of one user
  Nanos server_lifetime = 3600s;        // then it is closed when it is free; 0: never
  // What makes a server that a session has used fit for others. Where clients share servers between
  // transactions, DISCARD ALL follows it; kAlways: after each of their transactions.
  std::string server_reset_query = "DISCARD ALL";
  enum class Reset { kWhereNeeded, kAlways } server_reset = Reset::kWhereNeeded;
  // Empty: an idle server connection is believed to work. Else this is run on it whenever it has
  // been idle for so long.
  std::string server_check_query;
  Nanos server_check_delay = 30s;
  // How long clients may stay when nobody new is let in any more; 0: as long as they like.
  Nanos leave_timeout = 0s;
  // Each ends the connection of the client. 0: never. Checked now and then: up to a second late.
  Nanos query_timeout = 0s;             // from its first byte to its end
  Nanos transaction_timeout = 0s;       // from its begin to its end
  Nanos idle_transaction_timeout = 0s;  // within a transaction, without a statement
  Nanos client_idle_timeout = 0s;
  int pool_size = 100;       // server connections, all workers together
  int clients_max = 10'000;  // connected clients, logged in or not
  int hold_count_max = 10'000;
  Nanos hold_timeout = 30s;  // how long a statement waits for a server
  // Clients of one address that are not logged in yet; 0: no limit. Those beyond it are closed
  // unheard.
  int logins_per_address_max = 0;
  Nanos auth_timeout = 5s;       // from accept to the end of authentication
  Nanos connect_timeout = 1s;    // TCP connect and log-in to a server
  Nanos retry_delay_min = 25ms;  // between attempts to reach the same server
  Nanos retry_delay_max = 50ms;
  Nanos server_idle_timeout = 600s;

  // A statement up to this size is kept until its first answer, so that it can be sent again where
  // that is safe.
  size_t retained_bytes_max = 8 * 1024;
  // Where clients share servers: statements prepared on one server connection.
  size_t server_prepared_max = 200;
  // What is remembered of a session to set it up again on another server. A session that exceeds
  // it can't be moved.
  size_t prepared_count_max = 1'000;
  size_t prepared_bytes_max = 1024 * 1024;
  size_t settings_count_max = 64;
};

}  // namespace bascule::proxy
