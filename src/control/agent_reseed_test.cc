// The store is wiped, or restored from a backup, under a leader that lives.
#include "control/agent_world_test.h"

namespace bascule::control {
namespace {

class ReseedTest : public AgentTest {
 protected:
  void wipe() {
    world.entries.clear();
    world.revision = 0;
    world.identity = "store-2";
  }
  void together_again() {
    EXPECT_EQ(world.leader(), "n1") << dump(world.at("n1"));
    EXPECT_EQ(world.at("n1").pg.run, PgRun::kPrimary);
    for (const char* who : {"n2", "n3"}) {
      EXPECT_EQ(world.at(who).agent->phase(), Phase::kFollowing) << dump(world.at(who));
    }
  }
};

TEST_F(ReseedTest, AWipedStoreIsFilledAgainByTheLeader) {
  start_three();
  const auto before = world.view();
  wipe();
  world.pass(3s);
  together_again();
  const auto after = world.view();
  EXPECT_EQ(after.init->value, before.init->value);
  EXPECT_EQ(after.sync->value, before.sync->value);
  EXPECT_EQ(after.roster->value, before.roster->value);
  EXPECT_EQ(after.config->value, before.config->value);
  EXPECT_EQ(after.history, before.history);
  EXPECT_EQ(after.leader->value.epoch, before.leader->value.epoch);
  EXPECT_EQ(after.seed->value.number, 1u);
  // It is a store like any other again.
  crash(world.at("n1"));
  world.pass(3s);
  EXPECT_NE(world.leader(), "n1");
  EXPECT_NE(world.leader(), "");
}

TEST_F(ReseedTest, ARestoredStoreGetsWhatWasNewer) {
  start_three();
  const auto backup = world.entries;
  const auto revision = world.revision;
  const std::string first = voter();
  world.at(first).exited = true;  // another is waited for from now on
  world.at(first).pg.run = PgRun::kStopped;
  world.pass(3s);
  const auto newest = world.view().sync->value;
  ASSERT_NE(newest.generations.back().voters.at(0).substr(0, 2), first);
  restart_agent(world.at(first));
  world.at(first).exited = false;
  world.pass(5s);
  const auto before = world.view();
  world.entries = backup;
  world.revision = revision;
  world.pass(4s);
  together_again();
  EXPECT_EQ(world.view().sync->value, before.sync->value);
  EXPECT_EQ(world.view().leader->value.epoch, before.leader->value.epoch);
}

TEST_F(ReseedTest, WithoutPledgesNobodyKnowsWhoLedLastAndTheLeaderIsFenced) {
  start_three();
  for (const char* who : {"n2", "n3"}) world.at(who).peers_cut = true;
  wipe();
  world.pass(10s);
  EXPECT_EQ(world.at("n1").pg.run, PgRun::kStopped) << dump(world.at("n1"));
  EXPECT_FALSE(world.view().leader);
}

TEST_F(ReseedTest, AStoreThatHoldsAnotherClusterIsLeftAlone) {
  start_three();
  wipe();
  InitRecord other;
  other.system_id = 77;
  world.apply({{}, {{Keys("test").init(), encode(other)}}});
  world.pass(10s);
  EXPECT_FALSE(world.view().leader);
  EXPECT_EQ(world.view().init->value.system_id, 77u);
}

TEST_F(ReseedTest, ABackupOfASeededStoreIsNoSeed) {
  start_three();
  wipe();
  world.pass(3s);
  const auto backup = world.entries;
  const auto revision = world.revision;
  world.pass(3s);
  world.entries = backup;
  world.revision = revision;
  for (const char* who : {"n1", "n2", "n3"}) world.at(who).peers_cut = true;
  kill_host(world.at("n1"));
  world.pass(12s);
  for (const char* who : {"n2", "n3"}) {
    EXPECT_NE(world.at(who).agent->reason().find("went back"), std::string::npos)
        << dump(world.at(who));
  }
  EXPECT_FALSE(world.view().leader->value.epoch > Epoch{1});
}

TEST_F(ReseedTest, OpenTasksAndRemovalsAreThereAgain) {
  start_three();
  TaskRecord later = task_of(TaskKind::kRestart, {"n2"});
  later.id = "later";
  later.at = WallTime(std::chrono::hours(1000000));
  ask(later);
  world.apply({{}, {{Keys("test").removed(name("n9")), encode(RemovedRecord{"n9_x", "test"})}}});
  world.pass(2s);
  wipe();
  world.pass(3s);
  EXPECT_TRUE(task("later").outcome.empty());
  EXPECT_EQ(task("later").at, later.at);
  EXPECT_TRUE(world.view().removed.contains(name("n9")));
}

TEST_F(ReseedTest, ATaskOfABackupThatNobodyKnowsIsNotCarriedOut) {
  start_three();
  wipe();
  TaskRecord old = task_of(TaskKind::kRestart, {"n2"});
  old.id = "old";
  ask(old);
  world.pass(5s);
  ASSERT_EQ(world.leader(), "n1");
  EXPECT_NE(task("old").outcome.find("ask again"), std::string::npos) << task("old").outcome;
}

}  // namespace
}  // namespace bascule::control
