// Who is what among servers that nobody but the proxy looks at: a static list in the configuration,
// and what each said when it was last asked. Pure; times come in with the observations.
//
//   one server says that it is no standby        it is the primary
//   several do                                   the one on the highest timeline: the others were
//                                                primary before; on the same: none, a person
//                                                decides
//   none does                                    none; the primary of before stays in the table for
//   a
//                                                few failed questions, so that a lost packet is no
//                                                outage (a server that cannot be reached is waited
//                                                for)
// A server whose system identifier differs from the primary's is another cluster's: left out.
// Nobody here can fence: whoever fails over must make sure that the former primary is down.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "proxy/lag_clock.h"
#include "proxy/route_table.h"

namespace bascule::proxy {

enum class ServerRole { kAuto, kPrimary, kReplica };

struct ServerSpec {
  std::string name;
  env::Endpoint endpoint;
  ServerRole role = ServerRole::kAuto;  // kPrimary, kReplica: believed without asking
  std::string region;
  double weight = 1.0;
  std::vector<std::string> tags;
  bool operator==(const ServerSpec&) const = default;
};

struct ServerSeen {
  bool in_recovery = false;
  Lsn lsn;  // written; in recovery: replayed
  Timeline timeline;
  std::string system_id;
  Nanos round_trip{0};
};

class StaticTopology {
 public:
  // kInvalid: no server, a name or address twice, more than one kPrimary.
  static Status validate(const std::vector<ServerSpec>& servers);
  explicit StaticTopology(std::vector<ServerSpec> servers);  // valid

  void seen(size_t server, const ServerSeen& answer, MonoTime now);
  void failed(size_t server, std::string why);
  // What to publish, if that is something else than the last time. Epochs count from 1.
  std::optional<RouteTable> changed(MonoTime now);

  // Of servers that were asked: failures in a row after which a server counts as gone.
  static constexpr int kFailuresMax = 3;

 private:
  struct State {
    std::optional<ServerSeen> last;
    int failures = 0;
    std::string error;
    bool asked = false;
  };
  std::optional<size_t> find_primary(std::string& reason) const;
  std::string describe_all() const;
  RouteMember member(size_t server) const;
  RouteTable make(MonoTime now);

  const std::vector<ServerSpec> servers_;
  std::vector<State> states_;
  LagClock lag_clock_;
  std::optional<size_t> primary_;  // of the last table
  uint64_t epoch_ = 1;
  std::optional<RouteTable> published_;
};

// Lag and latency have moved enough to be worth a new table.
bool worth_publishing(const RouteTable& before, const RouteTable& now);

}  // namespace bascule::proxy
