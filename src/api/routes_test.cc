#include "api/routes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "api/health.h"
#include "api/metrics.h"
#include "api/tally.h"
#include "api/testing.h"

namespace bascule::api {
namespace {

using namespace testing;
using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

class RoutesTest : public ::testing::Test {
 protected:
  Response call(const Snapshot& snapshot, std::string method, std::string path,
                std::map<std::string, std::string> query = {}, std::string body = {}) {
    const Request request{std::move(method), std::move(path), std::move(query), std::move(body),
                          "127.0.0.1",       origin,          authorization};
    const Routes routes(
        [this](Command command) -> Result<std::string> {
          commands.push_back(command);
          return answer;
        },
        access);
    return routes.handle(request, snapshot, now);
  }
  int status(const Snapshot& snapshot, std::string path,
             std::map<std::string, std::string> query = {}) {
    return call(snapshot, "GET", std::move(path), std::move(query)).status;
  }
  json document(const Snapshot& snapshot, std::string path,
                std::map<std::string, std::string> query = {}) {
    return json::parse(call(snapshot, "GET", std::move(path), std::move(query)).body);
  }

  const Snapshot primary = snapshot_of(leading_member());
  const Snapshot sync_replica = snapshot_of(following_member("n2"));
  const Snapshot replica = snapshot_of(following_member("n3"));
  const Snapshot proxy_only = snapshot_of(std::nullopt);
  MonoTime now = kNow;
  AccessRules access;
  std::string origin, authorization;
  std::vector<Command> commands;
  Result<std::string> answer = "op-1";
};

TEST_F(RoutesTest, HealthRoutesTellRolesApart) {
  struct Row {
    const char* path;
    int primary, sync, async, none;
  };
  constexpr Row kRows[] = {
      {"/", 200, 503, 503, 503},
      {"/primary", 200, 503, 503, 503},
      {"/master", 200, 503, 503, 503},
      {"/read-write", 200, 503, 503, 503},
      {"/leader", 200, 503, 503, 503},
      {"/standby-leader", 503, 503, 503, 503},
      {"/replica", 503, 200, 200, 503},
      {"/read-only", 200, 200, 200, 503},
      {"/synchronous", 503, 200, 503, 503},
      {"/sync", 503, 200, 503, 503},
      {"/asynchronous", 503, 503, 200, 503},
      {"/async", 503, 503, 200, 503},
      {"/health", 200, 200, 200, 200},
      {"/liveness", 200, 200, 200, 200},
      {"/readiness", 200, 200, 200, 200},
      {"/quorum", 503, 503, 503, 503},
  };
  for (const auto& row : kRows) {
    EXPECT_EQ(status(primary, row.path), row.primary) << row.path;
    EXPECT_EQ(status(sync_replica, row.path), row.sync) << row.path;
    EXPECT_EQ(status(replica, row.path), row.async) << row.path;
    EXPECT_EQ(status(proxy_only, row.path), row.none) << row.path;
  }
}

TEST_F(RoutesTest, InQuorumModeAVoterIsAQuorumStandbyAndNoSyncStandby) {
  auto voter = sync_replica, other = replica, leads = primary;
  for (auto* snapshot : {&voter, &other, &leads}) {
    snapshot->view.config->value.sync_mode = control::SyncMode::kQuorum;
  }
  EXPECT_EQ(status(voter, "/quorum"), 200);
  EXPECT_EQ(status(voter, "/sync"), 503);
  EXPECT_EQ(status(voter, "/async"), 503);
  EXPECT_EQ(status(other, "/quorum"), 503);
  EXPECT_EQ(status(other, "/async"), 200);
  EXPECT_EQ(status(leads, "/quorum"), 503);
  EXPECT_EQ(document(voter, "/patroni")["quorum_standby"], true);
  EXPECT_EQ(document(voter, "/cluster")["members"][1]["role"], "quorum_standby");
}

TEST_F(RoutesTest, HeadAndOptionsAnswerLikeGet) {
  for (const char* method : {"HEAD", "OPTIONS"}) {
    EXPECT_EQ(call(primary, method, "/primary").status, 200) << method;
    EXPECT_EQ(call(replica, method, "/primary").status, 503) << method;
  }
  EXPECT_EQ(call(primary, "OPTIONS", "/primary").body, "");
}

TEST_F(RoutesTest, PrimaryPastItsDeadlineIsNoPrimary) {
  now = kNow + 3s - 1ms;
  EXPECT_EQ(status(primary, "/primary"), 200);
  now = kNow + 3s;
  EXPECT_EQ(status(primary, "/primary"), 503);
}

TEST_F(RoutesTest, PrimaryOfAnOldEpochIsNoPrimary) {
  auto snapshot = primary;
  snapshot.view.leader->value.epoch = Epoch{3};
  EXPECT_EQ(status(snapshot, "/primary"), 503);
  snapshot = primary;
  snapshot.view.leader->value.holder = name("n2");
  EXPECT_EQ(status(snapshot, "/primary"), 503);
}

TEST_F(RoutesTest, PrimaryThatIsNotYetWritableIsNoPrimary) {
  auto snapshot = primary;
  snapshot.view.leader->value.phase = control::LeaderPhase::kPreparing;
  EXPECT_EQ(status(snapshot, "/primary"), 503);
  snapshot = primary;
  snapshot.local->phase = control::Phase::kPromoting;
  EXPECT_EQ(status(snapshot, "/primary"), 503);
  snapshot = primary;
  snapshot.local->postgres.run = control::PgRun::kUnresponsive;
  EXPECT_EQ(status(snapshot, "/primary"), 503);
}

TEST_F(RoutesTest, DivergedOrRewindingMemberServesNoReads) {
  for (const auto phase : {control::Phase::kIsolated, control::Phase::kRewinding,
                           control::Phase::kBalloting, control::Phase::kRefused}) {
    auto snapshot = replica;
    snapshot.local->phase = phase;
    EXPECT_EQ(status(snapshot, "/replica"), 503);
    EXPECT_EQ(status(snapshot, "/readiness"), 503);
  }
}

TEST_F(RoutesTest, HungAgentIsNotAliveAndItsMemberNotReady) {
  now = kNow + 5s + 1ms;  // ttl is 5 s
  EXPECT_EQ(status(replica, "/liveness"), 503);
  EXPECT_EQ(status(replica, "/replica"), 503);
  EXPECT_EQ(status(replica, "/health"), 503);
}

TEST_F(RoutesTest, ReplicaBeyondTheLagLimitIsRefused) {
  auto snapshot = replica;
  snapshot.local->postgres.upstream_lsn = Lsn{0x5000 + 2048};
  EXPECT_EQ(status(snapshot, "/replica", {{"lag", "2048"}}), 200);
  EXPECT_EQ(status(snapshot, "/replica", {{"lag", "2kB"}}), 200);
  EXPECT_EQ(status(snapshot, "/replica", {{"lag", "2047"}}), 503);
  EXPECT_EQ(status(snapshot, "/readiness", {{"lag", "1kB"}}), 503);
  EXPECT_EQ(status(snapshot, "/async", {{"lag", "1kB"}}), 503);
  EXPECT_EQ(status(snapshot, "/replica", {{"lag", "a lot"}}), 400);
  snapshot.local->postgres.replay_lsn = Lsn{};
  EXPECT_EQ(status(snapshot, "/replica", {{"lag", "1TB"}}), 503) << "unknown lag passed";
}

TEST_F(RoutesTest, LagCountsWhatThePrimaryPublishedToo) {
  auto snapshot = replica;
  snapshot.local->postgres.upstream_lsn = snapshot.local->postgres.replay_lsn;  // a silent relay
  snapshot.view.members[name("n1")].flush_lsn = Lsn{0x9000};
  EXPECT_EQ(status(snapshot, "/replica", {{"lag", "1kB"}}), 503);
}

TEST_F(RoutesTest, ReplicaFiltersByTagAndReplicationState) {
  EXPECT_EQ(status(replica, "/replica", {{"tag_region", "eu"}}), 200);
  EXPECT_EQ(status(replica, "/replica", {{"tag_region", "us"}}), 503);
  EXPECT_EQ(status(replica, "/replica", {{"tag_unknown", "x"}}), 503);
  auto snapshot = replica;
  snapshot.local->postgres.receiver_streaming = false;
  EXPECT_EQ(status(snapshot, "/replica"), 200);
  EXPECT_EQ(status(snapshot, "/replica", {{"replication_state", "streaming"}}), 503);
}

TEST_F(RoutesTest, HealthSaysWhichDatabaseIsDown) {
  EXPECT_EQ(document(primary, "/health")["status"], "healthy");
  auto snapshot = primary;
  snapshot.local->postgres.senders.clear();
  auto health = document(snapshot, "/health");
  EXPECT_EQ(status(snapshot, "/health"), 503);
  EXPECT_EQ(health["status"], "degraded");
  EXPECT_EQ(health["db_primary"], "connected");
  EXPECT_EQ(health["db_replica"], "disconnected");

  snapshot = replica;
  snapshot.view.leader->value.phase = control::LeaderPhase::kVacant;
  health = document(snapshot, "/health");
  EXPECT_EQ(status(snapshot, "/health"), 503);
  EXPECT_EQ(health["status"], "unhealthy");
  EXPECT_EQ(health["db_primary"], "disconnected");

  snapshot = primary;
  snapshot.view.members.erase(name("n2"));
  snapshot.view.members.erase(name("n3"));
  snapshot.view.roster->value.members = {name("n1")};
  EXPECT_EQ(document(snapshot, "/health")["db_replica"], "not_configured");
  EXPECT_EQ(status(snapshot, "/health"), 200);
}

TEST_F(RoutesTest, ClusterHasPatronisShape) {
  const auto cluster = document(primary, "/cluster");
  EXPECT_EQ(cluster["scope"], "demo");
  ASSERT_EQ(cluster["members"].size(), 3u);
  const auto& n1 = cluster["members"][0];
  EXPECT_EQ(n1["name"], "n1");
  EXPECT_EQ(n1["role"], "leader");
  EXPECT_EQ(n1["state"], "running");
  EXPECT_EQ(n1["host"], "127.0.0.1");
  EXPECT_EQ(n1["port"], 5431);
  EXPECT_EQ(n1["timeline"], 2);
  EXPECT_FALSE(n1.contains("lag"));
  EXPECT_EQ(cluster["members"][1]["role"], "sync_standby");
  EXPECT_EQ(cluster["members"][2]["role"], "replica");
  EXPECT_EQ(cluster["members"][2]["lag"], 0x1000);
  EXPECT_EQ(cluster["members"][2]["region"], "eu");
  EXPECT_EQ(cluster["epoch"], 2);
}

TEST_F(RoutesTest, LagOnAnotherTimelineIsUnknownRatherThanAFigure) {
  auto snapshot = primary;
  snapshot.view.members[name("n3")].timeline = Timeline{1};
  EXPECT_EQ(document(snapshot, "/cluster")["members"][2]["lag"], "unknown");
}

TEST_F(RoutesTest, HistoryHasPatronisShape) {
  EXPECT_EQ(document(primary, "/history"),
            json::parse(R"([[1, 12288, "record expired", "1970-01-01T00:01:01.000Z", "n1"]])"));
}

TEST_F(RoutesTest, FailoverStatus) {
  const auto status = document(primary, "/failover/status");
  EXPECT_EQ(status["state"], "healthy");
  EXPECT_EQ(status["currentPrimary"], "n1");
  EXPECT_EQ(status["primary"]["healthy"], true);
  EXPECT_EQ(status["standbys"].size(), 2u);
  EXPECT_EQ(status["standbys"][1]["name"], "n3");
  EXPECT_EQ(status["standbys"][1]["lagBytes"], 0x1000);
  EXPECT_EQ(status["standbys"][1]["promotionEligible"], true);
  EXPECT_EQ(status["failoverCount"], 1);
  EXPECT_EQ(status["lastFailoverTime"], "1970-01-01T00:01:01.000Z");
}

TEST_F(RoutesTest, FailoverStateFollowsTheCluster) {
  const auto state = [this](const Snapshot& snapshot) {
    return cluster_health(snapshot, now).state;
  };
  EXPECT_EQ(state(primary), FailoverState::kHealthy);
  auto snapshot = replica;  // a daemon that does not lead goes by what members publish
  snapshot.view.members[name("n2")].state = "stopped";
  EXPECT_EQ(state(snapshot), FailoverState::kDegraded);
  snapshot.wall = WallTime{Millis(62000)};  // a second after the take-over
  EXPECT_EQ(state(snapshot), FailoverState::kFailoverComplete);
  snapshot.view.members[name("n2")].state = "rewinding";
  EXPECT_EQ(state(snapshot), FailoverState::kRecoveryInProgress);
  snapshot.view.leader->value.phase = control::LeaderPhase::kVacant;
  EXPECT_EQ(state(snapshot), FailoverState::kFailoverInProgress);
  snapshot.view.leader->value.phase = control::LeaderPhase::kStopping;
  EXPECT_EQ(state(snapshot), FailoverState::kFailoverInProgress);
  snapshot.store_seen_at = kNow - 6s;
  EXPECT_EQ(state(snapshot), FailoverState::kUnknown);
  snapshot = primary;
  snapshot.view.leader.reset();
  EXPECT_EQ(state(snapshot), FailoverState::kUnknown);
}

TEST_F(RoutesTest, FailoverHistoryIsNewestFirstAndBounded) {
  const auto all = document(primary, "/failover/history");
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0]["epoch"], 2);
  EXPECT_EQ(all[0]["from"], "n3");
  EXPECT_EQ(all[0]["to"], "n1");
  EXPECT_EQ(all[0]["durationMs"], 420);
  EXPECT_EQ(all[0]["outcome"], "done");
  EXPECT_EQ(all[0]["lostBytes"], nullptr);
  EXPECT_EQ(all[1]["durationMs"], nullptr);
  EXPECT_EQ(all[1]["outcome"], "done");
  auto told = primary;
  auto& newest = told.view.history.at(Epoch{2});
  newest.silent_ms = 2000;
  newest.promote_ms = 90;
  newest.route_ms = 4;
  newest.lost_bytes = 1234;
  const auto split = document(told, "/failover/history")[0];
  EXPECT_EQ(split["durationMs"], 2514);
  EXPECT_EQ(split["split"]["detectMs"], 2000);
  EXPECT_EQ(split["split"]["electMs"], 420);
  EXPECT_EQ(split["split"]["promoteMs"], 90);
  EXPECT_EQ(split["split"]["routeMs"], 4);
  EXPECT_EQ(split["split"]["fenceMs"], nullptr);
  EXPECT_EQ(split["lostBytes"], 1234);
  EXPECT_EQ(split["outcome"], "done");
  newest.promote_ms = -1;
  told.view.leader->value.phase = control::LeaderPhase::kPreparing;
  EXPECT_EQ(document(told, "/failover/history")[0]["outcome"], "under way");
  told.view.leader->value.phase = control::LeaderPhase::kVacant;
  EXPECT_EQ(document(told, "/failover/history")[0]["outcome"], "came to nothing");
  EXPECT_EQ(split["takenOverAt"], "1970-01-01T00:01:01.000Z");
  EXPECT_EQ(split["startedAt"], "1970-01-01T00:00:58.580Z");
  EXPECT_EQ(document(primary, "/failover/history", {{"limit", "1"}}).size(), 1u);
  EXPECT_EQ(status(primary, "/failover/history", {{"limit", "-1"}}), 400);
}

