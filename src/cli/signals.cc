#include "cli/signals.h"

#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace bascule::cli {
namespace {

constexpr int kSignals[] = {SIGTERM, SIGINT, SIGHUP};
std::atomic<int> g_event_fd{-1};
std::atomic<bool> g_interrupted{false};
std::atomic<bool> g_hung_up{false}, g_stop{false};

void ring(int number) {
  (number == SIGHUP ? g_hung_up : g_stop).store(true);
  const uint64_t one = 1;
  const int fd = g_event_fd.load();
  if (fd >= 0) [[maybe_unused]]
    const ssize_t n = write(fd, &one, sizeof one);
}

void note(int) { g_interrupted.store(true); }

void handle_all(void (*handler)(int)) {
  struct sigaction action{};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  for (const int number : kSignals) sigaction(number, &action, nullptr);
}

}  // namespace

StopSignals::StopSignals(env::Loop& loop, std::function<void()> callback,
                         std::function<void()> reload)
    : loop_(loop),
      callback_(std::move(callback)),
      reload_(std::move(reload)),
      fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  g_event_fd.store(fd_);
  loop_.watch(fd_, env::kReadable, [this](uint32_t) {
    uint64_t count = 0;
    if (read(fd_, &count, sizeof count) != sizeof count) return;
    const bool hung_up = g_hung_up.exchange(false);
    const bool stop = g_stop.exchange(false);
    if (hung_up && reload_) reload_();
    if (stop || (hung_up && !reload_)) callback_();
  });
  handle_all(ring);
}

StopSignals::~StopSignals() {
  handle_all(SIG_DFL);
  g_event_fd.store(-1);
  loop_.unwatch(fd_);
  close(fd_);
}

void install_interrupt_flag() {
  g_interrupted.store(false);
  handle_all(note);
}

bool interrupted() { return g_interrupted.load(); }

}  // namespace bascule::cli
