#include "api/routes.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "api/documents.h"
#include "api/health.h"
#include "api/metrics.h"
#include "api/monitor_documents.h"

namespace bascule::api {
namespace {

constexpr size_t kReasonBytesMax = 500;
constexpr size_t kChangesMax = 50;
constexpr size_t kHistoryDefault = 50, kHistoryMax = 1000;

// Bytes that are not UTF-8 (a reason may quote a server's message) are replaced.
Response json_response(int status, const Json& body) {
  return {status,
          "application/json",
          body.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n",
          {}};
}

struct Context {
  const Request& request;
  const Snapshot& snapshot;
  MonoTime now;
};

// ---- health ------------------------------------------------------------------------------------

// Result: whether the local member is what the route asks for. kInvalid: a bad parameter.
using Check = Result<bool> (*)(const Context&);

std::string parameter(const Context& c, const char* name) {
  const auto found = c.request.query.find(name);
  return found == c.request.query.end() ? "" : found->second;
}

std::string tag_of(const control::MemberRecord& member, std::string_view tag) {
  if (tag == "region") return member.region;
  if (tag == "nofailover") return member.nofailover ? "true" : "false";
  if (tag == "failover_priority") return std::to_string(member.priority);
  return "";
}

bool tags_match(const Context& c) {
  const auto* member = c.snapshot.view.member(c.snapshot.local->name);
  return std::ranges::all_of(c.request.query, [&](const auto& entry) {
    const std::string_view name = entry.first;
    if (!name.starts_with("tag_")) return true;
    return member && tag_of(*member, name.substr(4)) == entry.second;
  });
}

Result<bool> lag_is_within(const Context& c) {
  const auto text = parameter(c, "lag");
  if (text.empty()) return true;
  const auto limit = parse_bytes(text);
  if (!limit) return std::unexpected(limit.error());
  const auto lag = local_lag_bytes(c.snapshot);
  return lag && *lag <= *limit;
}

Result<bool> replica(const Context& c) {
  auto lag_ok = lag_is_within(c);
  if (!lag_ok || !is_replica(c.snapshot, c.now)) return lag_ok ? Result<bool>(false) : lag_ok;
  if (parameter(c, "replication_state") == "streaming" &&
      !c.snapshot.local->postgres.receiver_streaming) {
    return false;
  }
  return *lag_ok && tags_match(c);
}

Result<bool> primary(const Context& c) { return is_primary(c.snapshot, c.now) && tags_match(c); }

Result<bool> read_only(const Context& c) {
  auto as_replica = replica(c);
  if (!as_replica || *as_replica) return as_replica;
  return primary(c);
}

Result<bool> synchronous(const Context& c) {
  return is_sync_replica(c.snapshot, c.now) && tags_match(c);
}

Result<bool> asynchronous(const Context& c) {
  auto as_replica = replica(c);
  if (!as_replica || !*as_replica) return as_replica;
  return !is_sync_replica(c.snapshot, c.now);
}

Result<bool> liveness(const Context& c) { return agent_is_alive(c.snapshot, c.now); }

Result<bool> readiness(const Context& c) {
  if (is_primary(c.snapshot, c.now)) return true;
  if (!c.snapshot.local) return store_is_fresh(c.snapshot, c.now);
  return replica(c);
}

// Something that the caller depends on is down (requirement E3).
Result<bool> everything_connected(const Context& c) {
  const auto document = health_json(c.snapshot, c.now);
  const bool local = !c.snapshot.local || postgres_is_up(c.snapshot, c.now);
  return local && document["db_primary"] == "connected" && document["db_replica"] != "disconnected";
}

Result<bool> never(const Context&) { return false; }  // standby clusters, quorum: not built

struct HealthRoute {
  std::string_view path;
  Check check;
};
constexpr HealthRoute kHealthRoutes[] = {
    {"/", primary},
    {"/primary", primary},
    {"/master", primary},
    {"/read-write", primary},
    {"/leader", primary},
    {"/standby-leader", never},
    {"/replica", replica},
    {"/read-only", read_only},
    {"/synchronous", synchronous},
    {"/sync", synchronous},
    {"/asynchronous", asynchronous},
    {"/async", asynchronous},
    {"/quorum", never},
    {"/health", everything_connected},
    {"/liveness", liveness},
    {"/readiness", readiness},
};

Response health_response(const HealthRoute& route, const Context& c) {
  const auto healthy = route.check(c);
  if (!healthy) return error_response(healthy.error());
  auto body =
      route.path == "/health" ? health_json(c.snapshot, c.now) : patroni_json(c.snapshot, c.now);
  auto response = json_response(*healthy ? 200 : 503, body);
  if (c.request.method == "OPTIONS") response.body.clear();
  return response;
}

// ---- documents
// -----------------------------------------------------------------------------------

Result<size_t> limit_of(const Context& c) {
  const auto text = parameter(c, "limit");
  if (text.empty()) return kHistoryDefault;
  size_t limit = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), limit);
  if (error != std::errc() || end != text.data() + text.size() || limit == 0) {
    return fail(ErrorCode::kInvalid, "limit: not a positive whole number");
  }
  return std::min(limit, kHistoryMax);
}