TEST_F(RoutesTest, PatroniStatus) {
  const auto one = document(primary, "/patroni");
  EXPECT_EQ(one["role"], "primary");
  EXPECT_EQ(one["state"], "running");
  EXPECT_EQ(one["timeline"], 2);
  EXPECT_EQ(one["xlog"]["location"], 0x5000);
  EXPECT_EQ(one["replication"][0]["sync_state"], "sync");
  EXPECT_EQ(one["replication"][1]["sync_state"], "async");
  EXPECT_EQ(one["patroni"]["scope"], "demo");
  const auto two = document(sync_replica, "/patroni");
  EXPECT_EQ(two["role"], "replica");
  EXPECT_EQ(two["sync_standby"], true);
  EXPECT_EQ(two["xlog"]["replayed_location"], 0x5000);
}

TEST_F(RoutesTest, MetricsHaveTheFixedNamesAndTypes) {
  auto snapshot = primary;
  snapshot.loops = {{"agent", {.turns = 5, .events = 7, .busy = 1500ms}}};
  snapshot.metrics = {{"bascule_proxy_clients", "Clients", MetricPoint::Kind::kGauge, {}, 3}};
  const auto response = call(snapshot, "GET", "/metrics");
  EXPECT_EQ(response.status, 200);
  EXPECT_THAT(response.content_type, HasSubstr("version=0.0.4"));
  for (const char* line :
       {"# TYPE failover_state gauge", "failover_state{instance=\"n1\"} 1",
        "# TYPE failover_total counter", "failover_total{instance=\"n1\"} 1",
        "failover_recoveries_total{", "failover_health_check_failures_total{",
        "failover_primary_healthy{instance=\"n1\"} 1",
        "failover_standby_healthy{instance=\"n1\",standby=\"n2\"} 1",
        "bascule_epoch{cluster=\"demo\"} 2", "bascule_is_leader{cluster=\"demo\",member=\"n1\"} 1",
        "bascule_timeline{cluster=\"demo\"} 2",
        "bascule_leader_renewals_total{cluster=\"demo\"} 17",
        "bascule_member_lag_bytes{cluster=\"demo\",member=\"n3\"} 4096", "bascule_wal_flush_bytes{",
        "bascule_leader_deadline_seconds{", "bascule_loop_turns_total{loop=\"agent\"} 5",
        "bascule_loop_busy_seconds_total{loop=\"agent\"} 1.5", "bascule_proxy_clients 3"}) {
    EXPECT_THAT(response.body, HasSubstr(line));
  }
}

