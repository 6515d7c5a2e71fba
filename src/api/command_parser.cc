#include "api/command_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "api/config_changes.h"
#include "base/time_text.h"

namespace bascule::api {
namespace {

using Kind = Command::Kind;
using nlohmann::json;

constexpr size_t kReasonBytesMax = 500;
constexpr size_t kMembersMax = 100;
constexpr int64_t kTimeoutSecondsMax = 24 * 3600;

constexpr CommandRoute kCommandRoutes[] = {
    {"/switchover", Kind::kSwitchover},
    {"/switchover", Kind::kCancel, "DELETE"},
    {"/failover", Kind::kFailover},
    {"/failover/trigger", Kind::kFailover},
    {"/failover/check-health", Kind::kCheckHealth},
    {"/api/database/health-check", Kind::kCheckHealth},
    {kRegionFailover, Kind::kFailover},    // and the name of a region
    {kRegionReconnect, Kind::kReconnect},  // likewise
    {"/api/database/connections/refresh", Kind::kReconnect},
    {"/api/database/analyze-query", Kind::kAnalyzeQuery},
    {"/pause", Kind::kPause},
    {"/resume", Kind::kResume},
    {"/config", Kind::kConfig, "PATCH"},
    {"/config", Kind::kConfig, "PUT"},
    {"/restart", Kind::kRestart},
    {"/restart", Kind::kCancel, "DELETE"},
    {"/reload", Kind::kReload},
    {"/reinitialize", Kind::kReinit},
    {kMembers, Kind::kRemove, "DELETE"},     // and a name
    {kOperations, Kind::kCancel, "DELETE"},  // and an id
};

std::string_view route_of(std::string_view path) {
  for (const std::string_view prefix : {kRegionFailover, kRegionReconnect, kMembers, kOperations}) {
    if (path.starts_with(prefix) && path.size() > prefix.size()) return prefix;
  }
  return path;
}

std::unexpected<Error> invalid(std::string what, std::string hint = "") {
  return fail(ErrorCode::kInvalid, std::move(what), std::move(hint));
}

Status take_text(const json& body, const char* name, std::string& out) {
  const auto found = body.find(name);
  if (found == body.end() || found->is_null()) return {};
  if (!found->is_string()) return invalid(fmt::format("{}: not a string", name));
  out = found->get<std::string>();
  return {};
}

Status take_name(const json& body, const char* name, NodeName& out) {
  std::string text;
  if (auto ok = take_text(body, name, text); !ok || text.empty()) return ok;
  auto parsed = NodeName::parse(text);
  if (!parsed) return invalid(fmt::format("{}: not a member's name", name));
  out = std::move(*parsed);
  return {};
}

Status take_flag(const json& body, const char* name, bool& out) {
  const auto found = body.find(name);
  if (found == body.end()) return {};
  if (!found->is_boolean()) return invalid(fmt::format("{}: not true or false", name));
  out = found->get<bool>();
  return {};
}

Status take_time(const json& body, const char* name, WallTime& out) {
  std::string text;
  if (auto ok = take_text(body, name, text); !ok || text.empty()) return ok;
  const auto time = parse_iso8601(text);
  if (!time) {
    return invalid(fmt::format("{}: not a time", name), "As in 2026-11-21T23:00:00Z");
  }
  out = *time;
  return {};
}

// Seconds as with Patroni, also as text.
Status take_timeout(const json& body, Millis& out) {
  const auto found = body.find("timeout");
  if (found == body.end()) return {};
  int64_t seconds = 0;
  if (found->is_number_integer()) {
    seconds = found->get<int64_t>();
  } else if (found->is_string()) {
    const auto& text = found->get_ref<const std::string&>();
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
    if (error != std::errc() || end != text.data() + text.size()) seconds = 0;
  }
  if (seconds < 1 || seconds > kTimeoutSecondsMax) {
    return invalid("timeout: not a number of seconds from 1 to 86400");
  }
  out = std::chrono::seconds(seconds);
  return {};
}

// {"members": ["n1", "n2"]} or "all", or {"member": "n1"}; else the member beside this daemon.
Status take_members(const json& body, const NodeName& local, std::vector<NodeName>& out) {
  if (!local.empty()) out = {local};
  if (body.contains("member")) {
    NodeName one;
    if (auto ok = take_name(body, "member", one); !ok) return ok;
    if (!one.empty()) out = {one};
  }
  const auto found = body.find("members");
  if (found == body.end()) return {};
  out.clear();
  if (found->is_string() && found->get<std::string>() == "all") return {};
  if (!found->is_array() || found->empty() || found->size() > kMembersMax) {
    return invalid("members: not a list of names, nor \"all\"");
  }
  for (const json& item : *found) {
    const auto name = item.is_string() ? NodeName::parse(item.get<std::string>())
                                       : Result<NodeName>(invalid("not a name"));
    if (!name) return invalid("members: not a list of names, nor \"all\"");
    if (std::ranges::find(out, *name) == out.end()) out.push_back(*name);
  }
  return {};
}

// Unknown fields are refused: a misspelt "candidate" must not move the primary somewhere else.
Status check_fields(const json& body, Kind kind) {
  static const std::vector<std::pair<std::string_view, std::vector<Kind>>> fields = {
      {"leader", {Kind::kSwitchover, Kind::kFailover}},
      {"candidate", {Kind::kSwitchover, Kind::kFailover}},
      {"target", {Kind::kSwitchover, Kind::kFailover}},
      {"reason", {Kind::kSwitchover, Kind::kFailover, Kind::kRestart, Kind::kReinit}},
      {"region", {Kind::kSwitchover}},
      {"query", {Kind::kAnalyzeQuery}},
      {"scheduled_at", {Kind::kSwitchover, Kind::kRestart}},
      {"schedule", {Kind::kRestart}},
      {"force", {Kind::kFailover, Kind::kReinit}},
      {"old_primary_is_dead", {Kind::kFailover}},
      {"member", {Kind::kRestart, Kind::kReload, Kind::kReinit}},
      {"members", {Kind::kRestart, Kind::kReload, Kind::kReinit}},
      {"restart_pending", {Kind::kRestart}},
      {"by_switchover", {Kind::kRestart}},
      {"timeout", {Kind::kRestart, Kind::kReinit}},
  };
  for (const auto& [name, value] : body.items()) {
    const auto known = std::ranges::find_if(fields, [&](const auto& f) { return f.first == name; });
    if (known != fields.end() && std::ranges::count(known->second, kind) > 0) continue;
    return invalid(fmt::format("unknown field \"{}\"", name.substr(0, 40)));
  }
  return {};
}

Status parse_fields(const json& body, const NodeName& local, ParsedCommand& parsed) {
  Command& c = parsed.command;
  if (auto ok = check_fields(body, c.kind); !ok) return ok;
  const char* candidate = body.contains("candidate") ? "candidate" : "target";
  const char* at = body.contains("schedule") ? "schedule" : "scheduled_at";
  const bool members =
      c.kind == Kind::kRestart || c.kind == Kind::kReload || c.kind == Kind::kReinit;
  for (const Status& step :
       {take_name(body, "leader", parsed.leader), take_name(body, candidate, c.candidate),
        take_text(body, "reason", c.reason), take_flag(body, "force", c.force),
        take_flag(body, "old_primary_is_dead", c.old_primary_dead),
        take_text(body, "region", c.region), take_text(body, "query", c.query),
        take_time(body, at, c.at), take_flag(body, "restart_pending", c.only_pending),
        take_flag(body, "by_switchover", c.by_switchover), take_timeout(body, c.timeout),
        members ? take_members(body, local, c.members) : Status()}) {
    if (!step) return step;
  }
  if (c.reason.size() > kReasonBytesMax) {
    return invalid(fmt::format("reason: longer than {} bytes", kReasonBytesMax));
  }
  if (c.kind == Kind::kAnalyzeQuery && c.query.empty()) return invalid("query: is required");
  if (!c.region.empty() && !c.candidate.empty()) {
    return invalid("region and candidate: name one of both");
  }
  return {};
}

}  // namespace

const CommandRoute* find_command(std::string_view method, std::string_view path) {
  path = route_of(path);
  const auto found = std::ranges::find_if(kCommandRoutes, [&](const CommandRoute& route) {
    return route.path == path && route.method == method;
  });
  return found == std::end(kCommandRoutes) ? nullptr : &*found;
}

std::vector<std::pair<std::string, std::string>> command_routes() {
  std::vector<std::pair<std::string, std::string>> out;
  for (const CommandRoute& route : kCommandRoutes) {
    std::string path(route.path);
    if (route.path == kRegionFailover || route.path == kRegionReconnect) path += "{region}";
    if (route.path == kMembers) path += "{name}";
    if (route.path == kOperations) path += "{id}";
    out.emplace_back(route.method, path);
  }
  return out;
}

std::string methods_of(std::string_view path) {
  path = route_of(path);
  std::string out;
  for (const CommandRoute& route : kCommandRoutes) {
    if (route.path == path) out += fmt::format("{}{}", out.empty() ? "" : ", ", route.method);
  }
  return out;
}

std::string asker_of(const Request& request, std::string_view name) {
  return fmt::format("api {}{}{}", name, name.empty() ? "" : " ", request.remote);
}

Result<ParsedCommand> parse_command(const Request& request, Kind kind, const Caller& caller,
                                    const NodeName& local) {
  ParsedCommand parsed;
  Command& command = parsed.command;
  command.kind = kind;
  command.by = asker_of(request, caller.name);
  if (kind == Kind::kCancel) {
    if (request.path.starts_with(kOperations)) command.id = request.path.substr(kOperations.size());
    if (request.path == "/restart") command.cancels = Kind::kRestart;
    return parsed;
  }
  if (kind == Kind::kRemove) {
    const auto name = NodeName::parse(std::string_view(request.path).substr(kMembers.size()));
    if (!name) return invalid("not a member's name");
    command.members = {*name};
    return parsed;
  }
  const bool config = kind == Kind::kConfig;
  json body = json::object();
  if (!request.body.empty() || config) body = json::parse(request.body, nullptr, false);
  if (!body.is_object()) return invalid("The body is not a JSON object");
  if (config) {
    command.replace = request.method == "PUT";
    auto changes = config_changes(body);
    if (!changes) return std::unexpected(changes.error());
    command.changes = std::move(*changes);
    return parsed;
  }
  if (auto ok = parse_fields(body, local, parsed); !ok) return std::unexpected(ok.error());
  if (request.path.starts_with(kRegionReconnect)) {
    command.region = request.path.substr(kRegionReconnect.size());
  }
  return parsed;
}

}  // namespace bascule::api
