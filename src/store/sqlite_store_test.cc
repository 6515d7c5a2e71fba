#include "store/sqlite_store.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "store/contract_shared_test.h"
#include "store/contract_test.h"

// SQLite's own fdatasync() calls come here: counted, and held back to play a hung disk.
namespace {
std::atomic<int> g_syncs{0};
std::atomic<bool> g_disk_hangs{false};
}  // namespace
extern "C" int fdatasync(int fd) {
  ++g_syncs;
  g_disk_hangs.wait(true);
  return static_cast<int>(::syscall(SYS_fdatasync, fd));
}

namespace bascule::store::contract {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class Sqlite {
 public:
  Sqlite() {
    char name[] = "/tmp/store-test-XXXXXX";
    directory_ = ::mkdtemp(name);
  }
  ~Sqlite() { fs::remove_all(directory_); }
  Sqlite(const Sqlite&) = delete;
  Sqlite& operator=(const Sqlite&) = delete;

  SqliteOptions options() const {
    // Ample time: the contract is not about a loaded machine.
    return {.path = path(),
            .identity = "id-" + std::to_string(created_) + "-" + std::to_string(::getpid()),
            .timeout = 15s};
  }
  std::unique_ptr<Store> open(Harness& h) { return open(h, options()); }
  std::unique_ptr<Store> open(Harness& h, SqliteOptions options) {
    return std::make_unique<SqliteStore>(std::move(options), h.loop, h.pool, &h.hint);
  }
  void wipe() {
    ++created_;
    for (const char* suffix : {"", "-wal", "-shm"}) fs::remove(path() + suffix);
  }
  std::string path() const { return directory_ + "/bascule.db"; }

 private:
  std::string directory_;
  int created_ = 1;
};

INSTANTIATE_TYPED_TEST_SUITE_P(Sqlite, StoreContract, Sqlite);
INSTANTIATE_TYPED_TEST_SUITE_P(Sqlite, SharedStoreContract, Sqlite);

class SqliteStoreTest : public ::testing::Test {
 protected:
  // Its own scope, because a test that forks must do so before it makes threads.
  void create(std::string key = "k", std::string value = "v") {
    Harness h;
    auto store = backend.open(h);
    ASSERT_EQ(h.commit(*store, put(std::move(key), std::move(value))).outcome,
              TxnOutcome::kCommitted);
  }

  // A process that begins a write transaction, and is stopped in the middle of it.
  pid_t stopped_lock_holder() {
    Gate locked;
    const pid_t pid = spawn([&] {
      sqlite3* db = nullptr;
      if (sqlite3_open(backend.path().c_str(), &db) != SQLITE_OK) return 1;
      const char* sql = "BEGIN IMMEDIATE; UPDATE meta SET revision = revision + 1000";
      if (sqlite3_exec(db, sql, nullptr, nullptr, nullptr) != SQLITE_OK) return 2;
      locked.open();
      ::raise(SIGSTOP);
      return 0;
    });
    locked.pass();
    int status = 0;
    ::waitpid(pid, &status, WUNTRACED);
    EXPECT_TRUE(WIFSTOPPED(status));
    return pid;
  }

  static void kill_and_reap(pid_t pid) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }

  Error open_error() {
    Harness h;
    auto store = backend.open(h);
    const auto snapshot = h.read(*store, "");
    EXPECT_FALSE(snapshot.has_value());
    const auto result = h.commit(*store, put("k", "v"));
    EXPECT_EQ(result.outcome, TxnOutcome::kUnknown);
    return snapshot ? Error{} : snapshot.error();
  }

