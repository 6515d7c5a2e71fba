#include "posix/entropy.h"

#include <errno.h>
#include <sys/random.h>

#include <cstdlib>

namespace bascule::posix {

void SystemEntropy::fill(std::span<uint8_t> out) {
  while (!out.empty()) {
    const ssize_t n = ::getrandom(out.data(), out.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) std::abort();
    out = out.subspan(static_cast<size_t>(n));
  }
}

}  // namespace bascule::posix