TEST_F(RoutesTest, MetricsLeaveOutWhatIsNotKnown) {
  auto snapshot = proxy_only;
  snapshot.view = {};
  const auto text = metrics_text(snapshot, now);
  EXPECT_THAT(text, HasSubstr("failover_state{instance=\"n1\"} 0"));
  for (const char* name : {"bascule_epoch", "bascule_is_leader", "bascule_wal_flush_bytes"}) {
    EXPECT_THAT(text, Not(HasSubstr(name)));
  }
}

TEST_F(RoutesTest, TextFromOthersStaysInsideItsLabelAndItsString) {
  auto snapshot = replica;
  auto& state = snapshot.view.members[name("n3")].state;
  state = "a\"} 1\nevil 2 \xff";
  EXPECT_THAT(metrics_text(snapshot, now), Not(HasSubstr("\nevil")));
  EXPECT_EQ(status(snapshot, "/cluster"), 200);
  EXPECT_TRUE(json::accept(call(snapshot, "GET", "/cluster").body));
}

TEST_F(RoutesTest, ErrorsHaveCodeMessageAndHint) {
  const auto response = call(primary, "GET", "/nowhere");
  EXPECT_EQ(response.status, 404);
  const auto error = json::parse(response.body)["error"];
  EXPECT_EQ(error["code"], "not_found");
  EXPECT_TRUE(error.contains("message") && error.contains("hint"));
  EXPECT_EQ(call(primary, "DELETE", "/primary").status, 405);
  EXPECT_EQ(call(primary, "GET", "/switchover").status, 405);
  EXPECT_EQ(call(primary, "PUT", "/switchover").headers[0].second, "POST, DELETE");
  EXPECT_EQ(call(primary, "POST", "/nowhere").status, 404);
}

