// The guard of node/ against real PostgreSQL servers. The program's main() is node_ops_test.cc's.
#include <signal.h>

#include <filesystem>

#include "posix/blocking_pool.h"
#include "store/memory_store.h"
#include "tests/integration/node_world.h"

namespace bascule::node {
namespace {

namespace op = control::op;
namespace effect = control::effect;
using control::PgRun;

class NodeGuard : public NodeOps {
 protected:
  World::Member& primary() {
    auto& n1 = world.add("n1");
    EXPECT_TRUE(world.run(n1, op::InitDb{}));
    EXPECT_TRUE(world.run(n1, op::StartPrimary{}));
    return n1;
  }
  void arm(World::Member& member, MonoTime deadline) {
    control::Effects effects;
    effects.push_back(effect::ArmGuard{deadline});
    member.shell->perform(std::move(effects));
  }
  bool all_dead(World::Member& member) {
    return world.process.in_directory(member.config.data_dir, "postgres").empty();
  }
};

TEST_F(NodeGuard, KillsEverythingAtTheDeadline) {
  auto& n1 = primary();
  auto busy = world.session(n1);
  ASSERT_TRUE(busy);
  const MonoTime deadline = world.loop.now() + 300ms;
  arm(n1, deadline);
  EXPECT_TRUE(world.until([&] { return world.loop.now() >= deadline - 20ms; }));
  EXPECT_FALSE(all_dead(n1));
  ASSERT_TRUE(world.until([&] { return !n1.exits.empty(); }, 2s));
  std::cout << "dead " << to_ms(world.loop.now() - deadline) << " ms after the deadline\n";
  EXPECT_LT(world.loop.now() - deadline, 300ms);
  EXPECT_TRUE(all_dead(n1));
  // Nothing starts while the deadline has passed.
  EXPECT_FALSE(world.run(n1, op::StartPrimary{}));
  EXPECT_TRUE(std::filesystem::exists(n1.config.data_dir + "/standby.signal"));
  arm(n1, world.loop.now() + 60s);
  ASSERT_DONE(world.run(n1, op::StartPrimary{}));
}

TEST_F(NodeGuard, KillsAtTheDeadlineThoughTheAgentIsGone) {
  auto& n1 = primary();
  const MonoTime deadline = world.loop.now() + 1s;
  arm(n1, deadline);
  // The guard has the deadline before an operation begins.
  ASSERT_DONE(world.run(n1, op::TerminateSenders{}));
  n1.shell.reset();
  EXPECT_TRUE(world.until([&] { return all_dead(n1); }, 2s));
  EXPECT_LT(world.loop.now() - deadline, 300ms);
}

TEST_F(NodeGuard, KillsAStoppedPostmasterAtTheDeadline) {
  auto& n1 = primary();
  ::kill(world.postmaster(n1), SIGSTOP);
  const MonoTime deadline = world.loop.now() + 100ms;
  arm(n1, deadline);
  EXPECT_TRUE(world.until([&] { return all_dead(n1); }, 2s));
  EXPECT_LT(world.loop.now() - deadline, 300ms);
}

TEST_F(NodeGuard, AStoppedPostmasterIsUnresponsive) {
  auto& n1 = primary();
  ASSERT_EQ(world.sample(n1).run, PgRun::kPrimary);
  const env::Pid pid = world.postmaster(n1);
  ::kill(pid, SIGSTOP);
  EXPECT_TRUE(world.until([&] { return n1.status.run == PgRun::kUnresponsive; }, 5s));
  ::kill(pid, SIGCONT);
  EXPECT_TRUE(world.until([&] { return n1.status.run == PgRun::kPrimary; }, 5s));
}

TEST_F(NodeGuard, ItsOwnDeathTakesPostgresqlDown) {
  auto& n1 = primary();
  const env::Pid guard = world.guard_pid(n1);
  ASSERT_NE(guard, 0);
  ::kill(guard, SIGKILL);
  ASSERT_TRUE(world.until([&] { return !n1.losses.empty() && !n1.exits.empty(); }));
  EXPECT_TRUE(all_dead(n1));
  // A new one takes its place.
  ASSERT_DONE(world.run(n1, op::StartPrimary{}));
  EXPECT_NE(world.guard_pid(n1), guard);
}

TEST_F(NodeGuard, ItsDeathTakesPostgresqlDownThoughTheAgentIsGone) {
  auto& n1 = primary();
  const env::Pid guard = world.guard_pid(n1);
  n1.shell.reset();
  ::kill(guard, SIGKILL);
  EXPECT_TRUE(world.until([&] { return all_dead(n1); }, 10s));
}

TEST_F(NodeGuard, AHangingGuardIsReplacedAndPostgresqlKilled) {
  auto& n1 = primary();
  ::kill(world.guard_pid(n1), SIGSTOP);
  const MonoTime deadline = world.loop.now() + 2s;
  arm(n1, deadline);
  ASSERT_TRUE(world.until([&] { return !n1.losses.empty(); }));
  EXPECT_LT(world.loop.now(), deadline);
  EXPECT_TRUE(all_dead(n1));
}

TEST_F(NodeGuard, OrphanBackendsAreReapedBeforeTheExitIsReported) {
  auto& n1 = primary();
  auto busy = world.session(n1);
  ASSERT_TRUE(busy);
  busy->send("DO $$ BEGIN LOOP END LOOP; END $$");  // never looks whether it is orphaned
  ASSERT_TRUE(world.until([&] {
    return world.value(n1,
                       "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO%' AND "
                       "state = 'active' AND pid <> pg_backend_pid()") == "1";
  }));
  ::kill(world.postmaster(n1), SIGKILL);
  const MonoTime before = world.loop.now();
  ASSERT_TRUE(world.until([&] { return !n1.exits.empty(); }));
  EXPECT_LT(world.loop.now() - before, 500ms);
  EXPECT_TRUE(all_dead(n1));
}

TEST_F(NodeGuard, ANewAgentAdoptsARunningPostgresql) {
  auto& n1 = primary();
  ASSERT_TRUE(world.sql(n1, "CREATE TABLE t AS SELECT 1 AS i"));
  const env::Pid postmaster = world.postmaster(n1), guard = world.guard_pid(n1);
  n1.shell.reset();
  world.open(n1);
  const auto status = world.sample(n1);
  EXPECT_EQ(status.run, PgRun::kPrimary);
  EXPECT_EQ(world.postmaster(n1), postmaster);
  EXPECT_EQ(world.guard_pid(n1), guard);
  EXPECT_TRUE(n1.exits.empty());
  ASSERT_DONE(world.run(n1, op::Checkpoint{}));
  ASSERT_DONE(world.run(n1, op::Kill{}));
  EXPECT_TRUE(all_dead(n1));
}

TEST_F(NodeGuard, ADeadlineThatPassedBeforeANewAgentCameHindersNoStart) {
  auto& n1 = primary();
  arm(n1, world.loop.now() + 200ms);
  ASSERT_DONE(world.run(n1, op::TerminateSenders{}));
  n1.shell.reset();
  ASSERT_TRUE(world.until([&] { return all_dead(n1); }));
  world.open(n1);
  ASSERT_DONE(world.run(n1, op::StartStandby{}));
}

TEST_F(NodeGuard, KillEndsAnOperationThatIsUnderWay) {
  auto [n1, n2] = world.pair();
  ASSERT_DONE(world.run(*n1, op::SetSync{{"nobody"}, false}));
  const auto verify =
      world.begin(*n2, op::VerifyReceived{world.upstream(*n1), {Timeline{9}, Lsn{1}}, 60000ms});
  ASSERT_DONE(world.run(*n2, op::Kill{}, 2s));
  EXPECT_FALSE(world.finish(*n2, verify, 3s));
  EXPECT_TRUE(all_dead(*n2));
  ASSERT_DONE(world.run(*n2, op::StartStandby{}));
}

TEST_F(NodeGuard, ASecondAgentInTheSameDirectoryIsRefused) {
  auto& n1 = world.add("n1");
  store::MemoryBackend backend("x");
  store::MemoryStore store(backend, world.loop);
  posix::ThreadPool pool(1);
  auto second =
      Shell::open(n1.config, {world.loop, pool, world.process, world.disk, store, world.entropy});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kConflict);
}

}  // namespace
}  // namespace bascule::node
