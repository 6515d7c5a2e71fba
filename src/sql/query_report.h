// What a statement is, for people: what it reads and writes as far as it says so, and how much
// there is to it. PostgreSQL's own parser reads it. Pure, no state, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace bascule::sql {

struct QueryReport {
  enum class Complexity : uint8_t { kSimple, kModerate, kComplex };
  bool is_read = false;   // it writes nothing by itself; its functions may
  bool is_write = false;  // both false: it is about session or transaction
  Complexity complexity = Complexity::kSimple;
  std::vector<std::string> tables;     // named in it, "name" or "schema.name", each once
  std::vector<std::string> functions;  // likewise
  std::vector<std::string> reasons;    // why it is a write, or can't be sent to a replica for sure
};

// kInvalid: too long, or PostgreSQL 15's parser does not understand it.
Result<QueryReport> report_query(std::string_view sql);

}  // namespace bascule::sql
