// Every flow of the agent, as a readable example.
#include "control/agent_world_test.h"

namespace bascule::control {
namespace {

TEST_F(AgentTest, ThreeMembersBecomeAClusterWithASynchronousStandby) {
  start_three();
  const ClusterView v = world.view();
  ASSERT_TRUE(v.sync);
  ASSERT_EQ(v.sync->value.generations.size(), 1u);
  EXPECT_EQ(v.sync->value.generations[0].voters.size(), 1u);
  EXPECT_EQ(world.at("n1").pg.sync_standbys, v.sync->value.generations[0].voters);
  EXPECT_EQ(world.at("n2").agent->phase(), Phase::kFollowing) << dump(world.at("n2"));
  EXPECT_EQ(v.roster->value.members.size(), 3u);
  EXPECT_GT(world.at("n1").armed, world.now);
}

// While it starts nothing inside is seen, and nobody would ever join what has no identity.
TEST_F(AgentTest, ANewClusterIsNotOpenBeforeItsIdentityIsKnown) {
  Member& first = world.add("n1");
  first.start_takes = 200ms;
  first.shows = [](PgStatus status) {
    if (status.data == DataDir::kReady && status.run != PgRun::kPrimary) {
      status.run = PgRun::kStarting;
      status.system_id = 0;
    }
    return status;
  };
  world.pass(3s);
  EXPECT_EQ(world.leader(), "n1") << dump(first);
  EXPECT_NE(world.view().init->value.system_id, 0u);
}

// Also where a renewal is under way at the moment when the server is up.
TEST_F(AgentTest, WhatWasRestoredGoesOnOnItsOwnTimeline) {
  for (Nanos takes = 1s; takes < 1500ms; takes += 50ms) {
    World fresh;
    fresh.config = world.config;
    fresh.store_delay = 120ms;
    Member& first = fresh.add("n1");
    first.start_takes = takes;
    for (int i = 0; i < 100 && times(first, "init_db") == 0; ++i) fresh.pass(50ms);
    ASSERT_EQ(times(first, "init_db"), 1);
    first.pg.timeline = Timeline{5};
    fresh.pass(4s);
    ASSERT_EQ(fresh.leader(), "n1") << dump(first);
    EXPECT_EQ(fresh.view().leader->value.timeline, Timeline{5}) << to_ms(takes);
    EXPECT_EQ(fresh.view().history.at(Epoch{1}).timeline, Timeline{5}) << to_ms(takes);
  }
}

TEST_F(AgentTest, AStartThatIsReportedAsFailedAndHasSucceededEndsTheRestart) {
  world.config.on_disk_full = OnDiskFull::kStay;
  start_three();
  Member& n1 = world.at("n1");
  n1.primaries_seem_to_fail = true;
  n1.pg.disk_full = DiskFull::kWal;  // tried until there is room
  world.pass(100ms);
  crash(n1);
  world.pass(5s);
  EXPECT_EQ(world.leader(), "n1") << dump(n1);
  EXPECT_EQ(n1.agent->phase(), Phase::kLeading) << dump(n1);
  const auto again =
      std::ranges::count(n1.notes, std::string("restart in place"), &effect::Note::what);
  EXPECT_EQ(again, 1);
}

TEST_F(AgentTest, AStartThatIsReportedAsFailedIsKilledBeforeTheRecordIsGivenUp) {
  world.config.on_crash = OnCrash::kRestart;
  start_three();
  Member& n1 = world.at("n1");
  n1.primaries_seem_to_fail = true;
  const long before = times(n1, "kill");
  crash(n1);
  world.pass(5s);
  EXPECT_NE(world.leader(), "n1") << dump(n1);
  EXPECT_EQ(times(n1, "kill"), before + 1);
}

// The next election goes by it; nothing at all would let anybody win.
TEST_F(AgentTest, ANewLeadersRecordSaysWhereItBeganThoughNoSampleHasShownIt) {
  world.config.sync_mode = SyncMode::kOff;
  start_three();
  for (auto& [n, m] : world.members) {
    m->shows = [](PgStatus status) {
      status.flush_lsn = {};
      return status;
    };
  }
  kill_host(world.at("n1"));
  for (int i = 0; i < 300 && world.leader() == "n1"; ++i) world.pass(50ms);
  ASSERT_NE(world.leader(), "");
  const ClusterView v = world.view();
  EXPECT_EQ(v.leader->value.flush_lsn, v.history.at(v.leader->value.epoch).fork.lsn);
}

TEST_F(AgentTest, CrashOfThePrimaryHandsOverToTheSynchronousStandbyAndItReturnsByRewind) {
  start_three();
  const std::string voter = world.view().sync->value.generations[0].voters[0];
  const std::string successor = voter.substr(0, 2);
  world.at("n1").pg.flush_lsn.value += 500;  // written, acknowledged by nobody
  crash(world.at("n1"));
  world.pass(500ms);
  EXPECT_EQ(world.leader(), successor);
  world.pass(10s);
  EXPECT_EQ(world.at("n1").agent->phase(), Phase::kFollowing) << dump(world.at("n1"));
  EXPECT_EQ(world.at("n1").pg.timeline, Timeline{2});
  bool rewound = false;
  for (const auto& n : world.at("n1").notes) rewound = rewound || n.what == "rewound";
  EXPECT_TRUE(rewound);
  const ClusterView v = world.view();
  ASSERT_EQ(v.sync->value.generations.size(), 1u) << "older generations are dropped";
  EXPECT_EQ(v.leader->value.epoch, Epoch{2});
}

TEST_F(AgentTest, SilentLeaderIsReplacedAfterTtl) {
  start_three();
  world.at("n1").exited = true;  // the host is gone
  world.at("n1").pg.run = PgRun::kStopped;
  world.pass(3900ms);  // the last renewal may be a second old
  EXPECT_EQ(world.leader(), "n1");
  world.pass(2500ms);
  EXPECT_NE(world.leader(), "n1");
  EXPECT_NE(world.leader(), "");
}

// The holder asks again before such answers come; they count all the same.
TEST_F(AgentTest, ASlowButSteadyStoreIsNoReasonToFence) {
  world.config.failsafe = false;
  start_three();
  for (const Millis delay : {Millis(300), Millis(600), Millis(900)}) {
    world.store_delay = delay;
    world.pass(30s);
    EXPECT_EQ(world.leader(), "n1") << delay.count();
    EXPECT_EQ(world.view().leader->value.epoch, Epoch{1}) << delay.count();
    EXPECT_GT(world.at("n1").armed, world.now) << delay.count();
  }
}

TEST_F(AgentTest, SwitchoverLeavesTheOldPrimaryAFollowerWithoutRewind) {
  start_three();
  ask_for(RequestKind::kSwitchover, "n3");
  world.pass(3s);
  EXPECT_EQ(world.leader(), "n3");
  EXPECT_EQ(world.view().request->value.outcome, "done");
  world.pass(3s);
  EXPECT_EQ(world.at("n1").agent->phase(), Phase::kFollowing) << dump(world.at("n1"));
  for (const auto& n : world.at("n1").notes) EXPECT_NE(n.what, "rewinding");
  // Before the proxies hold: its time is nobody's who writes.
  EXPECT_EQ(world.at("n1").checkpointed_in, std::vector{LeaderPhase::kRunning});
}

TEST_F(AgentTest, OldPrimaryIsNotStartedBesideItsNamedSuccessor) {
  start_three();
  ask_for(RequestKind::kSwitchover, "n3");
  world.store_delay = 60ms;
  bool vacant = false;
  for (int i = 0; i < 100 && world.leader() != "n3"; ++i) {
    world.pass(50ms);
    if (!world.view().leader->value.vacant()) continue;
    vacant = true;
    EXPECT_EQ(world.at("n1").pg.run, PgRun::kStopped);
  }
  EXPECT_TRUE(vacant);
  world.pass(5s);
  EXPECT_EQ(world.at("n1").agent->phase(), Phase::kFollowing) << dump(world.at("n1"));
}

// The answer to the transaction that begins it is lost: the request is not told to have failed.
TEST_F(AgentTest, SwitchoverThatWasBegunWithoutAnAnswerGoesOn) {
  start_three();
  world.store_delay = 60ms;
  world.lost_answer = Keys("test").request();
  ask_for(RequestKind::kSwitchover, "n3");
  world.pass(5s);
  ASSERT_TRUE(world.lost_answer.empty());
  EXPECT_EQ(world.leader(), "n3");
  EXPECT_EQ(world.view().request->value.outcome, "done");
}

TEST_F(AgentTest, RestartPolicyRecoversInPlaceOnTheSameTimeline) {
  world.config.on_crash = OnCrash::kRestart;
  start_three();
  crash(world.at("n1"));
  world.pass(2s);
  EXPECT_EQ(world.leader(), "n1") << dump(world.at("n1"));
  EXPECT_EQ(world.view().leader->value.epoch, Epoch{1});
  EXPECT_EQ(world.at("n1").pg.timeline, Timeline{1});
}

TEST_F(AgentTest, PausedClusterDoesNothingAndResumeHeals) {
  start_three();
  world.apply({{}, {{Keys("test").pause(), "{}"}}});
  world.pass(200ms);
  crash(world.at("n1"));
  world.pass(20s);
  EXPECT_EQ(world.leader(), "");
  EXPECT_EQ(world.view().leader->value.epoch, Epoch{1});
  world.apply({{}, {{Keys("test").pause(), std::nullopt}}});
  world.pass(2s);
  EXPECT_NE(world.leader(), "");
}

TEST_F(AgentTest, LostSynchronousStandbyIsReplacedAndThenNobodyIsLeft) {
  start_three();
  const std::string first = world.view().sync->value.generations[0].voters[0].substr(0, 2);
  world.at(first).exited = true;
  world.at(first).pg.run = PgRun::kStopped;
  world.pass(2s);
  const auto second = world.view().sync->value.generations[0].voters;
  ASSERT_EQ(second.size(), 1u);
  EXPECT_NE(second[0].substr(0, 2), first);
  EXPECT_EQ(world.at("n1").pg.sync_standbys, second);
  Member& last = world.at(second[0].substr(0, 2));
  last.exited = true;
  last.pg.run = PgRun::kStopped;
  world.pass(3s);
  EXPECT_TRUE(world.view().sync->value.generations[0].voters.empty());
  EXPECT_TRUE(world.at("n1").pg.sync_standbys.empty());
  EXPECT_EQ(world.leader(), "n1");
}

TEST_F(AgentTest, RestartedAgentAdoptsItsRunningPrimary) {
  start_three();
  Member& n1 = world.at("n1");
  AgentConfig c;
  c.cluster = "test";
  c.name = n1.self;
  c.host = "127.0.0.1";
  c.port = 5000;
  n1.agent = std::make_unique<Agent>(c, n1.disk, world.now);
  n1.carry_out(n1.agent->start(world.now));
  world.pass(3s);
  EXPECT_EQ(world.leader(), "n1");
  EXPECT_EQ(n1.agent->phase(), Phase::kLeading) << dump(n1);
  EXPECT_EQ(world.view().leader->value.epoch, Epoch{1});
  for (const auto& n : n1.notes) EXPECT_NE(n.what, "restarting");
}

TEST_F(AgentTest, OrderlyShutdownOfThePrimaryLeavesItsFinalPosition) {
  start_three();
  world.at("n1").give(event::ShutdownRequested{});
  world.drain();
  world.pass(200ms);
  EXPECT_TRUE(world.at("n1").exited);
  world.pass(2s);
  EXPECT_NE(world.leader(), "n1");
  EXPECT_NE(world.leader(), "");
}

TEST_F(AgentTest, FinalPositionOfAnEarlierCleanStopIsNotLeftAfterMoreWasWritten) {
  start_three();
  Member& n1 = world.at("n1");
  n1.verify_fails = true;
  ask_for(RequestKind::kSwitchover);
  world.pass(10s);  // stopped cleanly, not verified, restarted in place
  ASSERT_EQ(world.leader(), "n1");
  world.apply({{}, {{Keys("test").pause(), "{}"}}});
  world.pass(500ms);
  crash(n1);
  n1.give(event::ShutdownRequested{});
  world.drain();
  world.pass(1s);
  ASSERT_TRUE(world.view().leader->value.vacant());
  EXPECT_FALSE(world.view().leader->value.final_position.known());
}

TEST_F(AgentTest, SettingThatSomebodyElseHasChangedIsSetAgain) {
  start_three();
  Member& n1 = world.at("n1");
  const auto before = n1.pg.sync_standbys;
  ASSERT_FALSE(before.empty());
  n1.pg.sync_standbys.clear();  // ALTER SYSTEM
  world.pass(1s);
  EXPECT_EQ(n1.pg.sync_standbys, before);
  EXPECT_EQ(world.view().sync->value.generations.back().voters, before);
}

TEST_F(AgentTest, AsynchronousClusterFailsOverAfterTtl) {
  world.config.sync_mode = SyncMode::kOff;
  start_three();
  EXPECT_TRUE(world.at("n1").pg.sync_standbys.empty());
  world.at("n1").exited = true;
  world.at("n1").pg.run = PgRun::kStopped;
  world.pass(8s);
  EXPECT_NE(world.leader(), "n1");
  EXPECT_NE(world.leader(), "");
}

}  // namespace
}  // namespace bascule::control
