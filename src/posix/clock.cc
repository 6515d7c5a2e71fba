#include "posix/clock.h"

#include <time.h>

namespace bascule::posix {

MonoTime boot_now() {
  timespec ts{};
  ::clock_gettime(CLOCK_BOOTTIME, &ts);
  return MonoTime(std::chrono::seconds(ts.tv_sec) + Nanos(ts.tv_nsec));
}

WallTime wall_now() {
  timespec ts{};
  ::clock_gettime(CLOCK_REALTIME, &ts);
  return WallTime(std::chrono::seconds(ts.tv_sec) +
                  std::chrono::duration_cast<Millis>(Nanos(ts.tv_nsec)));
}

}  // namespace bascule::posix
