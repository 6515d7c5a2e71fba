// Which tables a text writes, as far as it names them; where that leads: WriteReach. PostgreSQL's
// own parser reads it; what is not known to write nothing else counts as if it might. Pure, no
// state, any thread.
#pragma once

#include <string>
#include <vector>

namespace bascule::sql {

struct TableName {
  std::string schema;  // empty: not said
  std::string name;    // as PostgreSQL compares it
  bool operator==(const TableName&) const = default;
};

struct Written {
  std::vector<TableName> tables = {};      // each once
  std::vector<std::string> executes = {};  // names of statements that EXECUTE runs
  bool unreadable = false;                 // nothing can be said
  bool other = false;  // may write anything: DDL, DO, CALL, functions that are not PostgreSQL's own
  bool begins = false, ends = false;  // a transaction; ends: also by ROLLBACK
  bool goes_back = false;             // ROLLBACK TO a savepoint
  bool sets_commit = false;           // SET or RESET of synchronous_commit, or of everything
  bool calls_set_config = false;      // of whatever
};

// `key`: of scan_text(), without a problem. Several statements count together.
Written written_tables(const std::string& key);

}  // namespace bascule::sql
