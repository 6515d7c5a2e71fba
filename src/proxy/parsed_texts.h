// Which statements servers have taken, of one user and one database, over all workers: a client
// that prepares one of them need not wait for a server to hear that it may. Thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

namespace bascule::proxy {

class ParsedTexts {
 public:
  // `plan`: Settings::plan_hash; `types`: as SharedStatement has them. Two statements with the same
  // key do no harm: the server says what is wrong when the statement is used.
  static uint64_t key(uint64_t plan, std::string_view sql, std::string_view types);
  // `plans`: Workspace::plans at the time.
  void add(uint64_t key, uint64_t plans);
  bool has(uint64_t key, uint64_t plans);

 private:
  static constexpr size_t kMax = 10'000;
  std::mutex mutex_;
  std::map<uint64_t, uint64_t> known_;  // guarded by mutex_: since which plans
};

// Never smaller: users and databases are those that logged in.
class ParsedTextsTable {
 public:
  ParsedTexts& of(const std::string& user, const std::string& database);

 private:
  std::mutex mutex_;
  std::map<std::pair<std::string, std::string>, std::unique_ptr<ParsedTexts>> known_;  // guarded
};

}  // namespace bascule::proxy
