#include "proxy/verdict_cache.h"

#include <utility>

namespace bascule::proxy {
namespace {

// The scan's buffer may have grown for one long text.
constexpr size_t kKeyKept = 4'096;

}  // namespace

VerdictCache::VerdictCache(Limits limits)
    : catalog_(std::make_shared<const sql::Catalog>()), verdicts_(limits) {}

void VerdictCache::set_catalog(std::shared_ptr<const sql::Catalog> catalog) {
  if (catalog == catalog_) return;
  // Most refreshes find nothing new.
  const bool same = *catalog == *catalog_;
  catalog_ = std::move(catalog);
  if (same) return;
  verdicts_.clear();
  exact_.clear();
}

VerdictCache::Verdict VerdictCache::verdict(std::string_view sql, sql::Strings strings) {
  if (const sql::Analysis* known = exact_.find(sql)) {
    ++hits_;
    return {*known, {}};
  }
  const sql::TextScan scan = sql::scan_text(sql, key_);
  uncached_ = sql::analyse_scan(scan, strings);
  if (uncached_.kind != sql::Kind::kRead) return {uncached_, scan.hints.affinity};
  if (const sql::Analysis* known = verdicts_.find(key_)) {
    ++hits_;
    // What else the scan may find out is not of the text alone, or is a view of it.
    if (!scan.plain_backslash && scan.hints.affinity.empty()) exact_.learn(sql, *known);
    return {*known, scan.hints.affinity};
  }
  ++misses_;
  uncached_ = sql::analyse_key(key_, *catalog_);
  const sql::Analysis* kept = verdicts_.insert(key_, sql::Analysis(uncached_));
  if (key_.capacity() > kKeyKept) key_ = std::string();
  return {kept == nullptr ? uncached_ : *kept, scan.hints.affinity};
}

}  // namespace bascule::proxy
