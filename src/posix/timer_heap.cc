#include "posix/timer_heap.h"

#include <algorithm>
#include <utility>

namespace bascule::posix {

using env::TimerId;

bool TimerHeap::later(const Entry& a, const Entry& b) {
  return a.when != b.when ? a.when > b.when : a.order > b.order;
}

TimerId TimerHeap::add(MonoTime when, env::Callback callback) {
  uint32_t slot;
  if (free_.empty()) {
    slot = static_cast<uint32_t>(slots_.size());
    slots_.emplace_back();
  } else {
    slot = free_.back();
    free_.pop_back();
  }
  slots_[slot].callback = std::move(callback);
  const uint32_t generation = slots_[slot].generation;
  heap_.push_back(Entry{when, ++order_, slot, generation});
  std::push_heap(heap_.begin(), heap_.end(), later);
  ++live_;
  return static_cast<TimerId>((uint64_t{generation} << 32) | slot);
}

env::Callback TimerHeap::release(uint32_t slot) {
  env::Callback callback = std::move(slots_[slot].callback);
  slots_[slot].callback = nullptr;
  // 0 is skipped, so that no id is ever TimerId::kNone.
  if (++slots_[slot].generation == 0) slots_[slot].generation = 1;
  free_.push_back(slot);
  --live_;
  return callback;
}

void TimerHeap::cancel(TimerId id) {
  const auto value = static_cast<uint64_t>(id);
  const auto slot = static_cast<uint32_t>(value);
  if (slot >= slots_.size() || slots_[slot].generation != static_cast<uint32_t>(value >> 32)) {
    return;
  }
  // The callback may own what its destruction cancels in turn: it dies last.
  const env::Callback dying = release(slot);
  compact_if_mostly_stale();
}

void TimerHeap::compact_if_mostly_stale() {
  if (heap_.size() < 64 || heap_.size() < 2 * live_) return;
  std::erase_if(heap_, [this](const Entry& e) { return stale(e); });
  std::make_heap(heap_.begin(), heap_.end(), later);
}

void TimerHeap::drop_stale_top() {
  while (!heap_.empty() && stale(heap_.front())) {
    std::pop_heap(heap_.begin(), heap_.end(), later);
    heap_.pop_back();
  }
}

std::optional<MonoTime> TimerHeap::next() {
  drop_stale_top();
  if (heap_.empty()) return std::nullopt;
  return heap_.front().when;
}

std::optional<env::Callback> TimerHeap::pop_due(MonoTime now) { return pop_due(now, order_); }

std::optional<env::Callback> TimerHeap::pop_due(MonoTime now, uint64_t mark) {
  drop_stale_top();
  if (heap_.empty() || heap_.front().when > now || heap_.front().order > mark) return std::nullopt;
  const uint32_t slot = heap_.front().slot;
  std::pop_heap(heap_.begin(), heap_.end(), later);
  heap_.pop_back();
  return release(slot);
}

}  // namespace bascule::posix
