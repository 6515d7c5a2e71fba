#include "proxy/users.h"

#include <utility>

namespace bascule::proxy {

std::string random_bytes(env::Entropy& entropy, size_t count) {
  std::string bytes(count, '\0');
  entropy.fill({reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()});
  return bytes;
}

Result<Users> Users::build(const std::vector<ProxyUser>& users, env::Entropy& entropy) {
  Users result;
  result.mock_secret_ = random_bytes(entropy, 32);
  for (const ProxyUser& user : users) {
    if (user.name.empty() || (user.verifier.empty() && user.password.empty())) {
      return fail(ErrorCode::kInvalid, "proxy user '" + user.name + "' has no secret",
                  "Give a SCRAM-SHA-256 verifier (pg_authid.rolpassword) or a password");
    }
    auto verifier = user.verifier.empty()
                        ? pgwire::make_verifier(user.password, random_bytes(entropy, 16))
                        : pgwire::ScramVerifier::parse(user.verifier);
    if (!verifier) {
      return fail(ErrorCode::kInvalid,
                  "proxy user '" + user.name + "': " + verifier.error().message);
    }
    result.users_[user.name] = User{std::move(*verifier), user.password, !user.verifier.empty()};
  }
  return result;
}

const Users::User* Users::find(std::string_view name) const {
  const auto it = users_.find(name);
  return it == users_.end() ? nullptr : &it->second;
}

pgwire::ScramVerifier Users::verifier_for(std::string_view name) const {
  const User* user = find(name);
  return user != nullptr ? user->verifier : pgwire::mock_verifier(name, mock_secret_);
}

}  // namespace bascule::proxy
