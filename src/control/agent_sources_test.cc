// Which members are waited for, by their regions.
#include "control/agent_world_test.h"

namespace bascule::control {
namespace {

class SourcesTest : public AgentTest {
 protected:
  void start(SyncRegion preferred) {
    world.config.sync_region = preferred;
    add_three("a");
    ASSERT_EQ(world.leader(), "n1");
  }
  // n1 in region a, n3 in b.
  void add_three(const std::string& region_of_n2) {
    world.add("n1", {}, "a");
    world.pass(1s);
    world.add("n2", {}, region_of_n2);
    world.pass(3s);
    world.add("n3", {}, "b");
    world.pass(3s);
  }
};

TEST_F(SourcesTest, AVoterOfAnotherRegionTakesThePlaceOfOneOfThePrimarysOnceItKeepsUp) {
  start(SyncRegion::kOther);
  EXPECT_EQ(voter(), "n2") << "replaced by one that has just come";
  world.pass(6s);
  EXPECT_EQ(voter(), "n3");
  kill_host(world.at("n3"));
  world.pass(3s);
  EXPECT_EQ(voter(), "n2") << "nobody else is left";
}

TEST_F(SourcesTest, AVoterOfThePrimarysRegionStays) {
  start(SyncRegion::kSame);
  world.pass(10s);
  EXPECT_EQ(voter(), "n2");
}

TEST_F(SourcesTest, QuorumsAreOfThePreferredRegionWhereItHasEnough) {
  world.config.sync_mode = SyncMode::kQuorum;
  start(SyncRegion::kOther);
  world.pass(8s);
  const Generation g = world.view().sync->value.generations.back();
  ASSERT_EQ(g.voters.size(), 1u);
  EXPECT_EQ(g.voters[0].substr(0, 2), "n3");
}

// Seed 1000541: it went behind a relay that the leader could not take instead.
TEST_F(SourcesTest, WhomARestartedLeaderWaitsForStreamsFromIt) {
  world.config.region_relays = world.config.sync_strict = true;
  world.config.on_crash = OnCrash::kRestart;
  add_three("b");
  world.pass(2s);
  ASSERT_EQ(world.at("n3").pg.upstream, name("n2"));
  world.at("n2").served = false;
  world.pass(8s);
  ASSERT_EQ(voter(), "n3");
  world.at("n3").served = false;
  const long slots_made = times(world.at("n1"), "ensure_slots");
  crash(world.at("n1"));
  world.at("n2").served = true;
  world.at("n2").give(event::Retagged{100, /*nofailover=*/true, {}});
  world.pass(3s);
  ASSERT_TRUE(world.at("n2").pg.receiver_streaming) << "n2 could be the relay";
  ASSERT_EQ(world.view().leader->value.phase, LeaderPhase::kPreparing);
  EXPECT_EQ(world.at("n3").pg.upstream, name("n1"));
  EXPECT_GT(times(world.at("n1"), "ensure_slots"), slots_made) << "seed 1107865";
  world.at("n3").served = true;
  world.pass(3s);
  EXPECT_EQ(world.leader(), "n1") << dump(world.at("n1"));
}

// Seed 13692: its standby was removed, and added again under a new name.
TEST_F(SourcesTest, ARestartedLeaderTakesAStandbyThatIsNotInTheRosterYet) {
  world.config.sync_strict = true;
  world.config.on_crash = OnCrash::kRestart;
  start(SyncRegion::kAny);
  ASSERT_EQ(voter(), "n2");
  world.at("n2").served = false;
  crash(world.at("n1"));
  world.apply({{}, {{Keys("test").roster(), encode(RosterRecord{{name("n1"), name("n2")}})}}});
  world.pass(8s);
  EXPECT_EQ(voter(), "n3") << dump(world.at("n1"));
  EXPECT_EQ(world.view().leader->value.phase, LeaderPhase::kRunning);
  const std::vector<NodeName> members = world.view().roster->value.members;
  EXPECT_NE(std::ranges::find(members, name("n3")), members.end());
}

}  // namespace
}  // namespace bascule::control
