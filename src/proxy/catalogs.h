// The catalogs of the databases that clients of splitting ports use. One snapshot a database for
// all workers; whoever needs a fresh one first fetches it, over a connection of the proxy's own
// with the credentials that it has for its client's user: the query needs no privileges.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "base/result.h"
#include "base/time.h"
#include "proxy/own_query.h"
#include "sql/catalog.h"

namespace bascule::proxy {

using CatalogRef = std::shared_ptr<const sql::Catalog>;

// Any thread.
class CatalogTable {
 public:
  struct Times {
    Nanos refresh = 60s;  // age at which a snapshot is fetched again
    Nanos expire = 300s;  // age at which it proves nothing any more
    Nanos retry = 5s;     // after a failure
  };
  explicit CatalogTable(Times times) : times_(times) {}

  // Moves on with every snapshot stored or taken away.
  uint64_t version() const { return version_.load(std::memory_order_acquire); }
  // Null: none, or too old.
  CatalogRef find(const std::string& database, MonoTime now);
  // True: the caller is to fetch it now, and to call fetched() in the end. At most one at a time.
  bool claim(const std::string& database, MonoTime now);
  // Null: it failed.
  void fetched(const std::string& database, CatalogRef catalog, MonoTime now);
  // Something in the database has been changed by DDL: fetched again at the next claim().
  void outdated(const std::string& database);

 private:
  struct Entry {
    CatalogRef catalog;
    MonoTime fetched_at{};
    MonoTime next_try{};  // not before
    MonoTime claimed_at{};
    bool claimed = false;
  };
  // Databases are the clients' to name.
  static constexpr size_t kDatabasesMax = 1'000;
  static constexpr Nanos kFetchMax = 60s;
  const Times times_;
  std::atomic<uint64_t> version_{1};
  std::mutex mutex_;
  std::map<std::string, Entry> entries_;  // guarded by mutex_
};

// One fetch. Deletes nothing of itself; ends by calling `done` once, unless destroyed before.
class CatalogFetch {
 public:
  using Done = std::move_only_function<void(Result<CatalogRef>)>;
  CatalogFetch(env::Loop& loop, env::Net& net, env::Entropy& entropy, OwnConnection::Server server);
  void start(Nanos timeout, Done done);

 private:
  OwnConnection connection_;
  sql::Catalog::Builder builder_;
  Done done_;
};

// What the start-up of such a connection says, so that neither the role's nor the database's own
// settings (search_path!) change what the query means.
Parameters own_startup(const std::string& user, const std::string& database);

}  // namespace bascule::proxy
