#include "proxy/verdict_cache.h"

#include <utility>

namespace bascule::proxy {
namespace {

// A node of the map, two small strings' heaps: what an entry takes besides its text.
constexpr size_t kEntryBytes = 160;
// The scan's buffer may have grown for one long text.
constexpr size_t kKeyKept = 4'096;

}  // namespace

VerdictCache::VerdictCache(Limits limits)
    : limits_(limits), catalog_(std::make_shared<const sql::Catalog>()) {}

void VerdictCache::set_catalog(std::shared_ptr<const sql::Catalog> catalog) {
  if (catalog == catalog_) return;
  // Most refreshes find nothing new.
  const bool same = *catalog == *catalog_;
  catalog_ = std::move(catalog);
  if (same) return;
  young_.clear();
  old_.clear();
  young_bytes_ = old_bytes_ = 0;
}

VerdictCache::Verdict VerdictCache::verdict(std::string_view sql, sql::Strings strings) {
  const sql::TextScan scan = sql::scan_text(sql, key_);
  uncached_ = sql::analyse_scan(scan, strings);
  if (uncached_.kind != sql::Kind::kRead) return {uncached_, scan.hints.affinity};
  if (const auto found = young_.find(std::string_view(key_)); found != young_.end()) {
    ++hits_;
    return {found->second, scan.hints.affinity};
  }
  if (const auto found = old_.find(std::string_view(key_)); found != old_.end()) {
    ++hits_;
    sql::Analysis analysis = std::move(found->second);
    old_bytes_ -= found->first.size() + kEntryBytes;
    old_.erase(found);
    return {insert(std::move(analysis)), scan.hints.affinity};
  }
  ++misses_;
  return {insert(sql::analyse_key(key_, *catalog_)), scan.hints.affinity};
}

const sql::Analysis& VerdictCache::insert(sql::Analysis analysis) {
  const size_t bytes = key_.size() + kEntryBytes;
  const auto trim_key = [this] {
    if (key_.capacity() > kKeyKept) key_ = std::string();
  };
  if (bytes > limits_.bytes / 16) {  // one text must not push out all the others
    trim_key();
    uncached_ = std::move(analysis);
    return uncached_;
  }
  if (young_.size() >= limits_.count / 2 || young_bytes_ + bytes > limits_.bytes / 2) {
    old_ = std::exchange(young_, {});
    old_bytes_ = std::exchange(young_bytes_, 0);
  }
  young_bytes_ += bytes;
  const auto [at, fresh] = young_.insert_or_assign(key_, std::move(analysis));
  trim_key();
  return at->second;
}

}  // namespace bascule::proxy
