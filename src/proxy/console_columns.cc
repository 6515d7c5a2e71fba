// PgBouncer's columns, in its order, and ours behind them.
#include <algorithm>
#include <array>

#include "proxy/console_tables.h"

namespace bascule::proxy {
namespace {

using Column = ConsoleColumn;
constexpr auto kInt4 = Column::Type::kInt4;
constexpr auto kInt8 = Column::Type::kInt8;
constexpr auto kNumeric = Column::Type::kNumeric;

constexpr Column kSocketColumns[] = {
    {"type"},
    {"user"},
    {"database"},
    {"replication"},
    {"state"},
    {"addr"},
    {"port", kInt4},
    {"local_addr"},
    {"local_port", kInt4},
    {"connect_time"},
    {"request_time"},
    {"wait", kInt4},
    {"wait_us", kInt4},
    {"close_needed", kInt4},
    {"ptr"},
    {"link"},
    {"remote_pid", kInt4},
    {"tls"},
    {"application_name"},
    {"prepared_statements", kInt4},
    {"id", kInt8},
};
// Of the buffers that PgBouncer has.
constexpr Column kBufferColumns[] = {
    {"recv_pos", kInt4},    {"pkt_pos", kInt4},   {"pkt_remain", kInt4}, {"send_pos", kInt4},
    {"send_remain", kInt4}, {"pkt_avail", kInt4}, {"send_avail", kInt4},
};
constexpr Column kOurSocketColumns[] = {{"worker", kInt4}, {"pinned"}, {"member"}};

template <size_t... N>
constexpr auto join(const Column (&... parts)[N]) {
  std::array<Column, (N + ...)> all{};
  auto end = all.begin();
  ((end = std::copy(parts, parts + N, end)), ...);
  return all;
}
constexpr auto kPlainSocketColumns = join(kSocketColumns, kOurSocketColumns);
constexpr auto kDebugColumns = join(kSocketColumns, kBufferColumns, kOurSocketColumns);

constexpr Column kPoolColumns[] = {
    {"database"},
    {"user"},
    {"cl_active", kInt4},
    {"cl_waiting", kInt4},
    {"cl_active_cancel_req", kInt4},
    {"cl_waiting_cancel_req", kInt4},
    {"sv_active", kInt4},
    {"sv_active_cancel", kInt4},
    {"sv_being_canceled", kInt4},
    {"sv_idle", kInt4},
    {"sv_used", kInt4},
    {"sv_tested", kInt4},
    {"sv_login", kInt4},
    {"maxwait", kInt4},
    {"maxwait_us", kInt4},
    {"pool_mode"},
    {"load_balance_hosts"},
    // Ours:
    {"cl_pinned", kInt4},
    {"pinned_by"},
};
constexpr Column kDatabaseColumns[] = {
    {"name"},
    {"host"},
    {"port", kInt4},
    {"database"},
    {"force_user"},
    {"pool_size", kInt4},
    {"min_pool_size", kInt4},
    {"reserve_pool_size", kInt4},
    {"server_lifetime", kInt4},
    {"pool_mode"},
    {"load_balance_hosts"},
    {"max_connections", kInt4},
    {"current_connections", kInt4},
    {"max_client_connections", kInt4},
    {"current_client_connections", kInt4},
    {"paused", kInt4},
    {"disabled", kInt4},
};
constexpr Column kUserColumns[] = {
    {"name"},
    {"pool_size"},
    {"reserve_pool_size"},
    {"pool_mode"},
    {"max_user_connections", kInt4},
    {"current_connections", kInt4},
    {"max_user_client_connections", kInt4},
    {"current_client_connections", kInt4},
};
constexpr Column kStatsColumns[] = {
    {"database"},
    {"total_server_assignment_count", kNumeric},
    {"total_xact_count", kNumeric},
    {"total_query_count", kNumeric},
    {"total_received", kNumeric},
    {"total_sent", kNumeric},
    {"total_xact_time", kNumeric},
    {"total_query_time", kNumeric},
    {"total_wait_time", kNumeric},
    {"total_client_parse_count", kNumeric},
    {"total_server_parse_count", kNumeric},
    {"total_bind_count", kNumeric},
    {"total_client_login_count", kNumeric},
    {"avg_server_assignment_count", kNumeric},
    {"avg_xact_count", kNumeric},
    {"avg_query_count", kNumeric},
    {"avg_recv", kNumeric},
    {"avg_sent", kNumeric},
    {"avg_xact_time", kNumeric},
    {"avg_query_time", kNumeric},
    {"avg_wait_time", kNumeric},
    {"avg_client_parse_count", kNumeric},
    {"avg_server_parse_count", kNumeric},
    {"avg_bind_count", kNumeric},
    {"avg_client_login_count", kNumeric},
};
constexpr Column kStatsTotalsColumns[] = {
    {"database"},
    {"server_assignment_count", kNumeric},
    {"xact_count", kNumeric},
    {"query_count", kNumeric},
    {"bytes_received", kNumeric},
    {"bytes_sent", kNumeric},
    {"xact_time", kNumeric},
    {"query_time", kNumeric},
    {"wait_time", kNumeric},
    {"client_parse_count", kNumeric},
    {"server_parse_count", kNumeric},
    {"bind_count", kNumeric},
    {"client_login_count", kNumeric},
};
constexpr Column kStatsAveragesColumns[] = {
    {"database"},
    {"server_assignment_count", kNumeric},
    {"xact_count", kNumeric},
    {"query_count", kNumeric},
    {"bytes_received", kNumeric},
    {"bytes_sent", kNumeric},
    {"xact_time", kNumeric},
    {"query_time", kNumeric},
    {"wait_time", kNumeric},
    {"avg_client_parse_count", kNumeric},
    {"avg_server_parse_count", kNumeric},
    {"avg_bind_count", kNumeric},
    {"avg_client_login_count", kNumeric},
};
constexpr Column kTotalsColumns[] = {{"name"}, {"value", kNumeric}};
constexpr Column kListsColumns[] = {{"list"}, {"items", kInt4}};
constexpr Column kConfigColumns[] = {{"key"}, {"value"}, {"default"}, {"changeable"}};
constexpr Column kMemColumns[] = {
    {"name"}, {"size", kInt4}, {"used", kInt4}, {"free", kInt4}, {"memtotal", kInt4}};
constexpr Column kDnsHostsColumns[] = {{"hostname"}, {"ttl", kInt8}, {"addrs"}};
constexpr Column kDnsZonesColumns[] = {{"zonename"}, {"serial", kInt8}, {"count", kInt4}};
constexpr Column kVersionColumns[] = {{"version"}};
constexpr Column kStateColumns[] = {{"key"}, {"value"}};
constexpr Column kPeersColumns[] = {
    {"peer_id", kInt4}, {"host"}, {"port", kInt4}, {"pool_size", kInt4}};
constexpr Column kPeerPoolsColumns[] = {{"peer_id", kInt4},
                                        {"cl_active_cancel_req", kInt4},
                                        {"cl_waiting_cancel_req", kInt4},
                                        {"sv_active_cancel", kInt4},
                                        {"sv_login", kInt4}};
constexpr Column kFdsColumns[] = {
    {"fd", kInt4},   {"task"},          {"user"},        {"database"},         {"addr"},
    {"port", kInt4}, {"cancel", kInt8}, {"link", kInt4}, {"client_encoding"},  {"std_strings"},
    {"datestyle"},   {"timezone"},      {"password"},    {"scram_client_key"}, {"scram_server_key"},
};
constexpr Column kPreparedColumns[] = {
    {"type"}, {"user"}, {"database"}, {"id", kInt8}, {"prepared_statements", kInt4}};

}  // namespace

std::span<const ConsoleColumn> columns_of(ConsoleShow show) {
  switch (show) {
    case ConsoleShow::kClients:
    case ConsoleShow::kServers:
      return kPlainSocketColumns;
    case ConsoleShow::kSockets:
    case ConsoleShow::kActiveSockets:
      return kDebugColumns;
    case ConsoleShow::kPools:
      return kPoolColumns;
    case ConsoleShow::kDatabases:
      return kDatabaseColumns;
    case ConsoleShow::kUsers:
      return kUserColumns;
    case ConsoleShow::kStats:
      return kStatsColumns;
    case ConsoleShow::kStatsTotals:
      return kStatsTotalsColumns;
    case ConsoleShow::kStatsAverages:
      return kStatsAveragesColumns;
    case ConsoleShow::kTotals:
      return kTotalsColumns;
    case ConsoleShow::kLists:
      return kListsColumns;
    case ConsoleShow::kConfig:
      return kConfigColumns;
    case ConsoleShow::kMem:
      return kMemColumns;
    case ConsoleShow::kDnsHosts:
      return kDnsHostsColumns;
    case ConsoleShow::kDnsZones:
      return kDnsZonesColumns;
    case ConsoleShow::kVersion:
      return kVersionColumns;
    case ConsoleShow::kState:
      return kStateColumns;
    case ConsoleShow::kPeers:
      return kPeersColumns;
    case ConsoleShow::kPeerPools:
      return kPeerPoolsColumns;
    case ConsoleShow::kPreparedStatements:
      return kPreparedColumns;
    case ConsoleShow::kFds:
      return kFdsColumns;
    case ConsoleShow::kHelp:
      return {};
  }
  return {};
}

}  // namespace bascule::proxy
