#include "sim/world.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace bascule::sim {
namespace {

TEST(World, EventsRunInTheOrderOfTheirTimesAndThenOfTheirScheduling) {
  World world(1);
  std::string order;
  world.at(millis(2), ProcessId::kWorld, [&] { order += 'c'; });
  world.at(millis(1), ProcessId::kWorld, [&] { order += 'a'; });
  world.at(millis(1), ProcessId::kWorld, [&] { order += 'b'; });
  EXPECT_TRUE(world.run_until(millis(5)));
  EXPECT_EQ(order, "abc");
  EXPECT_EQ(world.now(), millis(5));
}

TEST(World, EventsOfADeadProcessAreDroppedAndThoseOfAStoppedOneWait) {
  World world(1);
  const ProcessId dead = world.spawn(0);
  const ProcessId stopped = world.spawn(0);
  int ran = 0;
  world.at(millis(1), dead, [&] { ran += 100; });
  world.at(millis(1), stopped, [&] { ran += 1; });
  world.kill(dead);
  world.stop(stopped);
  world.run_until(millis(5));
  EXPECT_EQ(ran, 0);
  world.resume(stopped);
  world.run_until(millis(6));
  EXPECT_EQ(ran, 1);
}

TEST(World, ClockOfASuspendedHostGoesOnAndThatOfAPausedGuestDoesNot) {
  World world(1);
  world.freeze(0, World::FrozenClock::kRuns);
  world.freeze(1, World::FrozenClock::kStops);
  world.run_until(millis(1000));
  world.thaw(0);
  world.thaw(1);
  EXPECT_EQ(world.local(0), MonoTime(millis(1000)));
  EXPECT_EQ(world.local(1), MonoTime(millis(0)));
}

TEST(World, WrongClockRateMakesATimerFireAtTheHostsOwnTime) {
  World world(1);
  world.clock(0).rate = 1.05;
  world.clock(0).offset_ns = 77777;
  const MonoTime deadline = world.local(0) + millis(1050);
  const SimTime fires = world.clock(0).true_at(deadline);
  EXPECT_GE(world.clock(0).local(fires), deadline);
  EXPECT_NEAR(static_cast<double>(fires.count()), 1e9, 2e6);
}

TEST(World, CutLinkLosesMessagesOneWayOnlyAndAlsoThoseUnderWay) {
  World world(1);
  int delivered = 0;
  world.cut(0, 1);
  EXPECT_FALSE(world.send(0, 1, ProcessId::kWorld, [&] { delivered += 1; }));
  EXPECT_TRUE(world.send(1, 0, ProcessId::kWorld, [&] { delivered += 10; }));
  world.heal(0, 1);
  EXPECT_TRUE(world.send(0, 1, ProcessId::kWorld, [&] { delivered += 100; }));
  world.cut(0, 1);
  world.run_until(millis(200));
  EXPECT_EQ(delivered, 10);
}

TEST(World, SameSeedGivesTheSameHashAndAnotherSeedAnother) {
  const auto run = [](uint64_t seed) {
    World world(seed);
    for (int i = 0; i < 50; ++i) world.send(0, 1, ProcessId::kWorld, [] {});
    world.run_until(millis(500));
    return world.hash();
  };
  EXPECT_EQ(run(7), run(7));
  EXPECT_NE(run(7), run(8));
}

TEST(World, ManyEventsRunInTheOrderOfTheirTimes) {
  World world(1);
  Prng random = world.stream("times");
  std::vector<SimTime> ran;
  for (int i = 0; i < 500; ++i) {
    world.at(micros(random.between(1, 200)), ProcessId::kWorld, [&] {
      ran.push_back(world.now());
      if (ran.size() < 2000) {
        world.after(micros(random.between(0, 90)), ProcessId::kWorld,
                    [&] { ran.push_back(world.now()); });
      }
    });
  }
  world.run_until(millis(5));
  EXPECT_EQ(ran.size(), 1000u);
  EXPECT_TRUE(std::ranges::is_sorted(ran));
}

TEST(World, AQuietEventDisturbsNobodyAndAnyOtherOnce) {
  World world(1);
  const ProcessId process = world.spawn(0);
  int disturbed = 0;
  world.when_disturbed(process, [&] { ++disturbed; });
  world.after_quietly(millis(1), process, [] {});
  world.run_until(millis(2));
  EXPECT_EQ(disturbed, 0);
  world.after(millis(1), process, [] {});
  world.after(millis(2), process, [] {});
  world.run_until(millis(5));
  EXPECT_EQ(disturbed, 1);
  EXPECT_EQ(world.events_of(process), 2u);
  for (const auto change : {&World::stop, &World::resume, &World::kill}) {
    world.when_disturbed(process, [&] { ++disturbed; });
    (world.*change)(process);
  }
  EXPECT_EQ(disturbed, 4);
}

}  // namespace
}  // namespace bascule::sim
