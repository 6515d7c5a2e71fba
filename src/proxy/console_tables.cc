#include "proxy/console_tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "proxy/console_settings.h"
#include "proxy/shared.h"

namespace bascule::proxy {
namespace {

using Row = ConsoleTable::Row;

// ---- Values ------------------------------------------------------------------------------------

template <typename T>
std::string number(T value) {
  return fmt::format("{}", value);
}

uint64_t micros(Nanos time) {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(time).count());
}

std::string timestamp(WallTime time) {
  std::string text = to_iso8601(time).substr(0, 19);
  text[10] = ' ';
  return text + " UTC";
}

// "10.0.0.1:5432" and "[::1]:5432"; a unix socket has no port.
std::pair<std::string, std::string> address_of(const std::string& text) {
  const size_t colon = text.rfind(':');
  const bool port = colon != std::string::npos && colon + 1 < text.size() &&
                    text.find_first_not_of("0123456789", colon + 1) == std::string::npos;
  std::string host = port ? text.substr(0, colon) : text;
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  if (host.empty() || host.starts_with('/')) host = "unix";
  return {host, port ? text.substr(colon + 1) : "0"};
}

std::string_view state_of(SocketState state) {
  constexpr std::string_view kNames[] = {"login", "active", "idle", "waiting",       "active",
                                         "idle",  "tested", "new",  "being_canceled"};
  return kNames[static_cast<size_t>(state)];
}

std::string_view debug_state_of(SocketState state) {
  constexpr std::string_view kNames[] = {"cl_login",   "cl_active", "cl_active",
                                         "cl_waiting", "sv_active", "sv_idle",
                                         "sv_tested",  "sv_login",  "sv_being_canceled"};
  return kNames[static_cast<size_t>(state)];
}

enum class Detail { kPlain, kDebug };

Row socket_row(const SocketView& s, Detail detail) {
  const auto [host, port] = address_of(s.address);
  const auto [local_host, local_port] = address_of(s.local_address);
  const uint64_t wait = micros(s.waiting);
  Row row = {s.is_server() ? "S" : "C",
             s.user.empty() ? "(nouser)" : s.user,
             s.database.empty() ? "(nodb)" : s.database,
             s.replication ? "physical" : "none",
             std::string(detail == Detail::kDebug ? debug_state_of(s.state) : state_of(s.state)),
             host,
             port,
             local_host,
             local_port,
             timestamp(s.connected),
             timestamp(s.requested),
             number(wait / 1'000'000),
             number(wait % 1'000'000),
             s.closing ? "1" : "0",
             fmt::format("{:#x}", s.id),
             s.link == 0 ? "" : fmt::format("{:#x}", s.link),
             number(s.remote_pid),
             s.tls,
             s.application_name,
             number(s.prepared),
             number(s.id)};
  if (detail == Detail::kDebug) row.insert(row.end(), 7, "0");
  row.insert(row.end(), {number(s.worker), s.pinned, s.member});
  return row;
}

void sockets(const ConsoleView& view, ConsoleShow show, ConsoleTable& table) {
  const bool plain = show == ConsoleShow::kClients || show == ConsoleShow::kServers;
  for (const SocketView& socket : view.snapshot.sockets) {
    if (show == ConsoleShow::kClients &&
        (socket.is_server() || socket.state == SocketState::kClientLogin)) {
      continue;
    }
    if (show == ConsoleShow::kServers && !socket.is_server()) continue;
    table.rows.push_back(socket_row(socket, plain ? Detail::kPlain : Detail::kDebug));
  }
}

// Who has a descriptor. It is not told itself, nor what a session could be taken over with: another
// process gets the listening sockets by proxy.handover_socket.
void descriptors(const ConsoleView& view, ConsoleTable& table) {
  for (const SocketView& s : view.snapshot.sockets) {
    const auto [host, port] = address_of(s.address);
    Row row(columns_of(ConsoleShow::kFds).size(), std::nullopt);
    row[1] = s.is_server() ? "server" : "client";
    row[2] = s.user;
    row[3] = s.database;
    row[4] = host;
    row[5] = port;
    if (s.link != 0) row[7] = number(s.link);
    table.rows.push_back(std::move(row));
  }
}

void prepared(const ConsoleView& view, ConsoleTable& table) {
  for (const SocketView& s : view.snapshot.sockets) {
    if (s.prepared == 0) continue;
    table.rows.push_back(
        {s.is_server() ? "S" : "C", s.user, s.database, number(s.id), number(s.prepared)});
  }
}

void pools(const ConsoleView& view, ConsoleTable& table) {
  for (const auto& [key, p] : view.snapshot.pools) {
    const uint64_t wait = micros(p.longest_wait);
    int pinned = 0;
    std::string by;
    for (const auto& [reason, count] : p.pinned) {
      pinned += count;
      by += fmt::format("{}{}: {}", by.empty() ? "" : ", ", reason, count);
    }
    table.rows.push_back({key.first, key.second, number(p.cl_active), number(p.cl_waiting), "0",
                          "0", number(p.sv_active), number(p.sv_active_cancel),
                          number(p.sv_being_canceled), number(p.sv_idle), "0", number(p.sv_tested),
                          number(p.sv_login), number(wait / 1'000'000), number(wait % 1'000'000),
                          std::string(describe(p.mode)), std::nullopt, number(pinned), by});
  }
}

// Sums over the pools of a database or of a user.
struct Connections {
  int servers = 0, clients = 0;
  void add(const PoolView& pool) {
    servers += pool.servers();
    clients += pool.cl_active + pool.cl_waiting;
  }
};

// Where the clients of a database are led to: its own servers, or the primary.
std::pair<std::string, uint16_t> host_of(const ConsoleView& view, const DatabaseRule* rule) {
  if (rule != nullptr && !rule->hosts.empty()) {
    std::string hosts;
    for (const env::Endpoint& host : rule->hosts) hosts += (hosts.empty() ? "" : ",") + host.host;
    return {hosts, rule->hosts.front().port};
  }
  if (view.route == nullptr || !view.route->primary) return {"", 0};
  return {view.route->primary->endpoint.host, view.route->primary->endpoint.port};
}

Row database_row(const ConsoleView& view, const std::string& name, const Connections& connections) {
  const ProxyConfig& config = view.config;
  const DatabaseRule none;
  const DatabaseRule* known = find_database(config.databases, name);
  const DatabaseRule& rule = known != nullptr ? *known : none;
  const auto [host, port] = host_of(view, known);
  std::optional<int> size;
  std::optional<PoolMode> mode;
  for (const PoolRule& r : config.pools) {
    if (!r.user.empty() || r.database != name) continue;
    if (!size) size = r.pool_size;
    if (!mode) mode = r.mode;
  }
  if (!size) size = rule.pool_size.value_or(config.default_pool_size);
  if (!mode) mode = rule.mode;
  const auto lifetime = std::chrono::duration_cast<std::chrono::seconds>(
      rule.server_lifetime.value_or(config.server_lifetime));
  const bool first = rule.balance == DatabaseRule::Balance::kFirst;
  const auto text = [](const std::string& value) {
    return value.empty() ? std::optional<std::string>() : std::optional(value);
  };
  return {name,
          text(host),
          number(port),
          rule.dbname.empty() ? name : rule.dbname,
          text(rule.user),
          number(*size),
          number(min_pool_size(config, known)),
          number(rule.reserve_pool_size.value_or(config.reserve_pool_size)),
          number(lifetime.count()),
          mode ? std::optional<std::string>(describe(*mode)) : std::nullopt,
          rule.hosts.size() > 1 ? std::optional<std::string>(first ? "disable" : "round-robin")
                                : std::nullopt,
          number(rule.max_connections.value_or(config.max_db_connections)),
          number(connections.servers),
          number(max_db_clients(config, name)),
          number(connections.clients),
          view.controls.of(name) == Halt::kPaused ? "1" : "0",
          view.controls.disabled.contains(name) ? "1" : "0"};
}

void databases(const ConsoleView& view, ConsoleTable& table) {
  std::map<std::string, Connections> known;
  for (const std::string& name : view.controls.paused) known[name];
  for (const std::string& name : view.controls.disabled) known[name];
  for (const DatabaseRule& rule : view.config.databases) {
    if (rule.name != "*") known[rule.name];
  }
  for (const auto& [key, pool] : view.snapshot.pools) known[key.first].add(pool);
  for (const auto& [name, connections] : known) {
    table.rows.push_back(database_row(view, name, connections));
  }
}

void users(const ConsoleView& view, ConsoleTable& table) {
  std::map<std::string, Connections> known;
  for (const std::string& name : view.users) known[name];
  for (const auto& [key, pool] : view.snapshot.pools) known[key.second].add(pool);
  for (const auto& [name, connections] : known) {
    const PoolRule* rule = nullptr;
    for (const PoolRule& r : view.config.pools) {
      if (rule == nullptr && r.database.empty() && r.user == name) rule = &r;
    }
    std::optional<std::string> mode;
    if (rule != nullptr && rule->mode) mode = describe(*rule->mode);
    table.rows.push_back(
        {name, rule != nullptr && rule->pool_size ? number(*rule->pool_size) : "", "", mode,
         number(view.config.max_user_connections), number(connections.servers),
         number(max_user_clients(view.config, name, "")), number(connections.clients)});
  }
}

// ---- Statistics --------------------------------------------------------------------------------

using Values = std::vector<uint64_t>;

Values totals_of(const TrafficCounts& c) {
  return {c.assignments,
          c.transactions,
          c.queries,
          c.received,
          c.sent,
          micros(c.transaction_time),
          micros(c.query_time),
          micros(c.wait_time),
          c.client_parses,
          c.server_parses,
          c.binds,
          c.logins};
}

// Each second, or for the times: each transaction, query, assignment.
Values averages_of(const Traffic& traffic, Nanos period) {
  const Values now = totals_of(traffic.now), before = totals_of(traffic.older);
  const uint64_t duration = micros(period);
  Values averages(now.size(), 0);
  if (duration == 0) return averages;
  for (size_t i = 0; i < now.size(); ++i) averages[i] = now[i] - before[i];
  const uint64_t of[] = {averages[1], averages[2], averages[0]};  // of the three times
  for (size_t i = 0; i < now.size(); ++i) {
    const bool time = i >= 5 && i <= 7;
    if (!time) {
      averages[i] = averages[i] * 1'000'000 / duration;
    } else {
      averages[i] = of[i - 5] == 0 ? 0 : averages[i] / of[i - 5];
    }
  }
  return averages;
}

void append(Row& row, const Values& values) {
  for (const uint64_t value : values) row.push_back(number(value));
}

void stats(const ConsoleView& view, ConsoleShow show, ConsoleTable& table) {
  for (const auto& [database, traffic] : view.snapshot.traffic) {
    Row row = {database};
    if (show != ConsoleShow::kStatsAverages) append(row, totals_of(traffic.now));
    if (show != ConsoleShow::kStatsTotals) append(row, averages_of(traffic, view.snapshot.period));
    table.rows.push_back(std::move(row));
  }
}

void totals(const ConsoleView& view, ConsoleTable& table) {
  constexpr std::string_view kNames[] = {"server_assignment_count",
                                         "xact_count",
                                         "query_count",
                                         "client_bytes",
                                         "server_bytes",
                                         "xact_time",
                                         "query_time",
                                         "wait_time",
                                         "ps_client_parse_count",
                                         "ps_server_parse_count",
                                         "ps_bind_count",
                                         "client_login_count"};
  Traffic all;
  for (const auto& [database, traffic] : view.snapshot.traffic) all += traffic;
  const Values sums = totals_of(all.now), averages = averages_of(all, view.snapshot.period);
  for (size_t i = 0; i < sums.size(); ++i) {
    table.rows.push_back({fmt::format("total_{}", kNames[i]), number(sums[i])});
  }
  for (size_t i = 0; i < sums.size(); ++i) {
    table.rows.push_back({fmt::format("avg_{}", kNames[i]), number(averages[i])});
  }
}

// ---- The rest ----------------------------------------------------------------------------------

void lists(const ConsoleView& view, ConsoleTable& table) {
  std::set<std::string> databases, users(view.users.begin(), view.users.end());
  for (const auto& [key, pool] : view.snapshot.pools) {
    databases.insert(key.first);
    users.insert(key.second);
  }
  const ConsoleSnapshot& s = view.snapshot;
  const auto item = [&](std::string_view list, auto count) {
    table.rows.push_back({std::string(list), number(count)});
  };
  item("databases", databases.size());
  item("users", users.size());
  item("peers", 0);
  item("pools", s.pools.size());
  item("peer_pools", 0);
  item("free_clients", 0);
  item("used_clients", s.clients);
  item("login_clients", s.login_clients);
  item("free_servers", 0);
  item("used_servers", s.servers);
  for (const char* list : {"dns_names", "dns_zones", "dns_queries", "dns_pending"}) item(list, 0);
}

void memory(const ConsoleView& view, ConsoleTable& table) {
  const ConsoleSnapshot& s = view.snapshot;
  const auto item = [&](std::string_view name, uint64_t size, uint64_t used) {
    table.rows.push_back({std::string(name), number(size), number(used), "0", number(size * used)});
  };
  item("client_connections", s.client_bytes, static_cast<uint64_t>(s.clients));
  item("server_connections", s.server_bytes, static_cast<uint64_t>(s.servers));
  item("prepared_statements", 0, s.statements);
  item("settings", 0, s.settings);
}

void state(const ConsoleView& view, ConsoleTable& table) {
  const Halt halt = view.controls.all;
  table.rows = {{"active", halt == Halt::kNone ? "yes" : "no"},
                {"paused", halt == Halt::kPaused ? "yes" : "no"},
                {"suspended", halt == Halt::kSuspended ? "yes" : "no"}};
}

}  // namespace

