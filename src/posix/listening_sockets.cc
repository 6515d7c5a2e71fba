#include "posix/listening_sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
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

ListeningSockets::~ListeningSockets() {
  if (passed_on_) return;
  for (const auto& [path, entry] : shared_) ::unlink(path.c_str());
}

void ListeningSockets::expect_net() {
  const std::lock_guard lock(mutex_);
  ++nets_;
}

Result<std::vector<UniqueFd>> ListeningSockets::open(const env::Endpoint& endpoint) {
  const std::lock_guard lock(mutex_);
  if (endpoint.host.starts_with('/')) return open_shared(endpoint);
  const int turn = opened_[endpoint.to_string()]++;
  std::vector<UniqueFd> fds;
  int index = 0;
  for (Socket& socket : adopted_) {
    if (socket.first != endpoint) continue;
    if (index++ % std::max(nets_, 1) == turn && socket.second.valid()) {
      fds.push_back(std::move(socket.second));
    }
  }
  if (fds.empty()) {
    auto fd = listen_socket(endpoint);
    if (!fd) return std::unexpected(fd.error());
    fds.push_back(std::move(*fd));
  }
  for (const UniqueFd& fd : fds) own_.emplace_back(endpoint, fd.get());
  return fds;
}

Result<std::vector<UniqueFd>> ListeningSockets::open_shared(const env::Endpoint& endpoint) {
  const std::string path = path_of(endpoint);
  Shared& entry = shared_[path];
  for (Socket& socket : adopted_) {
    if (socket.first == endpoint && socket.second.valid()) entry.fd = std::move(socket.second);
  }
  if (!entry.fd.valid()) {
    if (is_left_behind(endpoint)) ::unlink(path.c_str());
    auto fd = listen_socket(endpoint);
    if (!fd) {
      shared_.erase(path);
      return std::unexpected(fd.error());
    }
    ::chmod(path.c_str(), 0777);  // authentication is not the file system's
    entry.fd = std::move(*fd);
  }
  entry.endpoint = endpoint;
  UniqueFd copy(::fcntl(entry.fd.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) return fail(ErrorCode::kUnavailable, path + ": " + ::strerror(errno));
  ++entry.users;
  std::vector<UniqueFd> fds;
  fds.push_back(std::move(copy));
  return fds;
}

void ListeningSockets::close(const env::Endpoint& endpoint, int fd) {
  const std::lock_guard lock(mutex_);
  std::erase_if(own_, [&](const auto& socket) { return socket.second == fd; });
  const auto it = shared_.find(path_of(endpoint));
  if (it == shared_.end() || --it->second.users > 0) return;
  if (!passed_on_) ::unlink(it->first.c_str());
  shared_.erase(it);
}

void ListeningSockets::adopt(std::vector<Socket> sockets) {
  const std::lock_guard lock(mutex_);
  adopted_ = std::move(sockets);
}

void ListeningSockets::drop_adopted() {
  const std::lock_guard lock(mutex_);
  adopted_.clear();
}

void ListeningSockets::passed_on() {
  const std::lock_guard lock(mutex_);
  passed_on_ = true;
}

}  // namespace bascule::posix
