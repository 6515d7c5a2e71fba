// What the model must share with PostgreSQL 15: see control-plane.md (facts marked "tried").
#include "sim/postgres_model.h"

#include <gtest/gtest.h>

namespace bascule::sim {
namespace {

struct Log : PostgresObserver {
  void commit_released(Endpoint, const WalRecord&, const Release& r) override {
    released.push_back(r);
  }
  std::vector<Release> released;
};

struct PostgresModelTest : testing::Test {
  World world{11};
  Log log;
  Fabric fabric{world, log, {}, {}};
  std::vector<std::unique_ptr<PostgresModel>> servers;

  PostgresModelTest() {
    for (int i = 0; i < 3; ++i) {
      const NodeName name = *NodeName::parse("n" + std::to_string(i + 1));
      servers.push_back(std::make_unique<PostgresModel>(fabric, i, name));
      fabric.servers.push_back(servers.back().get());
    }
    fabric.host_of = [](const NodeName& n) { return std::optional<Endpoint>(n.str()[1] - '1'); };
    DataDirectory& d = servers[0]->data();
    d.state = control::DataDir::kReady;
    d.system_id = 7;
    d.timeline = d.checkpoint_timeline = d.max_timeline = 1;
  }
  PostgresModel& pg(size_t i) { return *servers[i]; }
  void start_primary(std::vector<std::string> sync, size_t count = 1) {
    pg(0).start_primary(std::move(sync), count, [](bool) {});
    run(1000);
    pg(0).ensure_slots({"bascule_n1", "bascule_n2", "bascule_n3"}, {});
  }
  static control::Upstream to(size_t i) {
    return {*NodeName::parse("n" + std::to_string(i + 1)), "h", 5432};
  }
  void start_standby(size_t i, const std::string& application_name) {
    pg_basebackup(pg(i).data(), pg(0).data());
    pg(i).start_standby(to(0), application_name, [](bool) {});
    run(2500);
  }
  void run(int ms) { world.run_until(world.now() + millis(ms)); }
  // True once acknowledged.
  std::shared_ptr<bool> commit() {
    auto done = std::make_shared<bool>(false);
    pg(0).commit(++id, 100, [done](PostgresModel::Answer answer) {
      *done = answer == PostgresModel::Answer::kAcknowledged;
    });
    return done;
  }
  uint64_t id = 0;
};

TEST_F(PostgresModelTest, CommitWaitsForTheNamedStandbyAndNoOther) {
  start_primary({"n2_a"});
  start_standby(2, "n3_b");
  const auto alone = commit();
  run(1000);
  EXPECT_FALSE(*alone);
  start_standby(1, "n2_a");
  run(1500);
  EXPECT_TRUE(*alone);
  ASSERT_FALSE(log.released.empty());
  EXPECT_EQ(log.released[0].standby, "n2_a");
}

TEST_F(PostgresModelTest, NameMatchesWithoutRegardToCaseSoThatADuplicateCounts) {
  start_primary({"n2_a"});
  start_standby(2, "N2_A");
  const auto done = commit();
  run(1000);
  EXPECT_TRUE(*done);
  EXPECT_EQ(log.released[0].standby, "N2_A");
}

TEST_F(PostgresModelTest, EmptySettingReleasesEveryWaiterWhenTheCheckpointerSeesIt) {
  start_primary({"n2_a"});
  const auto done = commit();
  run(500);
  EXPECT_FALSE(*done);
  EXPECT_EQ(pg(0).waiters(), 1u);
  pg(0).set_sync({}, 1);
  run(3000);
  EXPECT_TRUE(*done);
  EXPECT_EQ(log.released[0].by, Release::By::kSettingEmptied);
}

TEST_F(PostgresModelTest, AnyTwoOfTwoWaitsForBothAndAnyOneForTheFaster) {
  start_primary({"n2_a", "n3_a"}, 2);
  start_standby(1, "n2_a");
  start_standby(2, "n3_a");
  pg(2).set_receive_delay(millis(800));
  const auto both = commit();
  run(500);
  EXPECT_FALSE(*both);
  run(1500);
  EXPECT_TRUE(*both);
  pg(0).set_sync({"n2_a", "n3_a"}, 1);
  run(3000);
  const auto one = commit();
  run(500);
  EXPECT_TRUE(*one);
}

TEST_F(PostgresModelTest, AWalsenderThatHearsOfNewerWalHasReadTheSetting) {
  start_primary({"n2_a"});
  start_standby(1, "n2_a");
  run(1000);
  pg(0).set_slow_reload(true);
  pg(0).set_sync({"n3_a"}, 1);
  const auto done = commit();
  run(3000);
  EXPECT_FALSE(*done) << "released by a walsender that still had the old setting";
}

TEST_F(PostgresModelTest, FromEmptyBackendsDoNotWaitUntilTheCheckpointerHasSeenTheSetting) {
  start_primary({});
  pg(0).set_slow_reload(true);
  pg(0).set_sync({"n2_a"}, 1);
  const auto done = commit();
  run(20);
  EXPECT_TRUE(*done) << "a new session shows the setting, and yet nobody was asked";
  EXPECT_EQ(log.released[0].by, Release::By::kNoSync);
  bool checkpointed = false;
  pg(0).checkpoint([&](bool) { checkpointed = true; });
  run(1000);
  ASSERT_TRUE(checkpointed);
  const auto waits = commit();
  run(500);
  EXPECT_FALSE(*waits);
}

TEST_F(PostgresModelTest, ReceiverGoesOnAfterAReloadWhileReplayIsBlocked) {
  start_primary({"n2_a"});
  start_standby(1, "n2_a");
  pg(1).block_replay(millis(5000));
  pg(1).set_upstream(std::nullopt, "n2_a");
  run(1000);
  EXPECT_FALSE(pg(1).status().upstream) << "a new session shows the empty setting";
  const auto done = commit();
  run(500);
  EXPECT_TRUE(*done) << "and still the receiver acknowledges";
  EXPECT_FALSE(pg(1).isolated());
  pg(1).unblock_replay();
  run(1000);
  EXPECT_TRUE(pg(1).isolated());
  const auto later = commit();
  run(500);
  EXPECT_FALSE(*later);
}

TEST_F(PostgresModelTest, ReceivePositionIsNullAfterARestart) {
  start_primary({});
  start_standby(1, "n2_a");
  pg(1).kill_all();
  pg(1).start_standby(std::nullopt, "n2_a", [](bool) {});
  run(1000);
  EXPECT_EQ(pg(1).status().flush_lsn.value, 0u);
  EXPECT_GT(pg(1).status().replay_lsn.value, kFirstLsn);
}

TEST_F(PostgresModelTest, PowerLossKeepsWhatWasFlushedAndNothingElse) {
  start_primary({});
  const auto done = commit();
  run(100);
  ASSERT_TRUE(*done);
  const uint64_t durable = pg(0).data().flushed_end();
  commit();
  pg(0).power_loss();
  EXPECT_EQ(pg(0).data().end(), durable);
}

TEST_F(PostgresModelTest, FastShutdownSendsItsCheckpointToTheStandbys) {
  start_primary({});
  start_standby(1, "n2_a");
  bool stopped = false;
  pg(0).fast_shutdown([&](bool) { stopped = true; });
  run(1000);
  EXPECT_TRUE(stopped);
  EXPECT_TRUE(pg(0).data().clean);
  EXPECT_EQ(pg(1).data().flushed_end(), pg(0).data().end());
}

TEST_F(PostgresModelTest, TwoPromotionsToTheSameTimelineLookAlikeToPgRewind) {
  start_primary({});
  start_standby(1, "n2_a");
  start_standby(2, "n3_a");
  pg(0).kill_all();
  for (const size_t i : {1, 2}) {
    pg(i).promote({Timeline{2}, {}, {}}, [](uint32_t timeline) { EXPECT_EQ(timeline, 2u); });
  }
  run(5000);
  EXPECT_EQ(pg_rewind(pg(1).data(), pg(2).data()), RewindOutcome::kNotRequired);
}

TEST_F(PostgresModelTest, RewindBeforeTheSourcesFirstCheckpointDoesNothing) {
  start_primary({});
  start_standby(1, "n2_a");
  DataDirectory source = pg(1).data();
  source.ancestors.push_back({1, source.end()});
  source.timeline = 2;  // promoted, last checkpoint still on timeline 1
  commit();
  run(100);
  DataDirectory target = pg(0).data();
  EXPECT_EQ(pg_rewind(target, source), RewindOutcome::kNotRequired);
  source.checkpoint_timeline = 2;
  EXPECT_EQ(pg_rewind(target, source), RewindOutcome::kRewound);
  EXPECT_EQ(target.end(), source.end());
}

TEST_F(PostgresModelTest, StandbyWithWalBeyondTheForkIsNotServed) {
  start_primary({});
  start_standby(1, "n2_a");
  world.cut(0, 1);
  world.cut(1, 0);
  commit();
  run(200);
  pg(0).kill_all();
  pg(1).promote({Timeline{2}, {}, {"bascule_n1"}}, [](uint32_t) {});
  run(1500);
  world.heal(0, 1);
  world.heal(1, 0);
  pg(0).start_standby(to(1), "n1_a", [](bool) {});
  run(5000);
  EXPECT_FALSE(pg(0).receiver_streaming());
}

TEST_F(PostgresModelTest, AReceiverInACalmClusterTellsAgainOnlyWhatItsUpstreamDoesNotKnow) {
  fabric.calm = true;
  start_primary({"a"});
  start_standby(1, "a");
  run(3000);
  const uint64_t before = world.events_run();
  run(10000);
  EXPECT_LE(world.events_run() - before, 22u);  // heartbeats of two servers, no replies
  const auto done = commit();
  run(1);
  world.cut(1, 0);
  run(200);
  EXPECT_FALSE(*done);
  world.heal(1, 0);
  run(1500);
  EXPECT_TRUE(*done);
}

}  // namespace
}  // namespace bascule::sim
