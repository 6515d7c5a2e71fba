#include "posix/reactor.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include <cstdlib>
#include <utility>

#include "base/log.h"
#include "posix/clock.h"

namespace bascule::posix {
namespace {

int checked(int result, const char* what) {
  if (result < 0) {
    log(LogLevel::kError, "loop", "kernel refused a descriptor",
        {{"call", what}, {"error", ::strerror(errno)}});
    std::abort();
  }
  return result;
}

class FunctionSink final : public EventSink {
 public:
  FunctionSink(std::move_only_function<void(uint32_t)> callback, uint32_t mask)
      : callback_(std::move(callback)), mask_(mask) {}
  void on_events(uint32_t events) override {
    uint32_t ready = 0;
    if (events & (EPOLLIN | EPOLLPRI)) ready |= env::kReadable;
    if (events & EPOLLOUT) ready |= env::kWritable;
    if (events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP)) ready |= env::kReadable | env::kWritable;
    ready &= mask_ != 0 ? mask_ : ready;
    if (ready != 0) callback_(ready);
  }

 private:
  std::move_only_function<void(uint32_t)> callback_;
  uint32_t mask_;
};

uint32_t to_epoll(uint32_t ready_mask) {
  uint32_t events = EPOLLRDHUP;
  if (ready_mask & env::kReadable) events |= EPOLLIN;
  if (ready_mask & env::kWritable) events |= EPOLLOUT;
  return events;
}

}  // namespace

Reactor::Reactor()
    : epoll_(checked(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")),
      wake_(checked(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "eventfd")),
      timer_fd_(
          checked(::timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC), "timerfd_create")) {
  // Their readiness only ends the wait; what there is to do is seen from timers_ and posted_.
  auto discard = [](int fd) {
    return [fd](uint32_t) {
      uint64_t value;
      [[maybe_unused]] const ssize_t n = ::read(fd, &value, sizeof value);
    };
  };
  watch(wake_.get(), env::kReadable, discard(wake_.get()));
  watch(timer_fd_.get(), env::kReadable, discard(timer_fd_.get()));
}

Reactor::~Reactor() = default;

MonoTime Reactor::now() const { return boot_now(); }
WallTime Reactor::wall_now() const { return posix::wall_now(); }

env::TimerId Reactor::call_at(MonoTime when, env::Callback callback) {
  return timers_.add(when, std::move(callback));
}

void Reactor::cancel(env::TimerId id) { timers_.cancel(id); }

Reactor::Slot& Reactor::slot(int fd) {
  if (static_cast<size_t>(fd) >= slots_.size()) slots_.resize(static_cast<size_t>(fd) + 32);
  return slots_[static_cast<size_t>(fd)];
}

void Reactor::watch(int fd, uint32_t ready_mask,
                    std::move_only_function<void(uint32_t ready)> callback) {
  unwatch(fd);
  auto sink = std::make_unique<FunctionSink>(std::move(callback), ready_mask);
  add(fd, to_epoll(ready_mask), *sink);
  slot(fd).owned = std::move(sink);
}

void Reactor::unwatch(int fd) { remove(fd); }

void Reactor::add(int fd, uint32_t epoll_events, EventSink& sink) {
  Slot& s = slot(fd);
  s.sink = &sink;
  s.events = epoll_events;
  epoll_event event{};
  event.events = epoll_events | EPOLLET;
  event.data.u64 = (uint64_t{s.generation} << 32) | static_cast<uint32_t>(fd);
  checked(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event), "epoll_ctl add");
}

void Reactor::modify(int fd, uint32_t epoll_events) {
  Slot& s = slot(fd);
  if (s.sink == nullptr || s.events == epoll_events) return;
  s.events = epoll_events;
  epoll_event event{};
  event.events = epoll_events | EPOLLET;
  event.data.u64 = (uint64_t{s.generation} << 32) | static_cast<uint32_t>(fd);
  checked(::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event), "epoll_ctl mod");
}

void Reactor::remove(int fd) {
  if (fd < 0 || static_cast<size_t>(fd) >= slots_.size()) return;
  Slot& s = slots_[static_cast<size_t>(fd)];
  if (s.sink == nullptr) return;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  s.sink = nullptr;
  ++s.generation;
  if (s.owned) graveyard_.push_back(std::move(s.owned));
}

void Reactor::post(env::Callback callback) {
  // The loop's own thread looks at posted_ before it waits again.
  const bool needs_wake = !on_loop_thread();
  bool signal = false;
  {
    const std::lock_guard lock(mutex_);
    posted_.push_back(std::move(callback));
    if (needs_wake && !woken_) signal = woken_ = true;
  }
  if (signal) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(wake_.get(), &one, sizeof one);
  }
}

void Reactor::stop() {
  stop_.store(true);
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_.get(), &one, sizeof one);
}

bool Reactor::wants_immediate_turn() {
  const std::lock_guard lock(mutex_);
  return !posted_.empty();
}

void Reactor::rearm_timer() {
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

void Reactor::dispatch(int count) {
  for (int i = 0; i < count; ++i) {
    const auto fd = static_cast<uint32_t>(ready_[i].data.u64);
    const auto generation = static_cast<uint32_t>(ready_[i].data.u64 >> 32);
    const Slot& s = slots_[fd];
    // Removed, or closed and reused by somebody else, earlier in this turn.
    if (s.sink == nullptr || s.generation != generation) continue;
    s.sink->on_events(ready_[i].events);
  }
}

void Reactor::fire_timers() {
  if (armed_ == MonoTime::max()) return;  // rearm_timer() keeps armed_ <= the earliest deadline
  const MonoTime time = now();
  if (time < armed_) return;
  armed_ = MonoTime::max();
  const uint64_t mark = timers_.mark();
  while (auto callback = timers_.pop_due(time, mark)) {
    counters_.add_timer();
    (*callback)();
  }
}

void Reactor::run_posted() {
  std::vector<env::Callback> batch;
  {
    const std::lock_guard lock(mutex_);
    batch.swap(posted_);
    woken_ = false;
  }
  for (env::Callback& callback : batch) callback();
  counters_.add_posted(batch.size());
}

void Reactor::run() {
  owner_.store(std::this_thread::get_id());
  while (!stop_.load()) {
    rearm_timer();
    const int timeout = wants_immediate_turn() ? 0 : -1;
    const int count = ::epoll_wait(epoll_.get(), ready_, kEventsPerTurn, timeout);
    if (count < 0 && errno != EINTR) checked(count, "epoll_wait");
    const MonoTime start = now();
    dispatch(std::max(count, 0));
    fire_timers();
    run_posted();
    graveyard_.clear();
    counters_.add_turn(static_cast<uint64_t>(std::max(count, 0)), now() - start);
  }
  stop_.store(false);
  owner_.store(std::thread::id{});
}

}  // namespace bascule::posix
