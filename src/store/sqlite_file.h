// One SQLite file as a key-value store with revisions: the blocking half of SqliteStore. Every call
// may wait for the disk, and up to the lock wait for another process's lock (then it says busy, and
// nothing was done). Not thread-safe: one call at a time, from any thread.
//
// Format (application_id 0x42736375, user_version 1), journal WAL, synchronous FULL:
//   meta  one row: identity, revision (of the store), deleted (revision of the last deletion)
//   kv    key BLOB primary key, revision, value BLOB
// A file is created complete, under another name, and linked into place, so that an empty, foreign
// or damaged file is always an error and never taken for a new store.
//
// The connection is opened by the first call that needs it and again after an error, or when the
// file at `path` is no longer the one that is open: two processes that go on with two files would
// each elect a leader. Only the first opening may create the file.
#pragma once

#include <sqlite3.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/time.h"
#include "store/store.h"

namespace bascule::store {

struct SqliteOptions {
  std::string path;           // absolute
  std::string identity;       // of a file that has to be created; empty: never create one
  Millis timeout{1000};       // SqliteStore: every request is answered within it (plus a turn)
  Millis poll{500};           // SqliteStore: how often watches look without any hint
  uint32_t file_mode = 0600;  // of a new file
};

class SqliteFile {
 public:
  explicit SqliteFile(SqliteOptions options);
  ~SqliteFile();
  SqliteFile(const SqliteFile&) = delete;
  SqliteFile& operator=(const SqliteFile&) = delete;

  void set_lock_wait(Millis wait) { lock_wait_ = wait; }  // of one call

  // Counts how often the content turned out to be another store's or to have gone back to an older
  // revision. A transaction states the generation that its author knew, and is refused otherwise:
  // its compared revisions would mean something else.
  using Generation = uint64_t;

  struct ReadResult {
    Generation generation = 0;
    std::vector<Snapshot> snapshots;  // of one instant, one for each prefix
  };
  // The transaction begins inside the call.
  Result<ReadResult> read(const std::vector<std::string>& prefixes);

  struct Item {
    Generation known = 0;
    Txn txn;
  };
  struct CommitResult {
    bool busy = false;               // another process holds the lock: nothing was done, try again
    std::vector<TxnResult> results;  // else one for each item
  };
  // All items in one disk transaction, each with its own revision and outcome. Within bounds only.
  CommitResult commit(const std::vector<Item>& items);

  struct Changes {
    bool all = false;               // any key may have changed
    std::vector<std::string> keys;  // else these did
  };
  // What changed since the last call (the first: all).
  Result<Changes> changes();

  // Moves the write-ahead log, when it has grown, into the file; apart from commit() so that no
  // answer waits for it.
  bool checkpoint_due() const;
  void checkpoint();

  static bool is_busy(const Error& error);

 private:
  struct Meta {
    std::string identity;
    Revision revision = 0;
    Revision deleted = 0;
  };
  class Statement;

  Status ensure_open();
  Status open();
  Status prepare();
  Status check_content();
  void close();
  bool replaced();  // the file at `path` is another one, or gone
  Status run(const char* sql);
  Status end_transaction();
  Result<Meta> observe_meta();
  Result<Snapshot> read_prefix(const Meta& meta, const std::string& prefix);
  Result<TxnResult> apply(const Item& item, Meta& meta);
  Result<bool> compares_hold(const Txn& txn);
  Status write(const Write& write, Revision revision);
  std::unexpected<Error> failure(std::string_view what);
  static int on_busy(void* self, int count);
  static int on_wal(void* self, sqlite3*, const char*, int pages);

  const SqliteOptions options_;
  Millis lock_wait_{20};
  sqlite3* db_ = nullptr;
  std::unique_ptr<Statement> get_meta_, put_meta_, get_range_, get_tail_, get_revision_, put_,
      erase_, changed_;
  bool found_ = false;  // the file was there once: creating it again would hide a loss
  int waited_ms_ = 0;
  int wal_pages_ = 0;
  Generation generation_ = 0;
  Meta observed_;                     // newest seen in this generation; empty identity: nothing yet
  std::optional<Revision> reported_;  // changes() told everything up to here
};

}  // namespace bascule::store
