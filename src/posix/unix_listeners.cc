#include "posix/unix_listeners.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "posix/socket_address.h"

namespace bascule::posix {
namespace {

std::string path_of(const env::Endpoint& endpoint) {
  return endpoint.host + "/.s.PGSQL." + std::to_string(endpoint.port);
}

// True if nobody listens there any more.
bool is_left_behind(const env::Endpoint& endpoint) {
  const ConnectAttempt attempt = start_connect(endpoint);
  return attempt.error == ECONNREFUSED;
}

}  // namespace

UnixListeners::~UnixListeners() {
  for (const auto& [path, entry] : entries_) ::unlink(path.c_str());
}

Result<UniqueFd> UnixListeners::open(const env::Endpoint& endpoint) {
  const std::lock_guard lock(mutex_);
  const std::string path = path_of(endpoint);
  Entry& entry = entries_[path];
  if (entry.users == 0) {
    if (is_left_behind(endpoint)) ::unlink(path.c_str());
    auto fd = listen_socket(endpoint);
    if (!fd) {
      entries_.erase(path);
      return fd;
    }
    ::chmod(path.c_str(), 0777);  // authentication is not the file system's
    entry.fd = std::move(*fd);
  }
  UniqueFd copy(::fcntl(entry.fd.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) return fail(ErrorCode::kUnavailable, path + ": " + ::strerror(errno));
  ++entry.users;
  return copy;
}

void UnixListeners::close(const env::Endpoint& endpoint) {
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(path_of(endpoint));
  if (it == entries_.end() || --it->second.users > 0) return;
  ::unlink(it->first.c_str());
  entries_.erase(it);
}

}  // namespace bascule::posix
