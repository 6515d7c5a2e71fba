// Verdicts of statement texts, remembered by exact text apart from literals and comments. One for
// each database in each worker: no lock. Bounded by count and bytes: two generations, of which the
// older is dropped when the younger is full, so that a hit writes nothing most of the time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "sql/analysis.h"

namespace bascule::proxy {

class VerdictCache {
 public:
  struct Limits {
    size_t count = 10'000;
    size_t bytes = 8 * 1024 * 1024;
  };
  // Of a whole statement. Views and references are valid until the next call.
  struct Verdict {
    const sql::Analysis& analysis;
    std::string_view affinity;  // of a comment; empty: none
  };

  explicit VerdictCache(Limits limits);

  // Forgets every verdict if the snapshot is another one. Never null.
  void set_catalog(std::shared_ptr<const sql::Catalog> catalog);
  const sql::Catalog& catalog() const { return *catalog_; }

  Verdict verdict(std::string_view sql, sql::Strings strings);

  uint64_t hits() const { return hits_; }
  uint64_t misses() const { return misses_; }
  size_t size() const { return young_.size() + old_.size(); }
  size_t bytes() const { return young_bytes_ + old_bytes_; }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  using Map = std::unordered_map<std::string, sql::Analysis, Hash, std::equal_to<>>;
  const sql::Analysis& insert(sql::Analysis analysis);

  const Limits limits_;
  std::shared_ptr<const sql::Catalog> catalog_;
  Map young_, old_;
  size_t young_bytes_ = 0, old_bytes_ = 0;
  uint64_t hits_ = 0, misses_ = 0;
  std::string key_;
  sql::Analysis uncached_;
};

}  // namespace bascule::proxy
