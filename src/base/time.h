// The two clocks. Decisions use MonoTime only; WallTime is for people and records.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace bascule {

using namespace std::chrono_literals;
using Nanos = std::chrono::nanoseconds;
using Millis = std::chrono::milliseconds;

// CLOCK_BOOTTIME: never steps, and goes on while the machine is suspended, so that a deadline also
// passes in a suspended guest. There is no now() here: time comes in through env/ or an event.
struct BootClock {
  using duration = Nanos;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<BootClock>;
  static constexpr bool is_steady = true;
};
using MonoTime = BootClock::time_point;
using WallTime = std::chrono::sys_time<Millis>;

// ISO 8601 UTC with milliseconds: "2026-11-21T11:18:00.123Z".
std::string to_iso8601(WallTime time);

inline int64_t to_ms(Nanos d) { return std::chrono::duration_cast<Millis>(d).count(); }

}  // namespace bascule
