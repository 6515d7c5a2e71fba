#include "base/time.h"

#include <fmt/chrono.h>

#include <ctime>

namespace bascule {

std::string to_iso8601(WallTime time) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(time);
  const std::time_t t = std::chrono::system_clock::to_time_t(seconds);
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", fmt::gmtime(t), (time - seconds).count());
}

}  // namespace bascule
