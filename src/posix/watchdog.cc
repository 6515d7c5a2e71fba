#include "posix/watchdog.h"

#include <fcntl.h>
#include <linux/watchdog.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>

namespace bascule::posix {
namespace {

// What makes a close() after it stop the device rather than count as our death.
constexpr char kReleases = 'V';
constexpr char kPats = '\0';

int error_of(bool done) { return done ? 0 : errno; }

}  // namespace

int Watchdog::start(const char* device, std::chrono::seconds timeout) {
  if (!running()) fd_.reset(::open(device, O_WRONLY | O_CLOEXEC | O_NONBLOCK));
  if (!running()) return errno;
  const int wanted = static_cast<int>(timeout.count());
  int set = wanted;  // the device writes what it took
  if (ioctl(fd_.get(), WDIOC_SETTIMEOUT, &set) != 0 || set > wanted) {
    stop();
    return ERANGE;
  }
  return pat();
}

int Watchdog::pat() { return error_of(::write(fd_.get(), &kPats, 1) == 1); }

int Watchdog::stop() {
  if (!running()) return 0;
  int option = WDIOS_DISABLECARD;
  if (ioctl(fd_.get(), WDIOC_SETOPTIONS, &option) != 0) return errno;
  [[maybe_unused]] const ssize_t n = ::write(fd_.get(), &kReleases, 1);
  fd_.reset();
  return 0;
}

}  // namespace bascule::posix
