// env::Loop over epoll. Turn: wait, dispatch ready descriptors, fire due timers, run what was
// posted, free what was removed. The thread that calls run() is the loop's thread; before that,
// everything may be called by the thread that owns the object.
//
// Deadlines are CLOCK_BOOTTIME through a timerfd: an epoll timeout would stand still while the
// machine is suspended, and a fencing deadline must pass then too (`man 2 timerfd_create`).
#pragma once

#include <sys/epoll.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "env/loop.h"
#include "posix/loop_stats.h"
#include "posix/timer_heap.h"
#include "posix/unique_fd.h"

namespace bascule::posix {

// Receives raw epoll bits (EPOLLIN, EPOLLRDHUP, ...): for engines that need more than env::Ready.
class EventSink {
 public:
  virtual ~EventSink() = default;
  virtual void on_events(uint32_t epoll_events) = 0;
};

class Reactor final : public env::Loop {
 public:
  Reactor();  // aborts if the kernel refuses an epoll, event or timer descriptor
  ~Reactor() override;
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;

  MonoTime now() const override;
  WallTime wall_now() const override;
  env::TimerId call_at(MonoTime when, env::Callback callback) override;
  void cancel(env::TimerId id) override;
  // Watching a descriptor again replaces its callback and mask.
  void watch(int fd, uint32_t ready_mask,
             std::move_only_function<void(uint32_t ready)> callback) override;
  void unwatch(int fd) override;
  // From the loop's own thread it costs no system call.
  void post(env::Callback callback) override;
  void stop() override;
  void run() override;

  // The same with raw epoll bits. EPOLLET is added. The sink must outlive its registration, and
  // until the end of the turn in which it is removed.
  void add(int fd, uint32_t epoll_events, EventSink& sink);
  void modify(int fd, uint32_t epoll_events);
  void remove(int fd);

  // Any thread.
  LoopStats stats() const { return counters_.read(); }

 private:
  struct Slot {
    EventSink* sink = nullptr;
    uint32_t generation = 0;  // plus one at each removal: tells late events of an earlier owner
    uint32_t events = 0;
    std::unique_ptr<EventSink> owned;  // of watch()
  };

  void dispatch(int count);
  void fire_timers();
  void run_posted();
  void rearm_timer();
  bool wants_immediate_turn();
  Slot& slot(int fd);
  bool on_loop_thread() const { return owner_.load() == std::this_thread::get_id(); }

  static constexpr int kEventsPerTurn = 256;

  UniqueFd epoll_, wake_, timer_fd_;
  std::vector<Slot> slots_;  // by descriptor
  std::vector<std::unique_ptr<EventSink>> graveyard_;
  TimerHeap timers_;
  MonoTime armed_ = MonoTime::max();
  epoll_event ready_[kEventsPerTurn];

  std::mutex mutex_;
  std::vector<env::Callback> posted_;  // guarded by mutex_
  bool woken_ = false;                 // guarded by mutex_: wake_ is already signalled
  std::atomic<bool> stop_{false};
  std::atomic<std::thread::id> owner_{};
  LoopCounters counters_;
};

}  // namespace bascule::posix
