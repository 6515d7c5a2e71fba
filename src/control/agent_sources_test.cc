// Which members are waited for, by their regions.
#include "control/agent_world_test.h"

namespace bascule::control {
namespace {

class SourcesTest : public AgentTest {
 protected:
  void start(SyncRegion preferred) {
    world.config.sync_region = preferred;
    world.add("n1", {}, "a");
    world.pass(1s);
    world.add("n2", {}, "a");
    world.pass(3s);
    world.add("n3", {}, "b");
    world.pass(3s);
    ASSERT_EQ(world.leader(), "n1");
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

}  // namespace
}  // namespace bascule::control
