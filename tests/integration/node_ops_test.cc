// The operations of node/ against real PostgreSQL servers. As root, runs as user "postgres".
#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>
#include <string_view>

#include "posix/guard_process.h"
#include "tests/integration/node_world.h"

namespace bascule::node {
namespace {

namespace op = control::op;
using control::PgRun;

TEST_F(NodeOps, ANewClusterHasWhatItsMembersAndClientsNeed) {
  auto& n1 = world.add("n1");
  EXPECT_EQ(world.sample(n1).data, control::DataDir::kEmpty);
  const auto initialized = world.run(n1, op::InitDb{});
  ASSERT_DONE(initialized);
  EXPECT_NE(initialized->system_id, 0u);
  EXPECT_EQ(world.sample(n1).run, PgRun::kStopped);
  EXPECT_EQ(world.sample(n1).system_id, initialized->system_id);
  ASSERT_DONE(world.run(n1, op::StartPrimary{}));
  const auto status = world.sample(n1);
  EXPECT_EQ(status.run, PgRun::kPrimary);
  EXPECT_EQ(status.timeline, Timeline{1});
  EXPECT_EQ(status.system_id, initialized->system_id);
  EXPECT_TRUE(status.flush_lsn.valid());
  EXPECT_TRUE(std::filesystem::exists(n1.config.data_dir + "/standby.signal"));
  EXPECT_EQ(world.value(n1,
                        "SELECT string_agg(rolname, ',' ORDER BY rolname) FROM pg_roles "
                        "WHERE rolcanlogin"),
            "app,bascule_replication,postgres");
  EXPECT_EQ(world.value(n1, "SHOW data_checksums"), "on");
  EXPECT_EQ(world.value(n1, "SELECT datdba::regrole FROM pg_database WHERE datname = 'app'"),
            "app");
  EXPECT_EQ(world.value(n1, "SHOW restart_after_crash"), "off");
  auto log = world.disk.read(n1.config.run_dir + "/postgresql.log", 1 << 20);
  ASSERT_TRUE(log);
  EXPECT_EQ(log->find("secret"), std::string::npos);
}

TEST_F(NodeOps, AStandbyStreamsAndItsReceiverStopsForSure) {
  auto [n1, n2] = world.pair();
  ASSERT_TRUE(world.sql(*n1, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS i"));
  ASSERT_DONE(world.run(*n1, op::SetSync{{"n2_incn2"}, true}));
  EXPECT_EQ(world.sample(*n1).sync_standbys, std::vector<std::string>{"n2_incn2"});
  ASSERT_TRUE(world.sql(*n1, "INSERT INTO t VALUES (0)"));
  const auto senders = world.sample(*n1).senders;
  ASSERT_EQ(senders.size(), 1u);
  EXPECT_EQ(senders[0].application_name, "n2_incn2");
  EXPECT_TRUE(senders[0].streaming);
  EXPECT_EQ(world.sample(*n2).upstream, n1->config.agent.name);

  const MonoTime before = world.loop.now();
  const auto stopped = world.run(*n2, op::StopReceiver{});
  const auto took = to_ms(world.loop.now() - before);
  ASSERT_DONE(stopped);
  std::cout << "receiver stopped within " << took << " ms\n";
  EXPECT_LT(took, 300);
  EXPECT_EQ(stopped->position.timeline, Timeline{1});
  EXPECT_EQ(stopped->position.lsn.to_string(), world.value(*n2, "SELECT pg_last_wal_replay_lsn()"));
  const auto status = world.sample(*n2);
  EXPECT_FALSE(status.receiver_streaming);
  EXPECT_FALSE(status.upstream.has_value());
  // Nothing acknowledges any more.
  auto blocked = world.sql(*n1, "INSERT INTO t VALUES (-1)", 500ms);
  EXPECT_FALSE(blocked);
  EXPECT_EQ(world.value(*n2, "SELECT count(*) FROM t WHERE i = -1"), "0");
  ASSERT_DONE(world.run(*n2, op::SetUpstream{world.upstream(*n1)}));
  EXPECT_TRUE(world.until([&] { return world.sample(*n2).receiver_streaming; }));
  EXPECT_TRUE(
      world.until([&] { return world.value(*n2, "SELECT count(*) FROM t WHERE i = -1") == "1"; }));
}

TEST_F(NodeOps, ReceiverStopsAlthoughReplayIsPaused) {
  auto [n1, n2] = world.pair();
  ASSERT_TRUE(world.sql(*n2, "SELECT pg_wal_replay_pause()"));
  ASSERT_TRUE(world.sql(*n1, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS i"));
  const std::string end = world.value(*n1, "SELECT pg_current_wal_flush_lsn()");
  ASSERT_TRUE(world.until([&] {
    return world.value(*n2, fmt::format("SELECT pg_last_wal_receive_lsn() >= '{}'", end)) == "t";
  }));
  const auto stopped = world.run(*n2, op::StopReceiver{});
  ASSERT_DONE(stopped);
  EXPECT_GE(stopped->position.lsn, Lsn::parse(end).value());
  EXPECT_EQ(world.value(*n2, "SELECT count(*) FROM t"), "1000");  // all of it replayed
}

TEST_F(NodeOps, ReceiverStopsByReloadThoughRestoreCommandTakesItsTime) {
  auto [n1, n2] = world.pair();
  ASSERT_DONE(world.run(*n2, op::Reload{{{"restore_command", "sleep 0.05; false"}}}));
  ASSERT_TRUE(world.sql(*n1, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS i"));
  const env::Pid postmaster = world.postmaster(*n2);
  const MonoTime before = world.loop.now();
  const auto stopped = world.run(*n2, op::StopReceiver{});
  ASSERT_DONE(stopped);
  std::cout << "receiver stopped within " << to_ms(world.loop.now() - before) << " ms\n";
  EXPECT_EQ(world.postmaster(*n2), postmaster) << "it was restarted instead";
}

TEST_F(NodeOps, ReceiverStopsAlthoughAQueryHoldsReplayUp) {
  auto [n1, n2] = world.pair();
  ASSERT_TRUE(world.sql(*n1, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS i"));
  const std::string there = world.value(*n1, "SELECT pg_current_wal_flush_lsn()");
  ASSERT_TRUE(world.until([&] {
    return world.value(*n2, fmt::format("SELECT pg_last_wal_replay_lsn() >= '{}'", there)) == "t";
  }));
  auto reader = world.session(*n2);
  ASSERT_TRUE(reader);
  const Bound bound{world.loop, world.loop.now() + 60s};
  ASSERT_TRUE(reader->query("BEGIN; SELECT count(*) FROM t", bound));  // idle in transaction
  ASSERT_TRUE(world.sql(*n1, "DROP TABLE t"));
  ASSERT_TRUE(world.sql(*n1, "CREATE TABLE u AS SELECT 1 AS i"));
  const std::string end = world.value(*n1, "SELECT pg_current_wal_flush_lsn()");
  ASSERT_TRUE(world.until([&] {
    return world.value(*n2,
                       "SELECT wait_event_type FROM pg_stat_activity WHERE "
                       "backend_type = 'startup'") == "Lock";
  }));
  const MonoTime before = world.loop.now();
  const auto stopped = world.run(*n2, op::StopReceiver{});
  ASSERT_DONE(stopped);
  std::cout << "receiver stopped within " << to_ms(world.loop.now() - before) << " ms\n";
  EXPECT_GE(stopped->position.lsn, Lsn::parse(end).value());
  EXPECT_EQ(world.value(*n2, "SELECT i FROM u"), "1");
}

TEST_F(NodeOps, PromotionYieldsTheReservedTimelineAndOthersFollowOrRewind) {
  auto [n1, n2] = world.pair();
  auto& n3 = world.add("n3");
  ASSERT_DONE(world.run(n3, op::Clone{world.upstream(*n1)}));
  ASSERT_DONE(world.run(n3, op::StartStandby{world.upstream(*n1)}));
  ASSERT_TRUE(world.sql(*n1, "CREATE TABLE t AS SELECT 1 AS i"));
  ASSERT_TRUE(world.until([&] { return world.sample(n3).receiver_streaming; }));
  ASSERT_DONE(world.run(*n2, op::StopReceiver{}));
  ASSERT_TRUE(world.sql(*n1, "INSERT INTO t VALUES (666)"));  // nobody waits for it: diverges
  ASSERT_TRUE(world.sql(*n1, "CHECKPOINT"));
  // n3 must not have it either, or it would have to be rewound.
  ASSERT_DONE(world.run(*n1, op::Kill{}));
  EXPECT_TRUE(n1->exits.empty());
  EXPECT_EQ(world.sample(*n1).run, PgRun::kStopped);

  const std::vector<std::string> slots = {"bascule_n1", "bascule_n3"};
  const MonoTime before = world.loop.now();
  ASSERT_DONE(world.run(*n2, op::Promote{Timeline{5}, {}, slots}));
  std::cout << "promoted within " << to_ms(world.loop.now() - before) << " ms\n";
  auto status = world.sample(*n2);
  EXPECT_EQ(status.run, PgRun::kPrimary);
  EXPECT_EQ(status.timeline, Timeline{5});
  EXPECT_TRUE(std::filesystem::exists(n2->config.data_dir + "/standby.signal"));
  ASSERT_TRUE(world.until([&] { return world.sample(*n2).checkpoint_timeline == Timeline{5}; }));
  EXPECT_EQ(world.value(*n2, "SELECT count(*) FROM t WHERE i = 666"), "0");

  // The killed one is rewound and follows over the gap.
  ASSERT_DONE(world.run(*n1, op::Rewind{world.upstream(*n2)}));
  EXPECT_EQ(world.sample(*n1).data, control::DataDir::kReady);
  ASSERT_DONE(world.run(*n1, op::StartStandby{world.upstream(*n2)}));
  ASSERT_TRUE(world.until([&] { return world.sample(*n1).receiver_streaming; }));
  ASSERT_TRUE(world.sql(*n2, "INSERT INTO t VALUES (2)"));
  ASSERT_TRUE(world.until([&] { return world.value(*n1, "SELECT count(*) FROM t") == "2"; }));
  EXPECT_EQ(world.sample(*n1).timeline, Timeline{5});
  EXPECT_EQ(world.value(*n1, "SHOW cluster_name"), "n1");
  EXPECT_EQ(world.value(*n1, "SHOW port"), std::to_string(n1->config.agent.port));

  // The other standby: rewound as well (it may have the diverged row), then follows.
  ASSERT_DONE(world.run(n3, op::Rewind{world.upstream(*n2)}));
  ASSERT_DONE(world.run(n3, op::StartStandby{world.upstream(*n2)}));
  ASSERT_TRUE(world.until([&] { return world.sample(n3).receiver_streaming; }));

  // Planned: stop cleanly, verify, promote again over a gap; the stopped one follows unrewound.
  const auto stopped = world.run(*n2, op::CleanStop{15000ms});
  ASSERT_DONE(stopped);
  EXPECT_TRUE(n2->exits.empty());
  EXPECT_EQ(stopped->position.timeline, Timeline{5});
  ASSERT_DONE(world.run(*n2, op::VerifyReceived{world.upstream(*n1), stopped->position, 3000ms}));
  Position beyond = stopped->position;
  beyond.lsn.value += 8;
  EXPECT_FALSE(world.run(*n2, op::VerifyReceived{world.upstream(*n1), beyond, 100ms}));
  const auto position = world.run(*n1, op::StopReceiver{});
  ASSERT_DONE(position);
  EXPECT_EQ(position->position, stopped->position);
  ASSERT_DONE(world.run(*n1, op::Promote{Timeline{8}, {}, {"bascule_n2", "bascule_n3"}}));
  ASSERT_DONE(world.run(*n2, op::StartStandby{world.upstream(*n1)}));
  ASSERT_DONE(world.run(n3, op::SetUpstream{world.upstream(*n1)}));
  ASSERT_TRUE(world.sql(*n1, "INSERT INTO t VALUES (3)"));
  for (auto* standby : {n2, &n3}) {
    ASSERT_TRUE(
        world.until([&] { return world.value(*standby, "SELECT count(*) FROM t") == "3"; }));
    ASSERT_TRUE(world.until([&] { return world.sample(*standby).timeline == Timeline{8}; }));
  }
  // Restarts on the new timeline, gap files and all.
  ASSERT_DONE(world.run(n3, op::Kill{}));
  ASSERT_DONE(world.run(n3, op::StartStandby{world.upstream(*n1)}));
  ASSERT_TRUE(world.until([&] { return world.sample(n3).receiver_streaming; }));
  EXPECT_EQ(world.sample(n3).timeline, Timeline{8});
}

// pg_rewind takes both for one timeline.
TEST_F(NodeOps, PromotionsToTheSameIdHaveDifferentOrigins) {
  auto [n1, n2] = world.pair();
  auto& n3 = world.add("n3");
  ASSERT_DONE(world.run(n3, op::Clone{world.upstream(*n1)}));
  ASSERT_DONE(world.run(n3, op::StartStandby{world.upstream(*n1)}));
  const auto first = world.run(*n2, op::StopReceiver{});
  ASSERT_DONE(first);
  EXPECT_EQ(first->origin, control::Origin{});
  ASSERT_DONE(world.run(n3, op::StopReceiver{}));
  ASSERT_TRUE(world.sql(*n1, "CREATE TABLE lost ()"));  // beyond the fork: something to rewind
  ASSERT_DONE(world.run(*n1, op::Kill{}));
  const auto promoted = world.run(*n2, op::Promote{Timeline{2}, {}, {"bascule_n1"}});
  ASSERT_DONE(promoted);
  EXPECT_EQ(promoted->origin.at, first->position.lsn);
  EXPECT_NE(promoted->origin.mark, 0u);
  ASSERT_TRUE(world.until([&] { return world.sample(*n2).checkpoint_timeline == Timeline{2}; }));
  ASSERT_DONE(world.run(*n1, op::Rewind{world.upstream(*n2)}));
  ASSERT_DONE(world.run(*n1, op::StartStandby{world.upstream(*n2)}));
  ASSERT_TRUE(world.until([&] { return world.sample(*n1).timeline == Timeline{2}; }));
  const auto follower = world.run(*n1, op::StopReceiver{});
  ASSERT_DONE(follower);
  EXPECT_EQ(follower->origin, promoted->origin);
  const auto by_hand = world.run(n3, op::Promote{Timeline{2}, {}, {}});
  ASSERT_DONE(by_hand);
  EXPECT_TRUE(by_hand->origin.contradicts(promoted->origin));
}

// PostgreSQL looks into the archive once more after pg_promote: the timeline begins where that
// ends.
TEST_F(NodeOps, WhatAnArchiveGotAfterTheBallotIsBeforeTheNewTimeline) {
  auto [n1, n2] = world.pair();
  const std::string archive = n2->config.run_dir + "/archive";
  ASSERT_TRUE(std::filesystem::create_directory(archive));
  ASSERT_DONE(world.run(*n2, op::Reload{{{"restore_command", "cp " + archive + "/%f %p"}}}));
  ASSERT_TRUE(world.sql(*n1, "CREATE TABLE t AS SELECT 1 AS i"));
  ASSERT_TRUE(world.until([&] { return world.value(*n2, "SELECT i FROM t") == "1"; }));
  const auto ballot = world.run(*n2, op::StopReceiver{});
  ASSERT_DONE(ballot);
  const std::string segment =
      world.value(*n1, "SELECT pg_walfile_name(pg_current_wal_insert_lsn())");
  ASSERT_TRUE(world.sql(*n1, "INSERT INTO t VALUES (2)"));
  ASSERT_TRUE(world.sql(*n1, "SELECT pg_switch_wal()"));
  std::filesystem::copy(n1->config.data_dir + "/pg_wal/" + segment, archive + "/" + segment);
  ASSERT_DONE(world.run(*n1, op::Kill{}));
  const auto promoted = world.run(*n2, op::Promote{Timeline{2}, {}, {}});
  ASSERT_DONE(promoted);
  EXPECT_EQ(world.value(*n2, "SELECT count(*) FROM t"), "2");
  EXPECT_GT(promoted->origin.at, ballot->position.lsn);
}

TEST_F(NodeOps, AFormerPrimaryDoesNotHoldWalBackForItsSlots) {
  auto [n1, n2] = world.pair();
  ASSERT_EQ(world.value(*n1, "SELECT restart_lsn IS NOT NULL FROM pg_replication_slots"), "t");
  ASSERT_DONE(world.run(*n2, op::Kill{}));
  ASSERT_DONE(world.run(*n1, op::CleanStop{15000ms}));
  ASSERT_DONE(world.run(*n1, op::StartStandby{}));
  ASSERT_DONE(world.run(*n1, op::EnsureSlots{{"bascule_n2", "bascule_n3"}, {}}));
  EXPECT_EQ(world.value(*n1,
                        "SELECT string_agg(slot_name, ',' ORDER BY slot_name) FROM "
                        "pg_replication_slots WHERE restart_lsn IS NULL"),
            "bascule_n2,bascule_n3");
}

TEST_F(NodeOps, AStreamingStandbyPreparesTheSlotsOfItsPromotion) {
  auto [n1, n2] = world.pair();
  n2->shell->prepare_slots({"bascule_n1", "bascule_n3"}, {}, std::nullopt);
  EXPECT_TRUE(world.until(
      [&] { return world.value(*n2, "SELECT count(*) FROM pg_replication_slots") == "2"; }));
  // Prepared, they hold no WAL; promoted, they do: a replica that is away for long can come back.
  const std::string held =
      "SELECT count(*) FROM pg_replication_slots WHERE restart_lsn IS NOT NULL";
  ASSERT_EQ(world.value(*n2, held), "0");
  ASSERT_DONE(world.run(*n2, op::StopReceiver{}));
  ASSERT_DONE(world.run(*n1, op::Kill{}));
  ASSERT_DONE(world.run(*n2, op::Promote{Timeline{2}, {}, {"bascule_n1", "bascule_n3"}}));
  EXPECT_EQ(world.value(*n2, held), "2");
}

TEST_F(NodeOps, WhoLeavesIsAtRestOnceNobodyLooksAtTheSlots) {
  auto [n1, n2] = world.pair();
  auto blocker = world.session(*n1);
  ASSERT_TRUE(blocker);
  const auto run = [&](const char* statement) {
    return blocker->query(statement, {world.loop, world.loop.now() + 10s}).has_value();
  };
  // What a look asks for has to wait.
  ASSERT_TRUE(run("SET allow_system_table_mods = on"));
  ASSERT_TRUE(run("BEGIN"));
  ASSERT_TRUE(run("ALTER VIEW pg_replication_slots SET (security_barrier = true)"));
  n1->shell->prepare_slots({}, {{"feed", {.plugin = "pgoutput", .database = "postgres"}}}, {});
  ASSERT_TRUE(world.until([&] { return !n1->shell->at_rest(); }));
  n1->shell->leave();
  ASSERT_TRUE(world.until([&] { return n1->shell->at_rest(); }));
  EXPECT_FALSE(world.until([&] { return !n1->shell->at_rest(); }, 1500ms)) << "it looks again";
  n1->shell->stay();
  EXPECT_TRUE(world.until([&] { return !n1->shell->at_rest(); }));
  ASSERT_TRUE(run("ROLLBACK"));
}

TEST_F(NodeOps, AHalfClonedDirectoryDoesNotHinderABootstrap) {
  auto& n1 = world.add("n1");
  const auto put = [&](const std::string& path) {
    return world.disk.write(path, "15\n", env::Durability::kNone, 0600).has_value();
  };
  ASSERT_TRUE(world.disk.make_directory(n1.config.data_dir));
  ASSERT_TRUE(put(n1.config.data_dir + "/PG_VERSION"));
  ASSERT_TRUE(put(n1.config.run_dir + "/state.json.half-cloned"));
  ASSERT_DONE(world.run(n1, op::InitDb{}));
  EXPECT_EQ(world.sample(n1).data, control::DataDir::kReady);
}

TEST_F(NodeOps, APromotionThatWasKilledHalfwayLeavesADirectoryThatStarts) {
  auto [n1, n2] = world.pair();
  ASSERT_DONE(world.run(*n2, op::StopReceiver{}));
  // As left by a promotion that died between the gap files and pg_promote.
  for (const char* id : {"00000002", "00000003", "00000004"}) {
    ASSERT_TRUE(world.disk.write(n2->config.data_dir + "/pg_wal/" + id + ".history",
                                 "# reserved by Bascule, never used\n", env::Durability::kNone,
                                 0600));
  }
  ASSERT_DONE(world.run(*n2, op::Kill{}));
  ASSERT_DONE(world.run(*n2, op::StartStandby{world.upstream(*n1)}));
  EXPECT_TRUE(world.until([&] { return world.sample(*n2).receiver_streaming; }));
  EXPECT_EQ(world.sample(*n2).timeline, Timeline{1});
}

TEST_F(NodeOps, ABallotIntentKeepsEveryStartIsolated) {
  auto [n1, n2] = world.pair();
  auto state = n2->state;
  state.ballot_intent = 7;
  world.persist(*n2, state);
  ASSERT_DONE(world.run(*n2, op::Kill{}));
  ASSERT_DONE(world.run(*n2, op::StartStandby{world.upstream(*n1)}));
  EXPECT_EQ(world.value(*n2, "SHOW primary_conninfo"), "");
  EXPECT_FALSE(world.run(*n2, op::SetUpstream{world.upstream(*n1)}));
  state.ballot_intent.reset();
  world.persist(*n2, state);
  ASSERT_DONE(world.run(*n2, op::SetUpstream{world.upstream(*n1)}));
  EXPECT_TRUE(world.until([&] { return world.sample(*n2).receiver_streaming; }));
}

TEST_F(NodeOps, ACrashedPrimaryRestartsInPlaceOnItsTimeline) {
  auto& n1 = world.add("n1");
  ASSERT_DONE(world.run(n1, op::InitDb{}));
  ASSERT_DONE(world.run(n1, op::StartPrimary{}));
  ASSERT_TRUE(world.sql(n1, "CREATE TABLE t AS SELECT 1 AS i"));
  ::kill(world.postmaster(n1), SIGKILL);
  ASSERT_TRUE(world.until([&] { return !n1.exits.empty(); }));
  EXPECT_EQ(n1.exits, std::vector<std::string>{"signal 9"});
  EXPECT_TRUE(world.process.in_directory(n1.config.data_dir, "postgres").empty());
  ASSERT_DONE(world.run(n1, op::StartPrimary{}));
  EXPECT_EQ(world.value(n1, "SELECT i FROM t"), "1");
  EXPECT_EQ(world.sample(n1).timeline, Timeline{1});
  // Started by accident, it is a standby without upstream.
  ASSERT_DONE(world.run(n1, op::Kill{}));
  ASSERT_DONE(world.run(n1, op::StartStandby{}));
  EXPECT_EQ(world.sample(n1).run, PgRun::kStandby);
}

TEST_F(NodeOps, SettingsOfOursInPostgresqlAutoConfAreRemoved) {
  auto& n1 = world.add("n1");
  ASSERT_DONE(world.run(n1, op::InitDb{}));
  ASSERT_DONE(world.run(n1, op::StartPrimary{}));
  ASSERT_TRUE(world.sql(n1, "ALTER SYSTEM SET synchronous_standby_names = 'mine'"));
  ASSERT_TRUE(world.sql(n1, "ALTER SYSTEM SET work_mem = '5MB'"));
  ASSERT_DONE(world.run(n1, op::SetSync{{}, false}));
  EXPECT_EQ(world.value(n1, "SHOW synchronous_standby_names"), "");
  EXPECT_EQ(world.value(n1, "SHOW work_mem"), "5MB");
}

// Killed with its agent, pg_basebackup leaves a child that streams on into the directory.
TEST_F(NodeOps, ACloneEndsWhatAnEarlierOneHasLeft) {
  auto& n1 = world.add("n1");
  ASSERT_DONE(world.run(n1, op::InitDb{}));
  ASSERT_DONE(world.run(n1, op::StartPrimary{}));
  auto& n2 = world.add("n2");
  ASSERT_TRUE(world.sql(n1, "SELECT pg_create_physical_replication_slot('bascule_n2', true)"));
  const auto source = world.upstream(n1);
  env::Command command;
  command.argv = {n1.shell->config().bin_dir + "/pg_basebackup",
                  "-D",
                  n2.config.data_dir,
                  "-h",
                  source.host,
                  "-p",
                  std::to_string(source.port),
                  "-U",
                  n1.config.replication_user,
                  "-X",
                  "stream",
                  "-S",
                  "bascule_n2",
                  "-c",
                  "fast",
                  "-r",
                  "32",
                  "--no-password"};
  command.environment = {"PGPASSFILE=" + n1.config.run_dir + "/pgpass"};
  command.directory = n2.config.run_dir;
  auto stray = world.process.spawn_detached(command, n2.config.run_dir + "/stray.log");
  ASSERT_TRUE(stray);
  const auto active = [&] { return world.value(n1, "SELECT active FROM pg_replication_slots"); };
  ASSERT_TRUE(world.until([&] { return active() == "t"; }));
  ASSERT_TRUE((*stray)->signal(SIGKILL));
  ASSERT_TRUE(world.until([&] { return !(*stray)->alive(); }));
  ASSERT_EQ(world.process.in_directory(n2.config.run_dir, "pg_basebackup").size(), 1u);
  // Its slot is free once the source has noticed.
  auto cloned = world.run(n2, op::Clone{source});
  for (int i = 0; i < 5 && !cloned; ++i) cloned = world.run(n2, op::Clone{source});
  ASSERT_DONE(cloned);
  EXPECT_TRUE(world.process.in_directory(n2.config.run_dir, "pg_basebackup").empty());
}

TEST_F(NodeOps, ARewindFromAnUnreachableSourceLeavesTheDirectoryUsable) {
  auto& n1 = world.add("n1");
  ASSERT_DONE(world.run(n1, op::InitDb{}));
  ASSERT_DONE(world.run(n1, op::StartPrimary{}));
  ASSERT_DONE(world.run(n1, op::Kill{}));
  auto nowhere = world.upstream(n1);
  nowhere.port = 1;
  EXPECT_FALSE(world.run(n1, op::Rewind{nowhere}));
  EXPECT_EQ(world.sample(n1).data, control::DataDir::kReady);
}

// It goes by the ids of timelines, and who asks for it has seen more.
TEST_F(NodeOps, ARewindThatSeesNoDivergenceIsAnErrorAndLeavesTheDirectoryUsable) {
  auto& n1 = world.add("n1");
  auto& n2 = world.add("n2");
  ASSERT_DONE(world.run(n1, op::InitDb{}));
  ASSERT_DONE(world.run(n1, op::StartPrimary{}));
  ASSERT_DONE(world.run(n2, op::Clone{world.upstream(n1)}));
  ASSERT_DONE(world.run(n2, op::StartStandby{world.upstream(n1)}));
  const auto rewound = world.run(n2, op::Rewind{world.upstream(n1)});
  ASSERT_FALSE(rewound);
  EXPECT_EQ(rewound.error().code, ErrorCode::kConflict) << rewound.error().to_string();
  EXPECT_EQ(world.sample(n2).data, control::DataDir::kReady);
  ASSERT_DONE(world.run(n2, op::StartStandby{world.upstream(n1)}));
}

}  // namespace
}  // namespace bascule::node

int main(int argc, char** argv) {
  if (argc > 1 && std::string_view(argv[1]) == "guard") {
    argv[1] = argv[0];
    return bascule::posix::guard_main(argc - 1, argv + 1);
  }
  if (geteuid() == 0) {
    const passwd* user = getpwnam("postgres");
    if (user == nullptr || initgroups("postgres", user->pw_gid) != 0 || setgid(user->pw_gid) != 0 ||
        setuid(user->pw_uid) != 0) {
      std::cerr << "cannot become user postgres\n";
      return 77;
    }
  }
  signal(SIGPIPE, SIG_IGN);
  bascule::configure_logging({bascule::LogLevel::kDebug, bascule::LogFormat::kText, ""});
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
