// Preloaded into a guard by its tests: a FIFO in place of a watchdog device, as machines that tests
// run on have none. Its reader gets what is done to the device, and when: see WatchdogDeed.
// $NOWAYOUT: it refuses to stop.
#include "tests/integration/fake_watchdog.h"

#include <dlfcn.h>
#include <linux/watchdog.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdlib>

namespace {

int tell(int fd, char what, int seconds = 0) {
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  const bascule::WatchdogDeed deed{now.tv_sec * 1'000'000'000LL + now.tv_nsec, seconds, what};
  return syscall(SYS_write, fd, &deed, sizeof deed) == sizeof deed ? 0 : -1;
}

}  // namespace

extern "C" int ioctl(int fd, unsigned long request, ...) noexcept {
  va_list list;
  va_start(list, request);
  void* argument = va_arg(list, void*);
  va_end(list);
  if (request == WDIOC_SETTIMEOUT) return tell(fd, 'T', *static_cast<int*>(argument));
  if (request == WDIOC_SETOPTIONS) {
    if (std::getenv("NOWAYOUT") == nullptr) return tell(fd, 'S');
    errno = EBUSY;
    return -1;
  }
  return static_cast<int>(syscall(SYS_ioctl, fd, request, argument));
}

extern "C" ssize_t write(int fd, const void* data, size_t size) {
  if (size != 1) return syscall(SYS_write, fd, data, size);
  const char what = *static_cast<const char*>(data);
  return tell(fd, what == '\0' ? 'P' : what) == 0 ? 1 : -1;
}
