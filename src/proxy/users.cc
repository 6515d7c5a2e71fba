#include "proxy/users.h"

#include <algorithm>
#include <utility>

#include "pgwire/md5.h"
#include "pgwire/startup.h"

namespace bascule::proxy {
namespace {

bool is_md5(std::string_view text) {
  return text.size() == 35 && text.starts_with("md5") &&
         text.find_first_not_of("0123456789abcdef", 3) == std::string_view::npos;
}

}  // namespace

std::string random_bytes(env::Entropy& entropy, size_t count) {
  std::string bytes(count, '\0');
  entropy.fill({reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()});
  return bytes;
}

Result<UserSecret> UserSecret::parse(std::string_view text) {
  UserSecret secret;
  if (text.empty()) return fail(ErrorCode::kInvalid, "has no secret");
  if (text.starts_with("SCRAM-SHA-256$")) {
    auto verifier = pgwire::ScramVerifier::parse(text);
    if (!verifier) return std::unexpected(verifier.error());
    secret.kind_ = Kind::kScram;
    secret.verifier_ = std::move(*verifier);
    return secret;
  }
  secret.kind_ = is_md5(text) ? Kind::kMd5 : Kind::kPassword;
  secret.text_ = text;
  return secret;
}

Result<Users> Users::build(const std::vector<ProxyUser>& users, std::string installation_secret) {
  Users result;
  result.installation_secret_ = std::move(installation_secret);
  size_t md5 = 0;
  for (const ProxyUser& user : users) {
    if (user.name.empty()) return fail(ErrorCode::kInvalid, "a proxy user has no name");
    auto secret = UserSecret::parse(user.secret);
    if (!secret) {
      return fail(ErrorCode::kInvalid, "proxy user '" + user.name + "': " + secret.error().message,
                  "Give a SCRAM-SHA-256 verifier (pg_authid.rolpassword) or a password");
    }
    if (secret->kind() == UserSecret::Kind::kMd5) ++md5;
    result.users_[user.name] = std::move(*secret);
  }
  if (2 * md5 > result.users_.size()) result.usual_kind_ = UserSecret::Kind::kMd5;
  return result;
}

const UserSecret* Users::find(std::string_view name) const {
  const auto it = users_.find(name);
  return it == users_.end() ? nullptr : &it->second;
}

pgwire::ScramVerifier Users::mock(std::string_view name) const {
  return pgwire::mock_verifier(name, installation_secret_);
}

// A made-up verifier's key is a keyed hash of the name that it is made for.
std::string Users::keyed(std::string_view purpose, std::string_view name,
                         std::string_view text) const {
  std::string all;
  for (const std::string_view part : {purpose, name, text}) {
    all += std::to_string(part.size());
    all += ':';
    all += part;
  }
  const pgwire::Sha256Key hash = mock(all).stored_key;
  return {reinterpret_cast<const char*>(hash.data()), hash.size()};
}

pgwire::ScramVerifier Users::verifier(std::string_view name, const UserSecret& secret) const {
  if (secret.kind() == UserSecret::Kind::kScram) return secret.verifier();
  const std::string key = keyed("verifier", name, secret.text());
  {
    const std::lock_guard lock(cache_->mutex);
    if (const auto it = cache_->made.find(key); it != cache_->made.end()) return it->second;
  }
  // The same salt after a restart would not hurt, another one at each attempt would tell a listed
  // user from a made-up one.
  auto made = pgwire::make_verifier(secret.text(), mock(name).salt);
  if (!made) return mock(name);
  const std::lock_guard lock(cache_->mutex);
  if (cache_->made.size() >= kCacheMax) cache_->made.clear();
  return cache_->made[key] = std::move(*made);
}

bool Users::matches(std::string_view name, const UserSecret& secret,
                    std::string_view password) const {
  switch (secret.kind()) {
    case UserSecret::Kind::kPassword:
      return pgwire::secrets_equal(keyed("p", "", secret.text()), keyed("p", "", password));
    case UserSecret::Kind::kMd5: {
      const auto given = pgwire::md5_secret(name, password);
      return given && pgwire::secrets_equal(*given, secret.text());
    }
    case UserSecret::Kind::kScram:
      break;
  }
  const std::string key = keyed("password", secret.verifier().to_string(), password);
  {
    const std::lock_guard lock(cache_->mutex);
    if (cache_->right.contains(key)) return true;
  }
  if (!pgwire::password_matches(secret.verifier(), password)) return false;
  const std::lock_guard lock(cache_->mutex);
  if (cache_->right.size() >= kCacheMax) cache_->right.clear();
  cache_->right[key] = true;
  return true;
}

}  // namespace bascule::proxy
