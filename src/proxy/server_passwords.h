// Passwords for servers that somebody fetches and that expire (tokens of a cloud's identity
// service): put here by whoever fetches them, read by all workers. Thread-safe. Secrets.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace bascule::proxy {

class ServerPasswords {
 public:
  // From the first call on only what is put here counts for this user. An error: there is none at
  // the moment; its message is shown to clients.
  void set(const std::string& user, Result<std::string> password);
  // nullopt: nobody fetches one for this user.
  std::optional<Result<std::string>> find(std::string_view user) const;

 private:
  mutable std::mutex mutex_;
  std::map<std::string, Result<std::string>, std::less<>> passwords_;  // guarded by mutex_
};

}  // namespace bascule::proxy
