// Follows the decisions that the nodes and the proxy write as JSON lines (node/notes.h), from now
// on: what the demo shows as a timeline.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/time.h"

namespace bascule::cli {

struct DemoEvent {
  MonoTime at{};
  std::string member;
  std::string what;
  std::string why;
};
Result<DemoEvent> parse_event(std::string_view json_line);

class EventFollower {
 public:
  // What is in the files now is not reported.
  explicit EventFollower(std::vector<std::string> files);
  // New events of all files, by time. Unreadable lines are skipped.
  std::vector<DemoEvent> poll();

 private:
  struct File {
    std::string path;
    uint64_t offset = 0;
    std::string partial;  // a line that is not complete yet
  };
  std::vector<File> files_;
};

}  // namespace bascule::cli
