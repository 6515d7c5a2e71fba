#include "posix/entropy.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>

#include <array>
#include <cstdlib>

namespace bascule::posix {
namespace {

// Small draws come from what a thread has asked for in advance: a log-in takes two, each of which
// would be a system call that costs more than the rest of it.
constexpr size_t kSmall = 32;
struct Stock {
  std::array<uint8_t, 256> bytes;
  size_t left = 0;
};
thread_local Stock stock;

void from_kernel(std::span<uint8_t> out) {
  while (!out.empty()) {
    const ssize_t n = ::getrandom(out.data(), out.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) std::abort();
    out = out.subspan(static_cast<size_t>(n));
  }
}

// A child must not draw what its parent draws.
bool forgets_at_fork() {
  static const bool registered = ::pthread_atfork(nullptr, nullptr, [] { stock.left = 0; }) == 0;
  return registered;
}

}  // namespace

void SystemEntropy::fill(std::span<uint8_t> out) {
  if (out.empty()) return;
  if (out.size() > kSmall || !forgets_at_fork()) return from_kernel(out);
  if (stock.left < out.size()) {
    from_kernel(stock.bytes);
    stock.left = stock.bytes.size();
  }
  stock.left -= out.size();
  uint8_t* const drawn = stock.bytes.data() + stock.left;
  ::memcpy(out.data(), drawn, out.size());
  ::explicit_bzero(drawn, out.size());  // nothing in memory tells what was handed out
}

}  // namespace bascule::posix
