// Which servers the dispatcher may use, and which it takes for a read.
#include <algorithm>
#include <utility>

#include "proxy/dispatcher.h"
#include "proxy/worker.h"

namespace bascule::proxy {

bool Dispatcher::gate_open(PortKind kind) const {
  const Route* route = worker_.route();
  if (route == nullptr) return false;
  const RouteTable& table = route->table;
  if (kind == PortKind::kReader && any_readable()) return true;
  return table.primary && table.state == RouteState::kOpen && permitted();
}

// What is sent while the primary may not act would be withheld when it is answered.
bool Dispatcher::permitted() const {
  const MonoTime until = worker_.route()->permit->until();
  return until == MonoTime::max() || worker_.loop().now() < until;
}

bool Dispatcher::readable(const RouteMember& replica) const {
  const RoutingPolicy& policy = worker_.config().routing;
  const auto avoided = avoid_.find(replica.name);
  Candidate candidate;
  candidate.member = &replica;
  candidate.reachable = avoided == avoid_.end();
  return check_candidate(candidate, policy, {}) == Exclusion::kNone;
}

bool Dispatcher::any_readable() const {
  const auto& replicas = worker_.route()->table.replicas;
  return std::any_of(replicas.begin(), replicas.end(),
                     [&](const RouteMember& r) { return readable(r); });
}

int Dispatcher::in_use(const std::string& member) const {
  const auto found = loads_.find(member);
  return found == loads_.end() ? 0 : found->second.servers - found->second.idle;
}

std::optional<Target> Dispatcher::choose_read(const RoutingPolicy& policy,
                                              std::string_view affinity) {
  const Route* route = worker_.route();
  if (route == nullptr) return std::nullopt;
  const RouteTable& table = route->table;
  std::erase_if(avoid_, [now = worker_.loop().now()](const auto& a) { return a.second <= now; });
  candidates_.clear();
  for (const RouteMember& replica : table.replicas) {
    candidates_.push_back({.member = &replica,
                           .primary = false,
                           .reachable = !avoid_.contains(replica.name),
                           .in_use = in_use(replica.name),
                           .latency = replica.latency,
                           .excluded = Exclusion::kNone});
  }
  if (table.primary && table.state == RouteState::kOpen) {
    Candidate primary;
    primary.member = &*table.primary;
    primary.primary = true;
    candidates_.push_back(primary);
  }
  const auto chosen =
      proxy::choose(candidates_, policy, {.affinity = affinity, .min_lsn = {}}, prng_);
  if (!chosen) return std::nullopt;
  const Candidate& best = candidates_[*chosen];
  if (best.primary) {
    return Target{best.member->name, best.member->endpoint, PortKind::kWriter, table.epoch,
                  route->permit};
  }
  return Target{best.member->name, best.member->endpoint, PortKind::kReader, table.epoch, nullptr};
}

std::optional<std::string> Dispatcher::pick_reader(std::string_view affinity) {
  auto target = choose_read(worker_.config().routing, affinity);
  if (!target || target->role == PortKind::kWriter) return std::nullopt;
  return std::move(target->name);
}

std::optional<Target> Dispatcher::choose(PortKind kind, const std::string& member) {
  const Route* route = worker_.route();
  if (route == nullptr) return std::nullopt;
  const RouteTable& table = route->table;
  if (kind == PortKind::kReader) {
    for (const RouteMember& replica : table.replicas) {
      if (replica.name != member || !readable(replica)) continue;
      return Target{replica.name, replica.endpoint, PortKind::kReader, table.epoch, nullptr};
    }
    if (auto target = choose_read(replicas_first_, {})) return target;
  }
  if (!table.primary || table.state != RouteState::kOpen) return std::nullopt;
  return Target{table.primary->name, table.primary->endpoint, PortKind::kWriter, table.epoch,
                route->permit};
}

bool Dispatcher::stale(const ServerConnection& server) const {
  const RouteTable& table = worker_.route()->table;
  const Target& target = server.target();
  if (target.role == PortKind::kWriter) {
    return target.epoch != table.epoch || (table.primary && table.primary->name != target.name);
  }
  return std::none_of(table.replicas.begin(), table.replicas.end(), [&](const RouteMember& r) {
    return r.healthy && r.name == target.name && r.endpoint == target.endpoint;
  });
}

bool Dispatcher::usable(const ServerConnection& server, PortKind kind) const {
  if (stale(server)) return false;
  if (server.target().role == kind) return true;
  // The primary serves readers only if nobody else does; a replica never serves writers.
  return kind == PortKind::kReader && !any_readable();
}

}  // namespace bascule::proxy
