// The kernel's watchdog device, for when guard and agent are both unable to act (ADR 0029): what a
// node wants of it, and the times that make it safe.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "base/time.h"

namespace bascule::node {

struct WatchdogConfig {
  enum class Mode {
    kOff,
    kAutomatic,  // where the device can be opened
    kRequired,   // who has none is not elected
  };
  Mode mode = Mode::kAutomatic;
  std::string device = "/dev/watchdog";
  bool operator==(const WatchdogConfig&) const = default;
};

// The guard kills at its deadline. If it can't, the machine is reset `reset_after` later at the
// latest, which is before the leader's record expires.
struct WatchdogTimes {
  std::chrono::seconds timeout{};  // of the device; the guard pats more often
  Millis reset_after{};
  bool operator==(const WatchdogTimes&) const = default;
};

// nullopt: `ttl` is too short for a device that counts in seconds; a leader would have to be reset
// for a store that is silent for less than a quarter of it.
std::optional<WatchdogTimes> watchdog_times(Millis ttl);

}  // namespace bascule::node