const std::string_view kConsoleVersion = "PgBouncer 1.25.0 (Bascule 0.1.0)";
const std::string_view kConsoleHelp =
    "\n\tSHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|USERS|VERSION\n"
    "\tSHOW PEERS|PEER_POOLS\n"
    "\tSHOW SOCKETS|ACTIVE_SOCKETS|LISTS|MEM|STATE|PREPARED_STATEMENTS\n"
    "\tSHOW DNS_HOSTS|DNS_ZONES\n"
    "\tSHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS\n"
    "\tSET key = arg\n"
    "\tRELOAD\n"
    "\tPAUSE [<db>]\n"
    "\tRESUME [<db>]\n"
    "\tDISABLE <db>\n"
    "\tENABLE <db>\n"
    "\tRECONNECT [<db>]\n"
    "\tKILL [<db>]\n"
    "\tKILL_CLIENT <client_id>\n"
    "\tSUSPEND\n"
    "\tSHUTDOWN\n"
    "\tSHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS\n"
    "\tWAIT_CLOSE [<db>]";

std::string_view describe(PoolMode mode) {
  constexpr std::string_view kNames[] = {"session", "transaction", "statement"};
  return kNames[static_cast<size_t>(mode)];
}

bool needs_sockets(ConsoleShow show) {
  return show == ConsoleShow::kClients || show == ConsoleShow::kServers ||
         show == ConsoleShow::kSockets || show == ConsoleShow::kActiveSockets ||
         show == ConsoleShow::kPreparedStatements || show == ConsoleShow::kFds;
}