Response config_response(const Context& c) {
  const auto& config = c.snapshot.view.config;
  if (!config) return error_response(404, "not_found", "The cluster has no configuration yet", "");
  return {200, "application/json", control::encode(config->value) + "\n", {}};
}

Response failover_history_response(const Context& c) {
  const auto limit = limit_of(c);
  if (!limit) return error_response(limit.error());
  return json_response(200, failover_history_json(c.snapshot, *limit));
}

struct DocumentRoute {
  std::string_view path;
  Response (*make)(const Context&);
};
constexpr DocumentRoute kDocumentRoutes[] = {
    {"/patroni",
     [](const Context& c) { return json_response(200, patroni_json(c.snapshot, c.now)); }},
    {"/cluster",
     [](const Context& c) { return json_response(200, cluster_json(c.snapshot, c.now)); }},
    {"/records",
     [](const Context& c) { return json_response(200, records_json(c.snapshot, c.now)); }},
    {"/history", [](const Context& c) { return json_response(200, history_json(c.snapshot)); }},
    {"/config", config_response},
    {"/failover/status",
     [](const Context& c) { return json_response(200, failover_status_json(c.snapshot, c.now)); }},
    {"/failover/history", failover_history_response},
    {"/failover/metrics",
     [](const Context& c) { return json_response(200, failover_metrics_json(c.snapshot, c.now)); }},
    {"/failover/health",
     [](const Context& c) { return json_response(200, failover_health_json(c.snapshot, c.now)); }},
    {"/api/database/status",
     [](const Context& c) { return json_response(200, database_status_json(c.snapshot, c.now)); }},
    {"/api/database/health",
     [](const Context& c) { return json_response(200, database_health_json(c.snapshot, c.now)); }},
    {"/api/database/connections",
     [](const Context& c) { return json_response(200, database_connections_json(c.snapshot)); }},
    {"/api/database/dashboard",
     [](const Context& c) {
       return json_response(200, database_dashboard_json(c.snapshot, c.now));
     }},
    {"/api/database/failover-history", failover_history_response},
    {"/api/database/export",
     [](const Context& c) {
       auto response = json_response(200, database_export_json(c.snapshot, c.now));
       response.headers.emplace_back("Content-Disposition",
                                     "attachment; filename=\"bascule-databases.json\"");
       return response;
     }},
    {"/metrics",
     [](const Context& c) {
       return Response{200, kMetricsContentType, metrics_text(c.snapshot, c.now), {}};
     }},
};

Response operation_response(const Context& c, std::string_view id) {
  const auto& request = c.snapshot.view.request;
  if (request && request->value.id == id) return json_response(200, operation_json(request->value));
  return error_response(404, "not_found", "No such operation",
                        "Only the newest operation is kept; GET /cluster shows it");
}

