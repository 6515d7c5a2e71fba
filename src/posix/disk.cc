#include "posix/disk.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "posix/unique_fd.h"

namespace bascule::posix {
namespace {

namespace fs = std::filesystem;

std::unexpected<Error> failed(const std::string& path, const char* doing, int error) {
  const ErrorCode code = error == ENOENT ? ErrorCode::kNotFound : ErrorCode::kUnavailable;
  return fail(code, path + ": " + doing + ": " + strerror(error));
}

std::string parent(const std::string& path) {
  const std::string out = fs::path(path).parent_path().string();
  return out.empty() ? "." : out;
}

Status sync_directory(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || fsync(fd.get()) != 0) return failed(path, "fsync", errno);
  return {};
}

Status write_all(int fd, const std::string& path, std::string_view content) {
  while (!content.empty()) {
    const ssize_t n = ::write(fd, content.data(), content.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed(path, "write", errno);
    content.remove_prefix(static_cast<size_t>(n));
  }
  return {};
}

class Flock final : public env::FileLock {
 public:
  explicit Flock(UniqueFd fd) : fd_(std::move(fd)) {}

 private:
  UniqueFd fd_;
};

}  // namespace

Result<std::string> PosixDisk::read(const std::string& path, size_t bytes_max) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return failed(path, "open", errno);
  std::string out;
  char buffer[16384];
  for (;;) {
    const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed(path, "read", errno);
    if (n == 0) return out;
    out.append(buffer, static_cast<size_t>(n));
    if (out.size() > bytes_max) {
      return fail(ErrorCode::kInvalid,
                  path + ": longer than " + std::to_string(bytes_max) + " bytes");
    }
  }
}

Status PosixDisk::write(const std::string& path, std::string_view content,
                        env::Durability durability, uint32_t mode) {
  const std::string temporary = path + ".tmp";
  ::unlink(temporary.c_str());
  const UniqueFd fd(
      open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode));
  if (!fd.valid()) return failed(temporary, "create", errno);
  if (auto done = write_all(fd.get(), temporary, content); !done) return done;
  const bool durable = durability == env::Durability::kFsync;
  if (durable && fsync(fd.get()) != 0) return failed(temporary, "fsync", errno);
  if (::rename(temporary.c_str(), path.c_str()) != 0) return failed(path, "rename", errno);
  return durable ? sync_directory(parent(path)) : Status{};
}

Status PosixDisk::append(const std::string& path, std::string_view content) {
  const UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!fd.valid()) return failed(path, "open", errno);
  return write_all(fd.get(), path, content);
}

Status PosixDisk::rename(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) return failed(from, "rename", errno);
  return {};
}

Status PosixDisk::remove(const std::string& path, env::Durability durability) {
  if (::unlink(path.c_str()) != 0) {
    if (errno == ENOENT) return {};
    return failed(path, "unlink", errno);
  }
  return durability == env::Durability::kFsync ? sync_directory(parent(path)) : Status{};
}

Status PosixDisk::remove_contents(const std::string& directory) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    fs::remove_all(entry.path(), error);
    if (error) return failed(entry.path().string(), "remove", error.value());
  }
  if (error) return failed(directory, "list", error.value());
  return {};
}

Status PosixDisk::make_directory(const std::string& path) {
  if (exists(path)) return {};
  if (auto done = make_directory(parent(path)); !done) return done;
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return failed(path, "mkdir", errno);
  return {};
}

Result<std::unique_ptr<env::FileLock>> PosixDisk::lock(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd.valid()) return failed(path, "open", errno);
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return fail(ErrorCode::kConflict, path + ": held by another process");
    return failed(path, "flock", errno);
  }
  return std::make_unique<Flock>(std::move(fd));
}

Result<uint64_t> PosixDisk::free_bytes(const std::string& path) {
  struct statvfs info;
  if (::statvfs(path.c_str(), &info) != 0) return failed(path, "statvfs", errno);
  return uint64_t{info.f_bavail} * info.f_frsize;
}

bool PosixDisk::exists(const std::string& path) {
  struct stat info;
  return ::lstat(path.c_str(), &info) == 0;
}

Result<uint64_t> PosixDisk::size(const std::string& path) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) return failed(path, "stat", errno);
  return static_cast<uint64_t>(info.st_size);
}

Result<std::vector<std::string>> PosixDisk::list(const std::string& directory) {
  std::error_code error;
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    names.push_back(entry.path().filename().string());
  }
  if (error) return failed(directory, "list", error.value());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace bascule::posix
