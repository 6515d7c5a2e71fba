#include "proxy/console_command.h"

#include <algorithm>
#include <charconv>
#include <utility>
#include <vector>

namespace bascule::proxy {
namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](char c) { return lower(c); });
  return out;
}

struct Token {
  std::string text;
  char quote = 0;  // 0: a bare word, '=' for the sign
};

// Words, "quoted names", 'strings' and equals signs; one semicolon may end it all.
std::optional<std::vector<Token>> tokens_of(std::string_view text) {
  std::vector<Token> tokens;
  for (size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (is_space(c)) {
      ++i;
    } else if (c == ';') {
      if (!std::all_of(text.begin() + static_cast<std::ptrdiff_t>(i) + 1, text.end(),
                       [](char rest) { return is_space(rest) || rest == ';'; })) {
        return std::nullopt;
      }
      break;
    } else if (c == '=') {
      tokens.push_back({"=", '='});
      ++i;
    } else if (c == '"' || c == '\'') {
      Token token{"", c};
      for (++i;; ++i) {
        if (i == text.size()) return std::nullopt;
        if (text[i] != c) {
          token.text += text[i];
        } else if (i + 1 < text.size() && text[i + 1] == c) {
          token.text += text[++i];
        } else {
          break;
        }
      }
      ++i;
      tokens.push_back(std::move(token));
    } else {
      const size_t begin = i;
      while (i < text.size() && !is_space(text[i]) &&
             std::string_view(";='\"").find(text[i]) == std::string_view::npos) {
        ++i;
      }
      tokens.push_back({std::string(text.substr(begin, i - begin)), 0});
    }
  }
  return tokens;
}

constexpr std::pair<std::string_view, ConsoleShow> kShows[] = {
    {"active_sockets", ConsoleShow::kActiveSockets},
    {"clients", ConsoleShow::kClients},
    {"config", ConsoleShow::kConfig},
    {"databases", ConsoleShow::kDatabases},
    {"dns_hosts", ConsoleShow::kDnsHosts},
    {"dns_zones", ConsoleShow::kDnsZones},
    {"fds", ConsoleShow::kFds},
    {"help", ConsoleShow::kHelp},
    {"lists", ConsoleShow::kLists},
    {"mem", ConsoleShow::kMem},
    {"peer_pools", ConsoleShow::kPeerPools},
    {"peers", ConsoleShow::kPeers},
    {"pools", ConsoleShow::kPools},
    {"prepared_statements", ConsoleShow::kPreparedStatements},
    {"servers", ConsoleShow::kServers},
    {"sockets", ConsoleShow::kSockets},
    {"state", ConsoleShow::kState},
    {"stats", ConsoleShow::kStats},
    {"stats_averages", ConsoleShow::kStatsAverages},
    {"stats_totals", ConsoleShow::kStatsTotals},
    {"totals", ConsoleShow::kTotals},
    {"users", ConsoleShow::kUsers},
    {"version", ConsoleShow::kVersion},
};

// How many arguments a command takes.
struct Verb {
  std::string_view word;
  ConsoleVerb verb;
  size_t min = 0, max = 0;
};
constexpr Verb kVerbs[] = {
    {"disable", ConsoleVerb::kDisable, 1, 1},
    {"enable", ConsoleVerb::kEnable, 1, 1},
    {"kill", ConsoleVerb::kKill, 0, 1},
    {"kill_client", ConsoleVerb::kKillClient, 1, 1},
    {"pause", ConsoleVerb::kPause, 0, 1},
    {"reconnect", ConsoleVerb::kReconnect, 0, 1},
    {"reload", ConsoleVerb::kReload, 0, 0},
    {"resume", ConsoleVerb::kResume, 0, 1},
    {"select", ConsoleVerb::kShow, 1, 1},
    {"show", ConsoleVerb::kShow, 1, 1},
    {"shutdown", ConsoleVerb::kShutdown, 0, 1},
    {"suspend", ConsoleVerb::kSuspend, 0, 0},
    {"wait_close", ConsoleVerb::kWaitClose, 0, 1},
};

std::unexpected<Error> invalid(std::string_view text) {
  constexpr size_t kShown = 200;
  return fail(ErrorCode::kInvalid,
              "invalid command '" + std::string(text.substr(0, kShown)) + "', use SHOW HELP;");
}

bool show(const std::string& what, ConsoleCommand& command) {
  const std::string name = lower(what);
  if (session_setting(name)) {
    command.verb = ConsoleVerb::kShowSetting;
    command.argument = name;
    return true;
  }
  const auto* found =
      std::ranges::find(kShows, name, &std::pair<std::string_view, ConsoleShow>::first);
  if (found == std::end(kShows)) return false;
  command.show = found->second;
  return true;
}

