// The real clocks of the machine.
#pragma once

#include "env/clock.h"

namespace bascule::posix {

// CLOCK_BOOTTIME by the vDSO: some 25 ns, no system call. Any thread.
MonoTime boot_now();
WallTime wall_now();

class SystemClock : public env::Clock {
 public:
  MonoTime now() const override { return boot_now(); }
  WallTime wall_now() const override { return posix::wall_now(); }
};

}  // namespace bascule::posix
