// What writes to tables lead to (sql::WriteReach), for the databases whose clients have rules of
// durability by table: fetched when one logs in, and again after `catalog_refresh`, over a
// connection of the proxy's own to the primary. Of one worker, on its thread.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "proxy/own_query.h"
#include "proxy/table_durability.h"

namespace bascule::proxy {

struct Pool;
class Worker;

class WriteReaches {
 public:
  explicit WriteReaches(Worker& worker) : worker_(worker) {}

  // Null: too many databases, or one with servers of its own. Stays where it is as long as the
  // worker lives.
  const WriteReachSlot* slot(const Pool& pool);
  void sweep();
  void close();  // nothing is fetched any more

 private:
  struct Database {
    WriteReachSlot slot;
    std::string user, server_database;  // who asks
    MonoTime next_fetch{}, expires{};
    std::unique_ptr<OwnConnection> connection;  // while it is fetched
    std::unique_ptr<sql::WriteReach> incoming;
  };
  void fetch(const std::string& name, Database& database);
  void fetched(const std::string& name, Database& database, uint64_t plans, Status status);

  static constexpr size_t kDatabasesMax = 1'000;
  static constexpr Nanos kTimeout = 15s, kRetry = 5s;

  Worker& worker_;
  std::map<std::string, Database> databases_;
};

}  // namespace bascule::proxy
