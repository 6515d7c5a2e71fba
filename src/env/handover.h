// How a new process takes over the listening sockets of the one that it replaces, so that no client
// is refused in between: over a unix socket, by file descriptors. The old process goes on accepting
// until the new one does.
//
//   new: take(path)      -> old: prepare(), then its sockets come
//   new: listens (with what has come), starts, accepted()
//                        -> old: taken(): it stops accepting and waits for its clients to leave
//   new: pass_cancel()   -> old: cancel(), as long as it lives
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/result.h"
#include "env/loop.h"

namespace bascule::env {

// Of the old process; on its loop.
struct HandOverEvents {
  std::function<void()> prepare;  // let go of what only one process can hold
  std::function<void()> taken;
  std::function<void()> aborted;  // after prepare(): the new one went away, or took too long
  std::function<void(uint32_t pid, const std::string& secret)> cancel;
};

class HandOver {
 public:
  virtual ~HandOver() = default;

  // Waits at `path` (a socket that only this user and root may use) for who takes over. What is
  // there already is replaced.
  virtual Status offer(Loop& loop, const std::string& path, HandOverEvents events) = 0;
  virtual void withdraw() = 0;  // on the loop, or when it has ended

  // Blocking, before anything listens. False: nobody is at `path`.
  virtual Result<bool> take(const std::string& path) = 0;
  virtual void accepted() = 0;
  // Any thread. Ignored if there is no old process any more.
  virtual void pass_cancel(uint32_t pid, const std::string& secret) = 0;
};

}  // namespace bascule::env
