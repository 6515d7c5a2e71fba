// The JSON form of the records: what is written is read back, what is wrong is refused by name.
#include "control/records.h"

#include <gtest/gtest.h>

#include "control/events.h"

namespace bascule::control {
namespace {

NodeName name(std::string_view text) { return *NodeName::parse(text); }
Position at(uint32_t timeline, uint64_t lsn) { return {Timeline{timeline}, Lsn{lsn}}; }
WallTime wall(int64_t ms) { return WallTime(Millis(ms)); }

template <typename T>
void expect_same(const T& record, Result<T> (*decode)(std::string_view)) {
  const Result<T> again = decode(encode(record));
  ASSERT_TRUE(again.has_value()) << again.error().to_string();
  EXPECT_TRUE(*again == record) << encode(record) << "\n" << encode(*again);
}

template <typename T>
std::string refusal(Result<T> result) {
  return result ? "accepted" : result.error().to_string();
}

TEST(RecordsTest, TheClustersConfigurationIsReadBackInFull) {
  ClusterConfig c;
  c.ttl = 3s;
  c.sync_mode = SyncMode::kQuorum;
  c.sync_count = 2;
  c.sync_strict = true;
  c.sync_degrade_after = 700ms;
  c.on_crash = OnCrash::kRestartThenFailover;
  c.on_disk_full = OnDiskFull::kStay;
  c.failover_limit = 7;
  c.failover_window = 90s;
  c.sync_region = SyncRegion::kOther;
  c.maximum_lag_bytes = 5;
  c.ballot_window = 150ms;
  c.drain_timeout = 1s;
  c.promote_timeout = 20s;
  c.rejoin_timeout = 40s;
  c.parameters = {{"work_mem", "8MB"}};
  c.slots = {{"cdc", {"pgoutput", "shop"}}, {"archive", {"", ""}}};
  c.primary_region = "west";
  c.failsafe = false;
  c.early_takeover = true;
  c.blip_tolerance = 900ms;
  c.region_relays = true;
  expect_same(c, decode_config);
  c.standby_cluster = StandbyCluster{"db1,db2:5433", 5434, "us", "cp %f %p"};
  expect_same(c, decode_config);
}

TEST(RecordsTest, WhoLeadsAndWhoFollowsIsReadBackInFull) {
  LeaderRecord l{name("n1"),  Epoch{7},  9,        LeaderPhase::kDraining,
                 Timeline{4}, 5s,        "why",    name("n2"),
                 at(4, 1000), "request", Lsn{2000}};
  expect_same(l, decode_leader);
  MemberRecord m{.name = name("n2"),
                 .role = "replica",
                 .state = "streaming",
                 .reason = "as it should",
                 .epoch = Epoch{7},
                 .timeline = Timeline{4},
                 .flush_lsn = Lsn{3},
                 .replay_lsn = Lsn{2},
                 .checkpoint_timeline = Timeline{3},
                 .host = "10.0.0.2",
                 .port = 5432,
                 .api_url = "https://10.0.0.2:8008",
                 .region = "west",
                 .priority = 50,
                 .nofailover = true,
                 .tags = {.nosync = true,
                          .noloadbalance = true,
                          .clonefrom = true,
                          .replicatefrom = name("n3")},
                 .upstream = name("n3"),
                 .sync_name = "n2_x",
                 .system_id = ~0ULL,
                 .pending_restart = true,
                 .disk_full = DiskFull::kData,
                 .restart_first = true,
                 .slots = {{"cdc", "copy, proven"}},
                 .config_problem = "work_mem",
                 .task = "t1",
                 .task_result = "done",
                 .written_at = wall(1'700'000'000'000)};
  expect_same(m, decode_member);
  expect_same(Ballot{name("n2"), 12, 13, at(4, 99), {Lsn{90}, 5}, 8, "n2_x", Epoch{6}},
              decode_ballot);
}

TEST(RecordsTest, HistoryAndVotersAreReadBackInFull) {
  expect_same(SyncRecord{{{Epoch{6}, name("n1"), "n1_a", {"n2_x", "n3_y"}, 1},
                          {Epoch{7}, name("n2"), "n2_x", {}, 0}}},
              decode_sync);
  expect_same(HistoryRecord{Epoch{7},
                            name("n2"),
                            Epoch{6},
                            Timeline{4},
                            at(3, 77),
                            {Lsn{76}, 0xFFFFFFFF},
                            "expired",
                            "expired",
                            wall(1'700'000'000'000),
                            350,
                            true},
              decode_history);
  expect_same(RequestRecord{"r1", RequestKind::kFailover, name("n3"), true, true, "eve", "checking",
                            "refused: no"},
              decode_request);
  expect_same(InitRecord{~0ULL, name("n1")}, decode_init);
  expect_same(RosterRecord{{name("n1"), name("n2")}}, decode_roster);
  expect_same(SeedRecord{3, name("n1"), Epoch{9}}, decode_seed);
  expect_same(RemovedRecord{"n3_z", "ann@db1"}, decode_removed);
  LocalState s{"inc",        "store",  8,    Epoch{7}, 3,        12,  Epoch{6},
               {Lsn{91}, 6}, at(4, 5), "t1", "done",   Epoch{5}, true};
  expect_same(s, decode_local_state);
  s.ballot_intent.reset();
  expect_same(s, decode_local_state);
}

TEST(RecordsTest, TasksAreReadBackInFull) {
  TaskRecord t;
  t.id = "t1";
  t.kind = TaskKind::kReinit;
  t.steps = {{name("n1"), StepState::kFailed, "no space"}, {name("n2"), StepState::kWaiting, ""}};
  t.at = wall(1'700'000'000'000);
  t.only_pending = t.by_switchover = true;
  t.step_timeout = 30s;
  t.candidate = name("n2");
  t.region = "east";
  t.by = "eve";
  t.asked_at = wall(1'600'000'000'000);
  t.outcome = "failed: n1";
  expect_same(t, decode_task);
}

TEST(RecordsTest, WhatIsWrongIsRefusedByName) {
  for (const char* bad : {"", "{", R"({"epoch":-1})", R"({"epoch":1e400,"phase":"running"})"}) {
    EXPECT_FALSE(decode_leader(bad)) << bad;
  }
  EXPECT_NE(refusal(decode_leader("[]")).find("not a JSON object"), std::string::npos);
  EXPECT_NE(refusal(decode_leader("{}")).find("epoch is missing"), std::string::npos);
  EXPECT_NE(refusal(decode_leader(R"({"epoch":1,"phase":"vacant","holder":"n1"})")).find("holder"),
            std::string::npos);
  EXPECT_NE(refusal(decode_member(R"({"name":"n1","port":70000})")).find("port"),
            std::string::npos);
  EXPECT_NE(refusal(decode_member(R"({"name":"n1","writtenAtMs":-1})")).find("time"),
            std::string::npos);
  EXPECT_NE(refusal(decode_config(R"({"ttlMs":10})")).find("ttl"), std::string::npos);
  EXPECT_NE(refusal(decode_sync(R"({"generations":[{"epoch":1,"leader":"n1","quorum":2}]})"))
                .find("quorum does not fit"),
            std::string::npos);
}

TEST(RecordsTest, BytesThatAreNotUtf8AreReplacedInWhatIsWritten) {
  LeaderRecord l;
  l.holder = name("n1");
  l.phase = LeaderPhase::kRunning;
  l.why = "server said \xff";
  EXPECT_TRUE(decode_leader(encode(l)).has_value());
}

}  // namespace
}  // namespace bascule::control
