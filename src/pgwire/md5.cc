#include "pgwire/md5.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <array>

namespace bascule::pgwire {
namespace {

Result<std::string> md5_hex(std::string text) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  const int ok = EVP_Digest(text.data(), text.size(), digest.data(), &size, EVP_md5(), nullptr);
  OPENSSL_cleanse(text.data(), text.size());
  if (ok != 1) {
    return fail(ErrorCode::kUnavailable, "the crypto library refuses MD5 (FIPS mode?)",
                "use scram-sha-256 on the server");
  }
  std::string hex;
  for (unsigned int i = 0; i < size; ++i) {
    constexpr std::string_view kHex = "0123456789abcdef";
    hex.push_back(kHex[digest[i] >> 4]);
    hex.push_back(kHex[digest[i] & 15]);
  }
  return hex;
}

}  // namespace

Result<std::string> md5_secret(std::string_view user, std::string_view password) {
  std::string text;
  text.reserve(user.size() + password.size());
  text.append(password).append(user);
  auto hex = md5_hex(std::move(text));
  if (hex) hex->insert(0, "md5");
  return hex;
}

Result<std::string> md5_response(std::string_view secret, std::span<const uint8_t, 4> salt) {
  if (secret.size() != 35 || !secret.starts_with("md5")) {
    return fail(ErrorCode::kInvalid, "not an md5 secret (\"md5\" and 32 hexadecimal digits)");
  }
  std::string text(secret.substr(3));
  text.append(reinterpret_cast<const char*>(salt.data()), salt.size());
  auto hex = md5_hex(std::move(text));
  if (hex) hex->insert(0, "md5");
  return hex;
}

}  // namespace bascule::pgwire