bool shutdown(const std::string& how, ConsoleCommand& command) {
  const std::string mode = lower(how);
  if (mode == "wait_for_servers") command.shutdown = ShutdownMode::kWaitForServers;
  if (mode == "wait_for_clients") command.shutdown = ShutdownMode::kWaitForClients;
  return command.shutdown != ShutdownMode::kNow;
}

// SET name = value, SET name TO value
std::optional<ConsoleCommand> set(const std::vector<Token>& tokens) {
  if (tokens.size() != 4 || tokens[1].quote == '\'') return std::nullopt;
  const bool sign =
      tokens[2].quote == '=' || (tokens[2].quote == 0 && lower(tokens[2].text) == "to");
  if (!sign || tokens[3].quote == '=' || tokens[1].text.empty()) return std::nullopt;
  ConsoleCommand command;
  command.verb = ConsoleVerb::kSet;
  command.argument = lower(tokens[1].text);
  command.value = tokens[3].text;
  return command;
}

}  // namespace

Result<ConsoleCommand> parse_console_command(std::string_view text) {
  const auto tokens = tokens_of(text);
  if (!tokens) return invalid(text);
  if (tokens->empty()) return ConsoleCommand{};
  const std::string word = tokens->front().quote == 0 ? lower(tokens->front().text) : "";
  if (word == "set") {
    auto command = set(*tokens);
    if (!command) return invalid(text);
    return std::move(*command);
  }
  const Verb* verb = std::ranges::find(kVerbs, word, &Verb::word);
  if (verb == std::end(kVerbs)) return invalid(text);
  const size_t arguments = tokens->size() - 1;
  if (arguments < verb->min && verb->verb != ConsoleVerb::kShow &&
      verb->verb != ConsoleVerb::kKillClient) {
    return fail(ErrorCode::kInvalid, "a database is required");
  }
  if (arguments < verb->min || arguments > verb->max) return invalid(text);
  ConsoleCommand command;
  command.verb = verb->verb;
  if (arguments == 0) return command;
  const Token& argument = (*tokens)[1];
  if (argument.quote == '=' || argument.quote == '\'' || argument.text.empty())
    return invalid(text);
  if (command.verb == ConsoleVerb::kShow) {
    if (!show(argument.text, command)) return invalid(text);
  } else if (command.verb == ConsoleVerb::kShutdown) {
    if (!shutdown(argument.text, command)) return invalid(text);
  } else if (command.verb == ConsoleVerb::kKillClient) {
    const char* end = argument.text.data() + argument.text.size();
    const auto [stop, error] = std::from_chars(argument.text.data(), end, command.id);
    if (error != std::errc() || stop != end) {
      return fail(ErrorCode::kInvalid, "invalid client pointer supplied");
    }
  } else {
    command.argument = argument.text;
  }
  return command;
}

std::string_view tag_of(ConsoleVerb verb) {
  switch (verb) {
    case ConsoleVerb::kNothing:
      return "";
    case ConsoleVerb::kShow:
    case ConsoleVerb::kShowSetting:
      return "SHOW";
    case ConsoleVerb::kPause:
      return "PAUSE";
    case ConsoleVerb::kResume:
      return "RESUME";
    case ConsoleVerb::kReconnect:
      return "RECONNECT";
    case ConsoleVerb::kDisable:
      return "DISABLE";
    case ConsoleVerb::kEnable:
      return "ENABLE";
    case ConsoleVerb::kKill:
      return "KILL";
    case ConsoleVerb::kKillClient:
      return "KILL_CLIENT";
    case ConsoleVerb::kSuspend:
      return "SUSPEND";
    case ConsoleVerb::kWaitClose:
      return "WAIT_CLOSE";
    case ConsoleVerb::kShutdown:
      return "SHUTDOWN";
    case ConsoleVerb::kReload:
      return "RELOAD";
    case ConsoleVerb::kSet:
      return "SET";
  }
  return "";
}

bool needs_admin(const ConsoleCommand& command) {
  if (command.verb == ConsoleVerb::kShow) return command.show == ConsoleShow::kFds;
  if (command.verb == ConsoleVerb::kSet) return !session_setting(command.argument);
  return command.verb != ConsoleVerb::kNothing && command.verb != ConsoleVerb::kShowSetting;
}

std::optional<std::string_view> session_setting(std::string_view name) {
  constexpr std::pair<std::string_view, std::string_view> kSettings[] = {
      {"client_encoding", "UTF8"},
      {"default_transaction_isolation", "read committed"},
      {"standard_conforming_strings", "on"},
      {"datestyle", "ISO"},
      {"timezone", "GMT"},
  };
  for (const auto& [known, value] : kSettings) {
    if (known == name) return value;
  }
  return std::nullopt;
}

}  // namespace bascule::proxy
