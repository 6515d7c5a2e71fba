#include "proxy/routing.h"

#include <algorithm>
#include <cmath>

#include "base/hash.h"

namespace bascule::proxy {
namespace {

// Differences below this are noise of the network and of the poll.
constexpr Nanos kLatencyFloor = 200us;
// A slow server keeps some reads, so that it is seen when it recovers.
constexpr double kSlowestFactor = 0.1;

double unit(Prng& prng) { return static_cast<double>(prng.next() >> 11) * 0x1.0p-53; }

bool eligible_replica(const Candidate& candidate) {
  return candidate.excluded == Exclusion::kNone && !candidate.primary;
}

// A replica of the proxy's own region keeps reads away from all others, the primary included.
void prefer_region(std::span<Candidate> candidates, const std::string& region) {
  const auto local = [&](const Candidate& c) { return c.member->region == region; };
  const bool any = std::ranges::any_of(
      candidates, [&](const Candidate& c) { return eligible_replica(c) && local(c); });
  const bool primary_local = std::ranges::any_of(candidates, [&](const Candidate& c) {
    return c.excluded == Exclusion::kNone && c.primary && local(c);
  });
  if (!any && !primary_local) return;
  for (Candidate& c : candidates) {
    if (c.excluded == Exclusion::kNone && !local(c)) c.excluded = Exclusion::kRegion;
  }
}

Nanos best_latency(std::span<const Candidate> candidates) {
  Nanos best = Nanos::max();
  for (const Candidate& c : candidates) {
    if (eligible_replica(c) && c.latency > Nanos(0)) best = std::min(best, c.latency);
  }
  return best;
}

double effective_weight(const Candidate& candidate, Nanos best) {
  if (candidate.latency <= Nanos(0) || best == Nanos::max()) return candidate.member->weight;
  const auto floored = [](Nanos n) {
    return static_cast<double>(std::max(n, kLatencyFloor).count());
  };
  const double factor = floored(best) / floored(candidate.latency);
  return candidate.member->weight * std::max(factor, kSlowestFactor);
}

size_t by_affinity(std::span<const Candidate> candidates, std::string_view key) {
  size_t chosen = 0;
  double best = -1;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!eligible_replica(candidates[i])) continue;
    const RouteMember& member = *candidates[i].member;
    const double score = rendezvous_score(key, member.name, member.weight);
    if (score <= best) continue;
    best = score;
    chosen = i;
  }
  return chosen;
}

size_t draw(std::span<const Candidate> candidates, Nanos best, double total, Prng& prng) {
  double at = unit(prng) * total;
  size_t last = 0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!eligible_replica(candidates[i])) continue;
    last = i;
    at -= effective_weight(candidates[i], best);
    if (at < 0) break;
  }
  return last;
}

size_t by_load(std::span<const Candidate> candidates, Prng& prng) {
  const Nanos best = best_latency(candidates);
  double total = 0;
  for (const Candidate& c : candidates) {
    if (eligible_replica(c)) total += effective_weight(c, best);
  }
  const size_t a = draw(candidates, best, total, prng);
  const size_t b = draw(candidates, best, total, prng);
  const auto load = [&](size_t i) {
    return candidates[i].in_use / effective_weight(candidates[i], best);
  };
  return load(b) < load(a) ? b : a;
}

}  // namespace

Exclusion check_candidate(const Candidate& candidate, const RoutingPolicy& policy,
                          const ReadRequest& request) {
  const RouteMember& member = *candidate.member;
  if (!candidate.reachable) return Exclusion::kUnreachable;
  if (candidate.primary) return Exclusion::kNone;
  if (!member.healthy) return Exclusion::kUnhealthy;
  if (!(member.weight > 0)) return Exclusion::kNoWeight;
  for (const std::string& tag : policy.tags) {
    if (std::ranges::find(member.tags, tag) == member.tags.end()) return Exclusion::kTag;
  }
  if (member.lag_bytes > policy.lag_bytes_max) return Exclusion::kLagBytes;
  if (member.lag_time > policy.lag_time_max) return Exclusion::kLagTime;
  if (request.min_lsn.valid() && member.replayed < request.min_lsn) return Exclusion::kBehind;
  return Exclusion::kNone;
}

std::string_view describe(Exclusion exclusion) {
  switch (exclusion) {
    case Exclusion::kNone:
      return "it may be chosen";
    case Exclusion::kUnhealthy:
      return "it is not healthy";
    case Exclusion::kUnreachable:
      return "it could not be reached a moment ago";
    case Exclusion::kNoWeight:
      return "its weight is 0";
    case Exclusion::kTag:
      return "it lacks a wanted tag";
    case Exclusion::kLagBytes:
      return "it lags by more bytes than allowed";
    case Exclusion::kLagTime:
      return "it lags by more time than allowed";
    case Exclusion::kBehind:
      return "it has not replayed what the session wrote";
    case Exclusion::kRegion:
      return "it is in another region";
  }
  return "?";
}

double rendezvous_score(std::string_view key, std::string_view server, double weight) {
  uint64_t hash = fnv1a(server, fnv1a(std::string_view("\0", 1), fnv1a(key)));
  // The finalizer of splitmix64.
  hash = (hash ^ (hash >> 30)) * 0xBF58476D1CE4E5B9u;
  hash = (hash ^ (hash >> 27)) * 0x94D049BB133111EBu;
  hash ^= hash >> 31;
  // Weighted rendezvous hashing: -w / ln(u), u in (0, 1).
  const double u = (static_cast<double>(hash >> 11) + 0.5) * 0x1.0p-53;
  return -weight / std::log(u);
}

std::optional<size_t> choose(std::span<Candidate> candidates, const RoutingPolicy& policy,
                             const ReadRequest& request, Prng& prng) {
  for (Candidate& c : candidates) c.excluded = check_candidate(c, policy, request);
  // Before regions: with nothing better the primary of another region answers.
  std::optional<size_t> primary;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (candidates[i].primary && candidates[i].excluded == Exclusion::kNone) primary = i;
  }
  if (!policy.region.empty()) prefer_region(candidates, policy.region);
  const bool replicas = std::ranges::any_of(candidates, eligible_replica);
  if (!replicas) return primary;
  if (!request.affinity.empty()) return by_affinity(candidates, request.affinity);
  const bool share = primary && candidates[*primary].excluded == Exclusion::kNone;
  if (share && unit(prng) < policy.primary_share) return primary;
  return by_load(candidates, prng);
}

}  // namespace bascule::proxy
