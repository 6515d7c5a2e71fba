#include "proxy/catalogs.h"

#include <utility>

namespace bascule::proxy {

CatalogRef CatalogTable::find(const std::string& database, MonoTime now) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(database);
  if (found == entries_.end() || found->second.catalog == nullptr) return nullptr;
  if (now - found->second.fetched_at > times_.expire) return nullptr;
  return found->second.catalog;
}

bool CatalogTable::claim(const std::string& database, MonoTime now) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(database);
  if (found == entries_.end()) {
    if (entries_.size() >= kDatabasesMax) return false;
    Entry& entry = entries_[database];
    entry.claimed = true;
    entry.claimed_at = now;
    return true;
  }
  Entry& entry = found->second;
  // A worker that was stopped while it fetched must not keep the others from it.
  if (entry.claimed && now - entry.claimed_at < kFetchMax) return false;
  if (now < entry.next_try) return false;
  entry.claimed = true;
  entry.claimed_at = now;
  return true;
}

void CatalogTable::fetched(const std::string& database, CatalogRef catalog, MonoTime now) {
  const std::lock_guard lock(mutex_);
  Entry& entry = entries_[database];
  entry.claimed = false;
  entry.next_try = now + (catalog == nullptr ? times_.retry : times_.refresh);
  if (catalog == nullptr) return;
  entry.catalog = std::move(catalog);
  entry.fetched_at = now;
  version_.fetch_add(1, std::memory_order_release);
}

void CatalogTable::outdated(const std::string& database) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(database);
  if (found != entries_.end()) found->second.next_try = {};
}

CatalogFetch::CatalogFetch(env::Loop& loop, env::Net& net, env::Entropy& entropy,
                           OwnConnection::Server server)
    : connection_(loop, net, entropy, std::move(server)) {}

void CatalogFetch::start(Nanos timeout, Done done) {
  done_ = std::move(done);
  connection_.query(
      sql::Catalog::kQuery, timeout,
      [this](const OwnConnection::Row& row) -> Status {
        if (row.size() != 4) return fail(ErrorCode::kInvalid, "the catalog has another form");
        const auto text = [&](size_t i) { return row[i].value_or(std::string_view()); };
        return builder_.add(text(0), text(1), text(2), text(3));
      },
      [this](Status status) {
        Done last = std::move(done_);
        if (!status) return last(std::unexpected(status.error()));
        auto catalog = std::move(builder_).build();
        if (!catalog) return last(std::unexpected(catalog.error()));
        last(std::make_shared<const sql::Catalog>(std::move(*catalog)));
      });
}

Parameters own_startup(const std::string& user, const std::string& database) {
  return {{"user", user},
          {"database", database},
          {"application_name", "bascule"},
          {"client_encoding", "UTF8"},
          {"options",
           "-c search_path=pg_catalog -c statement_timeout=10s -c lock_timeout=5s "
           "-c default_transaction_read_only=on -c jit=off"}};
}

}  // namespace bascule::proxy
