// Is a statement proven read-only, so that any server which has the data may answer it?
// PostgreSQL's own parser reads it; what is not known to be harmless counts as harmful. Pure, no
// state, any thread. docs/proxy.md, "What goes to a replica", has the rules for people.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "sql/catalog.h"
#include "sql/text_scan.h"

namespace bascule::sql {

enum class Kind : uint8_t {
  kPrimary,        // everything that is not one of the others; `reason` says why
  kRead,           // one statement, proven read-only
  kBeginReadOnly,  // BEGIN READ ONLY and its kin: the transaction may run on a replica
  kBegin,          // any other BEGIN
  kSetAffinity,    // SET bascule.affinity = '...'; `subject` is the value, empty for RESET
};

enum class Reason : uint8_t {
  kNone,
  kTooLong,
  kTooDeep,
  kNotText,
  kSyntax,
  kStrings,      // backslash in a literal, standard_conforming_strings off
  kSeveral,      // statements
  kWrites,       // INSERT, UPDATE, DELETE, MERGE, TRUNCATE, COPY, DDL, CALL, DO ...
  kWritingCte,   // WITH ... AS (INSERT ...)
  kSession,      // SET, SHOW, PREPARE, EXECUTE, LISTEN, NOTIFY, cursors, LOCK ...
  kTransaction,  // COMMIT, ROLLBACK, SAVEPOINT ...
  kLocking,      // FOR UPDATE and its kin
  kInto,         // SELECT INTO
  kVolatile,     // function, `subject`
  kUnknownFunction,
  kUnsafeRelation,  // a view or a policy calls a volatile function, a foreign table
  kUnknownRelation,
  kServerState,  // what is asked is about the server itself
  kOperator,
  kType,
  kHidden,     // see Catalog::hidden_volatile()
  kAttribute,  // see Catalog::unsafe_attribute()
  kNoCatalog,
  kHint,       // /* bascule: primary */
  kConstruct,  // a construct that this version doesn't know
};
std::string_view describe(Reason reason);  // "it calls a volatile function"

struct Analysis {
  Kind kind = Kind::kPrimary;
  Reason reason = Reason::kNone;
  std::string subject;  // function, relation, operator, type, statement; at most 64 bytes
  bool operator==(const Analysis&) const = default;
  std::string to_string() const;  // "primary: it calls a volatile function (nextval)"
};

// Of the statement's own session; where it is not known, kNonstandard.
enum class Strings : uint8_t { kStandard, kNonstandard };

Analysis analyse(std::string_view sql, const Catalog& catalog,
                 Strings strings = Strings::kStandard);
// The same for a text that scan_text() has been run on. Hints and strings are the caller's.
Analysis analyse_key(const std::string& key, const Catalog& catalog);
// What needs no parser: problems of the scan, hints, strings. Kind::kRead if there is nothing.
Analysis analyse_scan(const TextScan& scan, Strings strings);

}  // namespace bascule::sql
