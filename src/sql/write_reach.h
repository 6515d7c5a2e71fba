// What a write to a relation may write besides, in one database: a snapshot that never changes.
// Followed are partitions, children of inheritance, and what foreign keys do (CASCADE, SET NULL,
// SET DEFAULT). A relation leads anywhere if it is no table, has triggers or rules of its own, or a
// default, constraint or policy that calls a volatile function; so does one that is not known.
// Pure.
//
// Believed: functions that their owner declared STABLE or IMMUTABLE, as by Catalog; constraints of
// domains.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "sql/written_tables.h"

namespace bascule::sql {

class WriteReach {
 public:
  // The query that fills it, for a role without privileges, PostgreSQL 13 to 18. Columns, all text:
  // kind, schema, name, and schema and name of what it leads to.
  static const std::string_view kQuery;
  static constexpr size_t kRowsMax = 200'000;
  static constexpr size_t kNameBytesMax = 255;

  // A row of the query: "r", a relation; "a", which leads anywhere; "e", which leads to `to`; "z",
  // there are no more. kInvalid: not one.
  Status add(std::string_view kind, TableName relation, TableName to);
  // Before, nothing is known.
  bool complete() const { return complete_; }

  // What a write to `table` may write, itself included; without a schema: to any of that name.
  // Nothing: it may write anything.
  std::optional<std::vector<TableName>> of(const TableName& table) const;

 private:
  struct Relation {
    bool exists = false, anywhere = false;
    std::vector<TableName> leads_to;
  };
  std::map<std::string, std::map<std::string, Relation>> relations_;  // by name, then schema
  size_t rows_ = 0;
  bool complete_ = false;
};

}  // namespace bascule::sql
