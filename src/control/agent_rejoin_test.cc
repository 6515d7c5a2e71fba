// Members that come back, hang, or are about to give up their data.
#include "control/agent_world_test.h"

namespace bascule::control {
namespace {

TEST_F(AgentTest, MemberThatCantBeRewoundIsClonedAtLast) {
  start_three();
  Member& n1 = world.at("n1");
  n1.rewinds_fail = true;
  n1.pg.flush_lsn.value += 500;  // written, acknowledged by nobody
  crash(n1);
  world.pass(15s);
  EXPECT_EQ(n1.agent->phase(), Phase::kFollowing) << dump(n1);
  EXPECT_TRUE(std::ranges::any_of(n1.notes, [](const auto& n) { return n.what == "cloned"; }));
}

TEST_F(AgentTest, AgentThatComesBackAfterItsGuardHasFencedRejoins) {
  start_three();
  Member& n1 = world.at("n1");
  n1.exited = true;  // the agent is killed; the guard, with its deadline, lives on
  n1.pg.run = PgRun::kStopped;
  world.pass(8s);
  ASSERT_NE(world.leader(), "n1");
  n1.armed = world.now - 1s;
  AgentConfig c;
  c.cluster = "test";
  c.name = n1.self;
  c.host = "127.0.0.1";
  c.port = 5000;
  n1.exited = false;
  n1.agent = std::make_unique<Agent>(c, n1.disk, world.now);
  n1.carry_out(n1.agent->start(world.now));
  world.pass(5s);
  EXPECT_EQ(n1.agent->phase(), Phase::kFollowing) << dump(n1);
}

TEST_F(AgentTest, RecordIsNotGivenAwayWhilePostgresMayBeAPrimaryThatDoesNotAnswer) {
  start_three();
  Member& n1 = world.at("n1");
  n1.pg.run = PgRun::kStarting;  // what a sample shows of one that is too busy
  restart_agent(n1);
  world.pass(1s);
  EXPECT_FALSE(world.view().leader->value.vacant());
  n1.pg.run = PgRun::kPrimary;
  world.pass(1s);
  EXPECT_EQ(world.leader(), "n1");
  EXPECT_EQ(world.view().leader->value.epoch, Epoch{1});
}

// By the id alone it would pass for the timeline of whoever leads next.
TEST_F(AgentTest, ADirectoryThatSomebodyPromotedMeanwhileIsNotStartedInPlace) {
  start_three();
  Member& n1 = world.at("n1");
  n1.pg.run = PgRun::kStopped;
  n1.pg.timeline = n1.pg.checkpoint_timeline = Timeline{2};
  n1.pg.flush_lsn.value += 500;
  restart_agent(n1);
  const long starts = times(n1, "start_primary");
  world.pass(10s);
  EXPECT_EQ(times(n1, "start_primary"), starts);
  EXPECT_EQ(world.view().leader->value.epoch, Epoch{2});
  EXPECT_NE(world.leader(), "n1");
  EXPECT_NE(world.leader(), "");
}

// It has the id of the leader's timeline, and PostgreSQL lets it stream.
TEST_F(AgentTest, OneThatDoesNotStartAloneIsNotStartedWithTheLeaderUnlessItIsAFreshCopy) {
  start_three();
  Member& n1 = world.at("n1");
  kill_host(n1);
  world.pass(8s);
  ASSERT_NE(world.leader(), "n1");
  n1.pg.timeline = n1.pg.checkpoint_timeline = Timeline{2};
  n1.pg.flush_lsn = Lsn{world.view().history.at(Epoch{2}).fork.lsn.value - 1};
  n1.starts_fail = 1;
  n1.exited = false;
  restart_agent(n1);
  world.pass(10s);
  EXPECT_TRUE(noted(n1, "cloned")) << dump(n1);
}

TEST_F(AgentTest, NorIsWhatACopyThatFailedWasToGiveUp) {
  start_three();
  Member& n1 = world.at("n1");
  kill_host(n1);
  world.pass(8s);
  n1.pg.timeline = n1.pg.checkpoint_timeline = Timeline{2};
  n1.pg.flush_lsn = Lsn{world.view().history.at(Epoch{2}).fork.lsn.value - 1};
  n1.clones_fail = 1;
  n1.exited = false;
  restart_agent(n1);
  for (int i = 0; i < 200 && times(n1, "clone") == 0; ++i) world.pass(50ms);
  ASSERT_EQ(times(n1, "clone"), 1) << dump(n1);
  n1.starts_fail = 1;
  crash(n1);
  world.pass(10s);
  EXPECT_TRUE(noted(n1, "cloned")) << dump(n1);
}

TEST_F(AgentTest, NorWhatACopyThatWasBrokenOffWasToGiveUp) {
  start_three();
  Member& n1 = world.at("n1");
  kill_host(n1);
  world.pass(8s);
  n1.pg.timeline = n1.pg.checkpoint_timeline = Timeline{2};
  n1.pg.flush_lsn = Lsn{world.view().history.at(Epoch{2}).fork.lsn.value - 1};
  n1.clones_unheard = 1;
  n1.exited = false;
  restart_agent(n1);
  for (int i = 0; i < 200 && times(n1, "clone") == 0; ++i) world.pass(50ms);
  ASSERT_EQ(times(n1, "clone"), 1) << dump(n1);
  n1.starts_fail = 1;
  n1.give(event::GuardLost{"signal 9"});
  world.pass(10s);
  EXPECT_TRUE(noted(n1, "cloned")) << dump(n1);
}

// Its WAL may be on a timeline of the other one's id by now, by which pg_rewind goes.
TEST_F(AgentTest, ARewindThatBrokeOffIsRepeatedFromTheSameLeaderOnly) {
  start_three();
  Member& n3 = world.at("n3");
  for (const uint64_t epoch : {1, 9}) {
    n3.pg.run = PgRun::kStopped;
    n3.pg.data = DataDir::kHalfRewound;
    n3.disk.rewinding = Epoch{epoch};
    n3.ops.clear();
    restart_agent(n3);
    world.pass(10s);
    EXPECT_EQ(times(n3, "rewind"), epoch == 1 ? 1 : 0);
    EXPECT_EQ(times(n3, "clone"), epoch == 1 ? 0 : 1);
    EXPECT_EQ(n3.agent->phase(), Phase::kFollowing) << dump(n3);
  }
}

// Its last checkpoint was on the leader's timeline, and it has a source that is not the leader.
TEST_F(AgentTest, AMemberIsClonedWhenRewindsSucceedAndLeaveItDiverged) {
  world.add("n1");
  world.pass(1s);
  world.add("n2");
  Member& n3 = world.add("n3", {.replicatefrom = name("n2")});
  world.pass(5s);
  n3.pg.run = PgRun::kStopped;
  n3.pg.timeline = Timeline{2};
  n3.pg.flush_lsn.value += 500;
  n3.pg.receiver_streaming = false;
  n3.served = false;
  n3.rewinds_do_nothing = true;
  world.pass(3s);
  EXPECT_EQ(times(n3, "rewind"), 2);
  EXPECT_TRUE(noted(n3, "cloned")) << dump(n3);
}

// Its agent knows nothing new of the store, and its upstream was promoted by hand. Streaming on, it
// would come to the real line by its upstream's rejoin, with what it has from there in the middle.
TEST_F(AgentTest, AStandbyLedBeyondEveryEpochIsTakenOffAndWaitsForALeaderThatRenews) {
  start_three();
  Member& n2 = world.at("n2");
  world.store_answers = false;
  n2.served = false;
  n2.pg.timeline = Timeline{2};
  const long rewinds = times(n2, "rewind");
  world.pass(2s);
  EXPECT_EQ(n2.agent->phase(), Phase::kIsolated) << dump(n2);
  EXPECT_EQ(times(n2, "rewind"), rewinds);
  world.store_answers = n2.served = true;
  world.pass(3s);
  EXPECT_EQ(times(n2, "rewind"), rewinds + 1) << dump(n2);
  EXPECT_EQ(n2.agent->phase(), Phase::kFollowing) << dump(n2);
}

// Whether it has been served shows at the next look.
TEST_F(AgentTest, AReceiverThatIsNewIsNotGivenUpForACopy) {
  start_three();
  Member& n2 = world.at("n2");
  const long before = times(n2, "clone");
  n2.shows = [](PgStatus status) {
    status.receiver_new = std::exchange(status.receiver_streaming, false);
    return status;
  };
  world.pass(world.config.rejoin_timeout + 5s);
  EXPECT_EQ(times(n2, "clone"), before) << dump(n2);
}

// It would pass for damaged at the next election.
TEST_F(AgentTest, WhatIsSeenWhileDataIsReplacedIsNotExpectedToBeThereAfterwards) {
  start_three();
  Member& n1 = world.at("n1");
  kill_host(n1);
  world.pass(8s);
  ASSERT_NE(world.leader(), "n1");
  n1.pg.timeline = n1.pg.checkpoint_timeline = Timeline{3};  // by hand
  n1.pg.flush_lsn.value += 100000;
  n1.pg.replay_lsn = n1.pg.flush_lsn;
  n1.rewind_takes = 1s;
  n1.exited = false;
  restart_agent(n1);
  world.pass(10s);
  ASSERT_TRUE(noted(n1, "rewound")) << dump(n1);
  EXPECT_EQ(n1.agent->local().high_water.timeline, Timeline{2});
}

// By its id that timeline is the lost leader's, whose WAL is not in it.
TEST_F(AgentTest, WhoWasForcedToLeadFromATimelineOfNoEpochHasALineOfItsOwn) {
  start_three();
  kill_host(world.at("n1"));
  world.pass(8s);
  Member& lost = world.at(world.leader());
  Member& other = world.at(lost.self == name("n2") ? "n3" : "n2");
  const Origin real = world.view().history.at(Epoch{2}).origin;
  kill_host(lost);
  lost.origin = real;
  other.origin = {Lsn{real.at.value - 8}, 99};
  other.pg.flush_lsn.value += 100000;
  const RequestRecord force{"f", RequestKind::kFailover, other.self, true, true, "test", "", ""};
  world.apply({{}, {{Keys("test").request(), encode(force)}}});
  world.pass(15s);
  ASSERT_EQ(world.leader(), other.self.str()) << dump(other);
  EXPECT_EQ(world.view().history.at(Epoch{3}).parent_epoch, Epoch{});
  lost.exited = false;
  restart_agent(lost);
  world.pass(10s);
  EXPECT_TRUE(noted(lost, "cloned")) << dump(lost);
}

TEST_F(AgentTest, TheOriginOfItsTimelineIsRecordedByALeaderWhoseAgentDiedBeforeItCould) {
  start_three();
  crash(world.at("n1"));
  world.pass(5s);
  Member& leader = world.at(world.leader());
  ASSERT_NE(leader.self, name("n1"));
  HistoryRecord without = world.view().history.at(Epoch{2});
  EXPECT_EQ(without.origin.at, without.fork.lsn);
  without.origin = {};
  world.apply({{}, {{Keys("test").history(Epoch{2}), encode(without)}}});
  restart_agent(leader);
  world.pass(3s);
  ASSERT_EQ(world.leader(), leader.self.str());
  EXPECT_EQ(world.view().history.at(Epoch{2}).origin.at, without.fork.lsn);
}

TEST_F(AgentTest, RecordOfALostDataDirectoryIsLeftToExpire) {
  start_three();
  Member& n1 = world.at("n1");
  n1.disk = {};
  n1.pg = {};
  restart_agent(n1);
  world.pass(3s);
  EXPECT_EQ(world.view().leader->value.holder, n1.self);
  world.pass(15s);
  EXPECT_NE(world.leader(), "n1");
  EXPECT_NE(world.leader(), "");
  EXPECT_EQ(n1.agent->phase(), Phase::kFollowing) << dump(n1);
}

TEST_F(AgentTest, ReplicaIsNotClonedForATimeThatNobodySaw) {
  start_three();
  const std::string voter = world.view().sync->value.generations[0].voters[0].substr(0, 2);
  Member& replica = world.at(voter);
  replica.notes.clear();
  replica.pg.receiver_streaming = false;
  restart_agent(replica);
  replica.pg.sampled_at = world.now;
  replica.give(event::Observed{replica.pg});
  world.drain();
  EXPECT_FALSE(noted(replica, "cloning"));
  world.pass(1s);
  world.now += std::chrono::minutes(10);  // the host was suspended
  replica.pg.receiver_streaming = false;
  replica.pg.sampled_at = world.now;
  replica.give(event::Observed{replica.pg});
  world.drain();
  EXPECT_FALSE(noted(replica, "cloning"));
}

TEST_F(AgentTest, StartAloneThatNeverGetsConsistentIsRepeatedWithTheLeadersWal) {
  start_three();
  Member& n3 = world.at("n3");
  n3.starts_hang = true;
  crash(n3);
  world.pass(10s);
  ASSERT_EQ(n3.pg.run, PgRun::kStarting);
  world.pass(world.config.rejoin_timeout * 4);
  EXPECT_EQ(n3.agent->phase(), Phase::kFollowing) << dump(n3);
}

TEST_F(AgentTest, BootstrapThatBrokeOffAfterInitdbGoesOn) {
  Member& n1 = world.add("n1");
  for (int i = 0; i < 100 && n1.pg.data == DataDir::kEmpty; ++i) {
    world.now += 1ms;
    n1.give(event::Observed{n1.pg});
    if (!world.queue.empty()) {
      auto next = std::move(world.queue.front());
      world.queue.pop_front();
      next();
    }
  }
  ASSERT_EQ(n1.pg.data, DataDir::kReady);
  world.queue.clear();
  n1.inits_fail = true;  // "not empty"
  n1.pg.run = PgRun::kStopped;
  restart_agent(n1);
  world.pass(15s);
  EXPECT_EQ(world.leader(), "n1") << dump(n1);
}

TEST_F(AgentTest, AnInitdbThatFailsIsRepeatedLessAndLessOften) {
  Member& n1 = world.add("n1");
  n1.inits_fail = true;
  world.pass(60s);
  const auto tried = std::ranges::count(n1.ops, "init_db");
  EXPECT_GE(tried, 6) << dump(n1);
  EXPECT_LE(tried, 20) << dump(n1);
  n1.inits_fail = false;
  world.pass(10s);
  EXPECT_EQ(world.leader(), "n1") << dump(n1);
}

TEST_F(AgentTest, RemainsOfAnOwnBootstrapAreReplacedThoughTheFirstCloneFails) {
  start_three();
  Member& n3 = world.at("n3");
  n3.disk = {};
  n3.disk.bootstrapping = true;  // it was creating the cluster when n1 did
  n3.pg = {};
  n3.pg.data = DataDir::kReady;
  n3.pg.system_id = 666;
  n3.clones_fail = 1;
  restart_agent(n3);
  world.pass(5s);
  EXPECT_EQ(n3.agent->phase(), Phase::kFollowing) << dump(n3);
  EXPECT_EQ(n3.pg.system_id, 42u);
  EXPECT_FALSE(n3.disk.bootstrapping) << "a copy of the cluster is no remnant";
}

TEST_F(AgentTest, DataIsNotGivenUpForWhatWasSeenBeforeAPause) {
  start_three();
  const std::string voter = world.view().sync->value.generations[0].voters[0].substr(0, 2);
  Member& replica = world.at(voter);
  replica.served = false;
  replica.pg.receiver_streaming = false;
  replica.pg.sampled_at = world.now;
  replica.give(event::Observed{replica.pg});  // the connection has just broken
  replica.notes.clear();
  world.at("n1").exited = true;  // and n1 is lost while this agent is stopped
  world.at("n1").pg.run = PgRun::kStopped;
  world.now += std::chrono::minutes(1);
  replica.give(event::Tick{});
  world.drain();
  world.pass(8s);
  EXPECT_FALSE(noted(replica, "cloning"));
  EXPECT_EQ(world.leader(), voter);
}

TEST_F(AgentTest, DataIsNotGivenUpForALeaderThatWasSeenOnceAfterAnOutage) {
  start_three();
  const std::string voter = world.view().sync->value.generations[0].voters[0].substr(0, 2);
  Member& replica = world.at(voter);
  world.store_answers = false;
  world.pass(2s);
  // The last renewal, which nobody has seen, and the end of the leader.
  const ClusterView last = world.view();
  LeaderRecord renewed = last.leader->value;
  ++renewed.counter;
  world.apply({{}, {{Keys("test").leader(), encode(renewed)}}});
  world.at("n1").exited = true;
  world.at("n1").pg.run = PgRun::kStopped;
  world.pass(60s);
  replica.notes.clear();
  world.store_answers = true;
  world.pass(8s);
  EXPECT_FALSE(noted(replica, "cloning"));
  EXPECT_EQ(world.leader(), voter);
}

TEST_F(AgentTest, DivergedMemberWhoseFirstStartFailsIsRewoundNotLeftConnecting) {
  start_three();
  Member& n1 = world.at("n1");
  n1.pg.flush_lsn.value += 500;  // acknowledged by nobody
  n1.starts_fail = 1;
  n1.served = false;  // "requested starting point is ahead of"
  crash(n1);
  world.pass(10s);
  EXPECT_TRUE(noted(n1, "rewound"));
  EXPECT_EQ(n1.agent->phase(), Phase::kFollowing) << dump(n1);
}

TEST_F(AgentTest, HungStandbyIsKilledAndBallotsWhenThereIsNoLeader) {
  start_three();
  const std::string voter = world.view().sync->value.generations[0].voters[0].substr(0, 2);
  world.at(voter).pg.run = PgRun::kUnresponsive;  // SIGSTOP
  world.at(voter).pg.sampled_at = world.now;
  world.at(voter).give(event::Observed{world.at(voter).pg});
  crash(world.at("n1"));
  world.at("n1").exited = true;
  world.pass(5s);
  EXPECT_NE(world.leader(), voter);
  world.pass(world.config.promote_timeout + 5s);
  EXPECT_EQ(world.leader(), voter);
}

TEST_F(AgentTest, PrimaryThatDoesNotAnswerForTtlIsKilledAndHandedOver) {
  start_three();
  Member& n1 = world.at("n1");
  n1.pg.run = PgRun::kUnresponsive;
  world.pass(world.config.ttl - 500ms);
  EXPECT_EQ(world.leader(), "n1");
  EXPECT_EQ(n1.pg.run, PgRun::kUnresponsive);
  world.pass(3s);
  EXPECT_NE(world.leader(), "n1");
  EXPECT_NE(world.leader(), "");
}

TEST_F(AgentTest, PrimaryThatAnswersAgainInTimeIsLeftAlone) {
  start_three();
  Member& n1 = world.at("n1");
  for (int i = 0; i < 5; ++i) {
    n1.pg.run = PgRun::kUnresponsive;
    world.pass(world.config.ttl - 1s);
    n1.pg.run = PgRun::kPrimary;
    world.pass(1s);
  }
  EXPECT_EQ(world.leader(), "n1");
  EXPECT_EQ(world.view().leader->value.epoch, Epoch{1});
}

TEST_F(AgentTest, MemberThatLostTheWalOfANewerTimelineDoesNotBallot) {
  start_three();
  crash(world.at("n1"));
  world.pass(10s);
  Member& n1 = world.at("n1");
  ASSERT_EQ(n1.pg.timeline, Timeline{2});
  n1.pg.timeline = Timeline{1};  // the disk went back to what it was before the fail-over
  n1.pg.flush_lsn = Lsn{1000};
  n1.served = false;
  for (const char* other : {"n2", "n3"}) {
    world.at(other).exited = true;
    world.at(other).pg.run = PgRun::kStopped;
  }
  world.pass(8s);
  EXPECT_EQ(n1.agent->phase(), Phase::kRefused) << dump(n1);
  EXPECT_FALSE(world.view().ballots.contains(n1.self));
}

}  // namespace
}  // namespace bascule::control
