// Preloaded into the processes of a test's host: their wall clock, moved by as many seconds as the
// file that WALL_CLOCK_FILE names holds (an int64 of this machine). Every other clock stays.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>

namespace {

const volatile int64_t* moved_by() {
  static const volatile int64_t* const seconds = [] {
    static const int64_t kNothing = 0;
    const char* name = ::getenv("WALL_CLOCK_FILE");
    const int fd = name == nullptr ? -1 : ::open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return &kNothing;
    void* at = ::mmap(nullptr, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
    ::close(fd);
    return at == MAP_FAILED ? &kNothing : static_cast<const int64_t*>(at);
  }();
  return seconds;
}

bool is_wall_clock(clockid_t id) {
  return id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE || id == CLOCK_TAI;
}

}  // namespace

extern "C" int clock_gettime(clockid_t id, timespec* now) noexcept {
  const auto result = static_cast<int>(::syscall(SYS_clock_gettime, id, now));
  if (result == 0 && is_wall_clock(id)) now->tv_sec += *moved_by();
  return result;
}

extern "C" int gettimeofday(timeval* now, void*) noexcept {
  timespec precise{};
  const int result = clock_gettime(CLOCK_REALTIME, &precise);
  *now = {precise.tv_sec, precise.tv_nsec / 1000};
  return result;
}

extern "C" time_t time(time_t* out) noexcept {
  timespec now{};
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  if (out != nullptr) *out = now.tv_sec;
  return now.tv_sec;
}
