// Commands on members, the OpenAPI document, the rate limit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "api/rate_limit.h"
#include "api/routes.h"
#include "api/testing.h"

namespace bascule::api {
namespace {

using namespace testing;
using nlohmann::json;
using ::testing::HasSubstr;

class OperationsTest : public ::testing::Test {
 protected:
  Response call(const Snapshot& snapshot, const std::string& method, const std::string& path,
                const std::string& body = "") {
    const Routes routes(
        [this](Command command) -> Result<std::string> {
          commands.push_back(std::move(command));
          return "op-1";
        },
        access, [this](const Refusal& refusal) { refusals.push_back(refusal); });
    return routes.handle({method, path, {}, body, "127.0.0.1", origin, authorization}, snapshot,
                         kNow);
  }

  Snapshot primary = snapshot_of(leading_member());
  Snapshot proxy = snapshot_of(std::nullopt);
  std::vector<Command> commands;
  std::vector<Refusal> refusals;
  AccessRules access;
  std::string origin, authorization;
};

TEST_F(OperationsTest, EveryRefusedCommandIsToldOnceAndNothingOfItsSecrets) {
  const auto refused = [&](const std::string& path, const std::string& body = "") {
    refusals.clear();
    call(primary, "POST", path, body);
    if (refusals.size() != 1) return "told of " + std::to_string(refusals.size());
    const Refusal& r = refusals.front();
    return r.command.by + (r.asker == Refusal::Asker::kAdmin ? " (admin) " : " (nobody) ") + r.why;
  };
  access.tokens = {{"look", Role::kViewer, sha256_hex("viewer-word")},
                   {"ops", Role::kAdmin, sha256_hex("admin-word")}};
  EXPECT_EQ(refused("/switchover"), "api 127.0.0.1 (nobody) 401: Commands need an admin's token");
  authorization = "Bearer wrong-word";
  EXPECT_EQ(refused("/switchover"), "api 127.0.0.1 (nobody) 401: The token is not known here");
  authorization = "Bearer viewer-word";
  EXPECT_THAT(refused("/pause"),
              HasSubstr("api look 127.0.0.1 (nobody) 403: The token is a viewer"));
  EXPECT_EQ(refusals.front().command.kind, Command::Kind::kPause);
  authorization = "Bearer admin-word";
  EXPECT_THAT(refused("/switchover", R"({"secret": "hunter2"})"),
              HasSubstr("api ops 127.0.0.1 (admin) 400: unknown field"));
  EXPECT_THAT(refused("/switchover", R"({"leader": "n2", "candidate": "n3"})"),
              HasSubstr("(admin) 412: n2 is not the leader"));
  EXPECT_EQ(refusals.front().command.candidate, name("n3"));
  EXPECT_THAT(refused("/api/database/failover/nowhere"), HasSubstr("(admin) 404: No database"));
  EXPECT_EQ(refusals.front().command.region, "nowhere");
  EXPECT_THAT(refused("/api/database/reconnect/nowhere"), HasSubstr("(admin) 404: No database"));
  origin = "https://evil.example";
  EXPECT_THAT(refused("/switchover"), HasSubstr("(nobody) 403: Commands are not taken from web"));
  EXPECT_TRUE(commands.empty());
  origin.clear();
  EXPECT_EQ(refused("/switchover"), "told of 0") << "it is carried out";
  EXPECT_EQ(commands.size(), 1u);
  authorization = "Bearer wrong-word";
  refusals.clear();
  EXPECT_EQ(call(primary, "GET", "/cluster").status, 401);
  EXPECT_TRUE(refusals.empty()) << "that was no command";
}

TEST_F(OperationsTest, ARestartIsOfTheMemberBesideTheDaemonUnlessOthersAreNamed) {
  EXPECT_EQ(call(primary, "POST", "/restart").status, 202);
  EXPECT_EQ(call(proxy, "POST", "/restart").status, 202);
  EXPECT_EQ(call(primary, "POST", "/restart", R"({"members": "all"})").status, 202);
  EXPECT_EQ(call(primary, "POST", "/restart", R"({"members": ["n3", "n2", "n3"]})").status, 202);
  ASSERT_EQ(commands.size(), 4u);
  EXPECT_EQ(commands[0].members, std::vector{name("n1")});
  EXPECT_TRUE(commands[1].members.empty());
  EXPECT_TRUE(commands[2].members.empty());
  EXPECT_EQ(commands[3].members, (std::vector{name("n3"), name("n2")}));
}

TEST_F(OperationsTest, ARestartTakesPatronisFields) {
  EXPECT_EQ(call(proxy, "POST", "/restart",
                 R"({"restart_pending": true, "schedule": "2026-11-21T23:00:00+01:00",
                     "timeout": "90"})")
                .status,
            202);
  ASSERT_EQ(commands.size(), 1u);
  EXPECT_EQ(commands[0].kind, Command::Kind::kRestart);
  EXPECT_TRUE(commands[0].only_pending);
  EXPECT_EQ(to_iso8601(commands[0].at), "2026-11-21T22:00:00.000Z");
  EXPECT_EQ(commands[0].timeout, 90s);
  for (const char* bad :
       {R"({"timeout": 0})", R"({"timeout": 1e9})", R"({"schedule": "soon"})",
        R"({"schedule": "2026-02-30T00:00:00Z"})", R"({"members": []})", R"({"members": [1]})",
        R"({"members": "some"})", R"({"candidate": "n2"})", R"({"restart_pending": 1})"}) {
    EXPECT_EQ(call(proxy, "POST", "/restart", bad).status, 400) << bad;
  }
  EXPECT_EQ(commands.size(), 1u);
}

TEST_F(OperationsTest, WhatIsScheduledIsTakenBackByDelete) {
  EXPECT_EQ(call(primary, "DELETE", "/switchover").status, 200);
  EXPECT_EQ(call(primary, "DELETE", "/restart").status, 200);
  EXPECT_EQ(call(primary, "DELETE", "/operations/ab12").status, 200);
  ASSERT_EQ(commands.size(), 3u);
  EXPECT_EQ(commands[0].cancels, Command::Kind::kSwitchover);
  EXPECT_EQ(commands[1].cancels, Command::Kind::kRestart);
  EXPECT_EQ(commands[2].id, "ab12");
  EXPECT_EQ(call(primary, "DELETE", "/failover").status, 405);
  EXPECT_EQ(commands.size(), 3u);
}

TEST_F(OperationsTest, ASwitchoverIsToAMemberOrToARegion) {
  EXPECT_EQ(call(primary, "POST", "/switchover", R"({"region": "us"})").status, 202);
  EXPECT_EQ(commands.at(0).region, "us");
  EXPECT_EQ(call(primary, "POST", "/switchover", R"({"region": "us", "candidate": "n2"})").status,
            400);
}

TEST_F(OperationsTest, ParametersAreChangedAndTakenAwayByName) {
  EXPECT_EQ(call(primary, "PATCH", "/config",
                 R"({"parameters": {"work_mem": "1MB", "jit": null, "max_connections": 5}})")
                .status,
            200);
  EXPECT_EQ(call(primary, "PUT", "/config", R"({"ttl": "5s"})").status, 200);
  ASSERT_EQ(commands.size(), 2u);
  EXPECT_EQ(commands[0].changes,
            (std::map<std::string, std::string>{{"parameters.jit", ""},
                                                {"parameters.max_connections", "5"},
                                                {"parameters.work_mem", "1MB"}}));
  EXPECT_FALSE(commands[0].replace);
  EXPECT_TRUE(commands[1].replace);
  EXPECT_EQ(call(primary, "PATCH", "/config", R"({"parameters": {"a": [1]}})").status, 400);
}

TEST_F(OperationsTest, TasksAreShownWithTheirSteps) {
  control::TaskRecord task;
  task.id = "t7";
  task.kind = control::TaskKind::kRestart;
  task.steps = {{name("n2"), control::StepState::kRunning, ""},
                {name("n1"), control::StepState::kWaiting, ""}};
  primary.view.tasks["t7"] = {task, 9};
  const auto open = json::parse(call(primary, "GET", "/operations/t7").body);
  EXPECT_EQ(open["progress"], "running");
  EXPECT_EQ(open["steps"][0]["state"], "running");
  EXPECT_EQ(open["done"], false);
  primary.view.tasks["t7"].value.outcome = "done";
  EXPECT_EQ(json::parse(call(primary, "GET", "/operations").body)[0]["outcome"], "done");
}

TEST_F(OperationsTest, AMemberThatIsNotToBeReadFromIsNoReplicaForLoadBalancers) {
  auto replica = snapshot_of(following_member("n3"));
  EXPECT_EQ(call(replica, "GET", "/replica").status, 200);
  replica.view.members.at(name("n3")).tags.noloadbalance = true;
  EXPECT_EQ(call(replica, "GET", "/replica").status, 503);
}

TEST_F(OperationsTest, TheProxysConnectionsAreReplacedByRegionOrAllOfThem) {
  proxy.view.members.begin()->second.region = "east";
  const Response done = call(proxy, "POST", "/api/database/reconnect/east");
  EXPECT_EQ(done.status, 200);
  EXPECT_EQ(json::parse(done.body), (json{{"success", true}, {"message", "op-1"}}));
  EXPECT_EQ(call(proxy, "POST", "/api/database/connections/refresh").status, 200);
  EXPECT_EQ(call(proxy, "POST", "/api/database/reconnect/nowhere").status, 404);
  ASSERT_EQ(commands.size(), 2u);
  EXPECT_EQ(commands[0].kind, Command::Kind::kReconnect);
  EXPECT_EQ(commands[0].region, "east");
  EXPECT_EQ(commands[1].region, "");
}

TEST_F(OperationsTest, AQueryToBeAnalysedIsHandedOnAsItIs) {
  EXPECT_EQ(call(proxy, "POST", "/api/database/analyze-query", R"({"query": "select 1"})").status,
            200);
  EXPECT_EQ(call(proxy, "POST", "/api/database/analyze-query", "{}").status, 400);
  EXPECT_EQ(call(proxy, "POST", "/api/database/analyze-query", R"({"sql": "select 1"})").status,
            400);
  ASSERT_EQ(commands.size(), 1u);
  EXPECT_EQ(commands[0].kind, Command::Kind::kAnalyzeQuery);
  EXPECT_EQ(commands[0].query, "select 1");
}

TEST_F(OperationsTest, TheOpenApiDocumentHasEveryRouteAndNoOther) {
  const auto document = json::parse(call(primary, "GET", "/openapi.json").body);
  EXPECT_EQ(document["openapi"], "3.1.0");
  std::set<std::pair<std::string, std::string>> documented, served;
  std::set<std::string> ids;
  for (const auto& [path, methods] : document["paths"].items()) {
    for (const auto& [method, operation] : methods.items()) {
      std::string upper = method;
      std::ranges::transform(upper, upper.begin(), ::toupper);
      documented.emplace(upper, path);
      EXPECT_TRUE(ids.insert(operation["operationId"]).second) << operation["operationId"];
      EXPECT_FALSE(operation["summary"].get<std::string>().empty());
      EXPECT_GE(operation["responses"].size(), 3u);
      const bool varies = path.find('{') != std::string::npos;
      ASSERT_EQ(operation.contains("parameters") && operation["parameters"][0]["in"] == "path",
                varies)
          << path;
    }
  }
  for (const auto& route : Routes::all()) served.insert(route);
  EXPECT_EQ(documented, served);
}

TEST_F(OperationsTest, EveryDocumentedPathIsServed) {
  for (auto [method, path] : Routes::all()) {
    if (const size_t open = path.find('{'); open != std::string::npos) path.replace(open, 20, "x");
    const auto response = call(primary, method, path, method == "GET" ? "" : "{}");
    if (method == "GET" && path == "/operations/x") continue;  // there is none
    EXPECT_NE(response.status, 405) << method << " " << path;
    EXPECT_EQ(response.body.find("No such path"), std::string::npos) << method << " " << path;
  }
}

TEST(RateLimit, AnAddressGetsItsShareAndNoMore) {
  RateLimit limit(10);
  int let_in = 0;
  for (int i = 0; i < 100; ++i) let_in += limit.allow("a", kNow);
  EXPECT_EQ(let_in, 20) << "twice the rate after a rest";
  EXPECT_TRUE(limit.allow("b", kNow)) << "not at another's cost";
  EXPECT_TRUE(limit.allow("a", kNow + 100ms));
  EXPECT_FALSE(limit.allow("a", kNow + 100ms));
  for (int i = 0; i < 100'000; ++i) limit.allow(std::to_string(i), kNow + 200ms);
  EXPECT_TRUE(limit.allow("a", kNow + 10s));
  RateLimit none(0);
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(none.allow("a", kNow));
}

}  // namespace
}  // namespace bascule::api
