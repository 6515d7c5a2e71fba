// Splitting ports, one worker's: decides for a client's next statements whether any server may run
// them, and which. Keeps the verdicts of texts, and has the catalogs fetched that they rest on.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "proxy/catalogs.h"
#include "proxy/config.h"
#include "proxy/settings.h"
#include "proxy/split_batch.h"
#include "proxy/verdict_cache.h"

namespace bascule::proxy {

class ClientConnection;
class Worker;

// What a splitting port remembers of one client. Made when it logs in.
struct SplitClient {
  SettingsRef settings;       // that the two below come from
  std::string affinity;       // SET bascule.affinity
  bool primary_only = false;  // its settings are none that a replica takes
  bool changed_schema = false;
  const void* database = nullptr;  // SplitRouter's
};

class SplitRouter {
 public:
  explicit SplitRouter(Worker& worker) : worker_(worker) {}
  ~SplitRouter();

  struct Decision {
    bool need_more = false;  // not decided: the batch has not arrived whole
    bool any_server = false;
    std::string_view affinity;  // valid until the next call
  };
  // `unread` begins with the first message of the client's next batch; it has no server.
  Decision decide(ClientConnection& client, std::string_view unread);
  // A replica refused to write what was thought to read: what is known of the database is wrong.
  void mistaken(ClientConnection& client);

 private:
  struct Database {
    explicit Database(VerdictCache::Limits limits) : cache(limits) {}
    VerdictCache cache;
    uint64_t version = 0;  // of the table when `cache` was last brought up to date
    MonoTime next_look{};
    std::unique_ptr<CatalogFetch> fetch;
  };
  Database& database(ClientConnection& client);
  void look_after(Database& database, ClientConnection& client);
  void begin_fetch(Database& database, ClientConnection& client);
  void follow_settings(ClientConnection& client);
  sql::Strings strings(ClientConnection& client) const;

  static constexpr size_t kDatabasesMax = 200;
  static constexpr Nanos kLookInterval = 250ms;

  Worker& worker_;
  std::map<std::string, std::unique_ptr<Database>> databases_;
  SplitBatch batch_;
  std::string affinity_;
};

}  // namespace bascule::proxy
