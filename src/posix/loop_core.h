// What every env::Loop of ours has in common: timers, posted functions, the end of run(). How a
// loop waits, and for what, is its engine's. A turn is: wait, dispatch, fire_timers(),
// run_posted().
//
// Deadlines are CLOCK_BOOTTIME through a timerfd: the time-out of a wait would stand still while
// the machine is suspended, and a fencing deadline must pass then too (`man 2 timerfd_create`).
#pragma once

#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "env/loop.h"
#include "posix/loop_stats.h"
#include "posix/timer_heap.h"
#include "posix/unique_fd.h"

namespace bascule::posix {

class LoopCore : public env::Loop {
 public:
  LoopCore(const LoopCore&) = delete;
  LoopCore& operator=(const LoopCore&) = delete;

  MonoTime now() const override;
  WallTime wall_now() const override;
  env::TimerId call_at(MonoTime when, env::Callback callback) override;
  void cancel(env::TimerId id) override;
  // From the loop's own thread it costs neither a lock nor a system call.
  void post(env::Callback callback) override;
  void stop() override;

  // This is the loop's thread, inside run().
  bool running() const {
    return owner_.load(std::memory_order_relaxed) == std::this_thread::get_id();
  }
  MonoTime turn_began() const { return turn_began_; }
  // Any thread.
  LoopStats stats() const { return counters_.read(); }

 protected:
  LoopCore();  // aborts if the kernel refuses an event or timer descriptor

  // To be watched for reading by the engine: that they become readable ends a wait, and there is
  // nothing else to do than to read them.
  int wake_fd() const { return wake_.get(); }
  int timer_fd() const { return timer_fd_.get(); }
  static void read_away(int fd);

  void begin_run();
  void end_run();
  bool stopping() const { return stop_.load(std::memory_order_relaxed); }
  // Before a wait. False: it must not block, there is something to run.
  bool prepare_wait();
  // After a wait.
  MonoTime begin_turn() { return turn_began_ = now(); }
  // After what was ready has been dispatched.
  void finish_turn(MonoTime began, uint64_t events);

 private:
  void rearm_timer();
  void fire_timers(MonoTime time);
  void run_posted();

  UniqueFd wake_, timer_fd_;
  TimerHeap timers_;
  MonoTime armed_ = MonoTime::max();
  MonoTime turn_began_{};
  std::vector<env::Callback> own_posts_;  // by the loop's own thread
  std::vector<env::Callback> running_;
  std::mutex mutex_;
  std::vector<env::Callback> foreign_posts_;  // guarded by mutex_
  std::atomic<bool> woken_{false};  // written under mutex_: there are some, and wake_ is signalled
  std::atomic<bool> stop_{false};
  std::atomic<std::thread::id> owner_{};
  LoopCounters counters_;
};

// Aborts with a message if `result`, of the system call `what`, is an error.
int checked(int result, const char* what);

}  // namespace bascule::posix
