// A file with the pid of a daemon, and beside it a lock that it holds while it lives: a number
// alone may by now belong to somebody else.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "env/disk.h"
#include "env/process.h"

namespace bascule::cli {

class PidFile {
 public:
  // kConflict when another process holds it.
  static Result<PidFile> create(env::Disk& disk, env::Process& process, const std::string& path);

  // The pid of the daemon that holds it now; nullopt: it does not run.
  static std::optional<env::Pid> holder(env::Disk& disk, const std::string& path);
  // The number in the file, whether it lives or not; 0: none.
  static env::Pid read(env::Disk& disk, const std::string& path);

 private:
  explicit PidFile(std::unique_ptr<env::FileLock> lock) : lock_(std::move(lock)) {}
  std::unique_ptr<env::FileLock> lock_;
};

}  // namespace bascule::cli
