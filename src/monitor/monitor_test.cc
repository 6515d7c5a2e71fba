// What monitors do by themselves, in the world of monitor/testing.h.
#include "monitor/testing.h"

namespace bascule::monitor {
namespace {

using control::FailoverStep;
using control::LeaderPhase;
using monitor::testing::MonitorTest;
using monitor::testing::name;
using ::testing::HasSubstr;

TEST_F(MonitorTest, TheOnlyWritableEndpointIsFoundAsThePrimary) {
  start("m1");
  run(5s);
  EXPECT_EQ(leader().holder, name("east"));
  EXPECT_EQ(leader().epoch, Epoch{1});
  EXPECT_EQ(state(), "healthy") << reason();
  EXPECT_EQ(view().members.at(name("west")).state, "streaming");
  EXPECT_EQ(view().history.at(Epoch{1}).trigger, "bootstrap");
}

TEST_F(MonitorTest, TwoWritableEndpointsArePersonsBusiness) {
  databases_["west"].in_recovery = false;
  start("m1");
  run(10s);
  EXPECT_TRUE(leader().holder.empty());
  EXPECT_EQ(state(), "unknown");
  EXPECT_THAT(reason(), HasSubstr("several endpoints accept writes"));
  EXPECT_EQ(databases_["east"].fences + databases_["west"].fences, 0);
  request(control::RequestKind::kFailover, "west", true);
  run(10s);
  EXPECT_EQ(outcome(), "done");
  EXPECT_EQ(leader().holder, name("west"));
  run(15s);
  EXPECT_TRUE(databases_["east"].read_only);
}

TEST_F(MonitorTest, ALostPrimaryIsReplacedAfterTheThreshold) {
  start("m1");
  run(5s);
  databases_["east"].reachable = false;
  run(1900ms);
  EXPECT_EQ(leader().phase, LeaderPhase::kRunning) << "two checks are not enough";
  run(10s);
  EXPECT_EQ(leader().holder, name("north")) << "of the same region";
  EXPECT_EQ(leader().epoch, Epoch{2});
  EXPECT_EQ(leader().phase, LeaderPhase::kRunning);
  EXPECT_EQ(state(), "failover_complete") << reason();
  EXPECT_EQ(view().history.at(Epoch{2}).trigger, "automatic");
  EXPECT_THAT(view().history.at(Epoch{2}).reason, HasSubstr("has failed 3 health checks"));
  EXPECT_THAT(record_, ::testing::ElementsAre(" 0 vacant", "east 1 running", " 1 vacant",
                                              "north 2 preparing", "north 2 running"));
}

TEST_F(MonitorTest, NobodyIsPromotedBeforeTheLastPermitHasRunOut) {
  put(control::MonitorKeys(control::Keys("db").prefix).proxy("p1"),
      control::encode(control::ProxyAck{"p1", 1}));
  start("m1");
  run(5s);
  databases_["east"].reachable = false;
  while (leader().phase == LeaderPhase::kRunning) run(50ms);
  const MonoTime closed = now_;
  while (databases_["north"].promotions == 0) run(50ms);
  EXPECT_GE(now_ - closed, config_.permit);
}

TEST_F(MonitorTest, ProxiesThatActByTheClosedRecordNeedNotBeWaitedFor) {
  const auto key = control::MonitorKeys(control::Keys("db").prefix).proxy("p1");
  put(key, control::encode(control::ProxyAck{"p1", 1}));
  start("m1");
  run(5s);
  databases_["east"].reachable = false;
  while (leader().phase == LeaderPhase::kRunning) run(50ms);
  put(key, control::encode(control::ProxyAck{"p1", view().leader_revision}));
  const MonoTime closed = now_;
  while (databases_["north"].promotions == 0) run(50ms);
  EXPECT_LE(now_ - closed, 2500ms);
}

TEST_F(MonitorTest, AFlappingPrimaryIsNotReplaced) {
  start("m1");
  run(5s);
  for (int i = 0; i < 20; ++i) {
    databases_["east"].reachable = false;
    run(1900ms);
    databases_["east"].reachable = true;
    run(1100ms);
  }
  EXPECT_EQ(leader().epoch, Epoch{1});
  EXPECT_EQ(leader().holder, name("east"));
}

TEST_F(MonitorTest, ExhaustedConnectionsAreNoFailure) {
  start("m1");
  run(5s);
  databases_["east"].refuses = true;
  run(60s);
  EXPECT_EQ(leader().holder, name("east"));
  EXPECT_EQ(leader().phase, LeaderPhase::kRunning);
  EXPECT_EQ(state(), "degraded");
  EXPECT_THAT(reason(), HasSubstr("too many connections"));
}

TEST_F(MonitorTest, APrimaryThatAnswersAgainInTimeStays) {
  start("m1");
  run(5s);
  put(control::MonitorKeys(control::Keys("db").prefix).proxy("p1"),
      control::encode(control::ProxyAck{"p1", 1}));
  databases_["east"].reachable = false;
  while (leader().phase == LeaderPhase::kRunning) run(50ms);
  databases_["east"].reachable = true;
  run(5s);
  EXPECT_EQ(leader().holder, name("east"));
  EXPECT_EQ(leader().epoch, Epoch{1});
  EXPECT_THAT(leader().why, HasSubstr("answers again"));
  EXPECT_EQ(databases_["north"].promotions, 0);
}

TEST_F(MonitorTest, TheReturnedPrimaryIsFencedAndNotRoutedTo) {
  start("m1");
  run(5s);
  databases_["east"].reachable = false;
  run(15s);
  ASSERT_EQ(leader().holder, name("north"));
  databases_["east"].reachable = true;
  run(5s);
  EXPECT_TRUE(databases_["east"].read_only);
  EXPECT_EQ(view().members.at(name("east")).state, "fenced");
  EXPECT_EQ(state(), "recovery_in_progress") << reason();
  // Rebuilt as a standby of the new primary.
  auto& east = databases_["east"];
  east.in_recovery = true;
  east.timeline = databases_["north"].timeline;
  databases_["west"].timeline = databases_["north"].timeline;
  run(70s);
  EXPECT_EQ(state(), "healthy") << reason();
  EXPECT_TRUE(view().monitor->operation->value.fenced.empty());
  EXPECT_GE(view().monitor->health->recoveries, 1u);
}

TEST_F(MonitorTest, AnotherSystemsDatabaseIsNeverFenced) {
  databases_["west"].in_recovery = false;
  databases_["west"].system_id = 78;
  databases_["west"].reachable = false;
  start("m1");
  run(10s);
  ASSERT_EQ(leader().holder, name("east"));
  databases_["west"].reachable = true;
  run(60s);
  EXPECT_EQ(databases_["west"].fences, 0);
  EXPECT_FALSE(databases_["west"].read_only);
  EXPECT_EQ(view().members.at(name("west")).state, "diverged");
}

TEST_F(MonitorTest, TheStandbyWithTheMostWalIsPreferredToTheNearOne) {
  start("m1");
  run(5s);
  databases_["west"].lsn = Lsn{1000};
  databases_["north"].lsn = Lsn{900};
  databases_["east"].reachable = false;
  run(15s);
  EXPECT_EQ(leader().holder, name("west"));
}

TEST_F(MonitorTest, BeyondTheLagNobodyTakesOverAndTheReasonSaysSo) {
  databases_["east"].lsn = Lsn{100 << 20};
  start("m1");
  run(5s);
  databases_["east"].reachable = false;
  run(30s);
  EXPECT_EQ(leader().phase, LeaderPhase::kRunning);
  EXPECT_THAT(reason(), HasSubstr("nobody may take over"));
  EXPECT_THAT(reason(), HasSubstr("bytes behind"));
  request(control::RequestKind::kFailover, "west");
  run(5s);
  EXPECT_THAT(outcome(), HasSubstr("refused"));
  request(control::RequestKind::kFailover, "west", true);
  run(15s);
  EXPECT_EQ(outcome(), "done");
  EXPECT_EQ(view().history.at(Epoch{2}).trigger, "forced");
}

TEST_F(MonitorTest, AWitnessThatStillStreamsKeepsThePrimary) {
  start("m1");
  run(5s);
  databases_["west"].silence = Millis{10};
  monitors_[0].cannot_reach["east"] = true;
  run(40s);
  EXPECT_EQ(leader().holder, name("east"));
  EXPECT_EQ(leader().phase, LeaderPhase::kRunning);
  EXPECT_THAT(reason(), HasSubstr("still streams from it"));
}

TEST_F(MonitorTest, AMonitorThatAloneDoesNotReachThePrimaryDoesNotAct) {
  start("m1");
  run(2s);
  start("m2");
  run(5s);
  monitors_[0].cannot_reach["east"] = true;
  run(30s);
  EXPECT_EQ(leader().holder, name("east"));
  EXPECT_EQ(leader().epoch, Epoch{1});
  EXPECT_THAT(reason(), HasSubstr("reaches it"));
  databases_["east"].reachable = false;  // now for real
  run(20s);
  EXPECT_EQ(leader().holder, name("north"));
}

TEST_F(MonitorTest, AnotherMonitorTakesTheLeaseAndGoesOnWhereTheFirstStopped) {
  start("m1");
  run(2s);
  start("m2");
  run(5s);
  put(control::MonitorKeys(control::Keys("db").prefix).proxy("p1"),
      control::encode(control::ProxyAck{"p1", 1}));
  databases_["east"].reachable = false;
  while (leader().phase == LeaderPhase::kRunning) run(50ms);
  monitors_[0].alive = false;
  EXPECT_EQ(view().monitor->lease->value.holder, "m1");
  run(20s);
  EXPECT_EQ(view().monitor->lease->value.holder, "m2");
  EXPECT_EQ(leader().holder, name("north"));
  EXPECT_EQ(leader().phase, LeaderPhase::kRunning);
  EXPECT_EQ(databases_["north"].promotions, 1);
}

TEST_F(MonitorTest, AMonitorCutFromTheStoreActsNoLonger) {
  start("m1");
  run(5s);
  monitors_[0].store_cut = true;
  EXPECT_TRUE(monitors_[0].monitor->leading(now_));
  run(4s);
  EXPECT_FALSE(monitors_[0].monitor->leading(now_));
  databases_["east"].reachable = false;
  run(30s);
  EXPECT_EQ(databases_["north"].promotions + databases_["west"].promotions, 0);
  monitors_[0].store_cut = false;
  run(15s);
  EXPECT_EQ(leader().holder, name("north"));
}

TEST_F(MonitorTest, PausedMeansNoAutomaticFailover) {
  start("m1");
  run(5s);
  put(control::Keys("db").pause(), "{}");
  databases_["east"].reachable = false;
  run(30s);
  EXPECT_EQ(leader().epoch, Epoch{1});
  EXPECT_THAT(reason(), HasSubstr("paused"));
  apply({{}, {{control::Keys("db").pause(), std::nullopt}}});
  run(15s);
  EXPECT_EQ(leader().holder, name("north"));
}

TEST_F(MonitorTest, APromotionThatFailsGoesToTheNextCandidateUnderANewEpoch) {
  config_.promote_timeout = 5s;
  databases_["north"].promote_fails = true;
  start("m1");
  run(5s);
  databases_["east"].reachable = false;
  run(40s);
  EXPECT_EQ(leader().holder, name("west"));
  EXPECT_EQ(leader().epoch, Epoch{3});
  EXPECT_EQ(view().history.at(Epoch{3}).parent_epoch, Epoch{1});
}

TEST_F(MonitorTest, APromotionFromOutsideIsFollowed) {
  start("m1");
  run(5s);
  databases_["east"].in_recovery = true;
  databases_["west"].in_recovery = false;
  databases_["west"].timeline = Timeline{2};
  run(20s);
  EXPECT_EQ(leader().holder, name("west"));
  EXPECT_EQ(view().history.at(Epoch{2}).trigger, "external");
  EXPECT_EQ(databases_["west"].fences, 0);
}

TEST_F(MonitorTest, ASecondAutomaticFailoverWaitsForTheCooldown) {
  start("m1");
  run(5s);
  databases_["east"].reachable = false;
  run(15s);
  ASSERT_EQ(leader().holder, name("north"));
  databases_["west"].timeline = databases_["north"].timeline;
  databases_["north"].reachable = false;
  run(20s);
  EXPECT_EQ(leader().holder, name("north"));
  EXPECT_THAT(reason(), HasSubstr("cooldown"));
  run(60s);
  EXPECT_EQ(leader().holder, name("west"));
}

TEST_F(MonitorTest, WithEveryDatabaseDownTheStateIsUnknown) {
  start("m1");
  run(5s);
  for (auto& [n, d] : databases_) d.reachable = false;
  run(10s);
  EXPECT_EQ(state(), "unknown");
  EXPECT_EQ(leader().holder, name("east"));
}

TEST_F(MonitorTest, AClusterOfAgentsIsLeftAlone) {
  control::InitRecord init;
  init.system_id = 5;
  init.by = name("n1");
  put(control::Keys("db").init(), control::encode(init));
  start("m1");
  run(10s);
  EXPECT_FALSE(view().leader);
}

TEST_F(MonitorTest, WithinTheToleratedLossTheNearStandbyIsPreferred) {
  config_.loss_tolerance_bytes = 100;
  start("m1");
  run(5s);
  databases_["west"].lsn = Lsn{1000};
  databases_["north"].lsn = Lsn{900};
  databases_["east"].reachable = false;
  run(15s);
  EXPECT_EQ(leader().holder, name("north"));
}

TEST_F(MonitorTest, NofailoverIsNeverPromoted) {
  for (EndpointConfig& e : config_.endpoints) e.nofailover = e.name == name("north");
  start("m1");
  run(5s);
  databases_["east"].reachable = false;
  run(15s);
  EXPECT_EQ(leader().holder, name("west"));
  databases_["west"].reachable = false;
  run(120s);
  EXPECT_EQ(leader().holder, name("west"));
  EXPECT_THAT(reason(), HasSubstr("north: is configured as nofailover"));
}

TEST_F(MonitorTest, WithoutAutomaticFailoverAPersonIsWaitedFor) {
  config_.automatic = false;
  start("m1");
  run(5s);
  databases_["east"].reachable = false;
  run(30s);
  EXPECT_EQ(leader().epoch, Epoch{1});
  EXPECT_THAT(reason(), HasSubstr("automatic failover is switched off"));
  request(control::RequestKind::kFailover, "");
  run(15s);
  EXPECT_EQ(outcome(), "done");
  EXPECT_EQ(leader().holder, name("north"));
}

TEST_F(MonitorTest, AStandbyOfAnotherTimelineIsNotPromoted) {
  databases_["north"].timeline = Timeline{2};
  start("m1");
  run(5s);
  databases_["east"].reachable = false;
  run(15s);
  EXPECT_EQ(leader().holder, name("west"));
  EXPECT_EQ(databases_["north"].promotions, 0);
}

// ---- a monitor that was not run for a while

TEST_F(MonitorTest, AfterAFreezeThePrimarysPositionFromBeforeIsNotUsed) {
  Instance& m1 = start("m1");
  run(5s);
  m1.alive = false;
  run(20s);
  databases_["east"].lsn = Lsn{100 << 20};  // the standbys have lost it
  databases_["east"].reachable = false;
  run(20s);
  m1.alive = true;
  run(60s);
  EXPECT_EQ(leader().epoch, Epoch{1});
  EXPECT_EQ(leader().phase, LeaderPhase::kRunning);
  EXPECT_THAT(reason(), HasSubstr("how far east had got is not known"));
  request(control::RequestKind::kFailover, "west");
  run(5s);
  EXPECT_THAT(outcome(), HasSubstr("refused"));
  // Once it was seen again, all is as ever.
  databases_["east"].reachable = true;
  run(5s);
  for (auto& [n, d] : databases_) d.lsn = Lsn{101 << 20};
  databases_["east"].reachable = false;
  run(20s);
  EXPECT_EQ(leader().holder, name("north"));
}

TEST_F(MonitorTest, AMonitorThatHasNeverSeenThePrimaryDoesNotReplaceIt) {
  start("m1");
  run(5s);
  monitors_[0].alive = false;
  databases_["east"].lsn = Lsn{100 << 20};  // written while no monitor ran
  databases_["east"].reachable = false;
  Instance& again = start("m1");
  run(60s);
  EXPECT_EQ(leader().epoch, Epoch{1});
  EXPECT_EQ(leader().phase, LeaderPhase::kRunning);
  EXPECT_THAT(reason(), HasSubstr("has not seen it since it was started"));
  for (const auto& n : again.notes) EXPECT_NE(n.what, "failover begun");
  request(control::RequestKind::kFailover, "west", true);
  run(20s);
  EXPECT_EQ(leader().holder, name("west"));
}

TEST_F(MonitorTest, AnObserverThatSawTheEpochBeginKnowsWhereItBegan) {
  start("m1");
  run(2s);
  start("m2");
  run(5s);
  monitors_[1].cannot_reach["north"] = true;  // the next primary, while it leads
  databases_["east"].reachable = false;
  run(15s);
  ASSERT_EQ(leader().holder, name("north"));
  databases_["west"].timeline = databases_["north"].timeline;
  databases_["north"].reachable = false;
  monitors_[0].alive = false;
  run(90s);
  EXPECT_EQ(leader().holder, name("west"));
}

TEST_F(MonitorTest, ChecksFromBeforeAFreezeAreNotCountedOn) {
  Instance& m1 = start("m1");
  run(5s);
  databases_["east"].reachable = false;
  run(1900ms);
  m1.alive = false;
  run(40s);
  m1.alive = true;
  run(1900ms);
  const auto seen = view();
  for (const auto& e : seen.monitor->health->endpoints) {
    if (e.name == name("east")) {
      EXPECT_LE(e.failures, 2u) << "of four, two before the freeze";
    }
  }
  databases_["east"].reachable = true;
  run(10s);
  for (const auto& n : m1.notes) EXPECT_NE(n.what, "failover begun");
}

TEST_F(MonitorTest, AFailoverThatWasClosedBeforeAFreezeGoesOnWithItsLimits) {
  put(control::MonitorKeys(control::Keys("db").prefix).proxy("p1"),
      control::encode(control::ProxyAck{"p1", 1}));
  Instance& m1 = start("m1");
  run(5s);
  databases_["east"].lsn = databases_["west"].lsn = Lsn{100 << 20};
  databases_["north"].lsn = Lsn{100 << 20};
  run(3s);
  databases_["east"].reachable = false;
  while (leader().phase == LeaderPhase::kRunning) run(50ms);
  m1.alive = false;
  databases_["north"].lsn = databases_["west"].lsn = Lsn{1000};  // as if rebuilt from an old copy
  run(20s);
  m1.alive = true;
  run(8s);
  EXPECT_EQ(databases_["north"].promotions + databases_["west"].promotions, 0);
  databases_["west"].lsn = Lsn{100 << 20};
  run(30s);
  EXPECT_EQ(leader().holder, name("west"));
}

// ---- an epoch was given away, and the old primary is back

TEST_F(MonitorTest, AfterAFailedPromotionTheOldPrimaryThatAnswersLeadsAgain) {
  config_.promote_timeout = 5s;
  databases_["north"].promote_fails = true;
  start("m1");
  run(5s);
  databases_["east"].reachable = false;
  while (leader().phase != LeaderPhase::kPreparing) run(50ms);
  databases_["east"].reachable = true;
  run(40s);
  EXPECT_EQ(leader().holder, name("east"));
  EXPECT_EQ(leader().epoch, Epoch{3});
  EXPECT_EQ(leader().phase, LeaderPhase::kRunning);
  EXPECT_EQ(databases_["west"].promotions, 0);
}

TEST_F(MonitorTest, AfterAFailedPromotionAReadOnlyOldPrimaryIsFencedAndReplaced) {
  config_.promote_timeout = 5s;
  databases_["north"].promote_fails = true;
  start("m1");
  run(5s);
  databases_["east"].reachable = false;
  while (leader().phase != LeaderPhase::kPreparing) run(50ms);
  databases_["east"].reachable = databases_["east"].read_only = true;
  run(40s);
  EXPECT_EQ(leader().holder, name("west"));
  EXPECT_EQ(leader().phase, LeaderPhase::kRunning);
  EXPECT_GE(databases_["east"].fences, 1);
}

}  // namespace
}  // namespace bascule::monitor
