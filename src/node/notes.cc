#include "node/notes.h"

#include <nlohmann/json.hpp>

#include <string_view>

namespace bascule::node {
namespace {

constexpr size_t kPendingBytesMax = 1 << 20;

std::string_view level_name(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarn:
      return "warn";
    case LogLevel::kError:
      return "error";
  }
  return "info";
}

}  // namespace

std::string to_json_line(const NoteRecord& note) {
  nlohmann::ordered_json out;
  out["wall_ms"] = note.at.time_since_epoch().count();
  out["mono_ns"] = note.mono.time_since_epoch().count();
  out["member"] = note.member;
  out["level"] = level_name(note.level);
  out["what"] = note.what;
  out["why"] = note.why;
  out["fields"] = nlohmann::ordered_json::object();
  for (const auto& [key, value] : note.fields) out["fields"][key] = value;
  return out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

Notes::Notes(env::Disk& disk, std::string file) : disk_(disk), file_(std::move(file)) {}

void Notes::add(NoteRecord note) {
  std::vector<LogField> fields;
  if (!note.why.empty()) fields.emplace_back("why", note.why);
  for (const auto& [key, value] : note.fields) fields.emplace_back(key, value);
  log(note.level, note.member, note.what, fields);
  const std::lock_guard lock(mutex_);
  if (pending_.size() < kPendingBytesMax) pending_ += to_json_line(note);
  kept_.push_back(std::move(note));
  if (kept_.size() > kKept) kept_.pop_front();
}

void Notes::write_pending() {
  const std::lock_guard one_writer(file_mutex_);
  std::string lines;
  {
    const std::lock_guard lock(mutex_);
    lines.swap(pending_);
  }
  if (lines.empty()) return;
  if (disk_.size(file_).value_or(0) > kFileBytesMax) (void)disk_.rename(file_, file_ + ".1");
  const Status done = disk_.append(file_, lines);
  if (!done && !file_failed_) {
    log(LogLevel::kWarn, "notes", "events are not recorded", {{"error", done.error().message}});
  }
  file_failed_ = !done;
}

std::vector<NoteRecord> Notes::recent() const {
  const std::lock_guard lock(mutex_);
  return {kept_.begin(), kept_.end()};
}

}  // namespace bascule::node
