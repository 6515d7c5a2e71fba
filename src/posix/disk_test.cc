#include "posix/disk.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>

namespace bascule::posix {
namespace {

class DiskTest : public ::testing::Test {
 protected:
  DiskTest() {
    std::filesystem::remove_all(directory);
    EXPECT_TRUE(disk.make_directory(directory));
  }
  ~DiskTest() override { std::filesystem::remove_all(directory); }

  // Of this process: under CTest every test is one, several at a time.
  const std::string directory =
      ::testing::TempDir() + "/posix-disk-test-" + std::to_string(getpid());
  PosixDisk disk;
};

TEST_F(DiskTest, WritingReplacesTheWholeFile) {
  const std::string path = directory + "/file";
  ASSERT_TRUE(disk.write(path, "a longer text", env::Durability::kFsync, 0600));
  ASSERT_TRUE(disk.write(path, "short", env::Durability::kFsync, 0600));
  EXPECT_EQ(disk.read(path, 100).value(), "short");
  EXPECT_EQ(disk.list(directory).value(), std::vector<std::string>{"file"});
  struct stat info;
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777u, 0600u);
}

TEST_F(DiskTest, ReadingIsBounded) {
  const std::string path = directory + "/file";
  ASSERT_TRUE(disk.write(path, std::string(100, 'x'), env::Durability::kNone, 0600));
  EXPECT_TRUE(disk.read(path, 100));
  EXPECT_EQ(disk.read(path, 99).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(disk.read(directory + "/absent", 99).error().code, ErrorCode::kNotFound);
}

TEST_F(DiskTest, RemovingWhatIsAbsentIsNoError) {
  EXPECT_TRUE(disk.remove(directory + "/absent", env::Durability::kFsync));
}

TEST_F(DiskTest, RemovingContentsFollowsNoLink) {
  const std::string inside = directory + "/inside", outside = directory + "/outside";
  ASSERT_TRUE(disk.make_directory(inside + "/deep"));
  ASSERT_TRUE(disk.make_directory(outside));
  ASSERT_TRUE(disk.append(outside + "/kept", "x"));
  std::filesystem::create_directory_symlink(outside, inside + "/link");
  ASSERT_TRUE(disk.remove_contents(inside));
  EXPECT_TRUE(disk.list(inside).value().empty());
  EXPECT_TRUE(disk.exists(outside + "/kept"));
}

TEST_F(DiskTest, ALockHasOneHolder) {
  const std::string path = directory + "/lock";
  auto first = disk.lock(path);
  ASSERT_TRUE(first);
  EXPECT_EQ(disk.lock(path).error().code, ErrorCode::kConflict);
  first->reset();
  EXPECT_TRUE(disk.lock(path));
}

}  // namespace
}  // namespace bascule::posix
