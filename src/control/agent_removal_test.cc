// Taking members out of a running cluster.
#include "control/agent_world_test.h"
#include "control/removal.h"

namespace bascule::control {
namespace {

class RemovalTest : public AgentTest {
 protected:
  std::string remove(std::string_view member) {
    ask(task_of(TaskKind::kRemove, {member}));
    world.pass(5s);
    return task().outcome;
  }
  bool in_roster(std::string_view member) {
    const auto members = world.view().roster->value.members;
    return std::ranges::find(members, name(member)) != members.end();
  }
};

TEST_F(RemovalTest, AStandbyThatCommitsWaitForIsReplacedBeforeItGoes) {
  start_three();
  const std::string waited_for = voter();
  EXPECT_EQ(remove(waited_for), "done");
  EXPECT_NE(voter(), waited_for);
  EXPECT_FALSE(world.view().members.contains(name(waited_for)));
  EXPECT_FALSE(in_roster(waited_for));
  EXPECT_EQ(world.leader(), "n1");
  EXPECT_EQ(world.view().leader->value.epoch, Epoch{1});
}

TEST_F(RemovalTest, ItsDaemonStopsPostgresqlAndDoesNotComeBack) {
  start_three();
  ASSERT_EQ(remove("n3"), "done");
  world.pass(10s);
  EXPECT_EQ(world.at("n3").pg.run, PgRun::kStopped);
  EXPECT_EQ(world.at("n3").agent->phase(), Phase::kRefused);
  EXPECT_FALSE(world.view().members.contains(name("n3")));
  restart_agent(world.at("n3"));
  world.pass(10s);
  EXPECT_FALSE(world.view().members.contains(name("n3")));
  EXPECT_FALSE(in_roster("n3"));
}

TEST_F(RemovalTest, AnEmptiedDataDirectoryComesBackAsANewMember) {
  start_three();
  ASSERT_EQ(remove("n3"), "done");
  world.pass(2s);
  world.at("n3").pg = PgStatus{};
  restart_agent(world.at("n3"));
  world.pass(10s);
  EXPECT_TRUE(in_roster("n3"));
  EXPECT_TRUE(world.at("n3").pg.receiver_streaming);
}

TEST_F(RemovalTest, AMemberThatIsGoneForGoodCanBeRemoved) {
  start_three();
  const std::string other = voter() == "n2" ? "n3" : "n2";
  kill_host(world.at(other));
  world.pass(3s);
  EXPECT_EQ(remove(other), "done");
  EXPECT_FALSE(world.view().members.contains(name(other)));
}

TEST_F(RemovalTest, TheLeaderIsNotRemoved) {
  start_three();
  EXPECT_NE(remove("n1").find("it is the leader"), std::string::npos);
  EXPECT_TRUE(in_roster("n1"));
}

TEST_F(RemovalTest, TheLastStandbyThatCommitsWaitForIsNotRemoved) {
  start_three();
  const std::string waited_for = voter();
  const std::string other = waited_for == "n2" ? "n3" : "n2";
  ASSERT_EQ(remove(other), "done");
  ask([&] {
    TaskRecord t = task_of(TaskKind::kRemove, {waited_for});
    t.id = "t2";
    return t;
  }());
  world.pass(5s);
  EXPECT_NE(task("t2").outcome.find("no other member can take its place"), std::string::npos);
  EXPECT_EQ(voter(), waited_for);
}

TEST_F(RemovalTest, AMemberOfASetThatWouldBecomeTooSmallIsNotRemoved) {
  world.config.sync_mode = SyncMode::kQuorum;
  world.config.sync_count = 2;
  world.config.sync_strict = true;
  start_three();
  EXPECT_NE(remove("n2").find("no other member can take its place"), std::string::npos);
  EXPECT_TRUE(in_roster("n2"));
}

TEST_F(RemovalTest, ANewMemberJoinsWithoutAnInterruption) {
  start_three();
  world.add("n4");
  world.pass(5s);
  EXPECT_TRUE(in_roster("n4"));
  EXPECT_EQ(world.view().leader->value.epoch, Epoch{1});
}

}  // namespace
}  // namespace bascule::control
