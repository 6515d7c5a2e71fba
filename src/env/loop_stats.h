// What one loop has done since it started. A snapshot: taken by any thread, then plain data.
#pragma once

#include <cstdint>

#include "base/time.h"

namespace bascule::env {

struct LoopStats {
  uint64_t turns = 0;   // returns from the wait for events
  uint64_t events = 0;  // descriptors reported ready
  uint64_t posted = 0;  // functions run that other threads or callbacks had posted
  uint64_t timers_fired = 0;
  Nanos busy{0};  // time outside the wait
  Nanos longest_turn{0};
};

}  // namespace bascule::env
