// The agent's decisions with their reasons: the last ones in memory for the API, all of them as
// JSON lines in run_dir/events.jsonl (rotated once to events.jsonl.1 beyond kFileBytesMax).
//
// One line: {"wall_ms":1763724000123,"mono_ns":…,"member":"n1","level":"info","what":"promoted",
//            "why":"…","fields":{"epoch":"7"}}
#pragma once

#include <cstddef>
#include <deque>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/time.h"
#include "env/disk.h"

namespace bascule::node {

struct NoteRecord {
  WallTime at{};
  MonoTime mono{};
  std::string member;
  LogLevel level = LogLevel::kInfo;
  std::string what;
  std::string why;
  std::vector<std::pair<std::string, std::string>> fields;
};
std::string to_json_line(const NoteRecord& note);

class Notes {
 public:
  static constexpr size_t kKept = 200;
  static constexpr size_t kFileBytesMax = 8 << 20;

  Notes(env::Disk& disk, std::string file);
  void add(NoteRecord note);               // thread-safe; also logs; touches no disk
  void write_pending();                    // thread-safe, blocking: appends what was added since
  std::vector<NoteRecord> recent() const;  // thread-safe; oldest first

 private:
  env::Disk& disk_;
  const std::string file_;
  mutable std::mutex mutex_;
  std::deque<NoteRecord> kept_;
  std::string pending_;       // guarded by mutex_
  std::mutex file_mutex_;     // one writer
  bool file_failed_ = false;  // guarded by file_mutex_; said once
};

}  // namespace bascule::node
