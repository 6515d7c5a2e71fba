#include "posix/file_watch.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>
#include <utility>
#include <vector>

namespace bascule::posix {
namespace {

constexpr const char* kSuffix = "-bell";

std::string directory_of(const std::string& path) {
  return std::filesystem::path(path).parent_path();
}

// The bell belongs to the directory's owner also when root rings it first: the agents run as that
// user and could not open it otherwise.
UniqueFd create_bell(const std::string& bell) {
  UniqueFd fd(::open(bell.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  struct stat directory{};
  if (fd.valid() && ::geteuid() == 0 && ::stat(directory_of(bell).c_str(), &directory) == 0) {
    // Failing leaves a bell that only root can ring; the slow poll covers that.
    [[maybe_unused]] const int rc = ::fchown(fd.get(), directory.st_uid, directory.st_gid);
  }
  return fd;
}

}  // namespace

InotifyHint::InotifyHint(env::Loop& loop)
    : loop_(loop), inotify_(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
  if (inotify_.valid())
    loop_.watch(inotify_.get(), env::kReadable, [this](uint32_t) { on_readable(); });
}

InotifyHint::~InotifyHint() {
  if (inotify_.valid()) loop_.unwatch(inotify_.get());
}

Result<uint64_t> InotifyHint::listen(const std::string& path, std::function<void()> callback) {
  const std::string directory = directory_of(path);
  // A directory that is watched already gives its number again.
  const int watch =
      ::inotify_add_watch(inotify_.get(), directory.c_str(), IN_CLOSE_WRITE | IN_ONLYDIR);
  if (watch < 0) {
    return fail(ErrorCode::kUnavailable,
                fmt::format("watch {}: {}", directory, std::strerror(errno)),
                "Changes of other processes are seen by polling only; see fs.inotify.* in sysctl");
  }
  const std::string name = std::filesystem::path(path).filename();
  listeners_[next_id_] = {watch, name + kSuffix, std::move(callback)};
  return next_id_++;
}

void InotifyHint::unlisten(uint64_t id) {
  const auto found = listeners_.find(id);
  if (found == listeners_.end()) return;
  const int watch = found->second.watch;
  listeners_.erase(found);
  for (const auto& [other, listener] : listeners_) {
    if (listener.watch == watch) return;
  }
  ::inotify_rm_watch(inotify_.get(), watch);
}

void InotifyHint::ring(const std::string& path) {
  const std::string bell = path + kSuffix;
  UniqueFd fd(::open(bell.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd.valid() && errno == ENOENT) fd = create_bell(bell);
}

void InotifyHint::on_readable() {
  std::set<std::pair<int, std::string>> rung;
  bool overflow = false;
  alignas(inotify_event) char buffer[4096];
  for (;;) {
    const ssize_t size = ::read(inotify_.get(), buffer, sizeof buffer);
    if (size <= 0) break;
    for (ssize_t at = 0; at < size;) {
      const auto* event = reinterpret_cast<const inotify_event*>(buffer + at);
      at += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
      if (event->mask & IN_Q_OVERFLOW) overflow = true;
      if ((event->mask & IN_CLOSE_WRITE) && event->len > 0) rung.emplace(event->wd, event->name);
    }
  }
  std::vector<uint64_t> concerned;
  for (const auto& [id, listener] : listeners_) {
    if (overflow || rung.contains({listener.watch, listener.bell})) concerned.push_back(id);
  }
  for (const uint64_t id : concerned) {
    const auto found = listeners_.find(id);  // a callback may have removed it
    if (found == listeners_.end()) continue;
    const auto callback = found->second.callback;  // it may remove itself
    callback();
  }
}

}  // namespace bascule::posix
