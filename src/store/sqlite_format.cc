#include "store/sqlite_format.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "store/sqlite_file.h"

namespace bascule::store {
namespace {

constexpr int kApplicationId = 0x42736375;  // "Bscu"
constexpr int kVersion = 1;
constexpr size_t kIdentityBytesMax = 64;

constexpr const char* kSchema =
    "PRAGMA journal_mode=WAL;"
    "PRAGMA synchronous=FULL;"
    "BEGIN IMMEDIATE;"
    "CREATE TABLE meta(id INTEGER PRIMARY KEY CHECK (id = 1), identity TEXT NOT NULL,"
    "  revision INTEGER NOT NULL, deleted INTEGER NOT NULL);"
    // revision before value: it is then read without the pages of a large value.
    "CREATE TABLE kv(key BLOB PRIMARY KEY, revision INTEGER NOT NULL, value BLOB NOT NULL)"
    "  WITHOUT ROWID;"
    "INSERT INTO meta VALUES (1, '{}', 0, 0);"
    "PRAGMA application_id={};"
    "PRAGMA user_version={};"
    "COMMIT;";

Error system_error(std::string_view what, std::string_view path, std::string hint = {}) {
  return {ErrorCode::kUnavailable, fmt::format("store {}: {}: {}", path, what, strerror(errno)),
          std::move(hint)};
}

// The first column of the first row.
Result<std::string> query_text(sqlite3* db, const char* sql) {
  sqlite3_stmt* stmt = nullptr;
  if (sqlite3_prepare_v2(db, sql, -1, &stmt, nullptr) != SQLITE_OK) {
    return fail(ErrorCode::kUnavailable, sql);
  }
  const bool row = sqlite3_step(stmt) == SQLITE_ROW;
  const auto* text = row ? sqlite3_column_text(stmt, 0) : nullptr;
  std::string value = text ? reinterpret_cast<const char*>(text) : "";
  // The code of a failed step is kept by the connection through finalize.
  sqlite3_finalize(stmt);
  if (!row) return fail(ErrorCode::kUnavailable, sql);
  return value;
}

Result<int> query_int(sqlite3* db, const char* sql) {
  auto text = query_text(db, sql);
  if (!text) return std::unexpected(text.error());
  return std::atoi(text->c_str());
}

Status fsync_directory(const std::string& directory, std::string_view path) {
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return std::unexpected(system_error("open its directory", path));
  const int rc = ::fsync(fd);
  ::close(fd);
  if (rc != 0) return std::unexpected(system_error("fsync its directory", path));
  return {};
}

Status fill(const std::string& temporary, const SqliteOptions& options) {
  sqlite3* db = nullptr;
  int rc = sqlite3_open_v2(temporary.c_str(), &db, SQLITE_OPEN_READWRITE, nullptr);
  if (rc == SQLITE_OK) {
    const std::string sql =
        fmt::format(fmt::runtime(kSchema), options.identity, kApplicationId, kVersion);
    rc = sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr);
  }
  Status status;
  if (rc != SQLITE_OK) status = std::unexpected(sqlite_error(db, "create", options.path));
  // The last close moves the log into the file and removes it.
  if (sqlite3_close(db) != SQLITE_OK && status) {
    status = fail(ErrorCode::kInternal, fmt::format("store {}: create: not closed", options.path));
  }
  return status;
}

Status set_owner_and_mode(int fd, const struct stat& directory, const SqliteOptions& options) {
  if (::geteuid() == 0 && ::fchown(fd, directory.st_uid, directory.st_gid) != 0) {
    return std::unexpected(system_error("set the owner", options.path));
  }
  // Explicitly: the umask would take the group's bits.
  if (::fchmod(fd, options.file_mode) != 0) {
    return std::unexpected(system_error("set the mode", options.path));
  }
  return {};
}

Status link_into_place(const std::string& temporary, const SqliteOptions& options) {
  if (::link(temporary.c_str(), options.path.c_str()) == 0 || errno == EEXIST) return {};
  return std::unexpected(system_error("create", options.path));
}

bool identity_is_plain(std::string_view identity) {
  if (identity.empty() || identity.size() > kIdentityBytesMax) return false;
  for (const char c : identity) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       c == '-' || c == '_';
    if (!plain) return false;
  }
  return true;
}

}  // namespace

