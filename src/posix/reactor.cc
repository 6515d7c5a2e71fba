#include "posix/reactor.h"

#include <errno.h>

#include <algorithm>
#include <utility>

namespace bascule::posix {
namespace {

class FunctionSink final : public EventSink {
 public:
  FunctionSink(std::move_only_function<void(uint32_t)> callback, uint32_t mask)
      : callback_(std::move(callback)), mask_(mask) {}
  void on_events(uint32_t events) override {
    if (const uint32_t ready = to_ready(events, mask_); ready != 0) callback_(ready);
  }

 private:
  std::move_only_function<void(uint32_t)> callback_;
  uint32_t mask_;
};

}  // namespace

uint32_t to_ready(uint32_t epoll_events, uint32_t ready_mask) {
  uint32_t ready = 0;
  if (epoll_events & (EPOLLIN | EPOLLPRI)) ready |= env::kReadable;
  if (epoll_events & EPOLLOUT) ready |= env::kWritable;
  if (epoll_events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP)) {
    ready |= env::kReadable | env::kWritable;
  }
  return ready & (ready_mask != 0 ? ready_mask : ready);
}

uint32_t to_epoll(uint32_t ready_mask) {
  uint32_t events = EPOLLRDHUP;
  if (ready_mask & env::kReadable) events |= EPOLLIN;
  if (ready_mask & env::kWritable) events |= EPOLLOUT;
  return events;
}

Reactor::Reactor() : epoll_(checked(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")) {
  for (const int fd : {wake_fd(), timer_fd()}) {
    watch(fd, env::kReadable, [fd](uint32_t) { read_away(fd); });
  }
}

Reactor::~Reactor() = default;

Reactor::Slot& Reactor::slot(int fd) {
  if (static_cast<size_t>(fd) >= slots_.size()) slots_.resize(static_cast<size_t>(fd) + 32);
  return slots_[static_cast<size_t>(fd)];
}

void Reactor::watch(int fd, uint32_t ready_mask,
                    std::move_only_function<void(uint32_t ready)> callback) {
  unwatch(fd);
  auto sink = std::make_unique<FunctionSink>(std::move(callback), ready_mask);
  add(fd, to_epoll(ready_mask) | EPOLLET, *sink);
  slot(fd).owned = std::move(sink);
}

void Reactor::unwatch(int fd) { remove(fd); }

void Reactor::add(int fd, uint32_t epoll_events, EventSink& sink) {
  Slot& s = slot(fd);
  s.sink = &sink;
  s.events = epoll_events;
  epoll_event event{};
  event.events = epoll_events;
  event.data.u64 = (uint64_t{s.generation} << 32) | static_cast<uint32_t>(fd);
  checked(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event), "epoll_ctl add");
}

void Reactor::modify(int fd, uint32_t epoll_events) {
  Slot& s = slot(fd);
  if (s.sink == nullptr || s.events == epoll_events) return;
  s.events = epoll_events;
  epoll_event event{};
  event.events = epoll_events;
  event.data.u64 = (uint64_t{s.generation} << 32) | static_cast<uint32_t>(fd);
  checked(::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event), "epoll_ctl mod");
}

void Reactor::remove(int fd) {
  if (fd < 0 || static_cast<size_t>(fd) >= slots_.size()) return;
  if (slots_[static_cast<size_t>(fd)].sink == nullptr) return;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  forget(fd);
}

void Reactor::forget(int fd) {
  if (fd < 0 || static_cast<size_t>(fd) >= slots_.size()) return;
  Slot& s = slots_[static_cast<size_t>(fd)];
  if (s.sink == nullptr) return;
  s.sink = nullptr;
  ++s.generation;
  if (s.owned) graveyard_.push_back(std::move(s.owned));
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

void Reactor::run() {
  begin_run();
  while (!stopping()) {
    const int timeout = prepare_wait() ? -1 : 0;
    const int count = ::epoll_wait(epoll_.get(), ready_, kEventsPerTurn, timeout);
    if (count < 0 && errno != EINTR) checked(count, "epoll_wait");
    const MonoTime began = begin_turn();
    dispatch(std::max(count, 0));
    finish_turn(began, static_cast<uint64_t>(std::max(count, 0)));
    graveyard_.clear();
  }
  end_run();
}

}  // namespace bascule::posix
