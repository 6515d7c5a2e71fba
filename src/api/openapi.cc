#include "api/openapi.h"

#include <algorithm>
#include <string_view>
#include <vector>

namespace bascule::api {
namespace {

// Fields of a body and parameters: "name:type", type one of string, integer, boolean, array,
// object;
// "!" behind the name: required.
struct Route {
  std::string_view method;  // lower case
  std::string_view path;
  std::string_view tag;
  std::string_view summary;
  std::vector<std::string_view> query = {};
  std::vector<std::string_view> body = {};
};

constexpr std::string_view kHealth = "health", kCluster = "cluster", kFailover = "failover",
                           kDatabase = "database", kOperation = "operations";

// A function, so that nothing is built before somebody asks.
const std::vector<Route>& routes() {
  const std::vector<std::string_view> replica_query = {"lag:string", "replication_state:string",
                                                       "tag_region:string"};
  static const std::vector<Route> all = {
      {"get", "/", kHealth, "200 if this member is the writable primary"},
      {"get", "/primary", kHealth, "200 if this member is the writable primary"},
      {"get", "/master", kHealth, "As /primary"},
      {"get", "/read-write", kHealth, "As /primary"},
      {"get", "/leader", kHealth, "As /primary"},
      {"get", "/standby-leader", kHealth, "200 if this member leads a standby cluster"},
      {"get", "/replica", kHealth, "200 if this member follows and may be read from",
       replica_query},
      {"get", "/read-only", kHealth, "200 if this member may be read from", replica_query},
      {"get", "/synchronous", kHealth, "200 if the primary waits for this member"},
      {"get", "/sync", kHealth, "As /synchronous"},
      {"get",
       "/asynchronous",
       kHealth,
       "200 if this member follows and is not waited for",
       {"lag:string"}},
      {"get", "/async", kHealth, "As /asynchronous", {"lag:string"}},
      {"get", "/quorum", kHealth, "200 if this member is one of a quorum"},
      {"get", "/health", kHealth, "200 if PostgreSQL here, the primary and a replica are up"},
      {"get", "/liveness", kHealth, "200 if the agent runs"},
      {"get", "/readiness", kHealth, "200 if this member is primary or follows", {"lag:string"}},
      {"get", "/patroni", kCluster, "Status of this member"},
      {"get", "/cluster", kCluster, "The cluster and its members"},
      {"get", "/records", kCluster, "The cluster's records as they are in the store"},
      {"get", "/history", kCluster, "Changes of timeline, as Patroni has them"},
      {"get", "/metrics", kCluster, "Prometheus metrics"},
      {"get", "/openapi.json", kCluster, "This document"},
      {"get", "/config", kCluster, "The dynamic configuration"},
      {"patch",
       "/config",
       kCluster,
       "Changes the settings that are named; null takes one away",
       {},
       {"ttl:string", "sync:string", "parameters:object", "slots:object"}},
      {"put",
       "/config",
       kCluster,
       "Replaces the configuration: what is not named gets its default",
       {},
       {"ttl:string", "sync:string", "parameters:object", "slots:object"}},
      {"get", "/config/history", kCluster, "Who changed what, and when"},
      {"get", "/audit", kCluster, "Who asked for what, and what came of it"},
      {"get", "/operations", kOperation, "Requests and tasks, newest first"},
      {"get", "/operations/{id}", kOperation, "How far one is"},
      {"delete", "/operations/{id}", kOperation, "Cancels a task"},
      {"post",
       "/switchover",
       kOperation,
       "Planned change of the primary, now or at a time",
       {},
       {"leader:string", "candidate:string", "region:string", "scheduled_at:string",
        "reason:string"}},
      {"delete", "/switchover", kOperation, "Cancels scheduled switchovers"},
      {"post",
       "/failover",
       kOperation,
       "Change of the primary when it is sick or gone",
       {},
       {"leader:string", "candidate:string", "force:boolean", "old_primary_is_dead:boolean",
        "reason:string"}},
      {"post",
       "/restart",
       kOperation,
       "Restarts members, never two at a time",
       {},
       {"member:string", "members:array", "restart_pending:boolean", "by_switchover:boolean",
        "schedule:string", "timeout:integer", "reason:string"}},
      {"delete", "/restart", kOperation, "Cancels scheduled restarts"},
      {"post",
       "/reload",
       kOperation,
       "Has PostgreSQL read its configuration again",
       {},
       {"member:string", "members:array"}},
      {"post",
       "/reinitialize",
       kOperation,
       "Copies a replica anew",
       {},
       {"member:string", "members:array", "timeout:integer", "reason:string"}},
      {"delete", "/members/{name}", kOperation, "Takes a member out of the cluster"},
      {"post", "/pause", kOperation, "No automatic failover"},
      {"post", "/resume", kOperation, "Automatic failover again"},
      {"get", "/failover/status", kFailover, "State, primary, standbys"},
      {"get", "/failover/history", kFailover, "Changes of the primary", {"limit:integer"}},
      {"get", "/failover/metrics", kFailover, "Counts and durations"},
      {"get", "/failover/health", kFailover, "Every endpoint's health"},
      {"get", "/failover/preview", kFailover, "What a forced failover may lose, by member"},
      {"post",
       "/failover/trigger",
       kFailover,
       "As POST /failover",
       {},
       {"target:string", "force:boolean", "old_primary_is_dead:boolean", "reason:string"}},
      {"post", "/failover/check-health", kFailover, "Checks everything now"},
      {"get", "/api/database/status", kDatabase, "Regions, endpoints, roles"},
      {"get", "/api/database/health", kDatabase, "Overall health, endpoints, alerts"},
      {"get", "/api/database/alerts", kDatabase, "Active and recent alerts", {"limit:integer"}},
      {"get",
       "/api/database/metrics",
       kDatabase,
       "Samples of every endpoint in time",
       {"endpoint:string", "limit:integer"}},
      {"get", "/api/database/performance", kDatabase, "Response times of every endpoint"},
      {"get", "/api/database/connections", kDatabase, "Server connections of the proxy"},
      {"get", "/api/database/dashboard", kDatabase, "The most important in one document"},
      {"get",
       "/api/database/failover-history",
       kDatabase,
       "As /failover/history",
       {"limit:integer"}},
      {"get", "/api/database/export", kDatabase, "All of it, to save"},
      {"post", "/api/database/failover/{region}", kDatabase, "Moves the primary to a region"},
      {"post", "/api/database/health-check", kDatabase, "Checks everything now"},
      {"post", "/api/database/reconnect/{region}", kDatabase,
       "Replaces the proxy's connections to the servers of a region"},
      {"post", "/api/database/connections/refresh", kDatabase,
       "Replaces all server connections of the proxy"},
      {"post",
       "/api/database/analyze-query",
       kDatabase,
       "What a statement reads and writes, and where it may go",
       {},
       {"query:string"}},
  };
  return all;
}

struct Field {
  std::string name, type;
};

Field split(std::string_view text) {
  const size_t colon = text.find(':');
  return {std::string(text.substr(0, colon)), std::string(text.substr(colon + 1))};
}

Json reference(const char* schema) {
  return {{"$ref", std::string("#/components/schemas/") + schema}};
}

Json content(Json schema) { return {{"application/json", {{"schema", std::move(schema)}}}}; }

Json parameters_of(const Route& route) {
  Json out = Json::array();
  const size_t open = route.path.find('{');
  if (open != std::string_view::npos) {
    const std::string name(route.path.substr(open + 1, route.path.find('}') - open - 1));
    out.push_back(
        {{"name", name}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}}}});
  }
  for (const std::string_view text : route.query) {
    const Field field = split(text);
    out.push_back({{"name", field.name}, {"in", "query"}, {"schema", {{"type", field.type}}}});
  }
  return out;
}