TEST_F(RoutesTest, SwitchoverHandsTheRequestOn) {
  const auto response = call(primary, "POST", "/switchover", {},
                             R"({"leader": "n1", "candidate": "n2", "reason": "kernel update"})");
  EXPECT_EQ(response.status, 202) << response.body;
  EXPECT_EQ(json::parse(response.body)["operation"], "op-1");
  ASSERT_EQ(commands.size(), 1u);
  EXPECT_EQ(commands[0].kind, Command::Kind::kSwitchover);
  EXPECT_EQ(commands[0].candidate, name("n2"));
  EXPECT_EQ(commands[0].reason, "kernel update");
  EXPECT_EQ(commands[0].by, "api 127.0.0.1");
}

TEST_F(RoutesTest, FailoverTakesForceAndTarget) {
  EXPECT_EQ(
      call(primary, "POST", "/failover/trigger", {}, R"({"target": "n3", "force": true})").status,
      202);
  ASSERT_EQ(commands.size(), 1u);
  EXPECT_EQ(commands[0].kind, Command::Kind::kFailover);
  EXPECT_EQ(commands[0].candidate, name("n3"));
  EXPECT_TRUE(commands[0].force);
  EXPECT_EQ(call(primary, "POST", "/failover").status, 202) << "a body is not required";
}

