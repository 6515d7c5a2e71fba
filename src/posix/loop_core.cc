#include "posix/loop_core.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "base/log.h"
#include "posix/clock.h"

namespace bascule::posix {

int checked(int result, const char* what) {
  if (result < 0) {
    log(LogLevel::kError, "loop", "kernel refused a descriptor",
        {{"call", what}, {"error", ::strerror(errno)}});
    std::abort();
  }
  return result;
}

LoopCore::LoopCore()
    : wake_(checked(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "eventfd")),
      timer_fd_(checked(::timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC),
                        "timerfd_create")) {}

MonoTime LoopCore::now() const { return boot_now(); }
WallTime LoopCore::wall_now() const { return posix::wall_now(); }

env::TimerId LoopCore::call_at(MonoTime when, env::Callback callback) {
  return timers_.add(when, std::move(callback));
}

void LoopCore::cancel(env::TimerId id) { timers_.cancel(id); }

void LoopCore::read_away(int fd) {
  uint64_t value;
  [[maybe_unused]] const ssize_t n = ::read(fd, &value, sizeof value);
}

void LoopCore::post(env::Callback callback) {
  // The loop's own thread looks before it waits again.
  if (running()) {
    own_posts_.push_back(std::move(callback));
    return;
  }
  bool signal = false;
  {
    const std::lock_guard lock(mutex_);
    foreign_posts_.push_back(std::move(callback));
    signal = !woken_.exchange(true);
  }
  if (!signal) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_.get(), &one, sizeof one);
}

void LoopCore::stop() {
  stop_.store(true);
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_.get(), &one, sizeof one);
}

void LoopCore::begin_run() { owner_.store(std::this_thread::get_id()); }

void LoopCore::end_run() {
  stop_.store(false);
  owner_.store(std::thread::id{});
}

bool LoopCore::prepare_wait() {
  rearm_timer();
  return own_posts_.empty() && !woken_.load(std::memory_order_relaxed);
}

void LoopCore::rearm_timer() {
  const auto next = timers_.next();
  // A later deadline than the armed one costs a spurious turn at most; an earlier one must be set.
  if (!next || *next >= armed_) return;
  armed_ = *next;
  // A zero it_value would disarm the timer.
  const Nanos at = std::max(armed_.time_since_epoch(), Nanos(1));
  itimerspec spec{};
  spec.it_value.tv_sec = static_cast<time_t>(at.count() / 1'000'000'000);
  spec.it_value.tv_nsec = static_cast<long>(at.count() % 1'000'000'000);
  checked(::timerfd_settime(timer_fd_.get(), TFD_TIMER_ABSTIME, &spec, nullptr), "timerfd_settime");
}

void LoopCore::fire_timers(MonoTime time) {
  // rearm_timer() keeps armed_ <= the earliest deadline.
  if (time < armed_) return;
  armed_ = MonoTime::max();
  const uint64_t mark = timers_.mark();
  while (auto callback = timers_.pop_due(time, mark)) {
    counters_.add_timer();
    (*callback)();
  }
}

void LoopCore::run_posted() {
  if (!own_posts_.empty()) {
    running_.swap(own_posts_);
    for (env::Callback& callback : running_) callback();
    counters_.add_posted(running_.size());
    running_.clear();
  }
  if (!woken_.load(std::memory_order_acquire)) return;
  std::vector<env::Callback> batch;
  {
    const std::lock_guard lock(mutex_);
    batch.swap(foreign_posts_);
    woken_.store(false);
  }
  for (env::Callback& callback : batch) callback();
  counters_.add_posted(batch.size());
}

void LoopCore::finish_turn(MonoTime began, uint64_t events) {
  // A deadline that passes while the turn runs makes the timer's descriptor readable.
  fire_timers(began);
  run_posted();
  counters_.add_turn(events, now() - began);
}

}  // namespace bascule::posix
