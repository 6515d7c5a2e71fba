#include "cli/store_session.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "cli/config.h"
#include "cli/pid_file.h"
#include "posix/blocking_pool.h"
#include "posix/clock.h"
#include "posix/disk.h"
#include "posix/entropy.h"
#include "posix/file_watch.h"
#include "posix/process.h"
#include "posix/reactor.h"
#include "posix/worker_engine.h"
#include "store/sqlite_file.h"

namespace bascule::cli {
namespace {

class StoreSessionTest : public testing::Test {
 protected:
  StoreSessionTest() {
    char name[] = "/tmp/bascule-session-XXXXXX";
    dir_ = mkdtemp(name);
    at_ = {"main", StoreAt::file(dir_ + "/store.db"), dir_};
  }
  ~StoreSessionTest() override { std::filesystem::remove_all(dir_); }

  void make_store() {
    store::SqliteOptions options;
    options.path = at_.store.path;
    options.identity = "this-one";
    store::SqliteFile file(options);
    ASSERT_TRUE(file.read({""}));
  }
  std::unique_ptr<StoreSession> open() {
    auto session = StoreSession::open(platform_, at_);
    EXPECT_TRUE(session);
    return std::move(*session);
  }

  std::string dir_;
  ClusterAt at_;
  posix::SystemClock clock_;
  posix::PosixProcess process_;
  posix::PosixDisk disk_;
  posix::SystemEntropy entropy_;
  posix::WorkerEngineFactory engines_;
  const Platform platform_{
      [] { return std::make_unique<posix::Reactor>(); },
      [](int threads) { return std::make_unique<posix::ThreadPool>(threads); },
      [](env::Loop& loop) { return std::make_unique<posix::InotifyHint>(loop); },
      clock_,
      process_,
      disk_,
      entropy_,
      engines_,
      [](const char*) { return std::nullopt; },
      {},
      2,
  };
};

TEST_F(StoreSessionTest, NoCommandCreatesAStore) {
  const auto session = StoreSession::open(platform_, at_);
  ASSERT_FALSE(session);
  EXPECT_EQ(session.error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(disk_.exists(at_.store.path));
}

// A watch stops the loop too; a read that was under way then wrote its answer into a frame that was
// gone (`bascule up` died with "free(): invalid pointer").
TEST_F(StoreSessionTest, ReadsSurviveAWatchThatFiresMeanwhile) {
  make_store();
  constexpr int kWrites = 200;
  posix::ThreadPool writer(1);
  writer.submit([this] {
    const auto session = open();
    for (int i = 0; i < kWrites; ++i) {
      control::RequestRecord request;
      request.id = std::to_string(i);
      EXPECT_EQ(session->commit({{}, {{session->keys().request(), encode(request)}}}).outcome,
                store::TxnOutcome::kCommitted);
    }
  });
  const auto reader = open();
  int seen = 0;
  const bool last = reader->follow(20s, [&](const control::ClusterView& view) {
    ++seen;
    return view.request && view.request->value.id == std::to_string(kWrites - 1);
  });
  EXPECT_TRUE(last);
  EXPECT_GT(seen, 1);
}

TEST_F(StoreSessionTest, FollowGivesUpInTime) {
  make_store();
  const MonoTime begun = clock_.now();
  EXPECT_FALSE(open()->follow(100ms, [](const control::ClusterView&) { return false; }));
  EXPECT_GE(clock_.now() - begun, 100ms);
}

TEST_F(StoreSessionTest, ASecondDaemonIsRefusedAndNamesTheFirst) {
  const std::string path = dir_ + "/agent.pid";
  EXPECT_FALSE(PidFile::holder(disk_, path));
  {
    const auto first = PidFile::create(disk_, process_, path);
    ASSERT_TRUE(first);
    EXPECT_EQ(PidFile::holder(disk_, path), process_.self());
    const auto second = PidFile::create(disk_, process_, path);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, ErrorCode::kConflict);
    EXPECT_NE(second.error().message.find(std::to_string(process_.self())), std::string::npos);
  }
  EXPECT_FALSE(PidFile::holder(disk_, path));
}

// postmaster.pid has more lines than the number; it was taken for "no postmaster".
TEST_F(StoreSessionTest, ThePidIsTheFirstLineOfALongFile) {
  std::ofstream(dir_ + "/postmaster.pid") << "4711\n" << std::string(300, 'x') << "\n";
  EXPECT_EQ(PidFile::read(disk_, dir_ + "/postmaster.pid"), 4711);
}

TEST_F(StoreSessionTest, ADirectoryIsNotAConfigurationFile) {
  const auto config = load_config(dir_);
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().code, ErrorCode::kInvalid);
}

}  // namespace
}  // namespace bascule::cli
