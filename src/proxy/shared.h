// What all workers of a proxy share. Everything here may be used by any thread.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "proxy/catalogs.h"
#include "proxy/config.h"
#include "proxy/controls.h"
#include "proxy/name_counts.h"
#include "proxy/route_table.h"
#include "proxy/server_login.h"
#include "proxy/server_passwords.h"
#include "proxy/session.h"

namespace bascule::proxy {

// How long the primary of one epoch may act. Written on each renewal, read before each answer.
class Permit {
 public:
  explicit Permit(MonoTime until) { extend(until); }
  void extend(MonoTime until) {
    until_.store(until.time_since_epoch().count(), std::memory_order_relaxed);
  }
  MonoTime until() const { return MonoTime(Nanos(until_.load(std::memory_order_relaxed))); }

 private:
  std::atomic<int64_t> until_{0};
};

struct Route {
  RouteTable table;
  // shared_ptr: server connections of an epoch read it after the table has been replaced.
  std::shared_ptr<Permit> permit;
  uint64_t version = 0;
};

// The limit of server connections over all workers. First come, first served: a place that becomes
// free belongs to the worker whose client has waited longest.
class ServerLimit {
 public:
  explicit ServerLimit(int max) : max_(max) {}
  // False: none is free; the worker is in the queue, and will be woken. `since`: when its oldest
  // client began to wait.
  bool acquire(int worker, MonoTime since);
  // The worker's oldest client has changed; max(): it does not wait any more.
  void claim(int worker, MonoTime since);
  // Only if one is free and nobody waits.
  bool try_acquire();
  // Gives a place back. The worker to wake, if one waits.
  std::optional<int> release();
  // A woken worker that needs no place any more. The next worker to wake.
  std::optional<int> decline(int worker);
  // Since when the oldest client of the workers in the queue waits; max() if none does.
  MonoTime waiting_since() const {
    return MonoTime(Nanos(waiting_since_.load(std::memory_order_relaxed)));
  }
  int max() const { return max_.load(std::memory_order_relaxed); }
  // More takes effect at once (the workers to wake), less as connections are closed.
  std::vector<int> set_max(int max);
  int used();  // places taken or granted

 private:
  struct Entry {
    MonoTime since;
    int worker;
  };
  std::optional<int> grant_next();
  void insert(int worker, MonoTime since);
  void publish_front();

  std::atomic<int> max_;  // written under mutex_
  std::mutex mutex_;
  int used_ = 0;               // guarded by mutex_; granted places count
  std::deque<Entry> waiting_;  // guarded by mutex_; oldest first
  std::vector<int> granted_;   // guarded by mutex_: workers woken that have not acquired yet
  std::atomic<int64_t> waiting_since_{std::numeric_limits<int64_t>::max()};
};

// A limit beside pool_size, over all workers: of a pool, a database or a user. Never removed.
struct Cap {
  std::string what;  // for messages: `pool "app"/"shop"`
  std::atomic<int> max{0}, reserve{0};
  std::atomic<int> used{0};
  std::atomic<uint64_t> wanted{0};  // bits of workers whose clients wait for a place below it
};

class Caps {
 public:
  // The limits that apply to these server connections; those known before are changed to what
  // `config` says.
  std::vector<Cap*> of(const ProxyConfig& config, const std::string& user,
                       const std::string& database);
  // Takes a place below each, or none. Null: done; else the one that is full. `with_reserve`: of
  // those that have one.
  enum class Reserve { kKeep, kUse };
  static Cap* take(const std::vector<Cap*>& caps, Reserve reserve, int worker);
  // The bits of the workers that wait for one of them.
  static uint64_t give(const std::vector<Cap*>& caps);
  static uint64_t bit(int worker) { return uint64_t{1} << (worker % 64); }

 private:
  Cap* get(const std::string& what, int max, int reserve);
  std::mutex mutex_;
  std::map<std::string, std::unique_ptr<Cap>> caps_;  // guarded by mutex_
};

// What servers reported at log-in, by kind of client and port: a client that comes to a worker
// which has no server connection yet is told at once, also when the pool is used up.
class ReportedParameters {
 public:
  using Key = std::tuple<PortKind, std::string, std::string, Parameters>;
  void store(const Key& key, const Parameters& parameters);
  std::optional<Parameters> find(const Key& key);
  // Another number whenever find() may give something else.
  uint64_t version() const { return version_.load(std::memory_order_acquire); }

 private:
  // Start-up parameters are the clients' to choose: forget everything rather than grow.
  static constexpr size_t kMax = 1000;
  std::mutex mutex_;
  std::map<Key, Parameters> known_;  // guarded by mutex_
  std::atomic<uint64_t> version_{0};
};

// Of the clients of a user to a database. A rule for pools counts before one for the database.
PoolMode pool_mode(const ProxyConfig& config, const std::string& user, const std::string& database);
int min_pool_size(const ProxyConfig& config, const DatabaseRule* rule);
// How many clients a database, and a user of it, may have; 0: no limit.
int max_db_clients(const ProxyConfig& config, const std::string& database);
int max_user_clients(const ProxyConfig& config, const std::string& user,
                     const std::string& database);

struct Shared {
  // What one worker writes often must not share a line with what others read.
  static constexpr size_t kCacheLine = 64;
  Shared(ProxyConfig c)
      : config(std::move(c)),
        limits{.retained_bytes = config.retained_bytes_max,
               .memory = {.prepared_count = config.prepared_count_max,
                          .prepared_bytes = config.prepared_bytes_max,
                          .settings = config.settings_count_max},
               .server_statements = config.server_prepared_max},
        servers(config.pool_size),
        catalogs({.refresh = config.catalog_refresh, .expire = config.catalog_expire}) {}
  const ProxyConfig config;
  const Session::Limits limits;
  ServerLimit servers;
  ServerPasswords server_passwords;
  NameCounts logging_in;                            // by address
  NameCounts clients_of_database, clients_of_user;  // logged in; as they call it
  Caps caps;
  ReportedParameters reported;
  ParsedTextsTable parsed;
  CatalogTable catalogs;
  // Read with every transaction.
  alignas(kCacheLine) std::atomic<uint64_t> plans{0};  // of Workspace
  alignas(kCacheLine) std::atomic<int> clients{0};
  std::atomic<int> consoles{0};   // of these
  std::atomic<int> accepting{0};  // workers that listen
  // Written by every worker with every client that waits.
  alignas(kCacheLine) std::atomic<int> held{0};
};

class Worker;

// How a worker reaches the others: work is posted to their loops.
class Crew {
 public:
  virtual ~Crew() = default;
  // Of a client of any of them, or of the process that this one has replaced. `done` runs on a
  // worker's thread once the cancel has been delivered or there is nothing to cancel here. kNo: no
  // client here has this secret.
  enum class Known { kNo, kYes };
  using CancelDone = std::move_only_function<void(Known)>;
  virtual void cancel(uint32_t pid, const std::string& secret, CancelDone done) = 0;
  virtual void wake(int worker) = 0;           // a place for a server connection is free for it
  virtual void make_room(int for_worker) = 0;  // the others: close an idle server connection

  // ---- For the console. Any thread -----------------------------------------------------------
  virtual int size() const = 0;
  virtual void post(int worker, std::move_only_function<void(Worker&)> work) = 0;
  // Changes what all workers act by: each has it before anything that is posted to it afterwards.
  virtual Status control(const std::function<Status(Controls&)>& change) = 0;
  virtual Status configure(const std::function<Status(ProxyConfig&)>& change) = 0;
};

}  // namespace bascule::proxy