TEST_F(RoutesTest, PauseAndResume) {
  EXPECT_EQ(call(primary, "POST", "/pause").status, 200);
  EXPECT_EQ(call(primary, "POST", "/resume").status, 200);
  ASSERT_EQ(commands.size(), 2u);
  EXPECT_EQ(commands[0].kind, Command::Kind::kPause);
  EXPECT_EQ(commands[1].kind, Command::Kind::kResume);
}

TEST_F(RoutesTest, MalformedCommandsAreRefusedAndHandedToNobody) {
  const std::string deep(50000, '[');
  const std::string bodies[] = {"{",
                                "[]",
                                "\"n2\"",
                                R"({"candidate": 7})",
                                R"({"candidate": "N 2"})",
                                R"({"canditate": "n2"})",
                                R"({"force": true})",
                                R"({"scheduled_at": "2026-01-01"})",
                                R"({"reason": ")" + std::string(501, 'x') + "\"}",
                                deep};
  for (const auto& body : bodies) {
    EXPECT_EQ(call(primary, "POST", "/switchover", {}, body).status, 400) << body.substr(0, 60);
  }
  EXPECT_TRUE(commands.empty());
}

TEST_F(RoutesTest, SwitchoverFromAnotherLeaderThanTheCallerThinksIsRefused) {
  EXPECT_EQ(call(primary, "POST", "/switchover", {}, R"({"leader": "n2"})").status, 412);
  EXPECT_TRUE(commands.empty());
}

