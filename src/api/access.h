// Who may do what on the API. Pure.
//
// A token is "Authorization: Bearer <token>". Only its SHA-256 is configured; it must be random
// (`bascule token` makes one), because a hash of something guessable can be guessed.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace bascule::api {

enum class Role {
  kHealth,  // the routes for load balancers
  kViewer,  // every GET
  kAdmin,   // commands too
};

struct Token {
  std::string name;  // for the audit
  Role role = Role::kViewer;
  std::string sha256;  // of the token, 64 hexadecimal digits
  bool operator==(const Token&) const = default;
};

enum class Anonymous { kHealth, kRead };  // what callers without a token may

struct AccessRules {
  std::vector<Token> tokens;
  bool loopback = true;  // only processes of this host reach the API
  // Callers have shown a certificate that our authority signed: it counts as an admin's token.
  bool client_certificates = false;
  Anonymous anonymous = Anonymous::kRead;
};

struct Caller {
  Role role = Role::kHealth;
  // Of the token; "certificate CN=ops,O=firm"; empty: nobody in particular.
  std::string name;
};

// `authorization` is the header as it came; empty: there is none. kInvalid: it is no known token.
// `certificate`: whose it is that the caller has shown; empty: not known.
// Without tokens and certificates everybody on this host is an admin, and nobody elsewhere.
Result<Caller> identify(const AccessRules& rules, std::string_view authorization,
                        std::string_view certificate = "");

// Lower-case hexadecimal.
std::string sha256_hex(std::string_view text);

}  // namespace bascule::api
