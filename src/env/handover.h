// How a new process takes over the listening sockets of the one that it replaces, so that no client
// is refused in between: over a unix socket, by file descriptors. The old process goes on accepting
// until the new one does.
//
//   new: take(path)      -> old: prepare(), then its sockets come; or it says why not
//   new: listens (with what has come), starts, accepted()
//                        -> old: taken(): it stops accepting and waits for its clients to leave;
//                           or it has waited too long, has aborted(), and refuses
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
  // Let go of what only one process can hold. `done`, once, on the loop: within what time the new
  // one must accept; or why nothing is given away now, and then nothing was let go of.
  std::function<void(std::function<void(Result<Nanos>)> done)> prepare;
  std::function<void()> taken;
  std::function<void()> aborted;  // after prepare(): the new one went away, or took too long
  // `done`, once, on any thread: it has been delivered, or is for nobody.
  std::function<void(uint32_t pid, const std::string& secret, Callback done)> cancel;
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
  // Blocking: until the old process has confirmed it. kConflict: that goes on by itself, and who
  // calls must end. From here on `loop` hears of the old process; withdraw() ends that.
  virtual Status accepted(Loop& loop) = 0;
  // Any thread. `done`, once, on any thread: when the old process has delivered it, or at once if
  // there is none any more.
  virtual void pass_cancel(uint32_t pid, const std::string& secret, Callback done) = 0;
  // Any thread. The old process and the next one live: what passes between them comes by us.
  virtual bool between() = 0;
};

}  // namespace bascule::env