// ---- commands
// ------------------------------------------------------------------------------------

constexpr std::string_view kRegionFailover = "/api/database/failover/";

struct CommandRoute {
  std::string_view path;
  Command::Kind kind;
  std::string_view method = "POST";
};
constexpr CommandRoute kCommandRoutes[] = {
    {"/switchover", Command::Kind::kSwitchover},
    {"/failover", Command::Kind::kFailover},
    {"/failover/trigger", Command::Kind::kFailover},
    {"/failover/check-health", Command::Kind::kCheckHealth},
    {"/api/database/health-check", Command::Kind::kCheckHealth},
    {kRegionFailover, Command::Kind::kFailover},  // and the name of a region
    {"/pause", Command::Kind::kPause},
    {"/resume", Command::Kind::kResume},
    {"/config", Command::Kind::kConfig, "PATCH"},
};

const CommandRoute* find_command(std::string_view path) {
  if (path.starts_with(kRegionFailover)) path = kRegionFailover;
  const auto found = std::ranges::find(kCommandRoutes, path, &CommandRoute::path);
  return found == std::end(kCommandRoutes) ? nullptr : &*found;
}

const CommandRoute* find_command(std::string_view method, std::string_view path) {
  const CommandRoute* found = find_command(path);
  return found != nullptr && found->method == method ? found : nullptr;
}

Result<std::string> text_field(const nlohmann::json& body, const char* name) {
  const auto found = body.find(name);
  if (found == body.end() || found->is_null()) return std::string();
  if (!found->is_string()) return fail(ErrorCode::kInvalid, fmt::format("{}: not a string", name));
  return found->get<std::string>();
}

Result<NodeName> name_field(const nlohmann::json& body, const char* name) {
  const auto text = text_field(body, name);
  if (!text) return std::unexpected(text.error());
  if (text->empty()) return NodeName();
  auto parsed = NodeName::parse(*text);
  if (!parsed) return fail(ErrorCode::kInvalid, fmt::format("{}: not a member's name", name));
  return parsed;
}

struct ParsedCommand {
  Command command;
  NodeName leader;  // the caller believes that it leads; empty: no matter
};

// Unknown fields are refused: a misspelt "candidate" must not move the primary somewhere else.
Status check_fields(const nlohmann::json& body, Command::Kind kind) {
  static constexpr std::string_view kMove[] = {"leader", "candidate", "target", "reason"};
  for (const auto& [name, value] : body.items()) {
    const bool moves = kind == Command::Kind::kSwitchover || kind == Command::Kind::kFailover;
    const bool known = (moves && std::ranges::count(kMove, name) > 0) ||
                       (kind == Command::Kind::kFailover && name == "force");
    if (known) continue;
    return fail(ErrorCode::kInvalid, fmt::format("unknown field \"{}\"", name.substr(0, 40)),
                name == "scheduled_at" ? "Scheduled switchovers are not supported" : "");
  }
  return {};
}

// {"ttl": "10s", "sync_strict": true}: the keys and values of `bascule config set`.
Result<ParsedCommand> parse_changes(const nlohmann::json& body, ParsedCommand parsed) {
  if (body.empty() || body.size() > kChangesMax) {
    return fail(ErrorCode::kInvalid, fmt::format("expected 1 to {} settings", kChangesMax));
  }
  for (const auto& [name, value] : body.items()) {
    if (!value.is_primitive() || value.is_null() || value.is_binary()) {
      return fail(ErrorCode::kInvalid, fmt::format("{}: not a text, number or true/false", name));
    }
    parsed.command.changes[name] = value.is_string() ? value.get<std::string>() : value.dump();
  }
  return parsed;
}

