// Which server a read goes to: a pure function of what is known about the servers, the policy, the
// statement's wishes and one random stream. docs/proxy.md, "Where reads go", has the rules for
// people.
//
//   1. out: unhealthy, unreachable, without weight or a wanted tag, too far behind, behind what the
//      session has written
//   2. of the rest those of the proxy's own region, if there are any
//   3. with an affinity key: the replica that the key falls on (rendezvous hashing: when a server
//      comes or goes, only the keys that fall on it move)
//   4. else the primary for its share of the reads, or a replica: two drawn by weight and latency,
//      the one with fewer connections in use
// With no replica left: the primary, whatever its share.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/prng.h"
#include "base/time.h"
#include "base/types.h"
#include "proxy/route_table.h"

namespace bascule::proxy {

struct RoutingPolicy {
  double primary_share = 0.3;  // of the reads that any server could answer; 0 to 1
  std::string region;          // the proxy's own; empty: none is preferred
  uint64_t lag_bytes_max = 64 << 20;
  Nanos lag_time_max = 30s;
  std::vector<std::string> tags;  // a replica needs all of them
  bool operator==(const RoutingPolicy&) const = default;
};

// Why a server was not among those that could be chosen.
enum class Exclusion : uint8_t {
  kNone,
  kUnhealthy,
  kUnreachable,
  kNoWeight,
  kTag,
  kLagBytes,
  kLagTime,
  kBehind,  // has not replayed what the session wrote, or it is not known whether it has
  kRegion,
};
std::string_view describe(Exclusion exclusion);  // "it lags by more bytes than allowed"

struct Candidate {
  const RouteMember* member = nullptr;
  bool primary = false;
  bool reachable = true;
  int in_use = 0;    // connections of it that work now, as far as the caller knows
  Nanos latency{0};  // measured round trip; 0: not known
  Exclusion excluded = Exclusion::kNone;  // set by choose()
};

struct ReadRequest {
  std::string_view affinity;  // empty: none
  Lsn min_lsn;                // of the session's last write; invalid: any state will do
};

// Why this one could not be chosen, regions apart.
Exclusion check_candidate(const Candidate& candidate, const RoutingPolicy& policy,
                          const ReadRequest& request);

// The index of the chosen one; none: nobody may answer. Sets `excluded` of each candidate.
std::optional<size_t> choose(std::span<Candidate> candidates, const RoutingPolicy& policy,
                             const ReadRequest& request, Prng& prng);

// The score of a server for a key: the highest wins. Stable over versions, machines and proxies.
double rendezvous_score(std::string_view key, std::string_view server, double weight);

}  // namespace bascule::proxy
