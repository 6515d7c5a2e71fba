#include "node/notes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "posix/disk.h"

namespace bascule::node {
namespace {

class NotesTest : public ::testing::Test {
 protected:
  NotesTest() {
    // Every test is a process of its own under CTest, several at a time.
    std::string name = ::testing::TempDir() + "/notes-XXXXXX";
    directory = ::mkdtemp(name.data());
  }
  ~NotesTest() override { std::filesystem::remove_all(directory); }

  NoteRecord record(const std::string& what) {
    NoteRecord out;
    out.at = WallTime(1763724000123ms);
    out.mono = MonoTime(5ns);
    out.member = "n1";
    out.level = LogLevel::kDebug;
    out.what = what;
    out.why = "because \"so\"\n";
    out.fields = {{"epoch", "7"}};
    return out;
  }

  std::string directory;
  posix::PosixDisk disk;
};

TEST_F(NotesTest, ALineIsOneJsonObject) {
  EXPECT_EQ(
      to_json_line(record("promoted")),
      "{\"wall_ms\":1763724000123,\"mono_ns\":5,\"member\":\"n1\",\"level\":\"debug\","
      "\"what\":\"promoted\",\"why\":\"because \\\"so\\\"\\n\",\"fields\":{\"epoch\":\"7\"}}\n");
}

TEST_F(NotesTest, TheLastOnesAreKeptAndAllAreWritten) {
  Notes notes(disk, directory + "/events.jsonl");
  for (size_t i = 0; i < Notes::kKept + 5; ++i) notes.add(record(std::to_string(i)));
  ASSERT_EQ(notes.recent().size(), Notes::kKept);
  EXPECT_EQ(notes.recent().front().what, "5");
  EXPECT_FALSE(disk.exists(directory + "/events.jsonl"));
  notes.write_pending();
  const auto text = disk.read(directory + "/events.jsonl", 1 << 20);
  ASSERT_TRUE(text);
  EXPECT_EQ(static_cast<size_t>(std::count(text->begin(), text->end(), '\n')), Notes::kKept + 5);
  notes.write_pending();
  EXPECT_EQ(disk.size(directory + "/events.jsonl").value(), text->size());
}

TEST_F(NotesTest, TheFileIsRotatedOnce) {
  const std::string file = directory + "/events.jsonl";
  ASSERT_TRUE(
      disk.write(file, std::string(Notes::kFileBytesMax + 1, 'x'), env::Durability::kNone, 0600));
  Notes notes(disk, file);
  notes.add(record("a"));
  notes.write_pending();
  EXPECT_EQ(disk.read(file, 1 << 20).value(), to_json_line(record("a")));
  EXPECT_EQ(disk.size(file + ".1").value(), Notes::kFileBytesMax + 1);
}

TEST_F(NotesTest, ADiskThatFailsLosesNothingInMemory) {
  Notes notes(disk, directory + "/absent/events.jsonl");
  notes.add(record("a"));
  notes.write_pending();
  EXPECT_EQ(notes.recent().size(), 1u);
}

}  // namespace
}  // namespace bascule::node
