// The listening sockets of a process: made here, shared between its nets where SO_REUSEPORT does
// not exist (unix sockets), taken over from another process, and known, so that they can be passed
// on. Thread-safe.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "env/net.h"
#include "posix/unique_fd.h"

namespace bascule::posix {

class ListeningSockets {
 public:
  ListeningSockets() = default;
  ~ListeningSockets();
  ListeningSockets(const ListeningSockets&) = delete;
  ListeningSockets& operator=(const ListeningSockets&) = delete;

  // One net more will listen: adopted sockets are spread over all of them.
  void expect_net();
  // For one net: its share of what was adopted, or a new socket. Of a unix socket a descriptor of
  // the one that all share; the first net makes it, after removing what a dead process left;
  // everybody may connect.
  Result<std::vector<UniqueFd>> open(const env::Endpoint& endpoint);
  // Before the descriptor is closed. The last one removes a unix socket, unless it was passed on.
  void close(const env::Endpoint& endpoint, int fd);

  using Socket = std::pair<env::Endpoint, UniqueFd>;
  void adopt(std::vector<Socket> sockets);  // before anything is opened
  void drop_adopted();                      // what nobody has opened
  // Calls `visit(endpoint, fd)` for each; they stay open meanwhile.
  template <typename Visit>
  void each(Visit visit) {
    const std::lock_guard lock(mutex_);
    for (const auto& [path, entry] : shared_) visit(entry.endpoint, entry.fd.get());
    for (const auto& [endpoint, fd] : own_) visit(endpoint, fd);
  }
  void passed_on();  // another process listens on them too

 private:
  struct Shared {
    env::Endpoint endpoint;
    UniqueFd fd;
    int users = 0;
  };
  Result<std::vector<UniqueFd>> open_shared(const env::Endpoint& endpoint);
  std::mutex mutex_;
  // All guarded by mutex_.
  std::map<std::string, Shared> shared_;            // unix sockets, by path
  std::vector<std::pair<env::Endpoint, int>> own_;  // TCP; the descriptors are the nets'
  std::vector<Socket> adopted_;
  std::map<std::string, int> opened_;  // how many nets have asked, by endpoint
  int nets_ = 0;
  bool passed_on_ = false;
};

}  // namespace bascule::posix
