#include "proxy/server_passwords.h"

#include <utility>

namespace bascule::proxy {

void ServerPasswords::set(const std::string& user, Result<std::string> password) {
  const std::lock_guard lock(mutex_);
  passwords_.insert_or_assign(user, std::move(password));
}

std::optional<Result<std::string>> ServerPasswords::find(std::string_view user) const {
  const std::lock_guard lock(mutex_);
  const auto it = passwords_.find(user);
  return it == passwords_.end() ? std::nullopt : std::optional(it->second);
}

}  // namespace bascule::proxy
