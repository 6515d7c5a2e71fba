// A cluster that follows another one: nobody writes, whoever leads streams from there, and taking
// the key away makes it an ordinary cluster.
#include "control/agent_world_test.h"

namespace bascule::control {
namespace {

class StandbyClusterTest : public AgentTest {
 protected:
  StandbyClusterTest() {
    world.followed.run = PgRun::kPrimary;
    world.followed.system_id = 77;
    world.followed.timeline = Timeline{4};
    world.followed.flush_lsn = Lsn{5000};
    world.config.standby_cluster = StandbyCluster{"elsewhere", 5432, "theirs", ""};
  }
  void start_following_three() {
    world.add("n1");
    world.pass(2s);
    world.add("n2");
    world.add("n3");
    pass(8s);
    ASSERT_EQ(standby_leader(), "n1");
  }
  // Nobody may be a primary in any moment of it.
  void pass(Nanos duration) {
    for (Nanos t{0}; t < duration; t += 50ms) {
      world.pass(50ms);
      for (const auto& [n, m] : world.members) {
        ASSERT_NE(m->pg.run, PgRun::kPrimary) << n.str();
        ASSERT_EQ(m->armed, MonoTime{}) << "there is nothing to fence";
      }
    }
  }
  std::string standby_leader() {
    const ClusterView v = world.view();
    return v.leader && v.leader->value.phase == LeaderPhase::kFollowing
               ? v.leader->value.holder.str()
               : "";
  }
  void change(const ClusterConfig& config) {
    world.apply({{}, {{Keys("test").config(), encode(config)}}});
  }
};

TEST_F(StandbyClusterTest, IsCopiedFromTheFollowedClusterAndCascades) {
  start_following_three();
  EXPECT_EQ(times(world.at("n1"), "initdb"), 0);
  EXPECT_EQ(world.at("n1").pg.upstream, followed_cluster());
  EXPECT_EQ(world.at("n2").pg.upstream, name("n1"));
  EXPECT_EQ(world.at("n3").pg.upstream, name("n1"));
  const ClusterView v = world.view();
  EXPECT_EQ(v.init->value.system_id, 77u);
  EXPECT_EQ(v.leader->value.timeline, Timeline{4});
  EXPECT_TRUE(v.history.at(Epoch{1}).following);
  EXPECT_TRUE(v.sync->value.generations.empty()) << "nothing is acknowledged here";
  EXPECT_EQ(v.member(name("n1"))->role, "standby leader");
  EXPECT_EQ(v.roster->value.members.size(), 3u);
}

TEST_F(StandbyClusterTest, AnotherMemberGoesOnFollowingWhenTheStandbyLeaderIsLost) {
  start_following_three();
  kill_host(world.at("n1"));
  pass(12s);
  const std::string next = standby_leader();
  ASSERT_TRUE(next == "n2" || next == "n3") << next;
  EXPECT_EQ(world.at(next).pg.upstream, followed_cluster());
  const std::string other = next == "n2" ? "n3" : "n2";
  EXPECT_EQ(world.at(other).pg.upstream, name(next));
  EXPECT_EQ(world.view().leader->value.timeline, Timeline{4}) << "nobody was promoted";
  EXPECT_EQ(times(world.at(other), "rewind") + times(world.at(other), "clone"), 1)
      << "only its first copy";
}

TEST_F(StandbyClusterTest, FollowsTheOtherClustersFailoverToANewTimeline) {
  start_following_three();
  world.followed.timeline = Timeline{6};
  pass(3s);
  EXPECT_EQ(world.view().leader->value.timeline, Timeline{6});
  kill_host(world.at("n1"));
  pass(12s);
  EXPECT_FALSE(standby_leader().empty()) << dump(world.at("n2"));
}

TEST_F(StandbyClusterTest, BecomesAnOrdinaryClusterWhenTheKeyIsTakenAway) {
  start_following_three();
  ClusterConfig config = world.view().config->value;
  config.standby_cluster.reset();
  change(config);
  world.pass(5s);
  ASSERT_EQ(world.leader(), "n1") << dump(world.at("n1"));
  const ClusterView v = world.view();
  EXPECT_EQ(v.leader->value.timeline, Timeline{5});
  EXPECT_FALSE(v.history.rbegin()->second.following);
  EXPECT_NE(world.at("n1").armed, MonoTime{}) << "a primary is guarded";
  int writers = 0;
  for (const auto& [n, m] : world.members) writers += m->pg.run == PgRun::kPrimary;
  EXPECT_EQ(writers, 1);
  EXPECT_EQ(world.at("n2").pg.upstream, name("n1"));
  EXPECT_EQ(times(world.at("n2"), "clone"), 1) << "repointed, not copied anew";
  EXPECT_FALSE(v.sync->value.generations.back().voters.empty()) << "commits wait again";
}

TEST_F(StandbyClusterTest, AnOrdinaryLineNeverTurnsIntoAFollowingOne) {
  start_following_three();
  ClusterConfig config = world.view().config->value;
  const auto follow = std::exchange(config.standby_cluster, std::nullopt);
  change(config);
  world.pass(5s);
  config.standby_cluster = follow;
  change(config);
  world.pass(2s);
  EXPECT_EQ(world.leader(), "n1");
  kill_host(world.at("n1"));
  world.pass(12s);
  const std::string next = world.leader();
  EXPECT_TRUE(next == "n2" || next == "n3") << "promoted as ever";
}

TEST_F(StandbyClusterTest, SwitchesTheStandbyLeaderOver) {
  start_following_three();
  ask_for(RequestKind::kSwitchover, "n3");
  pass(5s);
  EXPECT_EQ(standby_leader(), "n3");
  EXPECT_EQ(world.view().request->value.outcome, "done");
  EXPECT_EQ(world.at("n1").pg.upstream, name("n3"));
}

TEST_F(StandbyClusterTest, RestartsOneAfterTheOtherWithoutAChangeOfLeader) {
  start_following_three();
  ask(task_of(TaskKind::kRestart, {"n1", "n2", "n3"}));
  pass(20s);
  EXPECT_EQ(task().outcome, "done") << encode(task());
  for (const char* m : {"n1", "n2", "n3"}) EXPECT_EQ(times(world.at(m), "clean_stop"), 1) << m;
  EXPECT_EQ(standby_leader(), "n1");
  EXPECT_EQ(world.view().leader->value.epoch, Epoch{1});
}

TEST_F(StandbyClusterTest, AnAgentThatComesBackGoesOnLeading) {
  start_following_three();
  restart_agent(world.at("n1"));
  pass(3s);
  EXPECT_EQ(standby_leader(), "n1");
  EXPECT_EQ(world.view().leader->value.epoch, Epoch{1});
  EXPECT_EQ(world.at("n1").pg.upstream, followed_cluster());
}

TEST_F(StandbyClusterTest, AStoreThatIsAwayEndsNothing) {
  start_following_three();
  world.store_answers = false;
  pass(20s);
  for (const char* m : {"n1", "n2", "n3"}) {
    EXPECT_EQ(world.at(m).pg.run, PgRun::kStandby) << "readers are served";
    EXPECT_TRUE(world.at(m).pg.receiver_streaming);
  }
  world.store_answers = true;
  pass(15s);
  EXPECT_FALSE(standby_leader().empty());
}

TEST_F(StandbyClusterTest, FollowsToAnotherAddress) {
  start_following_three();
  ClusterConfig config = world.view().config->value;
  config.standby_cluster->host = "moved";
  const auto before = times(world.at("n1"), "set_upstream");
  change(config);
  pass(2s);
  EXPECT_EQ(times(world.at("n1"), "set_upstream"), before + 1);
}

}  // namespace
}  // namespace bascule::control
