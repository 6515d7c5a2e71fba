// What is answered while monitors or the store are silent, and by region.
#include "api/monitor_documents.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "api/command_parser.h"
#include "api/documents.h"
#include "api/openapi.h"
#include "api/routes.h"
#include "api/tally.h"
#include "api/testing.h"

namespace bascule::api {
namespace {

using namespace testing;
using ::testing::HasSubstr;

Response call(const Snapshot& snapshot, std::string method, std::string path,
              std::string body = {}) {
  const Routes routes([](const Command&) -> Result<std::string> { return "op-1"; }, AccessRules());
  const Request request{
      std::move(method), std::move(path), {}, std::move(body), "127.0.0.1", "", ""};
  return routes.handle(request, snapshot, kNow);
}

// n1 leads by the word of monitor m1, which found everything in order.
Snapshot monitored() {
  Snapshot snapshot = snapshot_of(std::nullopt);
  auto& monitor = snapshot.view.monitor.emplace();
  monitor.lease = {control::MonitorLease{"m1", "i", 1, 7, Millis{5000}}, 70};
  monitor.lease_revision = 70;
  auto& health = monitor.health.emplace();
  health.state = control::MonitorState::kHealthy;
  for (const char* n : {"n1", "n2", "n3"}) {
    control::EndpointHealth check;
    check.name = name(n);
    check.healthy = check.eligible = true;
    health.endpoints.push_back(check);
  }
  return snapshot;
}

TEST(SilentMonitors, AreNoticedByTheTallyAlertedAndNobodyIsHealthyByTheirWord) {
  Tally tally;
  Snapshot snapshot = monitored();
  tally.observe(snapshot, kNow);
  EXPECT_TRUE(snapshot.tally.alerts.empty());
  for (int s = 1; s <= 30; ++s) {
    const MonoTime now = kNow + std::chrono::seconds(s);
    snapshot = monitored();  // as the daemon makes it: without a tally
    snapshot.store_seen_at = now;
    tally.observe(snapshot, now);
  }
  const MonoTime now = kNow + 30s;
  EXPECT_EQ(snapshot.tally.primary_down_since, kNow + 16s);
  ASSERT_EQ(snapshot.tally.alerts.size(), 1u);
  EXPECT_EQ(snapshot.tally.alerts[0].severity, "critical");
  EXPECT_THAT(snapshot.tally.alerts[0].message, HasSubstr("no monitor has been heard of"));
  EXPECT_FALSE(snapshot.tally.samples.at(name("n1")).back().healthy);
  const Json silent = failover_health_json(snapshot, now);
  for (const Json& endpoint : silent["endpoints"]) {
    EXPECT_EQ(endpoint["healthy"], false);
  }
  EXPECT_FALSE(failover_status_json(snapshot, now)["primary"]["downSince"].is_null());
  const Json health = database_health_json(snapshot, now);
  EXPECT_EQ(health["systemHealth"]["activeAlerts"], 1);

  snapshot = monitored();  // it is heard again
  snapshot.view.monitor->lease_revision = 71;
  snapshot.store_seen_at = now;
  tally.observe(snapshot, now);
  EXPECT_EQ(snapshot.tally.primary_down_since, std::nullopt);
  EXPECT_EQ(failover_health_json(snapshot, now)["endpoints"][0]["healthy"], true);
}

TEST(SilentStore, ALeaderThatGoesOnIsAliveAndItsHealthRouteSaysSo) {
  Snapshot leader = snapshot_of(leading_member());
  leader.store_seen_at = kNow - 60s;
  const auto response = call(leader, "GET", "/health");
  EXPECT_EQ(response.status, 200);
  const Json health = Json::parse(response.body);
  EXPECT_EQ(health["db_primary"], "connected");
  EXPECT_EQ(health["db_replica"], "connected");
  EXPECT_EQ(health["status"], "degraded");
  EXPECT_THAT(health["reason"].get<std::string>(), HasSubstr("n1 leads on"));
  EXPECT_EQ(cluster_health(leader, kNow).state, FailoverState::kDegraded);
  leader.local->deadline = kNow;  // nobody pledged again
  EXPECT_EQ(call(leader, "GET", "/health").status, 503);
}

TEST(SilentStore, AProxyIsReadyForAsLongAsTheLeaderLetsItRoute) {
  Snapshot proxy = snapshot_of(std::nullopt);
  proxy.store_seen_at = kNow - 60s;
  EXPECT_EQ(call(proxy, "GET", "/readiness").status, 503);
  proxy.routes_until = kNow + 1s;
  EXPECT_EQ(call(proxy, "GET", "/readiness").status, 200);
  proxy.routes_until = kNow;
  EXPECT_EQ(call(proxy, "GET", "/readiness").status, 503);
}

TEST(CandidateInRegion, IsByPriorityThenByWal) {
  Snapshot snapshot = snapshot_of(std::nullopt);
  auto& n2 = snapshot.view.members.at(name("n2"));
  auto& n3 = snapshot.view.members.at(name("n3"));
  n2.flush_lsn = Lsn{0x4000};
  n3.flush_lsn = Lsn{0x5000};
  EXPECT_EQ(candidate_in_region(snapshot, "eu"), name("n3"));
  n2.flush_lsn = n3.flush_lsn;
  EXPECT_EQ(candidate_in_region(snapshot, "eu"), name("n2")) << "by name";
  n3.priority = n2.priority + 1;
  n3.flush_lsn = Lsn{0x4000};
  EXPECT_EQ(candidate_in_region(snapshot, "eu"), name("n3"));
  n3.nofailover = true;
  EXPECT_EQ(candidate_in_region(snapshot, "eu"), name("n2"));
}

TEST(ActiveAlerts, AreOneListWhereverTheyAreCounted) {
  Snapshot snapshot = snapshot_of(std::nullopt);
  snapshot.tally.alerts = {{"disk_full-n1-1", "disk_full", "critical", "n1", "no room", {}, {}},
                           {"old", "sync_alone", "high", "", "", {}, WallTime{Millis(5)}}};
  const Json health = database_health_json(snapshot, kNow);
  EXPECT_EQ(health["alerts"], database_alerts_json(snapshot, 50)["active"]);
  EXPECT_EQ(health["systemHealth"]["activeAlerts"], 1);
  EXPECT_EQ(database_dashboard_json(snapshot, kNow)["activeAlerts"], 1);
}

TEST(OpenApi, PromisesTheStatusThatEveryCommandAnswersWith) {
  const Snapshot snapshot = snapshot_of(leading_member());
  const Json paths = openapi_json("1")["paths"];
  for (const auto& [method, path] : command_routes()) {
    std::string at = path, verb = method, body = "{}";
    for (const auto& [what, with] :
         {std::pair{"{region}", "eu"}, {"{name}", "n3"}, {"{id}", "t"}}) {
      if (const auto where = at.find(what); where != std::string::npos) {
        at.replace(where, std::string_view(what).size(), with);
      }
    }
    if (path.ends_with("analyze-query")) body = R"({"query": "select 1"})";
    if (path == "/config") body = R"({"ttl": "10s"})";
    std::ranges::transform(verb, verb.begin(), [](unsigned char c) { return std::tolower(c); });
    const int status = call(snapshot, method, at, body).status;
    EXPECT_THAT(status, ::testing::AnyOf(200, 202)) << method << path;
    EXPECT_TRUE(paths[path][verb]["responses"].contains(std::to_string(status)))
        << method << " " << path << " answers " << status;
  }
}

}  // namespace
}  // namespace bascule::api