  static std::string content(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  void run_sql(const char* sql) {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(backend.path().c_str(), &db), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(db, sql, nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(db);
    sqlite3_close(db);
  }

  Sqlite backend;
};

TEST_F(SqliteStoreTest, StoppedLockHolderDelaysCommitsByTheTimeoutAndReadsNotAtAll) {
  create();
  const pid_t holder = stopped_lock_holder();
  {
    Harness h;
    auto options = backend.options();
    options.timeout = 300ms;
    auto store = backend.open(h, options);
    const auto begin = h.loop.now();
    std::vector<TxnResult> answers;
    for (int i = 0; i < 3; ++i) {
      store->commit(put("k", "blocked"), [&](TxnResult result) {
        answers.push_back(std::move(result));
        h.loop.stop();
      });
    }
    const auto snapshot = h.read(*store, "k");
    EXPECT_LT(h.loop.now() - begin, 200ms) << "a read waited for the lock";
    ASSERT_TRUE(snapshot.has_value()) << snapshot.error().to_string();
    EXPECT_EQ(snapshot->entries[0].value, "v");
    ASSERT_TRUE(h.await([&] { return answers.size() == 3; }, 5s));
    EXPECT_LT(h.loop.now() - begin, 450ms) << "together, not one after the other";
    for (const auto& answer : answers) {
      EXPECT_EQ(answer.outcome, TxnOutcome::kUnknown);
      EXPECT_THAT(answer.error, HasSubstr("no answer within 300 ms; not applied"));
    }
    kill_and_reap(holder);
    const auto after = h.commit(*store, put("k", "after"));
    EXPECT_EQ(after.outcome, TxnOutcome::kCommitted) << after.error;
    EXPECT_EQ(after.revision, 2u) << "the stopped transaction or one given up was applied";
  }
}

TEST_F(SqliteStoreTest, ReleasedLockIsTakenWithinTheTimeout) {
  create();
  const pid_t holder = stopped_lock_holder();
  Harness h;
  auto store = backend.open(h);
  h.loop.call_after(100ms, [holder] { ::kill(holder, SIGCONT); });
  const auto begin = h.loop.now();
  EXPECT_EQ(h.commit(*store, put("k", "2")).outcome, TxnOutcome::kCommitted);
  EXPECT_LT(h.loop.now() - begin, 1s);
  EXPECT_EQ(exit_status(holder), 0);
}

TEST_F(SqliteStoreTest, HungDiskIsAnsweredWithinTheTimeout) {
  create();
  Harness h;
  auto options = backend.options();
  options.timeout = 300ms;
  auto store = backend.open(h, options);
  ASSERT_TRUE(h.read(*store, "").has_value());
  g_disk_hangs = true;
  const auto begin = h.loop.now();
  std::optional<Result<Snapshot>> behind;
  TxnResult result;
  store->commit(put("k", "2"), [&](TxnResult r) { result = std::move(r); });
  store->read("", [&](Result<Snapshot> r) {
    behind = std::move(r);
    h.loop.stop();
  });
  EXPECT_TRUE(h.await([&] { return behind.has_value(); }, 5s));
  EXPECT_LT(h.loop.now() - begin, 450ms);
  EXPECT_EQ(result.outcome, TxnOutcome::kUnknown);
  EXPECT_THAT(result.error, HasSubstr("may still be applied"));
  ASSERT_FALSE(behind->has_value());
  EXPECT_EQ(behind->error().code, ErrorCode::kTimeout);

  g_disk_hangs = false;
  g_disk_hangs.notify_all();
  // The unknown outcome was "applied later"; the store goes on.
  EXPECT_TRUE(h.await(
      [&] {
        const auto snapshot = h.read(*store, "k");
        return snapshot && snapshot->entries[0].value == "2";
      },
      5s));
}

TEST_F(SqliteStoreTest, EveryCommitIsSyncedBeforeItIsAnswered) {
  create();
  Harness h;
  auto store = backend.open(h);
  ASSERT_TRUE(h.read(*store, "").has_value());
  for (int i = 0; i < 5; ++i) {
    const int before = g_syncs;
    ASSERT_EQ(h.commit(*store, put("k", std::to_string(i))).outcome, TxnOutcome::kCommitted);
    EXPECT_GT(g_syncs, before);
  }
}

TEST_F(SqliteStoreTest, CommitSurvivesKill) {
  const pid_t child = spawn([&] {
    create("k", "before the kill");
    return ::raise(SIGKILL);
  });
  EXPECT_EQ(exit_status(child), 128 + SIGKILL);
  Harness h;
  auto store = backend.open(h);
  const auto snapshot = h.read(*store, "k");
  ASSERT_TRUE(snapshot.has_value()) << snapshot.error().to_string();
  ASSERT_EQ(snapshot->entries.size(), 1u);
  EXPECT_EQ(snapshot->entries[0].value, "before the kill");
}

TEST_F(SqliteStoreTest, WatchNeedsNoPollWhenHintsWork) {
  create();
  Gate watching;
  const pid_t child = spawn([&] {
    Harness h;
    auto options = backend.options();
    options.poll = 60s;
    auto store = backend.open(h, options);
    int calls = 0;
    store->watch("", [&] {
      ++calls;
      h.loop.stop();
    });
    if (!h.await([&] { return calls == 1; })) return 1;  // the first look
    watching.open();
    return h.await([&] { return calls >= 2; }, 5s) ? 0 : 2;
  });
  watching.pass();
  create("k", "2");
  EXPECT_EQ(exit_status(child), 0);
}

TEST_F(SqliteStoreTest, WatchFindsChangesWithoutAnyHint) {
  Harness h;
  auto a = backend.open(h);
  SqliteStore b(backend.options(), h.loop, h.pool, nullptr);
  ASSERT_TRUE(h.read(*a, "").has_value());
  int calls = 0;
  b.watch("", [&] {
    ++calls;
    h.loop.stop();
  });
  ASSERT_TRUE(h.await([&] { return calls == 1; }, 1s));
  ASSERT_EQ(h.commit(*a, put("k", "v")).outcome, TxnOutcome::kCommitted);
  EXPECT_TRUE(h.await([&] { return calls == 2; }, 1s));
}

TEST_F(SqliteStoreTest, WatchSleepsThroughChangesElsewhere) {
  Harness h;
  auto a = backend.open(h);
  auto b = backend.open(h);
  ASSERT_TRUE(h.read(*a, "").has_value());
  int wanted = 0, other = 0;
  b->watch("wanted/", [&] {
    ++wanted;
    h.loop.stop();
  });
  b->watch("other/", [&] {
    ++other;
    h.loop.stop();
  });
  ASSERT_TRUE(h.await([&] { return wanted == 1 && other == 1; }, 1s));
  for (int i = 1; i <= 3; ++i) {
    const int before = other;
    ASSERT_EQ(h.commit(*a, put("other/k", std::to_string(i))).outcome, TxnOutcome::kCommitted);
    ASSERT_TRUE(h.await([&] { return other > before; }, 1s));
  }
  EXPECT_EQ(wanted, 1);
}

TEST_F(SqliteStoreTest, WhatIsNoStoreIsRefusedAndLeftAlone) {
  const std::string cases[] = {
      "this is a text of more than a hundred bytes, so that SQLite has a "
      "whole header to look at: 0123456789 0123456789 0123456789",
      ""};
  for (const auto& bytes : cases) {
    std::ofstream(backend.path(), std::ios::binary) << bytes;
    const auto error = open_error();
    EXPECT_EQ(error.code, ErrorCode::kInvalid) << error.to_string();
    EXPECT_THAT(error.message, HasSubstr(backend.path()));
    EXPECT_FALSE(error.hint.empty());
    EXPECT_EQ(content(backend.path()), bytes);
  }
}

TEST_F(SqliteStoreTest, ForeignDatabaseIsRefused) {
  run_sql("CREATE TABLE meta(x)");
  const auto error = open_error();
  EXPECT_EQ(error.code, ErrorCode::kInvalid);
  EXPECT_THAT(error.message, HasSubstr("not a Bascule store"));
}

TEST_F(SqliteStoreTest, NewerFormatIsRefused) {
  create();
  run_sql("PRAGMA user_version=2");
  const auto error = open_error();
  EXPECT_EQ(error.code, ErrorCode::kInvalid);
  EXPECT_THAT(error.message, HasSubstr("version 2"));
}

TEST_F(SqliteStoreTest, DamagedPageIsRefused) {
  create();
  run_sql("PRAGMA wal_checkpoint(TRUNCATE)");
  {
    std::fstream file(backend.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(4096 + 5);
    file << std::string(3000, '\x7f');
  }
  const auto error = open_error();
  EXPECT_EQ(error.code, ErrorCode::kInvalid) << error.to_string();
  EXPECT_THAT(error.hint, HasSubstr("re-seeds"));
}

TEST_F(SqliteStoreTest, LogWithoutItsFileIsRefused) {
  create();
  fs::remove(backend.path());
  ASSERT_TRUE(fs::exists(backend.path() + "-wal"));
  const auto error = open_error();
  EXPECT_EQ(error.code, ErrorCode::kInvalid);
  EXPECT_THAT(error.message, HasSubstr("its log"));
  EXPECT_FALSE(fs::exists(backend.path()));
}

TEST_F(SqliteStoreTest, MissingDirectoryIsAnErrorThatSaysSo) {
  Harness h;
  auto options = backend.options();
  options.path = fs::path(backend.path()).parent_path() / "no" / "store.db";
  auto store = backend.open(h, options);
  const auto snapshot = h.read(*store, "");
  ASSERT_FALSE(snapshot.has_value());
  EXPECT_THAT(snapshot.error().hint, HasSubstr("Create"));
}

TEST_F(SqliteStoreTest, WithoutIdentityNothingIsCreated) {
  Harness h;
  auto options = backend.options();
  options.identity.clear();
  auto store = backend.open(h, options);
  EXPECT_FALSE(h.read(*store, "").has_value());
  EXPECT_FALSE(fs::exists(backend.path()));
  // It appears later: no restart is needed.
  auto creator = backend.open(h);
  ASSERT_TRUE(h.read(*creator, "").has_value());
  EXPECT_TRUE(h.read(*store, "").has_value());
}

TEST_F(SqliteStoreTest, FileRemovedWhileOpenIsAnErrorAndNotCreatedAnew) {
  Harness h;
  auto store = backend.open(h);
  ASSERT_EQ(h.commit(*store, put("k", "v")).outcome, TxnOutcome::kCommitted);
  for (const char* suffix : {"", "-wal", "-shm"}) fs::remove(backend.path() + suffix);
  EXPECT_EQ(h.commit(*store, put("k", "w")).outcome, TxnOutcome::kUnknown);
  EXPECT_FALSE(h.read(*store, "").has_value());
  EXPECT_FALSE(fs::exists(backend.path()));
}

TEST_F(SqliteStoreTest, ReplacedFileTakesNoCommitBeforeItsIdentityWasRead) {
  Harness h;
  auto store = backend.open(h);
  ASSERT_EQ(h.commit(*store, put("k", "v")).outcome, TxnOutcome::kCommitted);
  const auto before = h.read(*store, "");
  backend.wipe();
  auto other = backend.open(h);
  ASSERT_EQ(h.commit(*other, put("k", "v")).outcome, TxnOutcome::kCommitted);

  // The compared revision fits by accident.
  const auto refused = h.commit(*store, compare_and_put("k", 1, "w"));
  EXPECT_EQ(refused.outcome, TxnOutcome::kUnknown);
  EXPECT_THAT(refused.error, HasSubstr("not applied"));
  const auto after = h.read(*store, "");
  ASSERT_TRUE(before.has_value() && after.has_value());
  EXPECT_NE(after->identity, before->identity);
  EXPECT_EQ(after->entries[0].value, "v");
  EXPECT_EQ(h.commit(*store, compare_and_put("k", 1, "w")).outcome, TxnOutcome::kCommitted);
}

TEST_F(SqliteStoreTest, StoreSetBackToAnOlderStateTakesNoCommitBeforeItWasRead) {
  Harness h;
  auto store = backend.open(h);
  for (const char* value : {"1", "2", "3"}) {
    ASSERT_EQ(h.commit(*store, put("k", value)).outcome, TxnOutcome::kCommitted);
  }
  ASSERT_EQ(h.read(*store, "")->revision, 3u);
  run_sql("UPDATE meta SET revision = 1; UPDATE kv SET revision = 1");
  EXPECT_EQ(h.commit(*store, compare_and_put("k", 1, "w")).outcome, TxnOutcome::kUnknown);
  EXPECT_EQ(h.read(*store, "")->revision, 1u);
  EXPECT_EQ(h.commit(*store, compare_and_put("k", 1, "w")).outcome, TxnOutcome::kCommitted);
}

TEST_F(SqliteStoreTest, FilesBelongToTheDirectorysOwnerAndNobodyElseReadsThem) {
  const auto directory = fs::path(backend.path()).parent_path();
  const uid_t owner = ::geteuid() == 0 ? 65534 : ::geteuid();
  if (::geteuid() == 0) {
    ASSERT_EQ(::chown(directory.c_str(), owner, 65534), 0);
  }
  create();
  for (const char* suffix : {"", "-wal", "-shm", "-bell"}) {
    struct stat info{};
    ASSERT_EQ(::stat((backend.path() + suffix).c_str(), &info), 0) << suffix;
    EXPECT_EQ(info.st_mode & 0777, 0600u) << suffix;
    EXPECT_EQ(info.st_uid, owner) << suffix;
  }
  size_t files = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(directory)) ++files;
  EXPECT_EQ(files, 4u) << "something was left behind";
}

TEST_F(SqliteStoreTest, LogDoesNotGrowForEver) {
  Harness h;
  auto store = backend.open(h);
  const std::string value(64 << 10, 'x');
  for (int i = 0; i < 200; ++i) {  // 13 MB of log
    ASSERT_EQ(h.commit(*store, put("k", value + std::to_string(i))).outcome,
              TxnOutcome::kCommitted);
  }
  EXPECT_LT(fs::file_size(backend.path() + "-wal"), 6u << 20);
}

// Not an assertion about this machine: prints what the closing note reports.
TEST_F(SqliteStoreTest, LatencyReport) {
  create();
  constexpr int kRounds = 200;
  Shared<std::atomic<int64_t>> seen(kRounds + 1);
  Gate watching;
  const pid_t child = spawn([&] {
    Harness h;
    auto store = backend.open(h);
    bool done = false;
    store->watch("round", [&] {
      store->read("round", [&](Result<Snapshot> result) {
        if (!result || result->entries.empty()) return;
        const auto round = static_cast<size_t>(std::stoul(result->entries[0].value));
        int64_t none = 0;
        seen[round].compare_exchange_strong(none, h.loop.now().time_since_epoch().count());
        done = round == kRounds;
        h.loop.stop();
      });
    });
    if (!h.read(*store, "")) return 1;
    watching.open();
    return h.await([&] { return done; }, 50s) ? 0 : 2;
  });
  watching.pass();
  Harness h;
  auto store = backend.open(h);
  std::vector<double> commits, watches;
  for (size_t i = 1; i <= kRounds; ++i) {
    const auto begin = h.loop.now();
    ASSERT_EQ(h.commit(*store, put("round", std::to_string(i))).outcome, TxnOutcome::kCommitted);
    const auto end = h.loop.now();
    commits.push_back(std::chrono::duration<double, std::milli>(end - begin).count());
    EXPECT_TRUE(h.await(
        [&] {
          h.loop.call_after(200us, [&] { h.loop.stop(); });
          return seen[i] != 0;
        },
        2s));
    watches.push_back(static_cast<double>(seen[i] - end.time_since_epoch().count()) / 1e6);
  }
  EXPECT_EQ(exit_status(child), 0);
  std::ranges::sort(commits);
  std::ranges::sort(watches);
  const auto line = [](const char* what, const std::vector<double>& v) {
    printf("%s ms: median %.2f, p99 %.2f, max %.2f\n", what, v[v.size() / 2],
           v[v.size() * 99 / 100], v.back());
  };
  line("commit (fsync)", commits);
  line("watch + read in another process, after the commit's answer", watches);
}

}  // namespace
}  // namespace bascule::store::contract
