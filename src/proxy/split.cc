#include "proxy/split.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/log.h"
#include "proxy/client_connection.h"
#include "proxy/worker.h"

namespace bascule::proxy {
namespace {

constexpr Nanos kFetchTimeout = 15s;

// Client encodings in which a byte of a character may look like a quote or backslash: what our
// parser reads is not what the server does.
bool ascii_safe(std::string_view encoding) {
  constexpr std::array<std::string_view, 8> kUnsafe = {
      "BIG5", "GB18030", "GBK", "JOHAB", "SHIFT_JIS_2004", "SJIS", "UHC", "MULE_INTERNAL"};
  return std::ranges::find(kUnsafe, encoding) == kUnsafe.end();
}

bool contains_word(std::string_view text, std::string_view lower_word) {
  const auto same = [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a | 32 : a) == b; };
  return std::search(text.begin(), text.end(), lower_word.begin(), lower_word.end(), same) !=
         text.end();
}

bool changes_schema(const sql::Analysis& analysis) {
  if (analysis.reason != sql::Reason::kWrites) return false;
  const std::string_view what = analysis.subject;
  return what.starts_with("Create") || what.starts_with("Alter") || what.starts_with("Drop") ||
         what.starts_with("View") || what.starts_with("Rename") || what.starts_with("Define") ||
         what.starts_with("Composite") || what.starts_with("Import");
}

}  // namespace

SplitRouter::~SplitRouter() = default;

SplitRouter::Database& SplitRouter::database(ClientConnection& client) {
  const std::string& name = client.pool().database;
  const auto found = databases_.find(name);
  if (found != databases_.end()) return *found->second;
  if (databases_.size() >= kDatabasesMax) {
    std::erase_if(databases_, [](const auto& entry) { return entry.second->fetch == nullptr; });
  }
  return *databases_.emplace(name, std::make_unique<Database>(VerdictCache::Limits{}))
              .first->second;
}

void SplitRouter::look_after(Database& database, ClientConnection& client) {
  CatalogTable& table = worker_.shared().catalogs;
  const MonoTime now = worker_.loop().now();
  const uint64_t version = table.version();
  if (version == database.version && now < database.next_look) return;
  database.version = version;
  database.next_look = now + kLookInterval;
  CatalogRef catalog = table.find(client.pool().database, now);
  static const CatalogRef kNone = std::make_shared<const sql::Catalog>();
  database.cache.set_catalog(catalog ? std::move(catalog) : kNone);
  if (database.fetch == nullptr) begin_fetch(database, client);
}

void SplitRouter::begin_fetch(Database& database, ClientConnection& client) {
  const Route* route = worker_.route();
  if (route == nullptr || !route->table.primary) return;
  const Pool& pool = client.pool();
  CatalogTable& table = worker_.shared().catalogs;
  if (!table.claim(pool.database, worker_.loop().now())) return;
  OwnConnection::Server server;
  server.endpoint = route->table.primary->endpoint;
  server.startup = own_startup(pool.user, pool.database);
  server.access = worker_.access();
  server.credential = worker_.credentials().get(*server.access, pool.user);
  database.fetch = std::make_unique<CatalogFetch>(worker_.loop(), worker_.net(), worker_.entropy(),
                                                  std::move(server));
  database.fetch->start(kFetchTimeout, [this, &database,
                                        name = pool.database](Result<CatalogRef> catalog) {
    if (!catalog) {
      log(LogLevel::kWarn, "proxy",
          "the functions of a database could not be looked up: its statements go to the primary",
          {{"database", name}, {"error", catalog.error().to_string()}});
    }
    worker_.shared().catalogs.fetched(name, catalog ? std::move(*catalog) : nullptr,
                                      worker_.loop().now());
    // Not inside its own callback.
    worker_.loop().post([&database] { database.fetch.reset(); });
  });
}

void SplitRouter::follow_settings(ClientConnection& client) {
  SplitClient& state = client.split();
  const SettingsRef& wanted = client.session().wanted();
  if (state.settings == wanted) return;
  state.settings = wanted;
  state.affinity.clear();
  state.primary_only = false;
  if (const Setting* setting = wanted->find("bascule.affinity")) {
    const sql::Analysis analysis = sql::analyse(setting->sql, sql::Catalog());
    if (analysis.kind == sql::Kind::kSetAffinity) state.affinity = analysis.subject;
  }
  for (const Setting& setting : wanted->list) {
    // A hot standby refuses it.
    const bool isolation = setting.name == "default_transaction_isolation" ||
                           contains_word(setting.name, "session characteristics");
    if (isolation && contains_word(setting.sql, "serializable")) state.primary_only = true;
  }
}

sql::Strings SplitRouter::strings(ClientConnection& client) const {
  const bool standard = client.reported("standard_conforming_strings") == "on";
  return standard ? sql::Strings::kStandard : sql::Strings::kNonstandard;
}

SplitRouter::Decision SplitRouter::decide(ClientConnection& client, std::string_view unread) {
  read_batch(unread, batch_);
  if (batch_.state == SplitBatch::State::kNeedMore)
    return {.need_more = true, .any_server = false, .affinity = {}};
  SplitClient& state = client.split();
  Database& known = database(client);
  if (std::exchange(state.changed_schema, false)) {
    worker_.shared().catalogs.outdated(client.pool().database);
    known.next_look = {};
  }
  look_after(known, client);
  follow_settings(client);
  affinity_ = state.affinity;
  if (batch_.state != SplitBatch::State::kWhole) return {};
  const sql::Strings mode = strings(client);
  BatchVerdict verdict;
  for (const SplitBatch::Item& item : batch_.items) {
    std::string_view sql = item.sql;
    if (item.prepared_before()) {
      const auto prepared = client.session().prepared_sql(item.name);
      if (!prepared) return {};
      sql = *prepared;
    }
    const VerdictCache::Verdict one = known.cache.verdict(sql, mode);
    verdict.add(one.analysis);
    if (!one.affinity.empty()) affinity_ = one.affinity;
    if (changes_schema(one.analysis)) state.changed_schema = true;
  }
  if (!verdict.any_server() || state.primary_only) return {};
  if (!ascii_safe(client.reported("client_encoding"))) return {};
  return {.need_more = false, .any_server = true, .affinity = affinity_};
}

void SplitRouter::mistaken(ClientConnection& client) {
  client.split().changed_schema = true;
  log(LogLevel::kWarn, "proxy", "a replica refused to write: the statement goes to the primary",
      {{"database", client.pool().database},
       {"hint", "is a function STABLE or IMMUTABLE that writes?"}});
}

}  // namespace bascule::proxy
