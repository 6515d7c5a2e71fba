// What passed through one pool of one worker. Plain integers: only the worker's thread touches
// them.
#pragma once

#include <cstdint>

#include "base/time.h"

namespace bascule::proxy {

// Since start. Times are sums over what ended.
struct TrafficCounts {
  uint64_t assignments = 0;  // a server was given to a client
  uint64_t transactions = 0;
  uint64_t queries = 0;   // ReadyForQuery that clients were sent
  uint64_t received = 0;  // bytes from clients that are logged in
  uint64_t sent = 0;      // bytes to them
  Nanos transaction_time{0};
  Nanos query_time{0};
  Nanos wait_time{0};          // of those who got a server
  uint64_t client_parses = 0;  // named statements that clients prepared
  uint64_t server_parses = 0;  // statements that were prepared on servers
  uint64_t binds = 0;
  uint64_t logins = 0;

  TrafficCounts& operator+=(const TrafficCounts& other);
};

// With what they were one and two ends of a period ago: averages are of what came since `older`.
struct Traffic {
  TrafficCounts now, newer, older;
  void next_period() {
    older = newer;
    newer = now;
  }
  Traffic& operator+=(const Traffic& other) {
    now += other.now;
    newer += other.newer;
    older += other.older;
    return *this;
  }
};

}  // namespace bascule::proxy
