// The inside of MonitorCluster: what databases, proxies and monitor processes consist of.
#pragma once

#include <deque>

#include "sim/monitor_cluster.h"

namespace bascule::sim {

inline constexpr uint64_t kBytesPerCommit = 1000;
inline constexpr Endpoint kFirstMonitor = 3;

struct MonitorCluster::Database {
  ProcessId process{};
  bool alive = true;
  bool in_recovery = true;
  bool read_only = false;
  bool may_not_be_fenced = false;  // its provider does not let us
  uint32_t timeline = 1;
  int upstream = 0;
  std::vector<uint64_t> log;  // commits, as replayed
  SimTime heard_from_upstream{};
  SimTime rebuild_at{-1};
  Lsn end() const { return Lsn{1000 + log.size() * kBytesPerCommit}; }
};

struct MonitorCluster::MonitorProcess {
  std::optional<monitor::Monitor> monitor;
  ProcessId process{};
  uint64_t timer = 0;
  int lives = 0;
  control::ClusterParser parser{control::Keys("db")};
  std::map<int, int> failed;  // checks in a row that this process was told had failed, by database
  std::map<int, int> decided_by;  // `failed` when it sent its newest change of the operation
  std::pair<uint64_t, NodeName> fencing;  // its newest action, if that is a fence: id and whom
};

struct MonitorCluster::Proxy {
  ProcessId process{};
  std::string id;
  control::ClusterParser parser{control::Keys("db")};
  bool reading = false;
  std::optional<int> primary;
  uint64_t epoch = 0;
  bool draining = false;
  MonoTime permit_until{};
  store::Revision acts_by = 0;
  store::Revision registered_as = 0;
  bool acking = false;
  int transactions = 0;
};

}  // namespace bascule::sim
