// Verdicts of statement texts, remembered by exact text apart from literals and comments. One for
// each database in each worker.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "proxy/exact_verdicts.h"
#include "proxy/text_cache.h"
#include "sql/analysis.h"

namespace bascule::proxy {

class VerdictCache {
 public:
  using Limits = TextCache<sql::Analysis>::Limits;
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
  size_t size() const { return verdicts_.size(); }
  size_t bytes() const { return verdicts_.bytes(); }

 private:
  std::shared_ptr<const sql::Catalog> catalog_;
  TextCache<sql::Analysis> verdicts_;
  ExactVerdicts exact_;  // of some of them
  uint64_t hits_ = 0, misses_ = 0;
  std::string key_;
  sql::Analysis uncached_;
};

}  // namespace bascule::proxy
