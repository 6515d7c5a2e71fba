// Timers of one loop: a binary heap of deadlines beside a table of callbacks. Cancelling is O(1):
// the heap's entry stays until it reaches the top or until more than half of the heap is stale.
// Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "env/loop.h"

namespace bascule::posix {

class TimerHeap {
 public:
  env::TimerId add(MonoTime when, env::Callback callback);
  void cancel(env::TimerId id);  // unknown or fired ids are ignored

  // Deadline of the earliest live timer.
  std::optional<MonoTime> next();
  // Takes the earliest timer out if it is due. Equal deadlines come in order of creation.
  std::optional<env::Callback> pop_due(MonoTime now);

  size_t size() const { return live_; }
  // Timers with an order number above this were created later than this call.
  uint64_t mark() const { return order_; }
  // As pop_due, for timers created up to `mark` only: a timer that re-creates itself as already due
  // must not keep the loop from its other work.
  std::optional<env::Callback> pop_due(MonoTime now, uint64_t mark);

 private:
  struct Entry {
    MonoTime when;
    uint64_t order;
    uint32_t slot;
    uint32_t generation;
  };
  struct Slot {
    uint32_t generation = 1;
    env::Callback callback;
  };
  static bool later(const Entry& a, const Entry& b);
  bool stale(const Entry& e) const { return slots_[e.slot].generation != e.generation; }
  env::Callback release(uint32_t slot);
  void drop_stale_top();
  void compact_if_mostly_stale();

  std::vector<Entry> heap_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  size_t live_ = 0;
  uint64_t order_ = 0;
};

}  // namespace bascule::posix
