// What a verdict has to know of one database: its functions, operators, types and relations, as a
// snapshot that never changes. Everything that it does not list is unknown, and unknown is unsafe.
//
// Names are looked up without search_path: a name is as unsafe as the worst object that has it in
// any schema. A view (or a table with row security) is unsafe if anything that it may evaluate is.
//
// The promise of a function that its owner declared STABLE or IMMUTABLE is believed, as PostgreSQL
// does. If it writes in spite of it, a replica refuses (25006) and nothing has happened.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace bascule::sql {

enum class Safety : uint8_t { kUnknown, kSafe, kUnsafe };

class Catalog {
 public:
  // The query that fills it, for a role without privileges, PostgreSQL 13 to 18. Columns, all text:
  // kind, schema, name, flag. Rows beyond kRowsMax are not asked for.
  static const std::string_view kQuery;
  static constexpr size_t kRowsMax = 200'000;
  static constexpr size_t kNameBytesMax = 255;

  class Builder {
   public:
    // A row of the query. kInvalid: not one.
    Status add(std::string_view kind, std::string_view schema, std::string_view name,
               std::string_view flag);
    // kInvalid: rows are missing.
    Result<Catalog> build() &&;

   private:
    friend class Catalog;
    struct Row {
      std::string name, schema;
      bool safe = false;
    };
    std::vector<Row> functions_, relations_;
    std::vector<std::string> operators_, types_, attributes_;
    bool hidden_ = false;
    bool complete_ = false;
    size_t rows_ = 0;
  };

  // Nothing is known: only the transaction statements get another verdict than "primary".
  Catalog() = default;
  bool loaded() const { return loaded_; }

  // `schema` may be empty. User-defined and built-in ones together.
  Safety function(std::string_view schema, std::string_view name) const;
  Safety relation(std::string_view schema, std::string_view name) const;
  // A user-defined operator or type of this name leads to a volatile function.
  bool unsafe_operator(std::string_view name) const;
  bool unsafe_type(std::string_view name) const;
  // t.name may mean name(t), a volatile function of a row.
  bool unsafe_attribute(std::string_view name) const;
  // Some implicit cast, comparison or index support function of this database is volatile: nothing
  // can be proven.
  bool hidden_volatile() const { return hidden_; }
  size_t size() const { return functions_.size() + relations_.size(); }
  bool operator==(const Catalog&) const = default;

 private:
  struct Entry {
    std::string name, schema;
    bool safe = false;
    auto operator<=>(const Entry&) const = default;
  };
  static Safety find(const std::vector<Entry>& entries, std::string_view schema,
                     std::string_view name);
  std::vector<Entry> functions_, relations_;                 // sorted
  std::vector<std::string> operators_, types_, attributes_;  // sorted
  bool hidden_ = false;
  bool loaded_ = false;
};

}  // namespace bascule::sql
