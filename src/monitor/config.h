// What a monitor watches and how it decides. No secrets in here: how to log in, promote and fence
// is the shell's (access.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "base/types.h"

namespace bascule::monitor {

inline constexpr size_t kEndpointsMax = 32;

struct EndpointConfig {
  NodeName name;
  std::string host;
  int port = 5432;
  std::string region;
  int priority = 10;                // higher is preferred (B1: 10 / 8 / 6)
  bool nofailover = false;          // never promoted
  Millis health_interval{10000};    // D2: every 10 s
  Millis failover_timeout{300000};  // a failover away from it that takes longer is given up
};

struct MonitorConfig {
  std::string cluster;
  std::string name;      // of this monitor
  std::string instance;  // random, of this process
  std::vector<EndpointConfig> endpoints;
  bool automatic = true;  // false: failover on request only

  int failure_threshold = 3;   // health checks failed in a row until an endpoint is down
  int recovery_threshold = 2;  // passed in a row until one that was down is up
  Millis probe_timeout{5000};
  Millis action_timeout{30000};  // one promotion or fence, by SQL or command
  Millis lease_ttl{5000};
  // A proxy sends clients to a primary for at most so long after it read that it may.
  Millis permit{5000};
  Millis drain_timeout{3000};
  Millis catch_up_timeout{30000};
  Millis promote_timeout{60000};
  // No second automatic failover so soon after one: two sick databases are not swapped for ever.
  Millis cooldown{60000};
  Millis complete_for{60000};  // how long "failover_complete" is said
  uint64_t maximum_lag_bytes = 16 << 20;
  Millis maximum_lag{30000};
  // Between candidates whose WAL differs by no more than this, region and priority decide.
  uint64_t loss_tolerance_bytes = 0;

  const EndpointConfig* endpoint(const NodeName& endpoint_name) const;
};

Status validate(const MonitorConfig& config);

}  // namespace bascule::monitor
