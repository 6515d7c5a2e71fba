// One thread's event loop: timers, file descriptors, and functions posted from other threads.
// Implemented by posix/ (epoll). Everything except post() must be called on the loop's own thread;
// all callbacks run there. A callback may cancel or close anything, itself included: what is
// removed is not called again, and objects are freed at the end of the turn.
#pragma once

#include <cstdint>
#include <functional>

#include "base/time.h"
#include "env/clock.h"

namespace bascule::env {

using Callback = std::move_only_function<void()>;
enum class TimerId : uint64_t { kNone = 0 };

// What a watched descriptor is ready for; a bit set. Errors and hang-ups are reported as both.
enum Ready : uint32_t { kReadable = 1, kWritable = 2 };

class Loop : public Clock {
 public:
  virtual TimerId call_at(MonoTime when, Callback callback) = 0;
  TimerId call_after(Nanos delay, Callback callback) {
    return call_at(now() + delay, std::move(callback));
  }
  virtual void cancel(TimerId id) = 0;  // unknown or fired ids are ignored

  // Edge-triggered. The descriptor stays the caller's; unwatch before closing it.
  virtual void watch(int fd, uint32_t ready_mask,
                     std::move_only_function<void(uint32_t ready)> callback) = 0;
  virtual void unwatch(int fd) = 0;

  virtual void post(Callback callback) = 0;  // thread-safe: runs in a later turn, in order
  virtual void stop() = 0;                   // thread-safe: run() returns after this turn
  virtual void run() = 0;
};

// A small pool of threads for blocking work (libpq, SQLite, fsync, child processes).
class BlockingPool {
 public:
  virtual ~BlockingPool() = default;
  virtual void submit(Callback work) = 0;  // thread-safe
};

}  // namespace bascule::env
