// Listening unix sockets that several workers share: SO_REUSEPORT does not exist for them, so there
// is one socket, of which each worker has a descriptor. Thread-safe.
#pragma once

#include <map>
#include <mutex>
#include <string>

#include "base/result.h"
#include "env/net.h"
#include "posix/unique_fd.h"

namespace bascule::posix {

class UnixListeners {
 public:
  UnixListeners() = default;
  ~UnixListeners();
  UnixListeners(const UnixListeners&) = delete;
  UnixListeners& operator=(const UnixListeners&) = delete;

  // The first makes the socket, after removing one that a dead process left; everybody may connect.
  Result<UniqueFd> open(const env::Endpoint& endpoint);
  void close(const env::Endpoint& endpoint);  // the last one removes it

 private:
  struct Entry {
    UniqueFd fd;
    int users = 0;
  };
  std::mutex mutex_;
  std::map<std::string, Entry> entries_;  // guarded by mutex_; by path
};

}  // namespace bascule::posix
