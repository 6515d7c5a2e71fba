// Bounds on what is done without an operator: failovers within a window, a full disk.
#include "control/agent_world_test.h"

namespace bascule::control {
namespace {

class LimitsTest : public AgentTest {
 protected:
  Member& leading() { return world.at(world.leader()); }
  RequestRecord request() { return world.view().request->value; }
};

TEST_F(LimitsTest, BeyondTheLimitPostgresqlIsRestartedWhereItIs) {
  world.config.failover_limit = 2;
  start_three();
  for (int i = 0; i < 2; ++i) {
    const std::string old = world.leader();
    crash(leading());
    world.pass(5s);
    ASSERT_FALSE(world.leader().empty());
    EXPECT_NE(world.leader(), old);
  }
  const std::string third = world.leader();
  const Epoch epoch = world.view().leader->value.epoch;
  crash(leading());
  world.pass(5s);
  EXPECT_EQ(world.leader(), third) << dump(world.at(third));
  EXPECT_EQ(world.view().leader->value.epoch, epoch);
}

TEST_F(LimitsTest, BeyondTheLimitALostPrimaryIsReplacedWhenTheWindowHasRoomOrAnOperatorSaysSo) {
  world.config.failover_limit = 1;
  world.config.failover_window = Millis(60000);
  start_three();
  crash(world.at("n1"));
  world.pass(8s);
  Member& second = leading();
  kill_host(second);
  second.power = false;
  world.pass(20s);
  EXPECT_EQ(world.view().leader->value.epoch, Epoch{2}) << "replaced at once";
  const auto says_why = [&](const auto& m) {
    return m.second->agent->reason().find("1 automatic failovers within 60 s") != std::string::npos;
  };
  EXPECT_TRUE(std::ranges::any_of(world.members, says_why)) << dump(world.at("n1"));
  ask_for(RequestKind::kFailover);
  world.pass(5s);
  EXPECT_EQ(world.view().leader->value.epoch, Epoch{3});
}

TEST_F(LimitsTest, AFullDiskOfThePrimaryIsHandedOverInOrder) {
  start_three();
  world.at("n1").pg.disk_full = DiskFull::kData;
  world.pass(20s);
  EXPECT_NE(world.leader(), "n1") << dump(world.at("n1"));
  EXPECT_EQ(request().by, "on_disk_full");
  EXPECT_EQ(request().outcome, "done");
  EXPECT_EQ(world.view().members.at(name("n1")).disk_full, DiskFull::kData);
}

TEST_F(LimitsTest, NobodyWithoutRoomIsGivenTheLead) {
  start_three();
  for (const char* who : {"n1", "n2", "n3"}) world.at(who).pg.disk_full = DiskFull::kWal;
  world.pass(20s);
  EXPECT_EQ(world.leader(), "n1");
  EXPECT_NE(world.at("n1").agent->reason().find("no other member that has room"), std::string::npos)
      << dump(world.at("n1"));
  crash(world.at("n1"));
  world.pass(5s);
  EXPECT_EQ(world.leader(), "n1") << "it is started again where it is: nobody is better";
}

TEST_F(LimitsTest, AFullDiskStaysWhereThePolicySaysSo) {
  world.config.on_disk_full = OnDiskFull::kStay;
  start_three();
  world.at("n1").pg.disk_full = DiskFull::kWal;
  world.pass(10s);
  EXPECT_EQ(world.leader(), "n1");
  EXPECT_NE(world.at("n1").agent->reason().find("on_disk_full: stay"), std::string::npos);
  crash(world.at("n1"));
  world.pass(5s);
  EXPECT_EQ(world.leader(), "n1");
}

TEST_F(LimitsTest, AStandbyWithoutRoomForWalIsNotWaitedForWhereAnotherCanBe) {
  start_three();
  const std::string before = voter();
  world.at(before).pg.disk_full = DiskFull::kWal;
  world.pass(5s);
  EXPECT_NE(voter(), before);
}

// It would give the record away to nobody: the others lack commits, and it may not be elected.
TEST_F(LimitsTest, WhoWasForcedToLeadAndIsAloneIsStartedAgainWhereItIs) {
  start_three();
  world.at("n3").give(event::Retagged{100, /*nofailover=*/true, {}});
  world.pass(1s);
  for (const char* who : {"n1", "n2"}) {
    kill_host(world.at(who));
    world.at(who).power = false;
  }
  RequestRecord forced;
  forced.id = "r1";
  forced.kind = RequestKind::kFailover;
  forced.candidate = name("n3");
  forced.force = forced.old_primary_dead = true;
  world.apply({{}, {{Keys("test").request(), encode(forced)}}});
  world.pass(20s);
  ASSERT_EQ(world.leader(), "n3") << dump(world.at("n3"));
  ASSERT_EQ(world.view().sync->value.generations.back().quorum, 0u);
  world.at("n3").primaries_fail = 2;
  crash(world.at("n3"));
  world.pass(5s);
  EXPECT_EQ(world.leader(), "n3") << dump(world.at("n3"));
  EXPECT_EQ(world.view().leader->value.epoch, Epoch{2});
}

}  // namespace
}  // namespace bascule::control
