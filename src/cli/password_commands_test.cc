#include "cli/password_commands.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "posix/blocking_pool.h"
#include "posix/process.h"
#include "posix/reactor.h"

namespace bascule::cli {
namespace {

using testing::HasSubstr;

class PasswordCommandsTest : public testing::Test {
 protected:
  void SetUp() override {
    char dir[] = "/tmp/password-commands-XXXXXX";
    ASSERT_NE(::mkdtemp(dir), nullptr);
    dir_ = dir;
    guard_ = loop_.call_after(20s, [this] {
      ADD_FAILURE() << "time-out";
      loop_.stop();
    });
  }
  void TearDown() override {
    commands_->stop();
    pool_.reset();
    std::filesystem::remove_all(dir_);
  }
  // Counts its runs in a file and prints the number.
  void start(const std::string& script, Millis lifetime) {
    const std::string text =
        "echo x >> " + dir_ + "/runs; n=$(wc -l < " + dir_ + "/runs); " + script;
    commands_ = std::make_unique<PasswordCommands>(
        loop_, *pool_, process_,
        std::vector<PasswordCommandSection>{{"u", {"/bin/sh", "-c", text}, lifetime, 5s}},
        [this](const std::string&, Result<std::string> password) {
          seen_.push_back(password ? *password : "error: " + password.error().message);
          if (done_(seen_)) loop_.stop();
        });
    commands_->start();
    loop_.run();
  }

  std::string dir_;
  posix::Reactor loop_;
  posix::PosixProcess process_;
  std::unique_ptr<posix::ThreadPool> pool_ = std::make_unique<posix::ThreadPool>(1);
  std::unique_ptr<PasswordCommands> commands_;
  std::vector<std::string> seen_;
  std::function<bool(const std::vector<std::string>&)> done_;
  env::TimerId guard_{};
};

TEST_F(PasswordCommandsTest, IsFetchedAgainBeforeItExpires) {
  done_ = [](const auto& seen) { return seen.size() == 3; };
  const MonoTime begun = loop_.now();
  start("echo token$n", 1s);
  EXPECT_THAT(seen_[0], HasSubstr("has not printed a password yet"));
  EXPECT_EQ(seen_[1], "token1");
  EXPECT_EQ(seen_[2], "token2");
  EXPECT_GE(loop_.now() - begun, 700ms);
}

TEST_F(PasswordCommandsTest, FailureCountsOnceTheOldOneHasExpired) {
  done_ = [](const auto& seen) { return seen.size() == 3; };
  start("[ $n = 1 ] && echo token || { echo gone >&2; exit 1; }", 1s);
  EXPECT_EQ(seen_[1], "token");
  EXPECT_EQ(seen_[2], "error: /bin/sh: exit 1: gone");
}

}  // namespace
}  // namespace bascule::cli
