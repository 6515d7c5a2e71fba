// Who may log in, prepared for SCRAM. Immutable once built; read by all workers.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "env/entropy.h"
#include "pgwire/scram.h"
#include "proxy/config.h"

namespace bascule::proxy {

class Users {
 public:
  struct User {
    pgwire::ScramVerifier verifier;
    std::string password;  // empty: unknown
    // The verifier was given: keys that a client proves may be good for servers too. One made here
    // has a salt of its own.
    bool shared_verifier = false;
  };
  // A user without a verifier gets one made from the password (a few milliseconds each). Errors
  // name the user, never the secret.
  static Result<Users> build(const std::vector<ProxyUser>& users, env::Entropy& entropy);

  const User* find(std::string_view name) const;
  // What a client proves itself against; of a made-up user if there is none of that name, so that
  // the exchange does not tell whether a name exists.
  pgwire::ScramVerifier verifier_for(std::string_view name) const;

 private:
  std::map<std::string, User, std::less<>> users_;
  std::string mock_secret_;
};

// Random bytes as a string.
std::string random_bytes(env::Entropy& entropy, size_t count);

}  // namespace bascule::proxy
