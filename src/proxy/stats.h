// What the proxy tells about itself. Snapshots: plain data.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "env/loop_stats.h"

namespace bascule::proxy {

struct WorkerStats {
  uint64_t clients = 0;              // connected now, logged in or not
  uint64_t held = 0;                 // clients whose statement waits for a server now
  uint64_t active_transactions = 0;  // writer port: statement in flight or transaction open now
  uint64_t servers = 0;              // server connections now, in log-in or ready
  uint64_t servers_idle = 0;         // of these: without a client
  uint64_t clients_total = 0;        // accepted since start
  uint64_t logins_failed = 0;
  uint64_t servers_total = 0;  // logged in since start
  uint64_t servers_lost = 0;   // broke, or dropped because of their epoch
  uint64_t transactions = 0;   // ReadyForQuery outside a transaction forwarded
  uint64_t moved = 0;          // sessions set up again on another server connection
  uint64_t retried = 0;        // statements sent again
  uint64_t errors_outage = 0;  // errors made by the proxy for work lost with a server
  uint64_t hold_timeouts = 0;
  uint64_t clients_dropped = 0;  // sessions closed because they could not be moved
  uint64_t cancels = 0;
  uint64_t unreplicated = 0;   // commits whose wait for a synchronous standby was cancelled
  uint64_t split_replica = 0;  // splitting ports: transactions that were sent to a replica
  uint64_t split_primary = 0;  // ... to the primary
  // Clients that keep their server between transactions, by Pin; looked at now and then.
  static constexpr size_t kPins = 16;
  std::array<uint64_t, kPins> pinned{};
  uint64_t route_version = 0;  // of the table that the worker acts by
  env::LoopStats loop;
};

struct ProxyStats {
  std::vector<WorkerStats> workers;
  WorkerStats total;           // sums; route_version: the smallest
  uint64_t route_version = 0;  // of the last publish()
};

// One worker's counters: its thread writes, any thread reads.
class Counter {
 public:
  void add(uint64_t n = 1) { set(get() + n); }
  void sub(uint64_t n = 1) { set(get() - n); }
  void set(uint64_t n) { value_.store(n, std::memory_order_release); }
  uint64_t get() const { return value_.load(std::memory_order_acquire); }

 private:
  std::atomic<uint64_t> value_{0};
};

struct WorkerCounters {
  Counter clients, held, active_transactions, servers, servers_idle, clients_total, logins_failed,
      servers_total, servers_lost, transactions, moved, retried, errors_outage, hold_timeouts,
      clients_dropped, cancels, unreplicated, split_replica, split_primary, route_version;
  std::array<Counter, WorkerStats::kPins> pinned;
  WorkerStats read() const;
};

WorkerStats operator+(const WorkerStats& a, const WorkerStats& b);

}  // namespace bascule::proxy