Result<ParsedCommand> parse_command(const Request& request, Command::Kind kind,
                                    const Caller& caller) {
  ParsedCommand parsed;
  parsed.command.kind = kind;
  parsed.command.by =
      fmt::format("api {}{}{}", caller.name, caller.name.empty() ? "" : " ", request.remote);
  if (request.body.empty() && kind != Command::Kind::kConfig) return parsed;
  const auto body = nlohmann::json::parse(request.body, nullptr, false);
  if (!body.is_object()) return fail(ErrorCode::kInvalid, "The body is not a JSON object");
  if (kind == Command::Kind::kConfig) return parse_changes(body, std::move(parsed));
  if (auto ok = check_fields(body, kind); !ok) return std::unexpected(ok.error());
  const auto leader = name_field(body, "leader");
  if (!leader) return std::unexpected(leader.error());
  auto candidate = name_field(body, body.contains("candidate") ? "candidate" : "target");
  if (!candidate) return std::unexpected(candidate.error());
  const auto reason = text_field(body, "reason");
  if (!reason) return std::unexpected(reason.error());
  if (reason->size() > kReasonBytesMax) {
    return fail(ErrorCode::kInvalid, fmt::format("reason: longer than {} bytes", kReasonBytesMax));
  }
  if (const auto force = body.find("force"); force != body.end()) {
    if (!force->is_boolean()) return fail(ErrorCode::kInvalid, "force: not true or false");
    parsed.command.force = force->get<bool>();
  }
  parsed.leader = *leader;
  parsed.command.candidate = std::move(*candidate);
  parsed.command.reason = *reason;
  return parsed;
}

Response method_not_allowed(std::string_view allowed) {
  auto response = error_response(405, "method_not_allowed", "This path does not take that method",
                                 fmt::format("Use {}", allowed));
  response.headers.emplace_back("Allow", allowed);
  return response;
}

Response get(const Context& c) {
  const auto& path = c.request.path;
  const auto health = std::ranges::find(kHealthRoutes, path, &HealthRoute::path);
  if (health != std::end(kHealthRoutes)) return health_response(*health, c);
  if (c.request.method == "OPTIONS") return method_not_allowed("GET, HEAD");
  const auto document = std::ranges::find(kDocumentRoutes, path, &DocumentRoute::path);
  if (document != std::end(kDocumentRoutes)) return document->make(c);
  constexpr std::string_view kOperations = "/operations/";
  if (path.starts_with(kOperations)) return operation_response(c, path.substr(kOperations.size()));
  if (find_command(path)) return method_not_allowed("POST");
  return error_response(404, "not_found", "No such path", "");
}

bool is_get_path(std::string_view path) {
  return std::ranges::count(kHealthRoutes, path, &HealthRoute::path) +
             std::ranges::count(kDocumentRoutes, path, &DocumentRoute::path) >
         0;
}

}  // namespace

Response error_response(int status, std::string_view code, const std::string& message,
                        const std::string& hint) {
  return json_response(status, {{"error", {{"code", code}, {"message", message}, {"hint", hint}}}});
}

Response error_response(const Error& error) {
  switch (error.code) {
    case ErrorCode::kInvalid:
      return error_response(400, "invalid", error.message, error.hint);
    case ErrorCode::kNotFound:
      return error_response(404, "not_found", error.message, error.hint);
    case ErrorCode::kConflict:
      return error_response(409, "conflict", error.message, error.hint);
    case ErrorCode::kUnavailable:
      return error_response(503, "unavailable", error.message, error.hint);
    case ErrorCode::kTimeout:
      return error_response(504, "timeout", error.message, error.hint);
    case ErrorCode::kUnknown:
      return error_response(504, "outcome_unknown", error.message, error.hint);
    case ErrorCode::kInternal:
      break;
  }
  return error_response(500, "internal", error.message, error.hint);
}

bool Routes::takes_body(std::string_view method, std::string_view path) {
  return find_command(method, path) != nullptr;
}

