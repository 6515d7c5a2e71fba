// The md5 password method (deprecated by PostgreSQL 18, still asked for by old servers):
// https://www.postgresql.org/docs/15/protocol-flow.html (AuthenticationMD5Password)
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace bascule::pgwire {

// "md5" + hex(md5(password + user)): the form of pg_authid.rolpassword. kUnavailable if the
// crypto library refuses MD5 (FIPS mode).
Result<std::string> md5_secret(std::string_view user, std::string_view password);
// The answer to AuthenticationMD5Password, for append_password(). `secret`: of md5_secret().
Result<std::string> md5_response(std::string_view secret, std::span<const uint8_t, 4> salt);

}  // namespace bascule::pgwire
