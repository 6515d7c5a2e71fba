// What people have ordered by the console and not taken back. An immutable snapshot a worker; the
// original is the Crew's.
#pragma once

#include <set>
#include <string>

#include "base/time.h"

namespace bascule::proxy {

// What becomes of the statements of a pool's clients.
enum class Halt : uint8_t {
  kNone,
  kSuspended,  // those that have not begun wait; server connections stay
  kPaused,     // they wait, and server connections are closed once they are free
};

struct Controls {
  Halt all = Halt::kNone;
  std::set<std::string> paused;    // databases
  std::set<std::string> disabled;  // databases: nobody may log in to them
  bool leaving = false;            // nothing is accepted any more; it ends when it is empty

  Halt of(const std::string& database) const {
    return all == Halt::kNone && paused.contains(database) ? Halt::kPaused : all;
  }
};

}  // namespace bascule::proxy
