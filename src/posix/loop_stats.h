// What one loop has done since it started: the loop's thread writes, any thread may read.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/time.h"
#include "env/loop_stats.h"

namespace bascule::posix {

using env::LoopStats;

class LoopCounters {
 public:
  LoopStats read() const {
    LoopStats s;
    s.turns = turns_.load(std::memory_order_relaxed);
    s.events = events_.load(std::memory_order_relaxed);
    s.posted = posted_.load(std::memory_order_relaxed);
    s.timers_fired = timers_.load(std::memory_order_relaxed);
    s.busy = Nanos(busy_.load(std::memory_order_relaxed));
    s.longest_turn = Nanos(longest_.load(std::memory_order_relaxed));
    return s;
  }

  void add_turn(uint64_t events, Nanos busy) {
    bump(turns_, 1);
    bump(events_, events);
    bump(busy_, busy.count());
    if (busy.count() > longest_.load(std::memory_order_relaxed)) {
      longest_.store(busy.count(), std::memory_order_relaxed);
    }
  }
  void add_posted(uint64_t n) { bump(posted_, n); }
  void add_timer() { bump(timers_, 1); }

 private:
  // One writer: a plain load and store is enough, and cheaper than a locked add.
  template <typename T, typename N>
  static void bump(std::atomic<T>& counter, N n) {
    counter.store(counter.load(std::memory_order_relaxed) + static_cast<T>(n),
                  std::memory_order_relaxed);
  }
  std::atomic<uint64_t> turns_{0}, events_{0}, posted_{0}, timers_{0};
  std::atomic<int64_t> busy_{0}, longest_{0};
};

}  // namespace bascule::posix