TEST_F(RoutesTest, RefusalOfTheClusterReachesTheCaller) {
  answer = fail(ErrorCode::kConflict, "the cluster is paused", "`bascule resume` first");
  const auto response = call(primary, "POST", "/switchover");
  EXPECT_EQ(response.status, 409);
  EXPECT_EQ(json::parse(response.body)["error"]["message"], "the cluster is paused");
}

TEST_F(RoutesTest, CommandsAreRefusedBeyondLoopback) {
  access.loopback = false;
  for (const char* path : {"/switchover", "/failover", "/pause", "/resume"}) {
    EXPECT_EQ(call(primary, "POST", path).status, 403) << path;
  }
  EXPECT_EQ(status(primary, "/primary"), 200);
  EXPECT_TRUE(commands.empty());
}

TEST_F(RoutesTest, TokensDecideWhoMayReadAndWhoMayCommand) {
  access = {.tokens = {{"ops", Role::kAdmin, sha256_hex("admin-word")},
                       {"grafana", Role::kViewer, sha256_hex("viewer-word")}},
            .loopback = false,
            .anonymous = Anonymous::kHealth};
  struct Row {
    const char* header;
    int health, cluster, command;
  };
  constexpr Row kRows[] = {
      {"", 200, 401, 401},
      {"Bearer viewer-word", 200, 200, 403},
      {"Bearer admin-word", 200, 200, 202},
      {"Bearer wrong", 401, 401, 401},
      {"Basic YWRtaW4td29yZA==", 401, 401, 401},
      {"bearer", 401, 401, 401},
  };
  for (const Row& row : kRows) {
    authorization = row.header;
    EXPECT_EQ(status(primary, "/primary"), row.health) << row.header;
    for (const char* path : {"/cluster", "/records", "/config", "/metrics", "/operations/x"}) {
      const int seen = status(primary, path);
      EXPECT_EQ(seen == 401, row.cluster == 401) << row.header << " " << path;
    }
    EXPECT_EQ(call(primary, "POST", "/switchover").status, row.command) << row.header;
  }
  ASSERT_EQ(commands.size(), 1u);
  EXPECT_EQ(commands[0].by, "api ops 127.0.0.1");
}

