// What the others do while a leader hands over as planned.
#include "control/agent_world_test.h"

namespace bascule::control {
namespace {

using SwitchoverTest = AgentTest;

TEST_F(SwitchoverTest, EverybodyKnowsWhereTheWalEndsBeforeTheRecordIsReleased) {
  start_three();
  const std::map<std::string, long> before = {{"n2", times(world.at("n2"), "stop_receiver")},
                                              {"n3", times(world.at("n3"), "stop_receiver")}};
  world.store_delay = 60ms;  // the release takes its time
  ask_for(RequestKind::kSwitchover, voter());
  bool seen = false;
  for (int i = 0; i < 300 && !seen; ++i) {
    world.pass(10ms);
    seen = world.view().leader->value.vacant();
  }
  ASSERT_TRUE(seen);
  for (const auto& [member, count] : before) {
    EXPECT_EQ(times(world.at(member), "stop_receiver"), count + 1) << member;
  }
  world.pass(5s);
  for (const auto& [member, count] : before) {
    EXPECT_EQ(times(world.at(member), "stop_receiver"), count + 1) << "once is enough: " << member;
  }
}

// It may be the one that the last of the leader's WAL is on its way to.
TEST_F(SwitchoverTest, AReceiverThatIsNewIsNotTakenForOneThatHasEnded) {
  start_three();
  const std::string successor = voter();
  Member& m = world.at(successor);
  const long before = times(m, "stop_receiver");
  m.shows = [](PgStatus status) {
    status.receiver_new = true;
    status.receiver_streaming = false;
    return status;
  };
  world.store_delay = 60ms;
  ask_for(RequestKind::kSwitchover, successor);
  for (int i = 0; i < 300 && !world.view().leader->value.vacant(); ++i) {
    EXPECT_EQ(times(m, "stop_receiver"), before);
    world.pass(10ms);
  }
  ASSERT_TRUE(world.view().leader->value.vacant());
  world.pass(5s);
  EXPECT_EQ(world.leader(), successor);
}

TEST_F(SwitchoverTest, OnlyTheSuccessorBallotsWhereItsBallotIsEnough) {
  start_three();
  const std::string successor = voter();
  ask_for(RequestKind::kSwitchover, successor);
  world.pass(3s);
  ASSERT_EQ(world.leader(), successor);
  for (const auto member : {"n1", "n2", "n3"}) {
    EXPECT_EQ(noted(world.at(member), "balloted"), member == successor) << member;
  }
}

TEST_F(SwitchoverTest, ASuccessorThatSyncDoesNotNameHasTheBallotThatItNeeds) {
  start_three();
  const std::string successor = voter() == "n2" ? "n3" : "n2";
  ask_for(RequestKind::kSwitchover, successor);
  world.pass(3s);
  EXPECT_EQ(world.leader(), successor);
  EXPECT_EQ(world.view().request->value.outcome, "done");
}

TEST_F(SwitchoverTest, WhereTheSuccessorDiesTheOthersGoOn) {
  start_three();
  const std::string successor = voter();
  world.store_delay = 60ms;
  ask_for(RequestKind::kSwitchover, successor);
  for (int i = 0; i < 300 && !world.view().leader->value.vacant(); ++i) world.pass(5ms);
  ASSERT_TRUE(world.view().leader->value.vacant());
  kill_host(world.at(successor));
  world.pass(10s);
  EXPECT_NE(world.leader(), "");
  EXPECT_NE(world.leader(), successor);
}

TEST_F(SwitchoverTest, AHandOverThatFailsLetsTheStandbysFollowAgain) {
  start_three();
  world.at("n1").verify_fails = true;
  ask_for(RequestKind::kSwitchover, voter());
  world.pass(15s);
  EXPECT_EQ(world.leader(), "n1") << dump(world.at("n1"));
  EXPECT_TRUE(world.view().request->value.outcome.starts_with("failed")) << "it was to fail";
  for (const auto member : {"n2", "n3"}) {
    EXPECT_EQ(world.at(member).agent->phase(), Phase::kFollowing) << dump(world.at(member));
    EXPECT_TRUE(world.at(member).pg.receiver_streaming) << member;
  }
}

TEST_F(SwitchoverTest, APassingPhaseIsNotPublishedInsteadOfTheLast) {
  start_three();
  ask_for(RequestKind::kSwitchover, voter());
  world.pass(5s);
  for (const auto& [name, record] : world.view().members) {
    const Member& m = *world.members.at(name);
    EXPECT_EQ(record.state, m.agent->phase() == Phase::kFollowing ? "streaming" : "leading");
  }
}

}  // namespace
}  // namespace bascule::control
