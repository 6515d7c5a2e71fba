// Who may log in and the secrets they have. Read by all workers; thread-safe.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "env/entropy.h"
#include "pgwire/scram.h"
#include "proxy/access_config.h"

namespace bascule::proxy {

// What a user's password is known as.
class UserSecret {
 public:
  enum class Kind { kScram, kMd5, kPassword };
  // Of pg_authid.rolpassword or of a list of users: see ProxyUser. Errors hold nothing of it.
  static Result<UserSecret> parse(std::string_view text);

  Kind kind() const { return kind_; }
  const pgwire::ScramVerifier& verifier() const { return verifier_; }  // kScram
  const std::string& text() const { return text_; }                    // kMd5, kPassword

 private:
  Kind kind_ = Kind::kPassword;
  pgwire::ScramVerifier verifier_;
  std::string text_;
};

class Users {
 public:
  // `installation_secret`: random, the same after a reload; salts and made-up users come from it.
  static Result<Users> build(const std::vector<ProxyUser>& users, std::string installation_secret);

  const UserSecret* find(std::string_view name) const;
  // A made-up verifier for a user that does not exist, so that the exchange does not tell.
  pgwire::ScramVerifier mock(std::string_view name) const;
  // What the secret of a made-up user should look like: that of the others.
  UserSecret::Kind usual_kind() const { return usual_kind_; }
  // The verifier to prove oneself against, of a secret that is no md5. One of a password is made at
  // first use (2 ms) and kept.
  pgwire::ScramVerifier verifier(std::string_view name, const UserSecret& secret) const;
  // In constant time for md5 and passwords; PBKDF2 (2 ms) for a verifier, once for each password
  // that was right.
  bool matches(std::string_view name, const UserSecret& secret, std::string_view password) const;

 private:
  // Results of PBKDF2, by what they are the result of (hashed with a secret).
  struct Cache {
    std::mutex mutex;
    std::map<std::string, pgwire::ScramVerifier, std::less<>> made;  // guarded by mutex
    std::map<std::string, bool, std::less<>> right;                  // guarded by mutex
  };
  static constexpr size_t kCacheMax = 20'000;
  std::string keyed(std::string_view purpose, std::string_view name, std::string_view text) const;

  std::map<std::string, UserSecret, std::less<>> users_;
  std::string installation_secret_;
  UserSecret::Kind usual_kind_ = UserSecret::Kind::kScram;
  std::unique_ptr<Cache> cache_ = std::make_unique<Cache>();
};

// Random bytes as a string.
std::string random_bytes(env::Entropy& entropy, size_t count);

}  // namespace bascule::proxy
