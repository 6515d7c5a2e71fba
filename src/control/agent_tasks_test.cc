// Operators' tasks, dynamic parameters, tags.
#include "control/agent_world_test.h"
#include "control/loss_bound.h"
#include "control/relays.h"
#include "control/tasks.h"

namespace bascule::control {
namespace {

class TasksTest : public AgentTest {
 protected:
  int down() {
    return static_cast<int>(std::ranges::count_if(
        world.members, [](const auto& entry) { return entry.second->pg.run == PgRun::kStopped; }));
  }
  // In small steps; the most members that were down at a time.
  int pass_and_count(Nanos duration) {
    int most = 0;
    for (Nanos t{0}; t < duration; t += 50ms) {
      world.pass(50ms);
      most = std::max(most, down());
    }
    return most;
  }
  std::string successor() {
    return world.view().sync->value.generations.back().voters.at(0).substr(0, 2);
  }
};

TEST_F(TasksTest, RollingRestartTakesTheReplicasFirstAndNeverTwoMembersAtATime) {
  start_three();
  const auto starts = times(world.at("n2"), "start_standby");
  ask(task_of(TaskKind::kRestart, {"n1", "n2", "n3"}));
  EXPECT_LE(pass_and_count(30s), 1);
  EXPECT_EQ(task().outcome, "done") << encode(task());
  EXPECT_EQ(world.leader(), "n1");
  EXPECT_EQ(world.view().leader->value.epoch, Epoch{1}) << "restarted in place";
  EXPECT_EQ(world.at("n1").pg.timeline, Timeline{1});
  for (const char* m : {"n1", "n2", "n3"}) EXPECT_EQ(times(world.at(m), "clean_stop"), 1) << m;
  EXPECT_EQ(times(world.at("n2"), "start_standby"), starts + 1);
  EXPECT_EQ(times(world.at("n1"), "kill"), 0);
}

// PostgreSQL stops a standby whose max_connections are lower than its primary's.
TEST_F(TasksTest, ALoweredLimitTakesThePrimaryFirst) {
  start_three();
  world.at("n1").pg.pending_restart = world.at("n1").pg.pending_lowers = true;
  world.pass(1s);
  ask(task_of(TaskKind::kRestart, {"n1", "n2", "n3"}));
  for (int i = 0; i < 400; ++i) {
    world.pass(50ms);
    if (times(world.at("n1"), "clean_stop") == 1) {
      world.at("n1").pg.pending_restart = world.at("n1").pg.pending_lowers = false;
    }
    if (task().steps[0].state != StepState::kDone) {
      ASSERT_EQ(task().steps[1].state, StepState::kWaiting);
    }
  }
  EXPECT_EQ(task().outcome, "done") << encode(task());
  EXPECT_TRUE(task().steps[0].note.starts_with("went first")) << task().steps[0].note;
  for (const char* m : {"n1", "n2", "n3"}) EXPECT_EQ(times(world.at(m), "clean_stop"), 1) << m;
}

TEST_F(TasksTest, ThePrimaryIsTheLastEvenIfItIsNamedFirst) {
  start_three();
  ask(task_of(TaskKind::kRestart, {"n1", "n3"}));
  for (int i = 0; i < 400; ++i) {
    world.pass(50ms);
    if (task().steps[0].state != StepState::kWaiting) {
      ASSERT_EQ(task().steps[1].state, StepState::kDone);
    }
  }
  EXPECT_EQ(task().outcome, "done");
  EXPECT_EQ(times(world.at("n2"), "clean_stop"), 0);
}

TEST_F(TasksTest, RestartBySwitchoverLeavesTheOldPrimaryRestartedAsAReplica) {
  start_three();
  TaskRecord t = task_of(TaskKind::kRestart, {"n1", "n2", "n3"});
  t.by_switchover = true;
  ask(t);
  world.pass(40s);
  EXPECT_EQ(task().outcome, "done") << encode(task());
  EXPECT_NE(world.leader(), "n1");
  EXPECT_EQ(world.view().leader->value.epoch, Epoch{2});
  EXPECT_EQ(times(world.at("n1"), "clean_stop"), 1);
  EXPECT_EQ(world.view().request->value.outcome, "done");
}

TEST_F(TasksTest, OnlyMembersThatWaitForARestartAreRestarted) {
  start_three();
  world.at("n3").pg.pending_restart = true;
  world.pass(2s);
  TaskRecord t = task_of(TaskKind::kRestart, {"n1", "n2", "n3"});
  t.only_pending = true;
  ask(t);
  world.pass(15s);
  EXPECT_EQ(task().outcome, "done: 1 of 3 members, 2 not needed");
  EXPECT_EQ(times(world.at("n3"), "clean_stop"), 1);
  EXPECT_EQ(times(world.at("n1"), "clean_stop") + times(world.at("n2"), "clean_stop"), 0);
}

TEST_F(TasksTest, AMemberThatDoesNotComeBackEndsTheTaskBeforeTheNextOne) {
  start_three();
  world.at("n2").starts_fail = 1000;
  TaskRecord t = task_of(TaskKind::kRestart, {"n2", "n3", "n1"});
  t.step_timeout = 10s;
  ask(t);
  world.pass(30s);
  EXPECT_TRUE(task().outcome.starts_with("failed: n2: not back within 10 s")) << encode(task());
  EXPECT_EQ(times(world.at("n3"), "clean_stop") + times(world.at("n1"), "clean_stop"), 0);
  EXPECT_EQ(task().steps[1].state, StepState::kSkipped);
}

TEST_F(TasksTest, AScheduledRestartWaitsForItsTimeAndOneMissedForLongIsGivenUp) {
  start_three();
  const WallTime noon(std::chrono::hours(12));
  const auto at = [&](WallTime wall) {
    for (auto& [n, m] : world.members) m->agent->set_wall_time(wall);
    world.pass(3s);
  };
  at(noon);
  TaskRecord t = task_of(TaskKind::kRestart, {"n3"});
  t.at = noon + 1min;
  ask(t);
  at(noon + 59s);
  EXPECT_EQ(times(world.at("n3"), "clean_stop"), 0);
  at(noon + 60s);
  world.pass(10s);
  EXPECT_EQ(task().outcome, "done");
  t.id = "t2";
  t.at = noon + 2min;
  ask(t);
  at(noon + 30min);
  EXPECT_TRUE(task("t2").outcome.starts_with("failed: it could not be begun"))
      << encode(task("t2"));
  EXPECT_EQ(times(world.at("n3"), "clean_stop"), 1);
}

TEST_F(TasksTest, ATurnIsTakenAtMostOnceAlsoIfTheAgentDiesInIt) {
  start_three();
  Member& n3 = world.at("n3");
  ask(task_of(TaskKind::kRestart, {"n3"}));
  for (int i = 0; i < 100 && n3.disk.task.empty(); ++i) world.pass(50ms);
  ASSERT_EQ(n3.disk.task, "t1");
  const auto stops = times(n3, "clean_stop");
  restart_agent(n3);
  world.pass(20s);
  EXPECT_EQ(times(n3, "clean_stop"), stops);
  EXPECT_TRUE(task().outcome.starts_with("failed: n3: failed: the agent was started again"))
      << encode(task());
}

TEST_F(TasksTest, ANewLeaderGoesOnWithTheTask) {
  start_three();
  ask(task_of(TaskKind::kRestart, {"n1", "n2", "n3"}));
  world.pass(300ms);
  crash(world.at("n1"));
  EXPECT_LE(pass_and_count(30s), 2) << "the crashed one and the one in its turn";
  EXPECT_FALSE(task().outcome.empty()) << encode(task());
  EXPECT_NE(world.leader(), "");
}

TEST_F(TasksTest, ReinitCopiesAReplicaAnewAndRefusesTheLeader) {
  start_three();
  const std::string before = world.at("n3").agent->local().incarnation;
  const auto clones = times(world.at("n3"), "clone");
  ask(task_of(TaskKind::kReinit, {"n3"}));
  world.pass(10s);
  EXPECT_EQ(task().outcome, "done") << encode(task()) << dump(world.at("n3"));
  EXPECT_EQ(times(world.at("n3"), "clone"), clones + 1);
  EXPECT_NE(world.at("n3").agent->local().incarnation, before) << "a voter anew";
  TaskRecord t = task_of(TaskKind::kReinit, {"n1"});
  t.id = "t2";
  ask(t);
  world.pass(3s);
  EXPECT_TRUE(task("t2").outcome.starts_with("failed: n1: it is the leader"));
  EXPECT_EQ(times(world.at("n1"), "clone"), 0);
}

TEST_F(TasksTest, NothingBeginsWhilePaused) {
  start_three();
  world.apply({{}, {{Keys("test").pause(), "{}"}}});
  world.pass(200ms);
  ask(task_of(TaskKind::kRestart, {"n2", "n1"}));
  world.pass(10s);
  EXPECT_EQ(times(world.at("n2"), "clean_stop"), 0);
  world.apply({{}, {{Keys("test").pause(), std::nullopt}}});
  world.pass(20s);
  EXPECT_EQ(task().outcome, "done");
}

TEST_F(TasksTest, APauseInTheMiddleOfThePrimarysRestartDoesNotLeaveItDown) {
  start_three();
  ask(task_of(TaskKind::kRestart, {"n1"}));
  for (int i = 0; i < 100 && world.at("n1").pg.run != PgRun::kStopped; ++i) world.pass(50ms);
  world.apply({{}, {{Keys("test").pause(), "{}"}}});
  world.pass(10s);
  EXPECT_EQ(world.leader(), "n1") << dump(world.at("n1"));
}

TEST_F(TasksTest, AScheduledSwitchoverBecomesARequestOfTheSameId) {
  start_three();
  TaskRecord t = task_of(TaskKind::kSwitchover, {});
  t.candidate = name("n3");
  ask(t);
  world.pass(10s);
  EXPECT_EQ(world.leader(), "n3");
  EXPECT_EQ(world.view().request->value.id, "t1");
  EXPECT_TRUE(task().outcome.starts_with("done"));
}

TEST_F(TasksTest, AScheduledSwapOfRegionsPicksAMemberOfItAndPrefersItFromThenOn) {
  world.add("n1", {}, "eu");
  world.pass(1s);
  world.add("n2", {}, "eu");
  world.add("n3", {}, "us");
  world.pass(5s);
  TaskRecord t = task_of(TaskKind::kSwitchover, {});
  t.region = "asia";
  ask(t);
  world.pass(5s);
  EXPECT_TRUE(task().outcome.starts_with("failed: nobody of region asia")) << encode(task());
  EXPECT_EQ(world.leader(), "n1");
  t.id = "t2";
  t.region = "us";
  ask(t);
  world.pass(10s);
  EXPECT_EQ(world.leader(), "n3");
  EXPECT_EQ(world.view().config->value.primary_region, "us");
}

TEST_F(TasksTest, ParametersReachEveryMemberAndARefusalIsShown) {
  start_three();
  ClusterConfig c = world.view().config->value;
  c.parameters["work_mem"] = "64MB";
  world.apply({{}, {{Keys("test").config(), encode(c)}}});
  world.pass(3s);
  for (const char* m : {"n1", "n2", "n3"}) {
    EXPECT_EQ(world.at(m).parameters, c.parameters) << m;
    world.at(m).reload_problem = "invalid value";
  }
  c.parameters["work_mem"] = "banana";
  world.apply({{}, {{Keys("test").config(), encode(c)}}});
  world.pass(3s);
  EXPECT_EQ(world.at("n2").parameters.at("work_mem"), "64MB");
  EXPECT_EQ(world.view().members.at(name("n2")).config_problem, "invalid value");
  const auto reloads = times(world.at("n2"), "reload");
  world.pass(5s);
  EXPECT_EQ(times(world.at("n2"), "reload"), reloads) << "not again and again";
}

TEST_F(TasksTest, ReloadIsOneTurnOfEveryMember) {
  start_three();
  const auto before = times(world.at("n1"), "reload");
  ask(task_of(TaskKind::kReload, {"n1", "n2", "n3"}));
  world.pass(10s);
  EXPECT_EQ(task().outcome, "done") << encode(task());
  EXPECT_EQ(times(world.at("n1"), "reload"), before + 1);
  EXPECT_EQ(times(world.at("n1"), "clean_stop"), 0);
}

TEST_F(TasksTest, ACascadedReplicaGoesBackToTheLeaderWhenItsRelayDies) {
  world.add("n1");
  world.pass(1s);
  world.add("n2");
  MemberTags tags;
  tags.replicatefrom = name("n2");
  world.add("n3", tags);
  world.pass(8s);
  ASSERT_EQ(world.leader(), "n1");
  EXPECT_EQ(world.at("n3").pg.upstream, name("n2"));
  EXPECT_EQ(world.view().members.at(name("n3")).upstream, name("n2"));
  Member& n2 = world.at("n2");
  n2.exited = true;
  n2.pg.run = PgRun::kStopped;
  world.pass(10s);
  EXPECT_EQ(world.at("n3").pg.upstream, name("n1")) << dump(world.at("n3"));
  EXPECT_TRUE(world.at("n3").pg.receiver_streaming);
}

TEST_F(TasksTest, ACascadedReplicaFollowsANewLeaderToo) {
  world.add("n1");
  world.pass(1s);
  world.add("n2");
  MemberTags tags;
  tags.replicatefrom = name("n2");
  world.add("n3", tags);
  world.pass(8s);
  ASSERT_EQ(world.at("n3").pg.upstream, name("n2"));
  crash(world.at("n1"));
  world.pass(15s);
  EXPECT_EQ(world.leader(), "n2");
  EXPECT_EQ(world.at("n3").pg.upstream, name("n2"));
  EXPECT_TRUE(world.at("n3").pg.receiver_streaming) << dump(world.at("n3"));
  EXPECT_EQ(world.at("n3").pg.timeline, Timeline{2});
}

TEST_F(TasksTest, MembersThatAreConfiguredInACircleFollowTheLeader) {
  world.add("n1");
  world.pass(1s);
  MemberTags second, third;
  second.replicatefrom = name("n3");
  third.replicatefrom = name("n2");
  world.add("n2", second);
  world.add("n3", third);
  world.pass(8s);
  const auto before = times(world.at("n2"), "set_upstream") + times(world.at("n3"), "set_upstream");
  world.pass(20s);
  EXPECT_EQ(world.at("n2").pg.upstream, name("n1"));
  EXPECT_EQ(world.at("n3").pg.upstream, name("n1"));
  EXPECT_EQ(times(world.at("n2"), "set_upstream") + times(world.at("n3"), "set_upstream"), before);
}

TEST_F(TasksTest, ANosyncMemberIsNeverWaitedFor) {
  world.add("n1");
  world.pass(1s);
  MemberTags tags;
  tags.nosync = true;
  world.add("n2", tags);
  world.pass(5s);
  EXPECT_TRUE(world.at("n1").pg.sync_standbys.empty());
  world.add("n3");
  world.pass(5s);
  EXPECT_EQ(successor(), "n3");
}

TEST_F(TasksTest, ANewMemberIsCopiedFromWhoeverIsTaggedForIt) {
  world.add("n1");
  world.pass(1s);
  MemberTags tags;
  tags.clonefrom = true;
  world.add("n2", tags);
  world.pass(5s);
  Member& n3 = world.add("n3");
  world.pass(5s);
  EXPECT_EQ(n3.agent->phase(), Phase::kFollowing) << dump(n3);
  const auto cloning = std::ranges::find(n3.notes, "cloning", &effect::Note::what);
  ASSERT_NE(cloning, n3.notes.end());
  EXPECT_EQ(cloning->fields.at(0).second, "n2");
}

TEST_F(TasksTest, TheLossOfAForcedFailoverIsKnownBeforehand) {
  start_three();
  const auto bounds = loss_bounds(world.view());
  ASSERT_EQ(bounds.size(), 2u);
  EXPECT_TRUE(bounds[0].none) << bounds[0].text;
  EXPECT_EQ(bounds[0].member.str(), successor());
  EXPECT_FALSE(bounds[1].none);
  EXPECT_TRUE(bounds[1].bytes);
  EXPECT_EQ(bounds[1].unknown, 3000ms);
  EXPECT_TRUE(bounds[1].longer_by_pledges);
}

TEST_F(TasksTest, TheLossAfterACrashCountsWhatTheRecordDoesNotKnow) {
  start_three();
  ClusterView view = world.view();
  LeaderRecord& leader = view.leader->value;
  const NodeName other = loss_bounds(view)[1].member;
  MemberRecord& behind = view.members.at(other);
  leader.flush_lsn = Lsn{5000};
  behind.flush_lsn = Lsn{4000};
  leader.phase = LeaderPhase::kVacant;
  const auto of_other = [&] {
    const auto bounds = loss_bounds(view);
    return *std::ranges::find(bounds, other, &LossBound::member);
  };
  EXPECT_EQ(of_other().bytes, 1000u);
  EXPECT_EQ(of_other().unknown, 3000ms) << "it may have written after its last renewal";
  EXPECT_FALSE(of_other().longer_by_pledges) << "the store was there when it was released";
  leader.final_position = {behind.timeline, Lsn{5600}};
  EXPECT_EQ(of_other().bytes, 1600u) << "its clean stop says how far";
  EXPECT_EQ(of_other().unknown, 0ms);
  EXPECT_FALSE(of_other().none);
}

TEST(TaskRecords, RoundTrip) {
  TaskRecord t;
  t.id = "a1";
  t.kind = TaskKind::kReinit;
  t.steps = {{name("n1"), StepState::kFailed, "why"}, {name("n2"), StepState::kSkipped, ""}};
  t.at = WallTime(Millis(5));
  t.only_pending = t.by_switchover = true;
  t.step_timeout = 7s;
  t.candidate = name("n3");
  t.region = "eu";
  t.by = "me";
  t.asked_at = WallTime(Millis(9));
  t.outcome = "done";
  const auto back = decode_task(encode(t));
  ASSERT_TRUE(back) << back.error().to_string();
  EXPECT_EQ(encode(*back), encode(t));
  EXPECT_EQ(back->steps, t.steps);
  for (const char* bad : {"", "[]", "{}", R"({"id":"x"})", R"({"id":"x","kind":"dance"})",
                          R"({"id":"x","kind":"restart","steps":[{"state":"done"}]})"}) {
    EXPECT_FALSE(decode_task(bad)) << bad;
  }
}

// ---- one stream to each region -----------------------------------------------------------------

class RelayTest : public AgentTest {
 protected:
  void start_two_regions() {
    world.config.region_relays = true;
    world.add("n1", {}, "eu");
    world.pass(1s);
    world.add("n2", {}, "eu");
    for (const char* m : {"u1", "u2", "u3"}) world.add(m, {}, "us");
    world.pass(10s);
    ASSERT_EQ(world.leader(), "n1");
  }
  std::string from(std::string_view member) {
    const auto& upstream = world.at(member).pg.upstream;
    return upstream ? upstream->str() : "";
  }
};

TEST_F(RelayTest, OneMemberOfARemoteRegionStreamsFromTheLeaderForTheOthers) {
  start_two_regions();
  EXPECT_EQ(from("u1"), "n1");
  EXPECT_EQ(from("u2"), "u1");
  EXPECT_EQ(from("u3"), "u1");
  EXPECT_EQ(from("n2"), "n1") << "the leader's own region streams from it";
  EXPECT_EQ(world.view().roster->value.members.size(), 5u) << "everybody may be elected";
}

TEST_F(RelayTest, TheOthersChooseANewRelayWhenTheirsDies) {
  start_two_regions();
  kill_host(world.at("u1"));
  world.pass(40s);
  EXPECT_EQ(from("u2"), "n1") << dump(world.at("u2"));
  EXPECT_EQ(from("u3"), "u2") << dump(world.at("u3"));
  world.pass(120s);
  EXPECT_EQ(from("u3"), "u2") << "the dead one is not tried again and again";
}

TEST_F(RelayTest, ARegionHasItsRelayAlsoUnderANewLeader) {
  start_two_regions();
  kill_host(world.at("n1"));
  world.pass(20s);
  const std::string next = world.leader();
  ASSERT_FALSE(next.empty());
  world.pass(20s);
  int direct = 0;
  for (const char* m : {"n2", "u1", "u2", "u3"}) {
    if (m != next && world.at(m).pg.receiver_streaming) direct += from(m) == next;
  }
  EXPECT_EQ(direct, next == "n2" ? 1 : 3) << "of each other region, and all of its own";
}

TEST_F(RelayTest, CommitsCanWaitForTheRelay) {
  world.config.region_relays = true;
  world.config.sync_mode = SyncMode::kOn;
  world.add("n1", {}, "eu");
  world.pass(1s);
  MemberTags reader;
  reader.nosync = true;
  world.add("u1", reader, "us");  // first by name
  world.add("u2", {}, "us");
  world.pass(10s);
  EXPECT_EQ(from("u2"), "n1");
  EXPECT_EQ(from("u1"), "u2");
}

TEST_F(RelayTest, WhereCommitsWaitForTwoTheyStreamFromTheLeader) {
  world.config.sync_mode = SyncMode::kQuorum;
  world.config.sync_count = 2;
  start_two_regions();
  for (const char* m : {"n2", "u1", "u2", "u3"}) EXPECT_EQ(from(m), "n1") << m;
}

}  // namespace
}  // namespace bascule::control
