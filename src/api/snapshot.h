// Everything the API answers from: one immutable value, made by the daemon and published to the
// HTTP server. Plain data; times are the daemon's own monotonic clock unless said otherwise.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "api/alerts.h"
#include "base/time.h"
#include "base/types.h"
#include "control/agent.h"
#include "control/events.h"
#include "control/records.h"
#include "env/loop_stats.h"

namespace bascule::api {

// The member whose agent runs in this daemon, as that agent sees it.
struct LocalMember {
  NodeName name;
  control::Phase phase = control::Phase::kStarting;
  std::string reason;
  Epoch leading_epoch;   // 0 unless it holds the leader record
  MonoTime deadline{};   // leading: PostgreSQL acknowledges nothing after it
  MonoTime proved_at{};  // when the renewal or the pledges that it counts from were asked for
  MonoTime taken_at{};   // of the agent's last step
  control::PgStatus postgres;
};

struct LoopSample {
  std::string name;  // "agent", "worker-0"
  env::LoopStats stats;
};

// A metric of another component (the proxy's), already under its final name.
struct MetricPoint {
  std::string name;  // bascule_…, base unit, _total if a counter
  std::string help;
  enum class Kind { kGauge, kCounter } kind = Kind::kGauge;
  std::vector<std::pair<std::string, std::string>> labels;
  double value = 0;
};

// One look at an endpoint.
struct EndpointSample {
  WallTime at{};
  int64_t response_ms = -1;  // -1: not measured
  int64_t lag_ms = -1;
  int64_t lag_bytes = -1;
  bool healthy = false;
};

// What only a series of snapshots can tell (tally.h); the HTTP server fills it in.
struct TallyCounts {
  uint64_t recoveries = 0;             // members that follow again after they did not
  uint64_t health_check_failures = 0;  // samples of the local PostgreSQL without an answer
  uint64_t primary_failures = 0;       // snapshots in a row without a writable primary
  std::optional<MonoTime> primary_down_since;
  std::map<NodeName, uint64_t> standby_failures;            // likewise in which it did not follow
  std::optional<MonoTime> monitor_seen_at;                  // the monitors' lease was seen renewed
  std::vector<Alert> alerts;                                // active ones first
  std::map<NodeName, std::vector<EndpointSample>> samples;  // oldest first
  std::map<NodeName, Nanos> lag;  // replicas: how old the newest replayed position is
};

struct Snapshot {
  std::string cluster;
  std::string version;   // of the program
  std::string instance;  // label of the metrics that the sources name: "host:port" or the member
  WallTime wall{};       // when this was made, for people
  MonoTime taken_at{};
  std::optional<LocalMember> local;  // none: a daemon without a PostgreSQL (proxy)
  control::ClusterView view;
  std::optional<MonoTime> store_seen_at;  // when `view` was read; nullopt: never
  // A proxy in this daemon may route writes until then, whatever became of the store (the leader
  // itself said so); nullopt: it was not asked.
  std::optional<MonoTime> routes_until;
  std::vector<LoopSample> loops;
  std::vector<MetricPoint> metrics;
  TallyCounts tally;
};

}  // namespace bascule::api
