// WAL that only a member has that may not lead is fetched before a take-over.
#include "control/agent_world_test.h"

namespace bascule::control {
namespace {

class FetchTest : public AgentTest {
 protected:
  // Asynchronous; n3 may not lead and is the only one with the primary's last WAL.
  void primary_is_lost() {
    world.config.sync_mode = SyncMode::kOff;
    start_three();
    world.at("n3").give(event::Retagged{100, /*nofailover=*/true, {}});
    world.at("n2").served = false;
    world.pass(3s);
    ASSERT_LT(world.at("n2").pg.flush_lsn, world.at("n3").pg.flush_lsn);
    kill_host(world.at("n1"));
    world.at("n1").power = false;
  }
  // A standby whose receiver was stopped serves others all the same.
  void serve() {
    PgStatus& n2 = world.at("n2").pg;
    const PgStatus& n3 = world.at("n3").pg;
    if (n2.run == PgRun::kStandby && n2.upstream == name("n3")) {
      EXPECT_FALSE(world.at("n2").disk.ballot_intent) << "its receiver runs";
      const Versioned<Ballot> own = world.view().ballots.at(name("n2"));
      EXPECT_EQ(own.value.answers, 0u) << "a ballot that counts is out while its receiver runs";
      n2.flush_lsn = n2.replay_lsn = n3.flush_lsn;
    }
  }
};

TEST_F(FetchTest, WhoMayLeadHasTheWalOfWhoMayNotBeforeItTakesOver) {
  primary_is_lost();
  for (int i = 0; i < 200 && world.leader() != "n2"; ++i) {
    world.pass(50ms);
    serve();
  }
  ASSERT_EQ(world.leader(), "n2") << dump(world.at("n2"));
  EXPECT_TRUE(noted(world.at("n2"), "fetched"));
  EXPECT_EQ(world.view().history.at(Epoch{2}).fork.lsn, world.at("n3").pg.flush_lsn);
}

// It stops its receiver for longer than the window for ballots.
TEST_F(FetchTest, ABallotThatComesLateIsWaitedForWhereItsMemberHasMore) {
  primary_is_lost();
  world.at("n3").stop_takes = 2s;
  for (int i = 0; i < 200 && world.leader() != "n2"; ++i) {
    world.pass(50ms);
    serve();
  }
  ASSERT_EQ(world.leader(), "n2") << dump(world.at("n2"));
  EXPECT_TRUE(noted(world.at("n2"), "fetched"));
}

TEST_F(FetchTest, ABallotThatNeverComesIsNotWaitedForForEver) {
  primary_is_lost();
  world.at("n3").stop_takes = 60s;
  world.pass(16s);
  EXPECT_EQ(world.leader(), "n2") << dump(world.at("n2"));
}

TEST_F(FetchTest, AMemberThatIsSilentDoesNotStopTheElection) {
  primary_is_lost();
  for (int i = 0; i < 260 && world.leader() != "n2"; ++i) world.pass(50ms);
  ASSERT_EQ(world.leader(), "n2") << dump(world.at("n2"));
  EXPECT_TRUE(noted(world.at("n2"), "not fetched"));
}

}  // namespace
}  // namespace bascule::control
