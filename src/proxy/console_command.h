// What is typed into the admin console, understood: PgBouncer's commands
// (https://www.pgbouncer.org/usage.html#admin-console). Pure.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace bascule::proxy {

enum class ConsoleVerb {
  kNothing,  // an empty text
  kShow,
  kShowSetting,  // of a session, such as client_encoding: `argument`
  kPause,
  kResume,
  kReconnect,
  kDisable,
  kEnable,
  kKill,
  kKillClient,
  kSuspend,
  kWaitClose,
  kShutdown,
  kReload,
  kSet,
};

enum class ConsoleShow {
  kActiveSockets,
  kClients,
  kConfig,
  kDatabases,
  kDnsHosts,
  kDnsZones,
  kFds,
  kHelp,
  kLists,
  kMem,
  kPeerPools,
  kPeers,
  kPools,
  kPreparedStatements,
  kServers,
  kSockets,
  kState,
  kStats,
  kStatsAverages,
  kStatsTotals,
  kTotals,
  kUsers,
  kVersion,
};

enum class ShutdownMode { kNow, kWaitForServers, kWaitForClients };

struct ConsoleCommand {
  ConsoleVerb verb = ConsoleVerb::kNothing;
  ConsoleShow show = ConsoleShow::kHelp;       // kShow
  std::string argument;                        // a database; empty: all. kSet: the setting's name
  std::string value;                           // kSet
  uint64_t id = 0;                             // kKillClient
  ShutdownMode shutdown = ShutdownMode::kNow;  // kShutdown
};

// One command, with or without a semicolon. kInvalid: PgBouncer's own words.
Result<ConsoleCommand> parse_console_command(std::string_view text);

// The tag of CommandComplete: "SHOW", "PAUSE", ...
std::string_view tag_of(ConsoleVerb verb);
// Changes something: for admins only.
bool needs_admin(const ConsoleCommand& command);
// Settings that drivers ask a session for, and what they are told; nullopt: none of them.
std::optional<std::string_view> session_setting(std::string_view name);

}  // namespace bascule::proxy