ConsoleTable table_of(ConsoleShow show, const ConsoleView& view) {
  ConsoleTable table{columns_of(show), {}};
  switch (show) {
    case ConsoleShow::kClients:
    case ConsoleShow::kServers:
    case ConsoleShow::kSockets:
    case ConsoleShow::kActiveSockets:
      sockets(view, show, table);
      break;
    case ConsoleShow::kPreparedStatements:
      prepared(view, table);
      break;
    case ConsoleShow::kPools:
      pools(view, table);
      break;
    case ConsoleShow::kDatabases:
      databases(view, table);
      break;
    case ConsoleShow::kUsers:
      users(view, table);
      break;
    case ConsoleShow::kStats:
    case ConsoleShow::kStatsTotals:
    case ConsoleShow::kStatsAverages:
      stats(view, show, table);
      break;
    case ConsoleShow::kTotals:
      totals(view, table);
      break;
    case ConsoleShow::kLists:
      lists(view, table);
      break;
    case ConsoleShow::kConfig:
      table.rows = config_rows(view.config, view.defaults);
      break;
    case ConsoleShow::kMem:
      memory(view, table);
      break;
    case ConsoleShow::kVersion:
      table.rows = {{std::string(kConsoleVersion)}};
      break;
    case ConsoleShow::kState:
      state(view, table);
      break;
    case ConsoleShow::kFds:
      descriptors(view, table);
      break;
    case ConsoleShow::kDnsHosts:
    case ConsoleShow::kDnsZones:
    case ConsoleShow::kPeers:
    case ConsoleShow::kPeerPools:
    case ConsoleShow::kHelp:
      break;
  }
  return table;
}

}  // namespace bascule::proxy