Result<SqliteFormat> read_sqlite_format(sqlite3* db) {
  auto id = query_int(db, "PRAGMA application_id");
  if (!id) return std::unexpected(id.error());
  auto version = query_int(db, "PRAGMA user_version");
  if (!version) return std::unexpected(version.error());
  return SqliteFormat{*id, *version};
}

Result<std::string> find_sqlite_damage(sqlite3* db) {
  auto found = query_text(db, "PRAGMA quick_check(1)");
  if (found && *found == "ok") return std::string();
  return found;
}

Status check_sqlite_format(const SqliteFormat& format, std::string_view path) {
  if (format.application_id != kApplicationId) {
    return fail(ErrorCode::kInvalid,
                fmt::format("store {}: a SQLite file, but not a Bascule store", path),
                "Check the path in the configuration; nothing was changed");
  }
  if (format.version != kVersion) {
    return fail(ErrorCode::kInvalid,
                fmt::format("store {}: format version {}, this program knows {}", path,
                            format.version, kVersion),
                "Use the version of bascule that wrote it, or a newer one");
  }
  return {};
}

Error sqlite_error(sqlite3* db, std::string_view what, std::string_view path) {
  const int code = sqlite3_extended_errcode(db);
  const std::string text =
      fmt::format("store {}: {}: {} (SQLite {})", path, what, sqlite3_errmsg(db), code);
  switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return {ErrorCode::kTimeout, text, "Another process holds the store's lock"};
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
      return {ErrorCode::kInvalid, text, kDamagedHint};
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
      return {ErrorCode::kUnavailable, text,
              "Check that the file exists and that this user may write it and its directory"};
    case SQLITE_FULL:
      return {ErrorCode::kUnavailable, text, "Make room on the disk"};
    default:
      return {ErrorCode::kUnavailable, text, {}};
  }
}

Status create_sqlite_file(const SqliteOptions& options) {
  struct stat info{};
  if (::stat(options.path.c_str(), &info) == 0) return {};
  if (errno != ENOENT) return std::unexpected(system_error("stat", options.path));
  if (!identity_is_plain(options.identity)) {
    return fail(ErrorCode::kInvalid,
                fmt::format("store {}: identity must be 1 to {} of [A-Za-z0-9_-]", options.path,
                            kIdentityBytesMax));
  }
  if (::stat((options.path + "-wal").c_str(), &info) == 0) {
    // SQLite would take the old log for the new file's.
    return fail(ErrorCode::kInvalid,
                fmt::format("store {}: the file is gone, but its log {}-wal is there", options.path,
                            options.path),
                "Put the file back, or remove the -wal and -shm files to start a new store");
  }
  const std::string directory = std::filesystem::path(options.path).parent_path();
  struct stat directory_info{};
  if (::stat(directory.c_str(), &directory_info) != 0) {
    return std::unexpected(
        system_error("its directory", options.path, fmt::format("Create {} first", directory)));
  }
  std::string temporary = options.path + ".new-XXXXXX";
  const int fd = ::mkostemp(temporary.data(), O_CLOEXEC);
  if (fd < 0) return std::unexpected(system_error("create", options.path));
  Status status = set_owner_and_mode(fd, directory_info, options);
  ::close(fd);
  if (status) status = fill(temporary, options);
  if (status) status = link_into_place(temporary, options);
  for (const char* suffix : {"", "-wal", "-shm"}) ::unlink((temporary + suffix).c_str());
  if (status) status = fsync_directory(directory, options.path);
  return status;
}

}  // namespace bascule::store
