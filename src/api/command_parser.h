// Which path and method is which command, and a request's body as a command. Pure.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/access.h"
#include "api/routes.h"
#include "base/result.h"

namespace bascule::api {

inline constexpr std::string_view kRegionFailover = "/api/database/failover/";
inline constexpr std::string_view kRegionReconnect = "/api/database/reconnect/";
inline constexpr std::string_view kMembers = "/members/";
inline constexpr std::string_view kOperations = "/operations/";

struct CommandRoute {
  std::string_view path;
  Command::Kind kind;
  std::string_view method = "POST";
};

// Method and path, with what varies in braces.
std::vector<std::pair<std::string, std::string>> command_routes();
const CommandRoute* find_command(std::string_view method, std::string_view path);
// "POST, DELETE"; empty: no command has that path.
std::string methods_of(std::string_view path);

// "api ops 127.0.0.1", or "api 127.0.0.1": whom the audit names.
std::string asker_of(const Request& request, std::string_view name);

struct ParsedCommand {
  Command command;
  NodeName leader;  // the caller believes that it leads; empty: no matter
};

// `local`: the member beside this daemon, which restart, reload and reinitialize are about when
// nobody is named (as with Patroni); empty: there is none.
Result<ParsedCommand> parse_command(const Request& request, Command::Kind kind,
                                    const Caller& caller, const NodeName& local);

}  // namespace bascule::api
