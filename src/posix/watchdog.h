// A watchdog device of the kernel (Documentation/watchdog/watchdog-api.rst): resets the machine
// unless it is patted in time. One thread, never waits; functions return an errno, 0: done.
#pragma once

#include <chrono>

#include "posix/unique_fd.h"

namespace bascule::posix {

class Watchdog {
 public:
  bool running() const { return fd_.valid(); }

  // The machine is reset `timeout` after this and after each pat. Where it runs already, its
  // time-out is changed. ERANGE: the device knows only longer ones, or does not say; it was
  // stopped.
  int start(const char* device, std::chrono::seconds timeout);
  int pat();
  // EBUSY and the like: it cannot be stopped ("nowayout"), still runs and wants to be patted.
  int stop();

 private:
  UniqueFd fd_;
};

}  // namespace bascule::posix
