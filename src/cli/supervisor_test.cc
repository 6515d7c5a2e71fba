#include "cli/supervisor.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "posix/disk.h"
#include "posix/process.h"
#include "posix/reactor.h"

namespace bascule::cli {
namespace {

class SupervisorTest : public testing::Test {
 protected:
  SupervisorTest() {
    char name[] = "/tmp/bascule-supervisor-XXXXXX";
    dir_ = mkdtemp(name);
  }
  ~SupervisorTest() override { std::filesystem::remove_all(dir_); }

  // Writes its pid, appends a line to <name>.starts, then sleeps.
  SupervisedProcess sleeper(const std::string& name) {
    const std::string script = "echo $$ > $0.pid; echo start >> $0.starts; exec sleep 60";
    // `exec sleep` changes the title, so adoption is tested with a script that stays a shell.
    const std::string stay =
        "echo $$ > $0.pid; echo start >> $0.starts; while :; do sleep 0.05; done";
    const std::string& chosen = adoptable_ ? stay : script;
    return {name,
            {"/bin/sh", "-c", chosen, dir_ + "/" + name},
            dir_ + "/log",
            dir_ + "/" + name + ".pid",
            dir_ + "/" + name + ".hold",
            SupervisedProcess::PidFileBy::kItself};
  }
  size_t starts(const std::string& name) {
    std::ifstream file(dir_ + "/" + name + ".starts");
    size_t lines = 0;
    for (std::string line; std::getline(file, line);) ++lines;
    return lines;
  }
  env::Pid pid(const std::string& name) {
    std::ifstream file(dir_ + "/" + name + ".pid");
    env::Pid number = 0;
    file >> number;
    return number;
  }
  bool run_until(const std::function<bool()>& condition) {
    const MonoTime end = loop_.now() + 10s;
    while (!condition() && loop_.now() < end) {
      loop_.call_after(5ms, [this] { loop_.stop(); });
      loop_.run();
    }
    return condition();
  }
  void stop(Supervisor& supervisor) {
    bool done = false;
    supervisor.stop({}, [&] { done = true; });
    EXPECT_TRUE(run_until([&] { return done; }));
  }

  std::string dir_;
  bool adoptable_ = false;
  posix::Reactor loop_;
  posix::PosixProcess process_;
  posix::PosixDisk disk_;
};

TEST_F(SupervisorTest, AKilledProcessIsStartedAgain) {
  Supervisor supervisor(loop_, process_, disk_, {sleeper("a")});
  supervisor.start();
  ASSERT_TRUE(run_until([&] { return starts("a") == 1; }));
  ASSERT_EQ(kill(pid("a"), SIGKILL), 0);
  EXPECT_TRUE(run_until([&] { return starts("a") == 2; }));
  stop(supervisor);
}

TEST_F(SupervisorTest, AHeldProcessStaysDownUntilTheHoldIsTakenAway) {
  Supervisor supervisor(loop_, process_, disk_, {sleeper("a"), sleeper("b")});
  std::ofstream(dir_ + "/a.hold") << "";
  supervisor.start();
  ASSERT_TRUE(run_until([&] { return starts("b") == 1; }));
  EXPECT_EQ(starts("a"), 0u);
  std::filesystem::remove(dir_ + "/a.hold");
  EXPECT_TRUE(run_until([&] { return starts("a") == 1; }));
  stop(supervisor);
}

TEST_F(SupervisorTest, StopEndsOneGroupBeforeTheNext) {
  Supervisor supervisor(loop_, process_, disk_, {sleeper("a"), sleeper("b")});
  supervisor.start();
  ASSERT_TRUE(run_until([&] { return starts("a") == 1 && starts("b") == 1; }));
  // "b" is stopped: it can't end, so "a" must not be told.
  const env::Pid a = pid("a");
  const env::Pid b = pid("b");
  ASSERT_EQ(kill(b, SIGSTOP), 0);
  bool done = false;
  supervisor.stop({{"b"}, {"a"}}, [&] { done = true; });
  loop_.call_after(100ms, [this] { loop_.stop(); });
  loop_.run();
  EXPECT_EQ(kill(a, 0), 0);
  kill(b, SIGCONT);
  EXPECT_TRUE(run_until([&] { return done; }));
}

TEST_F(SupervisorTest, ANewSupervisorAdoptsWhatStillRuns) {
  adoptable_ = true;
  {
    Supervisor first(loop_, process_, disk_, {sleeper("a")});
    first.start();
    ASSERT_TRUE(run_until([&] { return starts("a") == 1; }));
  }
  const env::Pid before = pid("a");
  Supervisor second(loop_, process_, disk_, {sleeper("a")});
  second.start();
  EXPECT_EQ(kill(before, SIGKILL), 0);  // still the same process, and now watched by the second
  EXPECT_TRUE(run_until([&] { return starts("a") == 2; }));
  stop(second);
}

}  // namespace
}  // namespace bascule::cli
