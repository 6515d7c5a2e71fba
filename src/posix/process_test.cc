#include "posix/process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>

#include "posix/clock.h"

namespace bascule::posix {
namespace {

env::Command shell(const std::string& script, Nanos within = 10s) {
  env::Command command;
  command.argv = {"/bin/sh", "-c", script};
  command.deadline = boot_now() + within;
  return command;
}

TEST(Process, OutputAndExitCodeComeBack) {
  PosixProcess process;
  std::string seen;
  env::Command command = shell("echo out; echo err >&2; exit 3");
  command.on_output = [&](std::string_view piece) { seen += piece; };
  const auto finished = process.run(command);
  ASSERT_TRUE(finished);
  EXPECT_EQ(finished->exit_code, 3);
  EXPECT_EQ(finished->how(), "exit 3");
  EXPECT_EQ(finished->output, "out\nerr\n");
  EXPECT_EQ(seen, finished->output);
}

TEST(Process, ErrorsApartAreNotPartOfTheOutput) {
  PosixProcess process;
  env::Command command = shell("echo secret; echo why >&2; head -c 9000 /dev/zero >&2; exit 1");
  command.errors_go = env::Command::Errors::kApart;
  const auto finished = process.run(command);
  ASSERT_TRUE(finished);
  EXPECT_EQ(finished->exit_code, 1);
  EXPECT_EQ(finished->output, "secret\n");
  EXPECT_TRUE(finished->errors.starts_with("why\n"));
  EXPECT_EQ(finished->errors.size(), 4096u);
}

TEST(Process, OnlyTheEndOfALongOutputIsKept) {
  PosixProcess process;
  const auto finished = process.run(shell("head -c 100000 /dev/zero | tr '\\0' x; echo end"));
  ASSERT_TRUE(finished);
  EXPECT_EQ(finished->output.size(), 16384u);
  EXPECT_TRUE(finished->output.ends_with("xend\n"));
}

TEST(Process, TheEnvironmentIsWhatWasGiven) {
  PosixProcess process;
  ::setenv("BASCULE_SECRET_OF_OURS", "x", 1);
  env::Command command = shell("echo [$BASCULE_SECRET_OF_OURS] [$GIVEN]");
  command.environment = {"GIVEN=yes"};
  EXPECT_EQ(process.run(command).value().output, "[] [yes]\n");
}

TEST(Process, AtTheDeadlineItsWholeGroupIsKilled) {
  PosixProcess process;
  const MonoTime before = boot_now();
  const auto finished = process.run(shell("sleep 60 & echo $!; wait", 200ms));
  ASSERT_FALSE(finished);
  EXPECT_EQ(finished.error().code, ErrorCode::kTimeout);
  EXPECT_LT(boot_now() - before, 5s);
}

TEST(Process, CancellationEndsIt) {
  PosixProcess process;
  env::Command command = shell("sleep 60");
  command.cancelled = [] { return true; };
  const auto finished = process.run(command);
  ASSERT_FALSE(finished);
  EXPECT_EQ(finished.error().code, ErrorCode::kUnavailable);
}

TEST(Process, AMissingProgramIsAnExitCode) {
  PosixProcess process;
  env::Command command;
  command.argv = {"/nonexistent/program"};
  command.deadline = boot_now() + 5s;
  const auto finished = process.run(command);
  ASSERT_TRUE(finished);
  EXPECT_EQ(finished->exit_code, 127);
  EXPECT_NE(finished->output.find("/nonexistent/program"), std::string::npos);
}

TEST(Process, AHandleSeesTheEndOfADetachedProcess) {
  PosixProcess process;
  env::Command command;
  command.argv = {"/bin/sleep", "60"};
  command.directory = "/";
  auto handle = process.spawn_detached(command, "/dev/null");
  ASSERT_TRUE(handle);
  EXPECT_TRUE((*handle)->alive());
  ASSERT_TRUE((*handle)->signal(SIGKILL));
  const MonoTime limit = boot_now() + 5s;
  while ((*handle)->alive() && boot_now() < limit) process.sleep(1ms);
  EXPECT_FALSE((*handle)->alive());
}

TEST(Process, WhoWorksWhereIsFoundByDirectoryAndProgram) {
  PosixProcess process;
  env::Command command;
  command.argv = {"/bin/sleep", "60"};
  command.directory = "/proc";
  auto handle = process.spawn_detached(command, "/dev/null");
  ASSERT_TRUE(handle);
  const env::Pid pid = (*handle)->pid();
  const MonoTime limit = boot_now() + 5s;
  while (!process.works_in(pid, "/proc", "sleep") && boot_now() < limit) process.sleep(1ms);
  EXPECT_TRUE(process.works_in(pid, "/proc", "sleep"));
  EXPECT_FALSE(process.works_in(pid, "/proc", "postgres"));
  EXPECT_FALSE(process.works_in(pid, "/", "sleep"));
  const auto found = process.in_directory("/proc", "sleep");
  EXPECT_NE(std::find(found.begin(), found.end(), pid), found.end());
  EXPECT_FALSE(process.stopped(pid));
  ASSERT_TRUE((*handle)->signal(SIGSTOP));
  while (!process.stopped(pid) && boot_now() < limit) process.sleep(1ms);
  EXPECT_TRUE(process.stopped(pid));
  ASSERT_TRUE((*handle)->signal(SIGKILL));
}

}  // namespace
}  // namespace bascule::posix
