// Which servers the dispatcher may use, and which it takes for a read.
#include <algorithm>
#include <utility>

#include "proxy/dispatcher.h"
#include "proxy/worker.h"

namespace bascule::proxy {
namespace {

Target target_of(const RouteMember& member, PortKind role, const Route& route) {
  Target target;
  target.name = member.name;
  target.endpoint = member.endpoint;
  target.role = role;
  target.epoch = route.table.epoch;
  if (role == PortKind::kWriter) {
    target.permit = route.permit;
    target.read_only = route.table.read_only;
  }
  return target;
}

}  // namespace

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
  return target_of(*best.member, best.primary ? PortKind::kWriter : PortKind::kReader, *route);
}

std::optional<std::string> Dispatcher::pick_reader(std::string_view affinity) {
  auto target = choose_read(worker_.config().routing, affinity);
  if (!target || target->role == PortKind::kWriter) return std::nullopt;
  return std::move(target->name);
}

// The next in turn that could be reached lately; if none could, the next.
std::optional<Target> Dispatcher::choose_elsewhere(Pool& pool) {
  const DatabaseRule& rule = *pool.rule;
  const bool turns = rule.balance == DatabaseRule::Balance::kRoundRobin;
  std::erase_if(avoid_, [now = worker_.loop().now()](const auto& a) { return a.second <= now; });
  const size_t first = pool.next_host % rule.hosts.size();
  size_t at = first;
  for (size_t i = 0; i < rule.hosts.size(); ++i) {
    const size_t candidate = (first + i) % rule.hosts.size();
    if (avoid_.contains(rule.hosts[candidate].to_string())) continue;
    at = candidate;
    break;
  }
  pool.next_host = turns ? at + 1 : at;
  Target target;
  target.name = rule.hosts[at].to_string();
  target.endpoint = rule.hosts[at];
  target.elsewhere = true;
  target.role = PortKind::kReader;
  return target;
}

std::optional<Target> Dispatcher::choose(Pool& pool, PortKind kind, std::string_view member) {
  if (pool.elsewhere()) return choose_elsewhere(pool);
  const Route* route = worker_.route();
  if (route == nullptr) return std::nullopt;
  const RouteTable& table = route->table;
  if (kind == PortKind::kReader) {
    for (const RouteMember& replica : table.replicas) {
      if (replica.name != member || !readable(replica)) continue;
      return target_of(replica, PortKind::kReader, *route);
    }
    if (auto target = choose_read(replicas_first_, {})) return target;
  }
  if (!table.primary || table.state != RouteState::kOpen) return std::nullopt;
  return target_of(*table.primary, PortKind::kWriter, *route);
}

bool Dispatcher::stale(const ServerConnection& server) const {
  if (server.target().elsewhere) return false;
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
  if (server.target().role == kind || server.target().elsewhere) return true;
  // The primary serves readers only if nobody else does; a replica never serves writers.
  return kind == PortKind::kReader && !any_readable();
}

}  // namespace bascule::proxy
