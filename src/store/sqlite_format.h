// The file format of the SQLite store: creating it, recognising it, and the errors of SQLite in the
// words of this project. Blocking; any thread.
#pragma once

#include <sqlite3.h>

#include <string>
#include <string_view>

#include "base/result.h"

namespace bascule::store {

inline constexpr const char* kDamagedHint =
    "Move the file and its -wal and -shm companions away; the leader's copy re-seeds a new one";

struct SqliteFormat {
  int application_id = 0;
  int version = 0;
};
Result<SqliteFormat> read_sqlite_format(sqlite3* db);  // the error is only in sqlite3_errmsg(db)
Result<std::string> find_sqlite_damage(sqlite3* db);   // empty: none; the error as above
Status check_sqlite_format(const SqliteFormat& format, std::string_view path);

// kTimeout: another process holds a lock. kInvalid: damaged, or no database. kUnavailable: the disk
// or the permissions; may succeed later.
Error sqlite_error(sqlite3* db, std::string_view what, std::string_view path);

struct SqliteOptions;
// Creates the file unless one is there, atomically: whoever loses a race finds the winner's file.
// As root the file gets the owner of its directory, because agents drop root to that user.
Status create_sqlite_file(const SqliteOptions& options);

}  // namespace bascule::store
