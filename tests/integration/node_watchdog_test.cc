// The guard with a watchdog device, against real PostgreSQL servers. The device is a FIFO, see
// fake_watchdog.cc. The program's main() is node_ops_test.cc's.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "posix/unique_fd.h"
#include "tests/integration/fake_watchdog.h"
#include "tests/integration/node_world.h"

namespace bascule::node {
namespace {

namespace op = control::op;
namespace effect = control::effect;

class NodeWatchdog : public NodeOps {
 protected:
  World::Member& member(const std::string& environment = "") {
    auto& out = world.add("n1", [&](NodeConfig& config) {
      std::filesystem::create_directories(config.run_dir);
      config.watchdog.device = config.run_dir + "/watchdog";
      EXPECT_EQ(::mkfifo(config.watchdog.device.c_str(), 0600), 0);
      device_.reset(::open(config.watchdog.device.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
      config.program = config.run_dir + "/guard.sh";
      std::ofstream(config.program) << "#!/bin/sh\n"
                                    << environment << " LD_PRELOAD=" << FAKE_WATCHDOG << " exec "
                                    << world.process.self_program() << " \"$@\"\n";
      std::filesystem::permissions(config.program, std::filesystem::perms::owner_all);
    });
    return out;
  }
  // As a node does for a cluster's ttl; waits until the guard has tried the device.
  void ask_for_it(World::Member& n1, Millis ttl) {
    n1.shell->watchdog(ttl, [this](bool usable) { usable_ = usable; });
    EXPECT_TRUE(world.until([&] { return usable_.has_value(); }));
  }
  void arm(World::Member& n1, MonoTime deadline) {
    control::Effects effects;
    effects.push_back(effect::ArmGuard{deadline});
    n1.shell->perform(std::move(effects));
  }
  void disarm(World::Member& n1) {
    control::Effects effects;
    effects.push_back(effect::DisarmGuard{});
    n1.shell->perform(std::move(effects));
  }
  void primary(World::Member& n1) {
    ASSERT_DONE(world.run(n1, op::InitDb{}));
    ASSERT_DONE(world.run(n1, op::StartPrimary{}));
  }
  // All that was done to the device so far.
  const std::vector<WatchdogDeed>& deeds() {
    WatchdogDeed deed;
    while (::read(device_.get(), &deed, sizeof deed) == sizeof deed) deeds_.push_back(deed);
    return deeds_;
  }
  std::string story() {
    std::string out;
    for (const WatchdogDeed& deed : deeds()) out += deed.what;
    return out;
  }
  size_t pats() {
    return static_cast<size_t>(std::ranges::count(deeds(), 'P', &WatchdogDeed::what));
  }
  bool more_pats(Nanos within) {
    return world.until([this, before = pats()] { return pats() > before + 2; }, within);
  }

  std::optional<bool> usable_;

 private:
  posix::UniqueFd device_;
  std::vector<WatchdogDeed> deeds_;
};

TEST_F(NodeWatchdog, IsTriedAtOnceAndRunsWhileADeadlineIsArmed) {
  auto& n1 = member();
  ask_for_it(n1, 5s);
  EXPECT_TRUE(*usable_);
  EXPECT_EQ(story(), "TPSV");
  EXPECT_EQ(deeds().front().seconds, 2);
  primary(n1);
  EXPECT_EQ(story(), "TPSV");
  arm(n1, world.loop.now() + 60s);
  EXPECT_TRUE(more_pats(5s));
  EXPECT_NE(n1.shell->guard_description().find("watchdog active"), std::string::npos);
  disarm(n1);
  EXPECT_TRUE(world.until([&] { return story().ends_with("SV"); }));
}

TEST_F(NodeWatchdog, IsLeftAloneInTimeForTheMachineToBeGoneBeforeTheRecordExpires) {
  auto& n1 = member();
  ask_for_it(n1, 2s);
  primary(n1);
  const WatchdogTimes times = *watchdog_times(2s);
  const MonoTime armed_at = world.loop.now();
  const MonoTime deadline = armed_at + 1200ms;
  arm(n1, deadline);
  n1.shell.reset();  // nobody renews
  const Nanos reset_at = deadline.time_since_epoch() + times.reset_after;
  ASSERT_TRUE(
      world.until([&] { return !deeds().empty() && Nanos(deeds().back().at_ns) >= reset_at; }, 10s))
      << "the guard has killed PostgreSQL, and pats again";
  Nanos last{};  // pat before the deadline
  for (const WatchdogDeed& deed : deeds()) {
    const Nanos at(deed.at_ns);
    if (deed.what == 'P' && at < deadline.time_since_epoch()) last = at;
  }
  EXPECT_GT(last, armed_at.time_since_epoch());
  EXPECT_LE(last + times.timeout, reset_at + 10ms);
  EXPECT_TRUE(world.process.in_directory(n1.config.data_dir, "postgres").empty());
}

TEST_F(NodeWatchdog, OneThatCannotBeStoppedIsPattedOn) {
  auto& n1 = member("NOWAYOUT=1");
  ask_for_it(n1, 2s);
  EXPECT_TRUE(*usable_);
  EXPECT_TRUE(more_pats(5s));
  disarm(n1);
  EXPECT_TRUE(more_pats(5s));
}

TEST_F(NodeWatchdog, WhatIsNoDeviceIsSaid) {
  auto& n1 = world.add("n1", [](NodeConfig& config) { config.watchdog.device = "/dev/null"; });
  ask_for_it(n1, 5s);
  EXPECT_FALSE(*usable_);
  ASSERT_FALSE(n1.shell->notes().empty());
  EXPECT_EQ(n1.shell->notes().back().what, "no watchdog");
  // Nor is there one for a ttl that is too short.
  usable_.reset();
  ask_for_it(n1, 1s);
  EXPECT_FALSE(*usable_);
}

}  // namespace
}  // namespace bascule::node
