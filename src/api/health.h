// What the health routes decide, from a snapshot and the time now: a snapshot ages, and a primary
// whose deadline has passed is none, however healthy it looked. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "api/snapshot.h"
#include "base/result.h"

namespace bascule::api {

// Nothing is said about a member from an older view than this.
Millis freshness(const Snapshot& snapshot);  // the cluster's ttl
bool store_is_fresh(const Snapshot& snapshot, MonoTime now);
bool agent_is_alive(const Snapshot& snapshot, MonoTime now);

// The local member: writable and holding the leader record at `now`.
bool is_primary(const Snapshot& snapshot, MonoTime now);
bool is_standby_leader(const Snapshot& snapshot, MonoTime now);
// Follows the leader and answers queries. A diverged, rewinding or isolated member does not.
bool is_replica(const Snapshot& snapshot, MonoTime now);
// A replica whose acknowledgement the leader waits for.
bool is_sync_replica(const Snapshot& snapshot, MonoTime now);
bool postgres_is_up(const Snapshot& snapshot, MonoTime now);

// WAL that the local replica has not replayed, against the newest end of WAL it has heard of from
// its upstream or from the store; nullopt: not known.
std::optional<uint64_t> local_lag_bytes(const Snapshot& snapshot);
// WAL that `member` has not received, as published; nullopt: not known (another timeline).
std::optional<uint64_t> lag_bytes(const control::ClusterView& view,
                                  const control::MemberRecord& member);

// "16MB", "512kB", "1048576"; powers of 1024, case ignored (Patroni's ?lag=).
Result<uint64_t> parse_bytes(std::string_view text);

// States of the failover manager (spec/api.md); the values are those of `failover_state`.
enum class FailoverState {
  kUnknown = 0,
  kHealthy = 1,
  kDegraded = 2,
  kFailoverInProgress = 3,
  kFailoverComplete = 4,
  kRecoveryInProgress = 5,
};
std::string_view to_string(FailoverState state);

struct ClusterHealth {
  FailoverState state = FailoverState::kUnknown;
  std::string reason;
  bool primary_healthy = false;
};
ClusterHealth cluster_health(const Snapshot& snapshot, MonoTime now);

// A member other than the leader that follows it. Where this daemon's member leads, its own
// walsenders are believed rather than what the member last published.
bool standby_is_healthy(const Snapshot& snapshot, const control::MemberRecord& member);
// A commit waits for any k of several, none of them named: as Patroni, these are no "sync
// standbys".
bool quorum_mode(const control::ClusterView& view);
// In the newest generation of the synchronous set.
bool is_sync_voter(const control::ClusterView& view, const control::MemberRecord& member);
// Of two members of a region that is asked to take over, `a` is preferred to `b`: by priority, then
// by WAL (as published). Otherwise the first by name is taken.
bool rather_leads(const control::MemberRecord& a, const control::MemberRecord& b);
// The leader record when somebody holds it.
const control::LeaderRecord* leader_of(const control::ClusterView& view);

}  // namespace bascule::api
