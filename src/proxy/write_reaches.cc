#include "proxy/write_reaches.h"

#include <utility>

#include "base/log.h"
#include "proxy/worker.h"

namespace bascule::proxy {

const WriteReachSlot* WriteReaches::slot(const Pool& pool) {
  if (pool.elsewhere()) return nullptr;
  const auto known = databases_.find(pool.database);
  if (known != databases_.end()) return &known->second.slot;
  if (databases_.size() >= kDatabasesMax) return nullptr;
  Database& database = databases_[pool.database];
  database.user = pool.user;
  database.server_database = pool.server_database();
  fetch(pool.database, database);
  return &database.slot;
}

void WriteReaches::sweep() {
  const MonoTime now = worker_.loop().now();
  for (auto& [name, database] : databases_) {
    if (database.slot.reach && now >= database.expires) database.slot.reach.reset();
    const bool outdated = database.slot.reach && database.slot.plans != *worker_.workspace().plans;
    if (now >= database.next_fetch || outdated) fetch(name, database);
  }
}

void WriteReaches::close() { databases_.clear(); }

void WriteReaches::fetch(const std::string& name, Database& database) {
  const Route* route = worker_.route();
  if (database.connection || route == nullptr || !route->table.primary) return;
  OwnConnection::Server server;
  server.endpoint = route->table.primary->endpoint;
  server.startup = own_startup(database.user, database.server_database);
  server.access = worker_.access();
  server.credential = worker_.credentials().get(*server.access, database.user);
  database.connection = std::make_unique<OwnConnection>(worker_.loop(), worker_.net(),
                                                        worker_.entropy(), std::move(server));
  database.incoming = std::make_unique<sql::WriteReach>();
  const uint64_t plans = *worker_.workspace().plans;
  database.connection->query(
      sql::WriteReach::kQuery, kTimeout,
      [&database](const OwnConnection::Row& row) -> Status {
        if (row.size() != 5) return fail(ErrorCode::kInvalid, "the answer has another form");
        const auto text = [&](size_t i) { return std::string(row[i].value_or("")); };
        return database.incoming->add(text(0), {text(1), text(2)}, {text(3), text(4)});
      },
      [this, &name, &database, plans](Status status) {
        fetched(name, database, plans, std::move(status));
      });
}

void WriteReaches::fetched(const std::string& name, Database& database, uint64_t plans,
                           Status status) {
  const MonoTime now = worker_.loop().now();
  if (status) {
    database.slot = {std::move(database.incoming), plans};
    database.expires = now + worker_.config().catalog_expire;
  } else {
    log(LogLevel::kWarn, "proxy",
        "what writes to tables lead to could not be looked up: they are committed as the strictest "
        "rule says",
        {{"database", name}, {"error", status.error().to_string()}});
  }
  database.next_fetch = now + (status ? worker_.config().catalog_refresh : kRetry);
  // Not inside its own callback.
  worker_.loop().post([&database] { database.connection.reset(); });
}

}  // namespace bascule::proxy