Json body_of(const Route& route) {
  Json properties = Json::object();
  for (const std::string_view text : route.body) {
    const Field field = split(text);
    properties[field.name] = {{"type", field.type}};
  }
  // PATCH and PUT take every key of the configuration.
  const bool open = route.method == "patch" || route.method == "put";
  return {{"required", open},
          {"content", content({{"type", "object"},
                               {"properties", std::move(properties)},
                               {"additionalProperties", open}})}};
}

Json responses_of(const Route& route) {
  const auto error = [](const char* text) -> Json {
    return {{"description", text}, {"content", content(reference("Error"))}};
  };
  Json out = {{"401", error("No token, or an unknown one")}, {"429", error("Too many requests")}};
  if (route.tag == kHealth) {
    out["200"] = {{"description", "Yes"}};
    out["503"] = {{"description", "No"}};
    return out;
  }
  if (route.method == "get") {
    out["200"] = {{"description", "The document"}};
    return out;
  }
  static constexpr std::string_view kAtOnce[] = {
      "/pause", "/resume", "/api/database/reconnect/{region}", "/api/database/connections/refresh",
      "/api/database/analyze-query"};
  const bool removes = route.method == "delete" && route.path == "/members/{name}";
  const bool at_once = (route.method != "post" && !removes) ||
                       std::ranges::count(kAtOnce, std::string_view(route.path)) > 0;
  if (at_once) {
    out["200"] = {{"description", "Done"}};
  } else {
    out["202"] = {{"description", "Begun"}, {"content", content(reference("Accepted"))}};
  }
  out["400"] = error("A field is unknown or wrong");
  out["403"] = error("Not an admin's token");
  out["409"] = error("Not possible as things are; the message says why");
  return out;
}

Json operation_of(const Route& route) {
  std::string id(route.method);
  for (const char c : route.path) id += c == '/' || c == '{' || c == '}' || c == '.' ? '_' : c;
  Json out = {{"operationId", id},
              {"tags", {route.tag}},
              {"summary", route.summary},
              {"responses", responses_of(route)}};
  if (Json parameters = parameters_of(route); !parameters.empty()) {
    out["parameters"] = std::move(parameters);
  }
  if (!route.body.empty()) out["requestBody"] = body_of(route);
  if (route.tag != kHealth) out["security"] = Json::array({{{"token", Json::array()}}});
  return out;
}

}  // namespace

Json openapi_json(const std::string& version) {
  Json paths = Json::object();
  for (const Route& route : routes()) {
    paths[std::string(route.path)][std::string(route.method)] = operation_of(route);
  }
  const Json text = {{"type", "string"}};
  const Json error = {{"type", "object"},
                      {"properties", {{"code", text}, {"message", text}, {"hint", text}}},
                      {"required", {"code", "message", "hint"}}};
  Json schemas = Json::object();
  schemas["Error"] = {
      {"type", "object"}, {"properties", {{"error", error}}}, {"required", {"error"}}};
  schemas["Accepted"] = {{"type", "object"},
                         {"properties", {{"operation", text}, {"href", text}, {"message", text}}}};
  return {{"openapi", "3.1.0"},
          {"info", {{"title", "Bascule"}, {"version", version}}},
          {"paths", std::move(paths)},
          {"components",
           {{"securitySchemes", {{"token", {{"type", "http"}, {"scheme", "bearer"}}}}},
            {"schemas", std::move(schemas)}}}};
}

}  // namespace bascule::api
