#include "api/access.h"

#include <openssl/evp.h>

#include <array>

namespace bascule::api {

std::string sha256_hex(std::string_view text) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  if (EVP_Digest(text.data(), text.size(), digest.data(), &size, EVP_sha256(), nullptr) != 1) {
    return {};  // equals no configured hash
  }
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (unsigned i = 0; i < size; ++i) {
    out += kDigits[digest[i] >> 4];
    out += kDigits[digest[i] & 15];
  }
  return out;
}

Result<Caller> identify(const AccessRules& rules, std::string_view authorization,
                        std::string_view certificate) {
  constexpr std::string_view kBearer = "Bearer ";
  if (!authorization.empty()) {
    if (authorization.starts_with(kBearer)) {
      const std::string hash = sha256_hex(authorization.substr(kBearer.size()));
      for (const Token& token : rules.tokens) {
        if (!hash.empty() && token.sha256 == hash) return Caller{token.role, token.name};
      }
    }
    return fail(ErrorCode::kInvalid, "The token is not known here",
                "Is it one of api.tokens of this daemon?");
  }
  if (rules.client_certificates) {
    const std::string_view whose = certificate.empty() ? "of nobody" : certificate;
    return Caller{Role::kAdmin, "certificate " + std::string(whose)};
  }
  if (rules.tokens.empty() && rules.loopback) return Caller{Role::kAdmin, ""};
  return Caller{rules.anonymous == Anonymous::kRead ? Role::kViewer : Role::kHealth, ""};
}

}  // namespace bascule::api
