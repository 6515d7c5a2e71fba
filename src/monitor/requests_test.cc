// What monitors do because somebody asks for it, in the world of monitor/testing.h.
#include "monitor/testing.h"

namespace bascule::monitor {
namespace {

using control::FailoverStep;
using control::LeaderPhase;
using monitor::testing::MonitorTest;
using monitor::testing::name;
using ::testing::HasSubstr;

TEST_F(MonitorTest, ASwitchoverFencesWaitsForTheLastWalAndPromotes) {
  start("m1");
  run(5s);
  databases_["east"].lsn = Lsn{2000};
  request(control::RequestKind::kSwitchover, "west");
  run(8s);
  EXPECT_EQ(databases_["west"].promotions, 0) << "not everything has arrived";
  EXPECT_TRUE(databases_["east"].read_only);
  EXPECT_EQ(view().monitor->operation->value.step, FailoverStep::kCatchingUp);
  databases_["west"].lsn = Lsn{2000};
  run(5s);
  EXPECT_EQ(outcome(), "done");
  EXPECT_EQ(leader().holder, name("west"));
  EXPECT_EQ(view().history.at(Epoch{2}).trigger, "switchover");
}

TEST_F(MonitorTest, ASwitchoverThatCantCatchUpIsTakenBack) {
  config_.catch_up_timeout = 5s;
  start("m1");
  run(5s);
  databases_["east"].lsn = Lsn{2000};
  request(control::RequestKind::kSwitchover, "west");
  run(20s);
  EXPECT_THAT(outcome(), HasSubstr("failed: west has not replayed"));
  EXPECT_EQ(leader().holder, name("east"));
  EXPECT_EQ(leader().epoch, Epoch{1});
  EXPECT_FALSE(databases_["east"].read_only) << "its fence is lifted";
  EXPECT_EQ(state(), "healthy") << reason();
}

TEST_F(MonitorTest, AHealthyPrimaryThatCantBeFencedIsNotReplacedUnlessForced) {
  databases_["east"].fence_fails = true;
  start("m1");
  run(5s);
  request(control::RequestKind::kFailover, "west");
  run(30s);
  EXPECT_THAT(outcome(), HasSubstr("failed: east still answers and is not fenced"));
  EXPECT_EQ(leader().holder, name("east"));
  request(control::RequestKind::kFailover, "west", true);
  run(30s);
  EXPECT_EQ(outcome(), "done");
  EXPECT_EQ(leader().holder, name("west"));
}

TEST_F(MonitorTest, FailbackToTheRebuiltPrimary) {
  start("m1");
  run(5s);
  request(control::RequestKind::kFailover, "west");
  run(10s);
  ASSERT_EQ(leader().holder, name("west"));
  auto& east = databases_["east"];
  east.in_recovery = true;  // rebuilt; the copied setting is still there
  east.timeline = databases_["north"].timeline = databases_["west"].timeline;
  run(5s);
  request(control::RequestKind::kSwitchover, "east");
  run(10s);
  EXPECT_EQ(outcome(), "done");
  EXPECT_EQ(leader().holder, name("east"));
  EXPECT_FALSE(east.read_only);
  EXPECT_EQ(leader().epoch, Epoch{3});
}

TEST_F(MonitorTest, AFailoverFromALivingPrimaryWaitsForItsLastWal) {
  start("m1");
  run(5s);
  databases_["east"].lsn = Lsn{2000};
  request(control::RequestKind::kFailover, "west");
  run(10s);
  EXPECT_EQ(databases_["west"].promotions, 0) << "not everything has arrived";
  EXPECT_TRUE(databases_["east"].read_only);
  ASSERT_EQ(view().monitor->operation->value.step, FailoverStep::kCatchingUp);
  databases_["west"].lsn = Lsn{2000};
  run(5s);
  EXPECT_EQ(outcome(), "done");
  EXPECT_EQ(leader().holder, name("west"));
  EXPECT_EQ(view().history.at(Epoch{2}).trigger, "manual");
}

TEST_F(MonitorTest, AFailoverFromALivingPrimaryThatCantCatchUpIsTakenBack) {
  config_.catch_up_timeout = 5s;
  start("m1");
  run(5s);
  databases_["east"].lsn = Lsn{2000};
  request(control::RequestKind::kFailover, "west");
  run(25s);
  EXPECT_THAT(outcome(), HasSubstr("failed: west has not replayed"));
  EXPECT_EQ(leader().holder, name("east"));
  EXPECT_EQ(leader().epoch, Epoch{1});
  EXPECT_FALSE(databases_["east"].read_only) << "its fence is lifted";
  EXPECT_EQ(databases_["west"].promotions, 0);
}

TEST_F(MonitorTest, AForcedFailoverThatCantCatchUpGoesOn) {
  config_.catch_up_timeout = 5s;
  start("m1");
  run(5s);
  databases_["east"].lsn = Lsn{2000};
  request(control::RequestKind::kFailover, "west", true);
  run(25s);
  EXPECT_EQ(outcome(), "done");
  EXPECT_EQ(leader().holder, name("west"));
  EXPECT_EQ(view().history.at(Epoch{2}).trigger, "forced");
}

TEST_F(MonitorTest, TheCandidateAfterAFailedPromotionAlsoWaitsForTheLastWal) {
  config_.promote_timeout = 5s;
  databases_["west"].promote_fails = true;
  start("m1");
  run(5s);
  request(control::RequestKind::kFailover, "west");
  run(3s);
  ASSERT_EQ(leader().epoch, Epoch{2}) << "west is being promoted, in vain";
  databases_["north"].lsn = Lsn{900};
  run(15s);
  EXPECT_EQ(databases_["north"].promotions, 0);
  databases_["north"].lsn = Lsn{1000};
  run(5s);
  EXPECT_EQ(leader().holder, name("north"));
  EXPECT_EQ(leader().epoch, Epoch{3});
  EXPECT_EQ(leader().phase, LeaderPhase::kRunning);
}

TEST_F(MonitorTest, AFailoverFromAPrimaryThatRefusesIsRefusedAndNothingIsClosed) {
  start("m1");
  run(5s);
  databases_["east"].refuses = true;
  run(3s);
  record_.clear();
  request(control::RequestKind::kFailover, "west");
  run(5s);
  EXPECT_THAT(outcome(), HasSubstr("refused: east lives but refuses the monitor"));
  EXPECT_THAT(outcome(), HasSubstr("too many connections"));
  EXPECT_THAT(record_, ::testing::Each("east 1 running"));
  request(control::RequestKind::kFailover, "west", true);
  run(30s);
  EXPECT_EQ(outcome(), "done");
  EXPECT_EQ(leader().holder, name("west"));
}

TEST_F(MonitorTest, APrimaryThatBeginsToRefuseInAFailoverKeepsTheRecord) {
  put(control::MonitorKeys(control::Keys("db").prefix).proxy("p1"),
      control::encode(control::ProxyAck{"p1", 1}));  // whose permit is waited for
  start("m1");
  run(5s);
  request(control::RequestKind::kFailover, "west");
  run(1s);
  ASSERT_EQ(leader().phase, LeaderPhase::kVacant);
  databases_["east"].refuses = true;
  run(20s);
  EXPECT_THAT(outcome(), HasSubstr("failed: east lives but refuses the monitor"));
  EXPECT_EQ(leader().holder, name("east"));
  EXPECT_EQ(leader().phase, LeaderPhase::kRunning);
}

TEST_F(MonitorTest, APrimaryThatIsNotConfiguredIsLeftByForceOnly) {
  start("m1");
  run(5s);
  monitors_[0].alive = false;
  std::erase_if(config_.endpoints, [](const EndpointConfig& e) { return e.name == name("east"); });
  start("m2");
  run(10s);
  ASSERT_EQ(view().monitor->lease->value.holder, "m2");
  request(control::RequestKind::kFailover, "west");
  run(5s);
  EXPECT_THAT(outcome(), HasSubstr("refused: east can't be fenced: it is not configured here"));
  EXPECT_EQ(leader().phase, LeaderPhase::kRunning);
  request(control::RequestKind::kFailover, "west", true);
  run(30s);
  EXPECT_EQ(outcome(), "done");
  EXPECT_EQ(leader().holder, name("west"));
}

TEST_F(MonitorTest, AFailoverThatTakesTooLongIsGivenUp) {
  put(control::MonitorKeys(control::Keys("db").prefix).proxy("p1"),
      control::encode(control::ProxyAck{"p1", 1}));  // whose permit is waited for
  config_.failure_threshold = 1000;
  config_.endpoints[0].failover_timeout = 15s;
  start("m1");
  run(5s);
  request(control::RequestKind::kFailover, "west");
  run(1s);
  ASSERT_EQ(leader().phase, LeaderPhase::kVacant);
  databases_["east"].reachable = false;
  run(20s);
  EXPECT_THAT(outcome(), HasSubstr("failed: not done within 15000 ms: east failed a check"));
  EXPECT_EQ(leader().holder, name("east"));
  EXPECT_EQ(leader().phase, LeaderPhase::kRunning);
}

}  // namespace
}  // namespace bascule::monitor
