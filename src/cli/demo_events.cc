#include "cli/demo_events.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

namespace bascule::cli {

Result<DemoEvent> parse_event(std::string_view json_line) {
  const auto json = nlohmann::json::parse(json_line, nullptr, false);
  if (!json.is_object()) return fail(ErrorCode::kInvalid, "not a JSON object");
  try {  // nlohmann throws at wrong types: the exception ends here
    DemoEvent event;
    event.at = MonoTime(Nanos(json.at("mono_ns").get<int64_t>()));
    event.member = json.at("member").get<std::string>();
    event.what = json.at("what").get<std::string>();
    event.why = json.value("why", "");
    return event;
  } catch (const nlohmann::json::exception& error) {
    return fail(ErrorCode::kInvalid, error.what());
  }
}

EventFollower::EventFollower(std::vector<std::string> files) {
  for (std::string& path : files) {
    std::error_code missing;
    const auto size = std::filesystem::file_size(path, missing);
    files_.push_back({std::move(path), missing ? 0 : size, ""});
  }
}

std::vector<DemoEvent> EventFollower::poll() {
  std::vector<DemoEvent> events;
  for (File& file : files_) {
    std::error_code missing;
    const auto size = std::filesystem::file_size(file.path, missing);
    if (missing || size == file.offset) continue;
    if (size < file.offset) file.offset = 0;  // rotated
    std::ifstream in(file.path, std::ios::binary);
    in.seekg(static_cast<std::streamoff>(file.offset));
    std::ostringstream content;
    content << in.rdbuf();
    const std::string text = std::move(content).str();
    file.offset += text.size();
    file.partial += text;
    for (size_t end; (end = file.partial.find('\n')) != std::string::npos;) {
      if (auto event = parse_event(std::string_view(file.partial).substr(0, end))) {
        events.push_back(std::move(*event));
      }
      file.partial.erase(0, end + 1);
    }
  }
  std::ranges::stable_sort(events, {}, &DemoEvent::at);
  return events;
}

}  // namespace bascule::cli