TEST_F(RoutesTest, WithTokensThereIsNoAdminWithoutOneOnLoopbackEither) {
  access.tokens = {{"ops", Role::kAdmin, sha256_hex("admin-word")}};
  EXPECT_EQ(status(primary, "/cluster"), 200);
  EXPECT_EQ(call(primary, "POST", "/switchover").status, 401);
  EXPECT_TRUE(commands.empty());
}

TEST_F(RoutesTest, TheConfigurationIsChangedByPatch) {
  EXPECT_EQ(
      call(primary, "PATCH", "/config", {}, R"({"ttl":"10s","sync_strict":true,"x":5})").status,
      200);
  ASSERT_EQ(commands.size(), 1u);
  EXPECT_EQ(commands[0].kind, Command::Kind::kConfig);
  EXPECT_EQ(commands[0].changes, (std::map<std::string, std::string>{
                                     {"sync_strict", "true"}, {"ttl", "10s"}, {"x", "5"}}));
  // Takes the key away; what can't be without refuses the empty value later.
  EXPECT_EQ(call(primary, "PATCH", "/config", {}, R"({"standby_cluster":null})").status, 200);
  ASSERT_EQ(commands.size(), 2u);
  EXPECT_EQ(commands[1].changes, (std::map<std::string, std::string>{{"standby_cluster", ""}}));
  for (const char* bad : {"", "[]", "{}", R"({"ttl":{}})"}) {
    EXPECT_EQ(call(primary, "PATCH", "/config", {}, bad).status, 400) << bad;
  }
  EXPECT_EQ(call(primary, "POST", "/config", {}, "{}").status, 405);
  EXPECT_EQ(call(primary, "PATCH", "/switchover", {}, "{}").status, 405);
  EXPECT_EQ(commands.size(), 2u);
}

TEST_F(RoutesTest, RecordsReadBackAsTheSameView) {
  const auto sent = document(primary, "/records");
  store::Snapshot raw;
  raw.identity = sent["identity"];
  const control::Keys keys(sent["cluster"].get<std::string>());
  for (const auto& [key, record] : sent["records"].items()) {
    raw.entries.push_back(
        {keys.prefix + key, record["value"].dump(), record["revision"].get<store::Revision>()});
  }
  const auto view = control::parse_cluster(keys, raw);
  EXPECT_TRUE(view.problems.empty());
  EXPECT_EQ(view.leader->value, primary.view.leader->value);
  EXPECT_EQ(view.members, primary.view.members);
  EXPECT_EQ(view.history, primary.view.history);
  EXPECT_EQ(view.sync->value, primary.view.sync->value);
  EXPECT_EQ(view.config->value, primary.view.config->value);
}

