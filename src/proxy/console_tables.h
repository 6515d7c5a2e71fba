// The tables of SHOW. Columns and their types are PgBouncer's 1.25
// (https://www.pgbouncer.org/usage.html#show-commands); our own follow behind them. Pure.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/config.h"
#include "proxy/console_command.h"
#include "proxy/console_snapshot.h"
#include "proxy/controls.h"
#include "proxy/route_table.h"

namespace bascule::proxy {

struct ConsoleColumn {
  enum class Type { kText, kInt4, kInt8, kNumeric };
  std::string_view name;
  Type type = Type::kText;
};

struct ConsoleTable {
  using Row = std::vector<std::optional<std::string>>;
  std::span<const ConsoleColumn> columns;
  std::vector<Row> rows;
};

// Everything that a table may be made of.
struct ConsoleView {
  const ConsoleSnapshot& snapshot;  // of all workers
  const ProxyConfig& config;
  const ProxyConfig& defaults;
  const Controls& controls;
  const RouteTable* route = nullptr;  // null: nothing is known yet
  std::vector<std::string> users;     // that are listed
};

// Known before anything is asked; empty: it answers without rows (HELP).
std::span<const ConsoleColumn> columns_of(ConsoleShow show);
ConsoleTable table_of(ConsoleShow show, const ConsoleView& view);

// SocketView is asked for only by these.
bool needs_sockets(ConsoleShow show);

extern const std::string_view kConsoleHelp;
extern const std::string_view kConsoleVersion;  // "PgBouncer 1.25.0 (...)"

std::string_view describe(PoolMode mode);

}  // namespace bascule::proxy
