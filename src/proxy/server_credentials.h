// What one worker can prove itself to servers with, by user: the configured secret, what look-ups
// said, and what clients' own log-ins proved. Secrets: never logged.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "proxy/access.h"
#include "proxy/server_login.h"
#include "proxy/server_passwords.h"

namespace bascule::proxy {

class ServerCredentials {
 public:
  explicit ServerCredentials(const ServerPasswords& fetched) : fetched_(fetched) {}

  // A client's log-in as `user` has proved these; null and empty: nothing of that kind.
  void learn(const std::string& user, const pgwire::ScramKeys* keys, std::string_view password,
             const UserSecret* looked_up);
  // A server's log-in with a password yielded its keys: they save the derivation next time.
  void derived(const std::string& user, const pgwire::ScramKeys& keys);
  ServerCredential get(const Access& access, const std::string& user) const;
  // A server refused what get() gave. True: something else is left to try.
  bool refused(const Access& access, const std::string& user);

 private:
  struct Learned {
    std::optional<pgwire::ScramKeys> keys;
    std::string password;
    std::string md5;
  };
  static constexpr size_t kUsersMax = 50'000;
  Learned& learned(const std::string& user);
  const ServerPasswords& fetched_;
  std::map<std::string, Learned> users_;
};

}  // namespace bascule::proxy