TEST(Access, AHashIsThatOfTheToken) {
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_F(RoutesTest, CommandsOfWebPagesAreRefused) {
  origin = "http://evil.example";
  EXPECT_EQ(call(primary, "POST", "/failover").status, 403);
  EXPECT_TRUE(commands.empty());
}

TEST_F(RoutesTest, OperationIsFollowedByItsId) {
  auto snapshot = primary;
  control::RequestRecord request;
  request.id = "op-7";
  request.candidate = name("n2");
  request.progress = "draining";
  snapshot.view.request = {request, 7};
  const auto open = document(snapshot, "/operations/op-7");
  EXPECT_EQ(open["done"], false);
  EXPECT_EQ(open["progress"], "draining");
  snapshot.view.request->value.outcome = "done";
  EXPECT_EQ(document(snapshot, "/operations/op-7")["done"], true);
  EXPECT_EQ(status(snapshot, "/operations/op-8"), 404);
}

TEST(ParseBytes, AcceptsPatronisUnitsAndNothingElse) {
  EXPECT_EQ(parse_bytes("1048576").value(), 1048576u);
  EXPECT_EQ(parse_bytes("16kB").value(), 16384u);
  EXPECT_EQ(parse_bytes("1MB").value(), 1u << 20);
  EXPECT_EQ(parse_bytes("2gb").value(), 2u << 30);
  for (const char* bad : {"", "kB", "-1", "1.5MB", "16 kB", "16XB", "99999999999999999999",
                          "18446744073709551615kB"}) {
    EXPECT_FALSE(parse_bytes(bad).has_value()) << bad;
  }
}

TEST(Tally, CountsARecoveryOnceAndTheTimeWithoutAPrimary) {
  Tally tally;
  auto snapshot = snapshot_of(following_member("n3"));
  EXPECT_EQ(tally.observe(snapshot, kNow).recoveries, 0u) << "the first look is no recovery";
  snapshot.view.members[name("n2")].state = "stopped";
  EXPECT_EQ(tally.observe(snapshot, kNow).standby_failures.at(name("n2")), 1u);
  snapshot.view.members[name("n2")].state = "streaming";
  EXPECT_EQ(tally.observe(snapshot, kNow).recoveries, 1u);
  EXPECT_EQ(tally.observe(snapshot, kNow).recoveries, 1u);

  snapshot.view.leader->value.phase = control::LeaderPhase::kVacant;
  EXPECT_EQ(tally.observe(snapshot, kNow).primary_down_since, kNow);
  EXPECT_EQ(tally.observe(snapshot, kNow + 1s).primary_down_since, kNow);
  snapshot.view.leader->value.phase = control::LeaderPhase::kRunning;
  EXPECT_EQ(tally.observe(snapshot, kNow + 1s).primary_down_since, std::nullopt);
}

TEST(Tally, LagInTimeIsTheAgeOfThePositionNotYetReplayed) {
  Tally tally;
  auto snapshot = snapshot_of(std::nullopt);
  auto& primary = snapshot.view.members[name("n1")];
  auto& replica = snapshot.view.members[name("n3")];
  primary.flush_lsn = replica.replay_lsn = Lsn{100};
  EXPECT_EQ(tally.observe(snapshot, kNow).lag.at(name("n3")), 0s);
  primary.flush_lsn = Lsn{200};
  tally.observe(snapshot, kNow + 1s);
  primary.flush_lsn = Lsn{300};
  EXPECT_EQ(tally.observe(snapshot, kNow + 4s).lag.at(name("n3")), 3s);
  replica.replay_lsn = Lsn{200};
  EXPECT_EQ(tally.observe(snapshot, kNow + 5s).lag.at(name("n3")), 1s);
  replica.replay_lsn = Lsn{300};
  EXPECT_EQ(tally.observe(snapshot, kNow + 9s).lag.at(name("n3")), 0s) << "an idle primary";
}

}  // namespace
}  // namespace bascule::api
