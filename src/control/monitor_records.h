// What monitors (databases without an agent) agree through, beside the records of every cluster: a
// monitored cluster has the same leader, members, history and request records, written by the
// monitor that holds the lease, so that proxies, status, history and the API need not know who
// decides. These are the additional ones, under <prefix>monitor/.
//
// JSON from the store is hostile, as in records.h.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "base/types.h"
#include "store/store.h"

namespace bascule::control {

// ---- monitor/lease: who of the monitors acts
// ----------------------------------------------------- Renewed by every transaction of its holder,
// each of which compares its revision: a monitor that was replaced can change nothing. Others take
// it when they have seen it unchanged for `ttl`; the holder acts on databases only until 0.6 ttl
// after the send time of its last success.
struct MonitorLease {
  std::string holder;    // monitor's name
  std::string instance;  // random, of its process: a restarted monitor is another one
  uint64_t term = 0;     // plus one at each change of holder
  uint64_t counter = 0;
  Millis ttl{5000};
  bool operator==(const MonitorLease&) const = default;
};

// ---- monitor/operation: a failover under way, persisted before each step ------------------------
enum class FailoverStep {
  kNone,        // nothing is under way
  kDraining,    // planned: proxies let running transactions end
  kClosing,     // record vacant: waiting until no proxy's permit holds, fencing the old primary
  kCatchingUp,  // planned: the fenced primary's last WAL is awaited at the target
  kPromoting,   // the new epoch is the target's; promotion by SQL or command
};
std::string_view to_string(FailoverStep step);

enum class FailoverTrigger { kAutomatic, kManual, kSwitchover, kExternal };
std::string_view to_string(FailoverTrigger trigger);

struct FailoverOperation {
  FailoverStep step = FailoverStep::kNone;
  FailoverTrigger trigger = FailoverTrigger::kAutomatic;
  NodeName from;  // the last primary that was routed to; empty: there was none
  NodeName to;
  std::string reason;
  std::string request_id;  // empty: nobody asked
  bool force = false;
  Epoch epoch;                   // before it
  Lsn final_lsn;                 // kCatchingUp: end of WAL of the fenced primary
  std::vector<NodeName> failed;  // could not be promoted in this operation
  // Fences of ours, by SQL, that may be in force; recorded before they are tried, and kept when the
  // operation is over, so that the next monitor knows whose doing a read-only primary is.
  std::vector<NodeName> fenced;
  WallTime started_at{};
  bool operator==(const FailoverOperation&) const = default;
  bool under_way() const { return step != FailoverStep::kNone; }
};

// ---- monitor/health: what the holder of the lease sees, for people and the API
// ------------------- The values are those of the metric failover_state.
enum class MonitorState {
  kUnknown = 0,
  kHealthy = 1,
  kDegraded = 2,
  kFailoverInProgress = 3,
  kFailoverComplete = 4,
  kRecoveryInProgress = 5,
};
std::string_view to_string(MonitorState state);

struct EndpointHealth {
  NodeName name;
  bool healthy = false;
  bool writable = false;  // not in recovery, and new transactions may write
  bool fenced = false;    // not in recovery, not the primary, and read-only by our doing
  bool eligible = false;
  std::string why;        // not healthy, or not eligible: the reason
  uint64_t failures = 0;  // health checks that failed in a row
  uint64_t failures_total = 0;
  int64_t response_ms = -1;  // of the last check; -1: unknown
  int64_t lag_ms = -1;
  int64_t lag_bytes = -1;
  WallTime last_check{};
  WallTime down_since{};  // 0: it is not down
  int version = 0;        // 150020; 0: unknown
  bool operator==(const EndpointHealth&) const = default;
};

struct MonitorHealth {
  MonitorState state = MonitorState::kUnknown;
  std::string reason;
  std::string monitor;  // whose view this is
  uint64_t failovers = 0;
  uint64_t recoveries = 0;
  uint64_t check_failures = 0;
  std::vector<EndpointHealth> endpoints;
  bool operator==(const MonitorHealth&) const = default;
};

// ---- monitor/observers/<monitor>: what the others see
// --------------------------------------------
struct ObserverRecord {
  std::string monitor;
  uint64_t counter = 0;  // grows with every writing: an observer that is silent has no say
  std::vector<NodeName> reachable;
  std::vector<NodeName> unreachable;  // beyond the threshold
  bool operator==(const ObserverRecord&) const = default;
};

// ---- monitor/proxies/<id>: which revision of the leader record a proxy acts by
// ------------------- Present before the proxy's first permit: when every proxy listed acts by a
// closed record, nobody has a permit and there is nothing to wait for.
struct ProxyAck {
  std::string id;
  store::Revision acts_by = 0;
  bool operator==(const ProxyAck&) const = default;
};

template <typename T>
struct Seen {
  T value;
  store::Revision revision = 0;
};

struct MonitorView {
  std::optional<Seen<MonitorLease>> lease;
  store::Revision lease_revision = 0;  // also when unreadable
  std::optional<Seen<FailoverOperation>> operation;
  std::optional<MonitorHealth> health;
  std::map<std::string, Seen<ObserverRecord>> observers;
  std::map<std::string, ProxyAck> proxies;
  bool unreadable = false;  // lease or operation: nobody may act on a guess
};

// `prefix`: that of Keys, "/bascule/<cluster>/".
struct MonitorKeys {
  std::string prefix;
  explicit MonitorKeys(const std::string& cluster_prefix) : prefix(cluster_prefix + "monitor/") {}
  std::string lease() const { return prefix + "lease"; }
  std::string operation() const { return prefix + "operation"; }
  std::string health() const { return prefix + "health"; }
  std::string observer(std::string_view name) const {
    return prefix + "observers/" + std::string(name);
  }
  std::string proxy(std::string_view id) const { return prefix + "proxies/" + std::string(id); }
};

// One entry below `keys.prefix` into `view`; an error names the key.
Status read_monitor_entry(const MonitorKeys& keys, const store::Entry& entry, MonitorView& view);

std::string encode(const MonitorLease&);
std::string encode(const FailoverOperation&);
std::string encode(const MonitorHealth&);
std::string encode(const ObserverRecord&);
std::string encode(const ProxyAck&);
Result<MonitorLease> decode_monitor_lease(std::string_view json);
Result<FailoverOperation> decode_failover_operation(std::string_view json);
Result<MonitorHealth> decode_monitor_health(std::string_view json);
Result<ObserverRecord> decode_observer(std::string_view json);
Result<ProxyAck> decode_proxy_ack(std::string_view json);

}  // namespace bascule::control
