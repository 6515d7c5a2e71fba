#include "store/sqlite_file.h"

#include <fmt/format.h>

#include <algorithm>

#include "store/bounds.h"
#include "store/sqlite_format.h"

namespace bascule::store {
namespace {

constexpr int kCheckpointPages = 500;  // 2 MB of log; a renewal writes about 3 pages

std::string_view column_bytes(sqlite3_stmt* stmt, int column) {
  const void* data = sqlite3_column_blob(stmt, column);
  const int size = sqlite3_column_bytes(stmt, column);
  return data ? std::string_view(static_cast<const char*>(data), static_cast<size_t>(size))
              : std::string_view();
}

}  // namespace

// A prepared statement that lives as long as the connection. Bound texts must outlive the steps.
class SqliteFile::Statement {
 public:
  explicit Statement(sqlite3_stmt* stmt) : stmt_(stmt) {}
  ~Statement() { sqlite3_finalize(stmt_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  void bind(int index, std::string_view bytes) {
    // A null pointer would bind NULL, which is not an empty value.
    const char* data = bytes.empty() ? "" : bytes.data();
    sqlite3_bind_blob64(stmt_, index, data, bytes.size(), SQLITE_STATIC);
  }
  void bind(int index, Revision revision) {
    sqlite3_bind_int64(stmt_, index, static_cast<sqlite3_int64>(revision));
  }
  int step() { return sqlite3_step(stmt_); }
  void reset() {
    sqlite3_reset(stmt_);
    sqlite3_clear_bindings(stmt_);
  }
  std::string_view bytes(int column) { return column_bytes(stmt_, column); }
  Revision revision(int column) {
    return static_cast<Revision>(std::max<sqlite3_int64>(0, sqlite3_column_int64(stmt_, column)));
  }

 private:
  sqlite3_stmt* stmt_;
};

SqliteFile::SqliteFile(SqliteOptions options) : options_(std::move(options)) {}

SqliteFile::~SqliteFile() { close(); }

bool SqliteFile::is_busy(const Error& error) { return error.code == ErrorCode::kTimeout; }

int SqliteFile::on_busy(void* self, int count) {
  auto* file = static_cast<SqliteFile*>(self);
  if (file->waited_ms_ >= file->lock_wait_.count()) return 0;
  // Short steps: the holder is normally done after one fsync.
  file->waited_ms_ += sqlite3_sleep(count < 10 ? 1 : 3);
  return 1;
}

int SqliteFile::on_wal(void* self, sqlite3*, const char*, int pages) {
  static_cast<SqliteFile*>(self)->wal_pages_ = pages;
  return SQLITE_OK;
}

std::unexpected<Error> SqliteFile::failure(std::string_view what) {
  auto error = sqlite_error(db_, what, options_.path);
  // After an I/O error the connection's idea of the log is not to be trusted.
  if (!is_busy(error)) close();
  return std::unexpected(std::move(error));
}

void SqliteFile::close() {
  for (auto* statement : {&get_meta_, &put_meta_, &get_range_, &get_tail_, &get_revision_, &put_,
                          &erase_, &changed_}) {
    statement->reset();
  }
  sqlite3_close(db_);
  db_ = nullptr;
}

bool SqliteFile::replaced() {
  int moved = 0;
  sqlite3_file_control(db_, "main", SQLITE_FCNTL_HAS_MOVED, &moved);
  return moved != 0;
}

Status SqliteFile::ensure_open() {
  waited_ms_ = 0;
  if (db_ && replaced()) close();
  if (db_) return {};
  auto opened = open();
  if (!opened) close();
  return opened;
}

Status SqliteFile::open() {
  if (!options_.identity.empty() && !found_) {
    if (auto created = create_sqlite_file(options_); !created) return created;
  }
  found_ = true;
  // Without SQLITE_OPEN_CREATE: an absent file is an error here.
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX;
  if (sqlite3_open_v2(options_.path.c_str(), &db_, flags, nullptr) != SQLITE_OK) {
    return failure("open");
  }
  sqlite3_extended_result_codes(db_, 1);
  sqlite3_busy_handler(db_, &SqliteFile::on_busy, this);
  if (sqlite3_db_readonly(db_, "main") == 1) {
    return fail(ErrorCode::kUnavailable,
                fmt::format("store {}: no permission to write", options_.path),
                "Run as the owner of the file");
  }
  if (auto ok = check_content(); !ok) return ok;
  if (auto ok = run("PRAGMA synchronous=FULL"); !ok) return ok;
  if (auto ok = run("PRAGMA trusted_schema=OFF"); !ok) return ok;
  // Keep the log when the last process closes, so that opening needs no exclusive lock.
  int persist = 1;
  sqlite3_file_control(db_, "main", SQLITE_FCNTL_PERSIST_WAL, &persist);
  sqlite3_wal_hook(db_, &SqliteFile::on_wal, this);  // replaces the automatic checkpoint
  return prepare();
}

Status SqliteFile::check_content() {
  auto format = read_sqlite_format(db_);
  if (!format) return failure("open");
  if (auto ok = check_sqlite_format(*format, options_.path); !ok) return ok;
  // Damage is to be found now, not by the first election. The file is small.
  auto damage = find_sqlite_damage(db_);
  if (!damage) return failure("check");
  if (damage->empty()) return {};
  return fail(ErrorCode::kInvalid, fmt::format("store {}: damaged: {}", options_.path, *damage),
              kDamagedHint);
}

Status SqliteFile::prepare() {
  struct {
    std::unique_ptr<Statement>* statement;
    const char* sql;
  } const all[] = {
      {&get_meta_, "SELECT identity, revision, deleted FROM meta WHERE id = 1"},
      {&put_meta_, "UPDATE meta SET revision = ?1, deleted = ?2 WHERE id = 1"},
      {&get_range_,
       "SELECT key, revision, value FROM kv WHERE key >= ?1 AND key < ?2 ORDER BY key"},
      {&get_tail_, "SELECT key, revision, value FROM kv WHERE key >= ?1 ORDER BY key"},
      {&get_revision_, "SELECT revision FROM kv WHERE key = ?1"},
      {&put_, "INSERT OR REPLACE INTO kv(key, revision, value) VALUES (?1, ?2, ?3)"},
      {&erase_, "DELETE FROM kv WHERE key = ?1"},
      {&changed_, "SELECT key FROM kv WHERE revision > ?1"},
  };
  for (const auto& [statement, sql] : all) {
    sqlite3_stmt* stmt = nullptr;
    if (sqlite3_prepare_v3(db_, sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt, nullptr) != SQLITE_OK) {
      return failure("prepare");
    }
    *statement = std::make_unique<Statement>(stmt);
  }
  return {};
}

Status SqliteFile::run(const char* sql) {
  if (sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) != SQLITE_OK) return failure(sql);
  return {};
}

// Ends a transaction that wrote nothing or must leave nothing.
Status SqliteFile::end_transaction() {
  if (!db_ || sqlite3_get_autocommit(db_)) return {};
  return run("ROLLBACK");
}

Result<SqliteFile::Meta> SqliteFile::observe_meta() {
  const int rc = get_meta_->step();
  if (rc != SQLITE_ROW) {
    get_meta_->reset();
    if (rc == SQLITE_DONE) {
      return fail(ErrorCode::kInvalid,
                  fmt::format("store {}: its meta row is missing", options_.path), kDamagedHint);
    }
    return failure("read");
  }
  Meta meta{std::string(get_meta_->bytes(0)), get_meta_->revision(1), get_meta_->revision(2)};
  get_meta_->reset();
  const bool known = !observed_.identity.empty();
  if (known && (meta.identity != observed_.identity || meta.revision < observed_.revision)) {
    ++generation_;
    reported_.reset();
  }
  observed_ = meta;
  return meta;
}

Result<SqliteFile::ReadResult> SqliteFile::read(const std::vector<std::string>& prefixes) {
  if (auto ok = ensure_open(); !ok) return std::unexpected(ok.error());
  if (auto ok = run("BEGIN"); !ok) return std::unexpected(ok.error());
  ReadResult result;
  auto meta = observe_meta();
  if (!meta) {
    end_transaction();
    return std::unexpected(meta.error());
  }
  for (const auto& prefix : prefixes) {
    auto snapshot = read_prefix(*meta, prefix);
    if (!snapshot) {
      end_transaction();
      return std::unexpected(snapshot.error());
    }
    result.snapshots.push_back(std::move(*snapshot));
  }
  result.generation = generation_;
  if (auto ok = end_transaction(); !ok) return std::unexpected(ok.error());
  return result;
}

Result<Snapshot> SqliteFile::read_prefix(const Meta& meta, const std::string& prefix) {
  const auto end = prefix_end(prefix);
  auto& statement = end ? *get_range_ : *get_tail_;
  statement.bind(1, prefix);
  if (end) statement.bind(2, *end);
  Snapshot snapshot{meta.identity, meta.revision, {}};
  int rc = statement.step();
  for (; rc == SQLITE_ROW; rc = statement.step()) {
    snapshot.entries.push_back(
        {std::string(statement.bytes(0)), std::string(statement.bytes(2)), statement.revision(1)});
  }
  statement.reset();  // keeps the error
  if (rc != SQLITE_DONE) return failure("read");
  return snapshot;
}

SqliteFile::CommitResult SqliteFile::commit(const std::vector<Item>& items) {
  const auto all_unknown = [&](const Error& error) {
    return CommitResult{is_busy(error),
                        std::vector<TxnResult>(
                            items.size(), TxnResult{TxnOutcome::kUnknown, 0, error.to_string()})};
  };
  if (auto ok = ensure_open(); !ok) return all_unknown(ok.error());
  if (auto ok = run("BEGIN IMMEDIATE"); !ok) return all_unknown(ok.error());
  auto meta = observe_meta();
  if (!meta) {
    end_transaction();
    return all_unknown(meta.error());
  }
  Meta next = *meta;
  CommitResult result;
  for (const auto& item : items) {
    auto outcome = apply(item, next);
    if (!outcome) {
      end_transaction();
      return all_unknown(outcome.error());
    }
    result.results.push_back(std::move(*outcome));
  }
  if (next.revision == meta->revision) {
    end_transaction();
    return result;
  }
  put_meta_->bind(1, next.revision);
  put_meta_->bind(2, next.deleted);
  const int rc = put_meta_->step();
  put_meta_->reset();
  if (rc != SQLITE_DONE) {
    auto error = sqlite_error(db_, "write", options_.path);
    close();  // rolls back
    return all_unknown(error);
  }
  if (sqlite3_exec(db_, "COMMIT", nullptr, nullptr, nullptr) != SQLITE_OK) {
    auto error = sqlite_error(db_, "commit", options_.path);
    error.code = ErrorCode::kUnknown;
    close();
    return all_unknown(error);
  }
  if (replaced()) {
    // Committed to a file that nobody will look at any more.
    return all_unknown({ErrorCode::kUnknown,
                        fmt::format("store {}: the file was replaced or removed", options_.path),
                        {}});
  }
  observed_ = next;
  return result;
}

Result<TxnResult> SqliteFile::apply(const Item& item, Meta& meta) {
  if (item.known != generation_) {
    return TxnResult{TxnOutcome::kUnknown, 0,
                     fmt::format("store {}: it is another store than before, or went back to an "
                                 "older state; not applied. Read it again first",
                                 options_.path)};
  }
  auto holds = compares_hold(item.txn);
  if (!holds) return std::unexpected(holds.error());
  if (!*holds) return TxnResult{TxnOutcome::kConflict, 0, {}};
  if (item.txn.writes.empty()) return TxnResult{TxnOutcome::kCommitted, meta.revision, {}};
  ++meta.revision;
  for (const auto& w : item.txn.writes) {
    if (auto ok = write(w, meta.revision); !ok) return std::unexpected(ok.error());
    if (!w.value) meta.deleted = meta.revision;
  }
  return TxnResult{TxnOutcome::kCommitted, meta.revision, {}};
}

Result<bool> SqliteFile::compares_hold(const Txn& txn) {
  for (const auto& compare : txn.compares) {
    get_revision_->bind(1, compare.key);
    const int rc = get_revision_->step();
    const Revision found = rc == SQLITE_ROW ? get_revision_->revision(0) : 0;
    get_revision_->reset();
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) return failure("compare");
    if (found != compare.revision) return false;
  }
  return true;
}

Status SqliteFile::write(const Write& write, Revision revision) {
  auto& statement = write.value ? *put_ : *erase_;
  statement.bind(1, write.key);
  if (write.value) {
    statement.bind(2, revision);
    statement.bind(3, *write.value);
  }
  const int rc = statement.step();
  statement.reset();
  if (rc != SQLITE_DONE) return failure("write");
  return {};
}

Result<SqliteFile::Changes> SqliteFile::changes() {
  if (auto ok = ensure_open(); !ok) return std::unexpected(ok.error());
  if (auto ok = run("BEGIN"); !ok) return std::unexpected(ok.error());
  auto meta = observe_meta();
  if (!meta) {
    end_transaction();
    return std::unexpected(meta.error());
  }
  Changes changes;
  if (!reported_ || meta->deleted > *reported_) {
    changes.all = true;
  } else if (meta->revision > *reported_) {
    changed_->bind(1, *reported_);
    int rc = changed_->step();
    for (; rc == SQLITE_ROW; rc = changed_->step()) {
      changes.keys.emplace_back(changed_->bytes(0));
    }
    changed_->reset();
    if (rc != SQLITE_DONE) return failure("read");
  }
  if (auto ok = end_transaction(); !ok) return std::unexpected(ok.error());
  reported_ = meta->revision;
  return changes;
}

bool SqliteFile::checkpoint_due() const { return db_ && wal_pages_ >= kCheckpointPages; }

void SqliteFile::checkpoint() {
  wal_pages_ = 0;
  // PASSIVE never waits for, nor blocks, another process; what it can't move now stays for later.
  sqlite3_wal_checkpoint_v2(db_, "main", SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
}

}  // namespace bascule::store
