// The contract of env::Loop, held by the loops of both engines.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <future>
#include <thread>

#include "posix/blocking_pool.h"
#include "posix/engine_testing.h"
#include "posix/timer_heap.h"

namespace bascule::posix {
namespace {

class LoopTest : public EngineTest {};
INSTANTIATE_TEST_SUITE_P(Engines, LoopTest, testing::ValuesIn(engines_here()), engine_name);

struct Pipe {
  Pipe() {
    int fds[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) != 0) std::abort();
    a.reset(fds[0]);
    b.reset(fds[1]);
  }
  void write_b() { ASSERT_EQ(::write(b.get(), "x", 1), 1); }
  UniqueFd a, b;
};

TEST_P(LoopTest, TimersFireInOrderOfDeadlineThenOfCreation) {
  std::vector<int> order;
  const MonoTime t = loop.now();
  loop.call_at(t + 20ms, [&] {
    order.push_back(3);
    loop.stop();
  });
  loop.call_at(t + 10ms, [&] { order.push_back(1); });
  loop.call_at(t + 10ms, [&] { order.push_back(2); });
  loop.run();
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
  EXPECT_GE(loop.now() - t, 20ms);
  EXPECT_EQ(loop.stats().timers_fired, 3u);
}

TEST_P(LoopTest, CancelledTimerDoesNotFireEvenIfCancelledByOneOfTheSameTurn) {
  const MonoTime t = loop.now();
  env::TimerId victim = env::TimerId::kNone;
  bool fired = false;
  loop.call_at(t, [&] { loop.cancel(victim); });
  victim = loop.call_at(t, [&] { fired = true; });
  loop.call_at(t + 5ms, [&] { loop.stop(); });
  loop.run();
  EXPECT_FALSE(fired);
}

TEST_P(LoopTest, TimerThatRecreatesItselfAsDueDoesNotStarveDescriptors) {
  Pipe pipe;
  std::function<void()> again = [&] { loop.call_at(loop.now(), [&] { again(); }); };
  again();
  loop.watch(pipe.a.get(), env::kReadable, [&](uint32_t) { loop.stop(); });
  pipe.write_b();
  loop.run();
}

TEST_P(LoopTest, EarlierTimerReplacesTheArmedOne) {
  const MonoTime t = loop.now();
  loop.call_at(t + 10s, [&] { FAIL(); });
  loop.post([&] { loop.call_after(5ms, [&] { loop.stop(); }); });
  loop.run();
  EXPECT_LT(loop.now() - t, 5s);
}

TEST_P(LoopTest, WatchReportsReadableOnceAnEdge) {
  Pipe pipe;
  int calls = 0;
  loop.watch(pipe.a.get(), env::kReadable, [&](uint32_t ready) {
    EXPECT_EQ(ready, env::kReadable);
    ++calls;
  });
  pipe.write_b();
  loop.call_after(20ms, [&] { loop.stop(); });
  loop.run();
  EXPECT_EQ(calls, 1);
}

TEST_P(LoopTest, HangUpIsReportedToReadersAndWriters) {
  Pipe pipe;
  uint32_t seen = 0;
  loop.watch(pipe.a.get(), env::kReadable | env::kWritable, [&](uint32_t ready) {
    seen |= ready;
    char c;
    if (::read(pipe.a.get(), &c, 1) == 0) loop.stop();
  });
  pipe.b.reset();
  loop.run();
  EXPECT_EQ(seen, env::kReadable | env::kWritable);
}

TEST_P(LoopTest, DescriptorRemovedByAnotherCallbackOfTheTurnIsNotCalled) {
  Pipe one, two;
  int calls = 0;
  auto callback = [&](uint32_t) {
    ++calls;
    loop.unwatch(one.a.get());
    loop.unwatch(two.a.get());
    loop.call_after(5ms, [&] { loop.stop(); });
  };
  loop.watch(one.a.get(), env::kReadable, callback);
  loop.watch(two.a.get(), env::kReadable, callback);
  one.write_b();
  two.write_b();
  loop.run();
  EXPECT_EQ(calls, 1);
}

TEST_P(LoopTest, LateEventOfAClosedDescriptorDoesNotReachItsSuccessor) {
  Pipe one, two, next;
  bool wrong = false;
  auto replace = [&](Pipe& other) {
    return [&](uint32_t) {
      const int number = other.a.get();
      loop.unwatch(number);
      // The same number now names a descriptor without anything to read.
      ASSERT_EQ(::dup2(next.a.get(), number), number);
      loop.watch(number, env::kReadable, [&](uint32_t) { wrong = true; });
      loop.unwatch(&other == &one ? two.a.get() : one.a.get());
      loop.call_after(5ms, [&] { loop.stop(); });
    };
  };
  loop.watch(one.a.get(), env::kReadable, replace(two));
  loop.watch(two.a.get(), env::kReadable, replace(one));
  one.write_b();
  two.write_b();
  loop.run();
  EXPECT_FALSE(wrong);
}

TEST_P(LoopTest, CallbackMayRemoveItselfAndItsStateLivesToTheEndOfTheCall) {
  Pipe pipe;
  auto token = std::make_unique<int>(7);
  int seen = 0;
  loop.watch(pipe.a.get(), env::kReadable, [&, token = std::move(token)](uint32_t) {
    loop.unwatch(pipe.a.get());
    seen = *token;
    loop.stop();
  });
  pipe.write_b();
  loop.run();
  EXPECT_EQ(seen, 7);
}

TEST_P(LoopTest, PostFromAnotherThreadWakesTheLoopAndKeepsOrder) {
  std::vector<int> order;
  std::thread other([&] {
    for (int i = 0; i < 1000; ++i) loop.post([&order, i] { order.push_back(i); });
    loop.post([&] { loop.stop(); });
  });
  loop.run();
  other.join();
  ASSERT_EQ(order.size(), 1000u);
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST_P(LoopTest, PostFromACallbackRunsInALaterTurn) {
  uint64_t first = 0, second = 0;
  loop.post([&] {
    first = loop.stats().turns;
    loop.post([&] {
      second = loop.stats().turns;
      loop.stop();
    });
  });
  loop.run();
  EXPECT_EQ(second, first + 1);
}

TEST(ThreadPool, RunsEverythingThatWasSubmittedBeforeItEnds) {
  std::atomic<int> done{0};
  {
    ThreadPool pool(2);
    for (int i = 0; i < 100; ++i) pool.submit([&] { ++done; });
  }
  EXPECT_EQ(done, 100);
}

TEST(ThreadPool, OneBlockedThreadDoesNotStopTheOthers) {
  ThreadPool pool(2);
  std::promise<void> gate, passed;
  pool.submit([&] { gate.get_future().wait(); });
  pool.submit([&] { passed.set_value(); });
  EXPECT_EQ(passed.get_future().wait_for(10s), std::future_status::ready);
  gate.set_value();
}

TEST(TimerHeap, CancellingMostTimersKeepsTheOthers) {
  TimerHeap heap;
  std::vector<env::TimerId> ids;
  for (int i = 0; i < 1000; ++i) ids.push_back(heap.add(MonoTime(Nanos(1000 - i)), [] {}));
  for (int i = 0; i < 1000; ++i) {
    if (i != 500) heap.cancel(ids[static_cast<size_t>(i)]);
  }
  EXPECT_EQ(heap.size(), 1u);
  EXPECT_EQ(heap.next(), MonoTime(Nanos(500)));
  EXPECT_FALSE(heap.pop_due(MonoTime(Nanos(499))));
  EXPECT_TRUE(heap.pop_due(MonoTime(Nanos(500))));
  EXPECT_EQ(heap.size(), 0u);
  heap.cancel(ids[500]);
  EXPECT_EQ(heap.size(), 0u);
}

}  // namespace
}  // namespace bascule::posix