Response Routes::handle(const Request& request, const Snapshot& snapshot, MonoTime now) const {
  const auto& method = request.method;
  const auto caller = identify(access_, request.authorization);
  if (!caller) {
    return error_response(401, "unauthorized", caller.error().message, caller.error().hint);
  }
  if (method == "GET" || method == "HEAD" || method == "OPTIONS") {
    const bool health = std::ranges::count(kHealthRoutes, request.path, &HealthRoute::path) > 0;
    if (!health && caller->role == Role::kHealth) {
      return error_response(401, "unauthorized", "This needs a token",
                            "Authorization: Bearer TOKEN, one of api.tokens");
    }
    if (method == "GET" && request.path == "/config/history") return config_history();
    return get({request, snapshot, now});
  }
  if (find_command(method, request.path)) return command(request, snapshot, *caller);
  if (const auto* other = find_command(request.path)) {
    return method_not_allowed(is_get_path(request.path) ? "GET, HEAD, OPTIONS, PATCH"
                                                        : other->method);
  }
  if (is_get_path(request.path)) return method_not_allowed("GET, HEAD, OPTIONS");
  return error_response(404, "not_found", "No such path", "");
}

Response Routes::config_history() const {
  Command command;
  command.kind = Command::Kind::kConfigHistory;
  const auto document = handler_ ? handler_(command) : Result<std::string>("[]");
  if (!document) return error_response(document.error());
  return {200, "application/json", *document + "\n", {}};
}

Response Routes::command(const Request& request, const Snapshot& snapshot,
                         const Caller& caller) const {
  if (caller.role != Role::kAdmin && caller.name.empty() && !access_.tokens.empty()) {
    return error_response(401, "unauthorized", "Commands need an admin's token",
                          "Authorization: Bearer TOKEN, one of api.tokens");
  }
  if (caller.role != Role::kAdmin || !handler_) {
    return error_response(403, "forbidden",
                          caller.name.empty() ? "This API listens beyond loopback without a token"
                                              : "The token is a viewer's, commands need an admin's",
                          "Configure api.tokens, or use the command line on a member's host");
  }
  // A page in the operator's browser can reach loopback, but can't leave this header out.
  if (!request.origin.empty()) {
    return error_response(403, "forbidden", "Commands are not taken from web pages", "");
  }
  const auto kind = find_command(request.path)->kind;
  auto parsed = parse_command(request, kind, caller);
  if (!parsed) return error_response(parsed.error());
  const auto* leader = leader_of(snapshot.view);
  if (!parsed->leader.empty() && (!leader || leader->holder != parsed->leader)) {
    return error_response(412, "precondition_failed",
                          fmt::format("{} is not the leader", parsed->leader.str()),
                          "GET /cluster shows who is");
  }
  const bool by_region = request.path.starts_with(kRegionFailover);
  const std::string region = by_region ? request.path.substr(kRegionFailover.size()) : "";
  if (by_region) {
    parsed->command.candidate = candidate_in_region(snapshot, region);
    if (!has_region(snapshot, region)) {
      return error_response(404, "not_found", "No database is in that region",
                            "GET /api/database/status lists the regions");
    }
    if (parsed->command.candidate.empty()) {
      return error_response(409, "conflict", "No database of that region may take over",
                            "GET /api/database/status says why");
    }
  }
  const auto id = handler_(std::move(parsed->command));
  if (!id) return error_response(id.error());
  if (kind == Command::Kind::kCheckHealth) {
    return json_response(202, {{"message", "checking"}, {"href", "/failover/health"}});
  }
  if (by_region) {
    return json_response(202, {{"success", true},
                               {"message", "Failover initiated to region: " + region},
                               {"operation", *id},
                               {"href", "/operations/" + *id}});
  }
  if (kind == Command::Kind::kPause || kind == Command::Kind::kResume) {
    return json_response(200, {{"message", kind == Command::Kind::kPause ? "paused" : "resumed"}});
  }
  if (kind == Command::Kind::kConfig) return json_response(200, {{"message", "changed"}});
  auto response = json_response(202, {{"operation", *id}, {"href", "/operations/" + *id}});
  response.headers.emplace_back("Location", "/operations/" + *id);
  return response;
}

}  // namespace bascule::api
