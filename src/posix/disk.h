// env::Disk on a Linux file system.
#pragma once

#include "env/disk.h"

namespace bascule::posix {

class PosixDisk final : public env::Disk {
 public:
  Result<std::string> read(const std::string& path, size_t bytes_max) override;
  Status write(const std::string& path, std::string_view content, env::Durability durability,
               uint32_t mode) override;
  Status append(const std::string& path, std::string_view content) override;
  Status rename(const std::string& from, const std::string& to) override;
  Status remove(const std::string& path, env::Durability durability) override;
  Status remove_contents(const std::string& directory) override;
  Status make_directory(const std::string& path) override;
  Result<std::unique_ptr<env::FileLock>> lock(const std::string& path) override;
  bool exists(const std::string& path) override;
  Result<uint64_t> size(const std::string& path) override;
  Result<uint64_t> free_bytes(const std::string& path) override;
  Result<std::vector<std::string>> list(const std::string& directory) override;
};

}  // namespace bascule::posix
