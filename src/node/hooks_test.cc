#include "node/hooks.h"

#include <gtest/gtest.h>

#include <condition_variable>

#include "posix/blocking_pool.h"
#include "posix/clock.h"
#include "posix/process.h"

namespace bascule::node {
namespace {

using control::PgRun;
using control::Phase;
using Role = RoleWatch::Role;

RoleWatch::Change see(RoleWatch& watch, Phase phase, PgRun run) {
  control::PgStatus status;
  status.run = run;
  return watch.observe(phase, status);
}

TEST(RoleWatch, AReplicaThatIsPromotedChangesItsRoleOnceAndOnlyWhenItIsWritable) {
  RoleWatch watch;
  EXPECT_TRUE(see(watch, Phase::kFollowing, PgRun::kStandby).started);
  for (const Phase phase : {Phase::kBalloting, Phase::kCandidate, Phase::kTakingOver}) {
    const auto change = see(watch, phase, PgRun::kStandby);
    EXPECT_EQ(change.from, change.to);
  }
  EXPECT_EQ(see(watch, Phase::kPromoting, PgRun::kPrimary).to, Role::kReplica);
  const auto change = see(watch, Phase::kLeading, PgRun::kPrimary);
  EXPECT_EQ(change.from, Role::kReplica);
  EXPECT_EQ(change.to, Role::kPrimary);
  EXPECT_FALSE(change.started || change.stopped);
  const auto gone = see(watch, Phase::kStandingDown, PgRun::kStopped);
  EXPECT_EQ(gone.to, Role::kNone);
  EXPECT_TRUE(gone.stopped);
}

class HooksTest : public ::testing::Test {
 protected:
  void run(std::vector<std::string> command, Millis timeout, int events) {
    HookConfig config;
    config.on_role_change = std::move(command);
    config.timeout = timeout;
    Hooks hooks(config, pool_, process_, clock_, [this](NoteRecord note) {
      const std::lock_guard lock(mutex_);
      notes_.push_back(std::move(note));
      changed_.notify_all();
    });
    for (int i = 0; i < events; ++i) {
      hooks.fire("role_change", {{"role", "primary"}, {"epoch", std::to_string(i)}});
    }
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, 20s, [&] { return notes_.size() == size_t(events); }));
  }

  posix::SystemClock clock_;
  posix::PosixProcess process_;
  posix::ThreadPool pool_{2};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<NoteRecord> notes_;
};

TEST_F(HooksTest, TheCommandGetsTheFactsAndItsOutputIsNotedInOrder) {
  run({"/bin/sh", "-c", "echo $BASCULE_EVENT $BASCULE_ROLE $BASCULE_EPOCH"}, 10s, 3);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(notes_[i].level, LogLevel::kInfo);
    EXPECT_EQ(notes_[i].fields.back().second, "role_change primary " + std::to_string(i));
  }
}

TEST_F(HooksTest, ACommandThatHangsIsKilledAtItsLimitAndTheNextOneRuns) {
  run({"/bin/sh", "-c", "echo begun; exec sleep 60"}, 300ms, 2);
  EXPECT_EQ(notes_[1].level, LogLevel::kWarn);
  EXPECT_EQ(notes_[1].fields.back().second, "begun") << "what it said before";
}

TEST_F(HooksTest, IdleIsSaidOnceEverythingThatWaitsHasRun) {
  HookConfig config;
  config.on_stop = {"/bin/sh", "-c", "exit 0"};
  size_t ended = 0;
  bool idle = false;
  Hooks hooks(config, pool_, process_, clock_, [&](const NoteRecord&) {
    const std::lock_guard lock(mutex_);
    ++ended;
  });
  bool at_once = false;
  hooks.when_idle([&] { at_once = true; });
  EXPECT_TRUE(at_once) << "nothing runs";
  for (int i = 0; i < 3; ++i) hooks.fire("stop", {});
  hooks.when_idle([&] {
    const std::lock_guard lock(mutex_);
    EXPECT_EQ(ended, 3);
    idle = true;
    changed_.notify_all();
  });
  std::unique_lock lock(mutex_);
  ASSERT_TRUE(changed_.wait_for(lock, 20s, [&] { return idle; }));
}

TEST_F(HooksTest, ACommandThatFailsOrIsNotThereIsSaidSo) {
  run({"/nonexistent/hook"}, 1s, 1);
  EXPECT_EQ(notes_[0].level, LogLevel::kWarn);
}

}  // namespace
}  // namespace bascule::node
