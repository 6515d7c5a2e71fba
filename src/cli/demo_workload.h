// The demo's clients: ordinary libpq clients of the proxy's writer port that know nothing of
// failover. Each inserts (client, seq) rows, alone and in small transactions, and never repeats a
// write: one that ended in an error is left alone. Each client has a thread of its own pool.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>

#include "cli/demo_ledger.h"
#include "cli/layout.h"
#include "cli/pg_client.h"
#include "cli/platform.h"

namespace bascule::cli {

PgClient::Options writer_options(const LocalCluster& cluster);

class Workload {
 public:
  Workload(const Platform& platform, const LocalCluster& cluster, int clients);
  ~Workload();  // stops
  Workload(const Workload&) = delete;
  Workload& operator=(const Workload&) = delete;

  static Status create_table(const LocalCluster& cluster);
  void start();
  void stop();            // waits for the statements that run
  Ledger ledger() const;  // a copy
  // When the newest write was acknowledged; MonoTime{} before the first.
  MonoTime newest() const { return MonoTime(Nanos(newest_ns_.load())); }
  uint64_t acknowledged() const { return acknowledged_.load(); }
  uint64_t errors() const { return errors_.load(); }

  static Result<RowCounts> count_rows(const LocalCluster& cluster);

 private:
  class Client;
  void on_acknowledged(int client, std::initializer_list<int64_t> seqs);
  void on_error(int client, const std::string& what);

  const Platform& platform_;
  const LocalCluster& cluster_;
  const int clients_;
  std::atomic<bool> stop_{false};
  std::atomic<int64_t> newest_ns_{0};
  std::atomic<uint64_t> acknowledged_{0};
  std::atomic<uint64_t> errors_{0};
  mutable std::mutex mutex_;
  Ledger ledger_;  // guarded by mutex_
  std::unique_ptr<env::BlockingPool> pool_;
};

}  // namespace bascule::cli
