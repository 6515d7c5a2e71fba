#include "cli/pid_file.h"

#include <fmt/format.h>

#include <charconv>

namespace bascule::cli {
namespace {

std::string lock_of(const std::string& path) { return path + ".lock"; }

}  // namespace

Result<PidFile> PidFile::create(env::Disk& disk, env::Process& process, const std::string& path) {
  auto lock = disk.lock(lock_of(path));
  if (!lock && lock.error().code == ErrorCode::kConflict) {
    return fail(ErrorCode::kConflict,
                fmt::format("it is running already, as process {} ({})", read(disk, path), path));
  }
  if (!lock) return std::unexpected(lock.error());
  const auto written =
      disk.write(path, fmt::format("{}\n", process.self()), env::Durability::kNone, 0644);
  if (!written) return std::unexpected(written.error());
  return PidFile(std::move(*lock));
}

std::optional<env::Pid> PidFile::holder(env::Disk& disk, const std::string& path) {
  if (!disk.exists(lock_of(path))) return std::nullopt;
  const auto lock = disk.lock(lock_of(path));
  if (lock || lock.error().code != ErrorCode::kConflict) return std::nullopt;
  return read(disk, path);
}

env::Pid PidFile::read(env::Disk& disk, const std::string& path) {
  const auto text = disk.read(path, 4096);
  env::Pid pid = 0;
  if (text) std::from_chars(text->data(), text->data() + text->size(), pid);
  return pid;
}

}  // namespace bascule::cli
