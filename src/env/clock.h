// Time, as an interface: the only way anything outside posix/ learns what time it is.
#pragma once

#include "base/time.h"

namespace bascule::env {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual MonoTime now() const = 0;       // CLOCK_BOOTTIME
  virtual WallTime wall_now() const = 0;  // UTC, for people and records
};

}  // namespace bascule::env
