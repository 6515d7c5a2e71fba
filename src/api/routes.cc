#include "api/routes.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "api/command_parser.h"
#include "api/documents.h"
#include "api/health.h"
#include "api/metrics.h"
#include "api/monitor_documents.h"
#include "api/openapi.h"

namespace bascule::api {
namespace {

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
  if (tag == "noloadbalance") return member.tags.noloadbalance ? "true" : "false";
  if (tag == "nosync") return member.tags.nosync ? "true" : "false";
  if (tag == "clonefrom") return member.tags.clonefrom ? "true" : "false";
  if (tag == "replicatefrom") return member.tags.replicatefrom.str();
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
  const auto* member = c.snapshot.view.member(c.snapshot.local->name);
  if (member && member->tags.noloadbalance) return false;
  return *lag_ok && tags_match(c);
}

Result<bool> primary(const Context& c) { return is_primary(c.snapshot, c.now) && tags_match(c); }

Result<bool> leader(const Context& c) {
  return (is_primary(c.snapshot, c.now) || is_standby_leader(c.snapshot, c.now)) && tags_match(c);
}

Result<bool> read_only(const Context& c) {
  auto as_replica = replica(c);
  if (!as_replica || *as_replica) return as_replica;
  return leader(c);
}

Result<bool> synchronous(const Context& c) {
  return !quorum_mode(c.snapshot.view) && is_sync_replica(c.snapshot, c.now) && tags_match(c);
}

Result<bool> quorum(const Context& c) {
  return quorum_mode(c.snapshot.view) && is_sync_replica(c.snapshot, c.now) && tags_match(c);
}

Result<bool> asynchronous(const Context& c) {
  auto as_replica = replica(c);
  if (!as_replica || !*as_replica) return as_replica;
  return !is_sync_replica(c.snapshot, c.now);
}

Result<bool> liveness(const Context& c) { return agent_is_alive(c.snapshot, c.now); }

Result<bool> readiness(const Context& c) {
  if (is_primary(c.snapshot, c.now) || is_standby_leader(c.snapshot, c.now)) return true;
  if (!c.snapshot.local) {
    const auto& until = c.snapshot.routes_until;
    return store_is_fresh(c.snapshot, c.now) || (until && c.now < *until);
  }
  return replica(c);
}

// Something that the caller depends on is down (requirement E3).
Result<bool> everything_connected(const Context& c) {
  const auto document = health_json(c.snapshot, c.now);
  const bool local = !c.snapshot.local || postgres_is_up(c.snapshot, c.now);
  return local && document["db_primary"] == "connected" && document["db_replica"] != "disconnected";
}

Result<bool> standby_leader(const Context& c) {
  return is_standby_leader(c.snapshot, c.now) && tags_match(c);
}

struct HealthRoute {
  std::string_view path;
  Check check;
};
constexpr HealthRoute kHealthRoutes[] = {
    {"/", primary},
    {"/primary", primary},
    {"/master", primary},
    {"/read-write", primary},
    {"/leader", leader},
    {"/standby-leader", standby_leader},
    {"/replica", replica},
    {"/read-only", read_only},
    {"/synchronous", synchronous},
    {"/sync", synchronous},
    {"/asynchronous", asynchronous},
    {"/async", asynchronous},
    {"/quorum", quorum},
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

Response alerts_response(const Context& c) {
  const auto limit = limit_of(c);
  if (!limit) return error_response(limit.error());
  return json_response(200, database_alerts_json(c.snapshot, *limit));
}

Response metrics_response(const Context& c) {
  const auto limit = limit_of(c);
  if (!limit) return error_response(limit.error());
  return json_response(200, database_metrics_json(c.snapshot, parameter(c, "endpoint"), *limit));
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
    {"/openapi.json",
     [](const Context& c) { return json_response(200, openapi_json(c.snapshot.version)); }},
    {"/operations",
     [](const Context& c) { return json_response(200, operations_json(c.snapshot)); }},
    {"/failover/preview",
     [](const Context& c) { return json_response(200, failover_preview_json(c.snapshot)); }},
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
    {"/api/database/alerts", alerts_response},
    {"/api/database/metrics", metrics_response},
    {"/api/database/performance",
     [](const Context& c) { return json_response(200, database_performance_json(c.snapshot)); }},
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
  const auto task = c.snapshot.view.tasks.find(std::string(id));
  if (task != c.snapshot.view.tasks.end()) return json_response(200, task_json(task->second.value));
  return error_response(404, "not_found", "No such operation",
                        "Only the newest operations are kept; GET /operations lists them");
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
  if (path.starts_with(kOperations)) return operation_response(c, path.substr(kOperations.size()));
  if (const std::string allowed = methods_of(path); !allowed.empty()) {
    return method_not_allowed(allowed);
  }
  return error_response(404, "not_found", "No such path", "");
}

Response no_such_region() {
  return error_response(404, "not_found", "No database is in that region",
                        "GET /api/database/status lists the regions");
}

// "409: n1 is the leader already"
std::string reason_of(const Response& response) {
  const Json body = Json::parse(response.body, nullptr, /*allow_exceptions=*/false);
  std::string out = std::to_string(response.status);
  if (body.is_object() && body.contains("error")) {
    out += ": " + body["error"].value("message", std::string());
  }
  return out;
}

// What shows in the snapshot to be no command for this cluster. `region`: of the path, where the
// candidate is that region's.
std::optional<Response> impossible(const ParsedCommand& parsed, const std::string& region,
                                   const Snapshot& snapshot) {
  const auto* leader = leader_of(snapshot.view);
  if (!parsed.leader.empty() && (!leader || leader->holder != parsed.leader)) {
    return error_response(412, "precondition_failed",
                          fmt::format("{} is not the leader", parsed.leader.str()),
                          "GET /cluster shows who is");
  }
  const Command& command = parsed.command;
  if (command.kind == Command::Kind::kReconnect && !command.region.empty() &&
      !has_region(snapshot, command.region)) {
    return no_such_region();
  }
  if (region.empty()) return std::nullopt;
  if (!has_region(snapshot, region)) return no_such_region();
  if (!command.candidate.empty()) return std::nullopt;
  return error_response(409, "conflict", "No database of that region may take over",
                        "GET /api/database/status says why");
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

std::vector<std::pair<std::string, std::string>> Routes::all() {
  std::vector<std::pair<std::string, std::string>> out = command_routes();
  for (const HealthRoute& route : kHealthRoutes) out.emplace_back("GET", route.path);
  for (const DocumentRoute& route : kDocumentRoutes) out.emplace_back("GET", route.path);
  out.emplace_back("GET", "/config/history");
  out.emplace_back("GET", "/audit");
  out.emplace_back("GET", "/operations/{id}");
  return out;
}

bool Routes::takes_body(std::string_view method, std::string_view path) {
  return method != "DELETE" && find_command(method, path) != nullptr;
}

AccessRules Routes::access() const {
  const std::lock_guard lock(mutex_);
  return access_;
}

void Routes::set_tokens(std::vector<Token> tokens) {
  const std::lock_guard lock(mutex_);
  access_.tokens = std::move(tokens);
}

Response Routes::handle(const Request& request, const Snapshot& snapshot, MonoTime now) const {
  const auto& method = request.method;
  const auto caller = identify(access(), request.authorization, request.certificate);
  if (!caller) {
    const CommandRoute* route = find_command(method, request.path);
    if (route != nullptr && refused_) {
      Command command;
      command.kind = route->kind;
      command.by = asker_of(request, "");
      refused_({std::move(command), Refusal::Asker::kNobody, "401: " + caller.error().message});
    }
    return error_response(401, "unauthorized", caller.error().message, caller.error().hint);
  }
  if (method == "GET" || method == "HEAD" || method == "OPTIONS") {
    const bool health = std::ranges::count(kHealthRoutes, request.path, &HealthRoute::path) > 0;
    if (!health && caller->role == Role::kHealth) {
      return error_response(401, "unauthorized", "This needs a token",
                            "Authorization: Bearer TOKEN, one of api.tokens");
    }
    if (method == "GET" && request.path == "/config/history") {
      return stored(Command::Kind::kConfigHistory);
    }
    if (method == "GET" && request.path == "/audit") return stored(Command::Kind::kAudit);
    return get({request, snapshot, now});
  }
  if (find_command(method, request.path)) return command(request, snapshot, *caller);
  if (std::string allowed = methods_of(request.path); !allowed.empty()) {
    if (is_get_path(request.path)) allowed = "GET, HEAD, OPTIONS, " + allowed;
    return method_not_allowed(allowed);
  }
  if (is_get_path(request.path)) return method_not_allowed("GET, HEAD, OPTIONS");
  return error_response(404, "not_found", "No such path", "");
}

Response Routes::stored(Command::Kind kind) const {
  Command command;
  command.kind = kind;
  const auto document = handler_ ? handler_(command) : Result<std::string>("[]");
  if (!document) return error_response(document.error());
  return {200, "application/json", *document + "\n", {}};
}

// Whether the caller may ask for commands at all.
std::optional<Response> Routes::not_for_them(const Request& request, const Caller& caller) const {
  if (caller.role != Role::kAdmin && caller.name.empty() && !access().tokens.empty()) {
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
  return std::nullopt;
}

Response Routes::command(const Request& request, const Snapshot& snapshot,
                         const Caller& caller) const {
  const auto kind = find_command(request.method, request.path)->kind;
  const auto refuse = [&](Response response, Command command, Refusal::Asker asker) {
    command.kind = kind;
    command.by = asker_of(request, caller.name);
    if (refused_) refused_({std::move(command), asker, reason_of(response)});
    return response;
  };
  if (auto response = not_for_them(request, caller)) {
    return refuse(std::move(*response), {}, Refusal::Asker::kNobody);
  }
  const NodeName local = snapshot.local ? snapshot.local->name : NodeName();
  auto parsed = parse_command(request, kind, caller, local);
  using enum Refusal::Asker;
  if (!parsed) return refuse(error_response(parsed.error()), {}, kAdmin);
  const bool by_region = request.path.starts_with(kRegionFailover);
  const std::string region = by_region ? request.path.substr(kRegionFailover.size()) : "";
  if (by_region) parsed->command.candidate = candidate_in_region(snapshot, region);
  if (auto response = impossible(*parsed, region, snapshot)) {
    if (by_region) parsed->command.region = region;
    return refuse(std::move(*response), std::move(parsed->command), kAdmin);
  }
  const auto id = handler_(std::move(parsed->command));
  if (!id) return error_response(id.error());
  if (kind == Command::Kind::kAnalyzeQuery) return {200, "application/json", *id + "\n", {}};
  if (kind == Command::Kind::kReconnect) {
    return json_response(200, {{"success", true}, {"message", *id}});
  }
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
  if (kind == Command::Kind::kCancel) return json_response(200, {{"message", "cancelled " + *id}});
  auto response = json_response(202, {{"operation", *id}, {"href", "/operations/" + *id}});
  response.headers.emplace_back("Location", "/operations/" + *id);
  return response;
}

}  // namespace bascule::api
