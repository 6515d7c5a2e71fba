// Files, as an interface. Blocking: not for a loop's thread unless the file is small and local.
// Thread-safe. Errors name the path.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/time.h"

namespace bascule::env {

enum class Durability { kNone, kFsync };  // kFsync: the file, and the directory that names it

class FileLock {
 public:
  virtual ~FileLock() = default;  // releases
};

class Disk {
 public:
  virtual ~Disk() = default;

  // kNotFound when absent; kInvalid when longer than `bytes_max`.
  virtual Result<std::string> read(const std::string& path, size_t bytes_max) = 0;
  // Atomic: a temporary file in the same directory, then renamed over `path`.
  virtual Status write(const std::string& path, std::string_view content, Durability durability,
                       uint32_t mode = 0600) = 0;
  virtual Status append(const std::string& path, std::string_view content) = 0;
  virtual Status rename(const std::string& from, const std::string& to) = 0;
  // Absent is no error.
  virtual Status remove(const std::string& path, Durability durability) = 0;
  // Everything inside a directory, not the directory itself; symbolic links are not followed.
  virtual Status remove_contents(const std::string& directory) = 0;
  // With parents, each 0700; no error when it exists.
  virtual Status make_directory(const std::string& path) = 0;
  // Exclusive among processes, created if absent; kConflict when somebody else holds it.
  virtual Result<std::unique_ptr<FileLock>> lock(const std::string& path) = 0;
  virtual bool exists(const std::string& path) = 0;
  virtual Result<uint64_t> size(const std::string& path) = 0;
  // What users other than root may still write on the file system of `path`.
  virtual Result<uint64_t> free_bytes(const std::string& path) = 0;
  virtual Result<std::vector<std::string>> list(const std::string& directory) = 0;  // sorted names
};

}  // namespace bascule::env
