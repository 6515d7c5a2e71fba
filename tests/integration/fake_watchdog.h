// What fake_watchdog.cc, preloaded into a guard, writes into the FIFO that stands for the device.
#pragma once

#include <cstdint>

namespace bascule {

struct WatchdogDeed {
  int64_t at_ns = 0;  // CLOCK_BOOTTIME
  int32_t seconds = 0;
  // 'T': the time-out is `seconds`; 'P': a pat; 'S': stopped; 'V': the next close is no death.
  char what = 0;
};

}  // namespace bascule
