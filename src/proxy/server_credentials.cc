#include "proxy/server_credentials.h"

namespace bascule::proxy {

ServerCredentials::Learned& ServerCredentials::learned(const std::string& user) {
  if (users_.size() >= kUsersMax && !users_.contains(user)) users_.clear();
  return users_[user];
}

void ServerCredentials::learn(const std::string& user, const pgwire::ScramKeys* keys,
                              std::string_view password, const UserSecret* looked_up) {
  if (keys != nullptr) learned(user).keys = *keys;
  if (!password.empty()) learned(user).password = password;
  if (looked_up == nullptr) return;
  if (looked_up->kind() == UserSecret::Kind::kMd5) learned(user).md5 = looked_up->text();
  if (looked_up->kind() == UserSecret::Kind::kPassword) learned(user).password = looked_up->text();
}

void ServerCredentials::derived(const std::string& user, const pgwire::ScramKeys& keys) {
  if (fetched_.find(user)) return;  // gone with the password that they were made of
  learned(user).keys = keys;
}

ServerCredential ServerCredentials::get(const Access& access, const std::string& user) const {
  ServerCredential result;
  if (auto fetched = fetched_.find(user)) {
    if (!*fetched) {
      result.unavailable = fetched->error().message;
    } else {
      result.password = std::move(**fetched);
    }
    return result;
  }
  if (const auto it = users_.find(user); it != users_.end()) {
    result.keys = it->second.keys;
    result.password = it->second.password;
    result.md5_secret = it->second.md5;
  }
  if (const UserSecret* known = access.users.find(user)) {
    if (known->kind() == UserSecret::Kind::kPassword) result.password = known->text();
    if (known->kind() == UserSecret::Kind::kMd5) result.md5_secret = known->text();
  }
  return result;
}

bool ServerCredentials::refused(const Access& access, const std::string& user) {
  const auto it = users_.find(user);
  if (it == users_.end() || !it->second.keys) return false;
  it->second.keys.reset();
  return !get(access, user).password.empty();
}

}  // namespace bascule::proxy
