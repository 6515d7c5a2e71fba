// Where the proxy sends clients: an immutable snapshot, made by whoever knows the cluster (main's
// glue from the control plane) and published to all workers.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/time.h"
#include "base/types.h"
#include "env/net.h"

namespace bascule::proxy {

struct RouteMember {
  std::string name;
  env::Endpoint endpoint;
  bool healthy = true;     // replicas only: may serve reads
  uint64_t lag_bytes = 0;  // replicas only: WAL of the primary that it has not replayed
  Nanos lag_time{0};       // replicas only: age of what it shows; 0 also where it is not known
  Lsn replayed;            // replicas only: what it shows at least; invalid: not known
  Nanos latency{0};        // measured round trip from here; 0: not known
  std::string region;      // empty: everywhere
  double weight = 1.0;     // share among equals; 0: no reads
  std::vector<std::string> tags;
  bool operator==(const RouteMember&) const = default;
};

enum class RouteState {
  kOpen,
  // Transactions that run go on; new ones wait. The prelude of a switchover: when
  // Proxy::drained() is true nobody is writing.
  kDraining,
};

struct RouteTable {
  // Of the primary. Server connections to a primary of an older epoch are dropped at once.
  Epoch epoch;
  std::optional<RouteMember> primary;  // none: statements for the writer port wait
  std::vector<RouteMember> replicas;
  RouteState state = RouteState::kOpen;
  // The primary is a standby itself (of a cluster that follows another one): it answers what reads
  // and refuses the rest with 25006.
  bool read_only = false;
  bool sync_strict = true;  // the cluster demands a standby for each commit; also while not known
  // The primary of this epoch may act until then (its record's deadline as known here): answers of
  // it that come later are not believed and not forwarded. Moved on by Proxy::extend_permit().
  MonoTime permit_until = MonoTime::max();
  std::string reason;  // why there is no primary, for messages: "n1 lost, electing"
};

}  // namespace bascule::proxy
