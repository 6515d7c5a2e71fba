#include "pgwire/scram.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <memory>

#include "pgwire/scram_internal.h"
#include "pgwire/startup.h"

namespace bascule::pgwire {
namespace scram {
namespace {

std::unexpected<Error> crypto_failed() {
  return fail(ErrorCode::kInternal, "SCRAM: the crypto library failed (HMAC-SHA-256)");
}

const unsigned char* data(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

constexpr size_t kBlock = 64;  // of SHA-256

// The library's HMAC() and EVP_Digest() look up their algorithm by name at each call, which takes
// longer than the digest.
bool digest(std::initializer_list<std::string_view> parts, Sha256Key& out) {
  static const EVP_MD* const sha256 = ::EVP_MD_fetch(nullptr, "SHA256", nullptr);
  // Begun anew each time; making one takes as long as a short digest, too.
  static thread_local const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> owned(
      EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  EVP_MD_CTX* const context = owned.get();
  bool ok =
      context != nullptr && sha256 != nullptr && EVP_DigestInit_ex2(context, sha256, nullptr) == 1;
  for (const std::string_view part : parts) {
    ok = ok && EVP_DigestUpdate(context, part.data(), part.size()) == 1;
  }
  unsigned size = 0;
  ok = ok && EVP_DigestFinal_ex(context, out.data(), &size) == 1 && size == out.size();
  return ok;
}

}  // namespace

Result<Sha256Key> hmac(std::string_view key, std::string_view text) {
  Sha256Key short_key;
  if (key.size() > kBlock) {
    if (!digest({key}, short_key)) return crypto_failed();
    key = view(short_key);
  }
  std::array<char, kBlock> inner_pad, outer_pad;
  inner_pad.fill(0x36);
  outer_pad.fill(0x5c);
  for (size_t i = 0; i < key.size(); ++i) {
    inner_pad[i] = static_cast<char>(inner_pad[i] ^ key[i]);
    outer_pad[i] = static_cast<char>(outer_pad[i] ^ key[i]);
  }
  Sha256Key inner, out;
  const bool ok = digest({{inner_pad.data(), kBlock}, text}, inner) &&
                  digest({{outer_pad.data(), kBlock}, view(inner)}, out);
  OPENSSL_cleanse(inner_pad.data(), kBlock);
  OPENSSL_cleanse(outer_pad.data(), kBlock);
  wipe(short_key);
  if (!ok) return crypto_failed();
  return out;
}

Result<Sha256Key> sha256(std::string_view text) {
  Sha256Key out;
  if (!digest({text}, out)) return crypto_failed();
  return out;
}

Sha256Key xor_keys(const Sha256Key& a, const Sha256Key& b) {
  Sha256Key out;
  for (size_t i = 0; i < out.size(); ++i) out[i] = a[i] ^ b[i];
  return out;
}

void wipe(std::string& secret) {
  secret.resize(secret.capacity());
  OPENSSL_cleanse(secret.data(), secret.size());
  secret.clear();
}

void wipe(Sha256Key& secret) { OPENSSL_cleanse(secret.data(), secret.size()); }

void wipe(ScramKeys& keys) {
  wipe(keys.client_key);
  wipe(keys.server_key);
}

std::optional<Sha256Key> decode_key(std::string_view base64) {
  Sha256Key key;
  if (base64.size() != 44) return std::nullopt;
  auto decoded = base64_decode(base64);
  if (!decoded || decoded->size() != key.size()) return std::nullopt;
  std::copy(decoded->begin(), decoded->end(), key.begin());
  wipe(*decoded);
  return key;
}

bool valid_nonce(std::string_view nonce) {
  return !nonce.empty() && nonce.size() <= kScramMaxNonce &&
         std::all_of(nonce.begin(), nonce.end(),
                     [](char c) { return c > ' ' && c <= '~' && c != ','; });
}

std::optional<uint32_t> parse_iterations(std::string_view text, uint32_t max) {
  if (text.empty() || text.size() > 9 || text[0] == '0') return std::nullopt;
  uint32_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<uint32_t>(c - '0');
  }
  return value <= max ? std::optional(value) : std::nullopt;
}

std::string auth_message(std::string_view first_bare, std::string_view server_first,
                         std::string_view without_proof) {
  std::string message;
  message.reserve(first_bare.size() + server_first.size() + without_proof.size() + 2);
  message.append(first_bare).append(",").append(server_first).append(",").append(without_proof);
  return message;
}

std::optional<Attribute> Attributes::next() {
  std::string_view rest = rest_;
  if (rest.size() != text_.size()) {
    if (rest.empty() || rest[0] != ',') return std::nullopt;
    rest.remove_prefix(1);
  }
  if (rest.size() < 2 || rest[1] != '=') return std::nullopt;
  const char name = rest[0];
  if (!((name >= 'a' && name <= 'z') || (name >= 'A' && name <= 'Z'))) return std::nullopt;
  rest.remove_prefix(2);
  const std::string_view value = rest.substr(0, rest.find(','));
  rest_ = rest.substr(value.size());
  return Attribute{name, value};
}

std::optional<std::string_view> Attributes::next(char name) {
  const auto attribute = next();
  if (!attribute || attribute->name != name) return std::nullopt;
  return attribute->value;
}

}  // namespace scram

ScramKeys::~ScramKeys() { scram::wipe(*this); }

Result<ScramKeys> derive_keys(std::string_view password, std::string_view salt,
                              uint32_t iterations) {
  if (iterations == 0 || iterations > kScramMaxIterations || salt.size() > kScramMaxSalt ||
      password.size() > kScramMaxMessage) {
    return fail(ErrorCode::kInvalid, "SCRAM: password, salt or iteration count out of bounds");
  }
  Sha256Key salted;
  if (PKCS5_PBKDF2_HMAC(password.data(), static_cast<int>(password.size()), scram::data(salt),
                        static_cast<int>(salt.size()), static_cast<int>(iterations), EVP_sha256(),
                        static_cast<int>(salted.size()), salted.data()) != 1) {
    return scram::crypto_failed();
  }
  const auto client_key = scram::hmac(scram::view(salted), "Client Key");
  const auto server_key = scram::hmac(scram::view(salted), "Server Key");
  scram::wipe(salted);
  if (!client_key || !server_key) return scram::crypto_failed();
  ScramKeys keys;
  keys.client_key = *client_key;
  keys.server_key = *server_key;
  return keys;
}

Result<ScramVerifier> make_verifier(std::string_view password, std::string_view salt,
                                    uint32_t iterations) {
  const auto keys = derive_keys(password, salt, iterations);
  if (!keys) return std::unexpected(keys.error());
  const auto stored_key = scram::sha256(scram::view(keys->client_key));
  if (!stored_key) return std::unexpected(stored_key.error());
  return ScramVerifier{iterations, std::string(salt), *stored_key, keys->server_key};
}

ScramVerifier mock_verifier(std::string_view user, std::string_view secret, uint32_t iterations) {
  const auto derived = [&](std::string_view purpose) {
    std::string text(purpose);
    text.append(user);
    // Without HMAC nobody can log in anyway: zeroes refuse like anything else.
    return scram::hmac(secret, text).value_or(Sha256Key{});
  };
  const Sha256Key salt = derived("salt:");
  return ScramVerifier{iterations, std::string(scram::view(salt).substr(0, 16)), derived("stored:"),
                       derived("server:")};
}

bool password_matches(const ScramVerifier& verifier, std::string_view password) {
  const auto candidate = make_verifier(password, verifier.salt, verifier.iterations);
  return candidate &&
         secrets_equal(scram::view(candidate->stored_key), scram::view(verifier.stored_key)) &&
         secrets_equal(scram::view(candidate->server_key), scram::view(verifier.server_key));
}

Result<ScramVerifier> ScramVerifier::parse(std::string_view text) {
  const auto bad = [] {
    return fail(ErrorCode::kInvalid, "malformed SCRAM verifier",
                "expected SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>");
  };
  std::string_view rest = text;
  const auto take = [&rest](char separator) {
    const size_t end = std::min(rest.find(separator), rest.size());
    const std::string_view part = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    return part;
  };
  if (take('$') != kScramSha256) return bad();
  const auto iterations = scram::parse_iterations(take(':'), kScramMaxIterations);
  const std::string_view salt_text = take('$');
  const auto stored_key = scram::decode_key(take(':'));
  const auto server_key = scram::decode_key(rest);
  if (!iterations || !stored_key || !server_key || salt_text.size() > kScramMaxSalt * 4 / 3 + 4) {
    return bad();
  }
  auto salt = base64_decode(salt_text);
  if (!salt || salt->empty() || salt->size() > kScramMaxSalt) return bad();
  return ScramVerifier{*iterations, std::move(*salt), *stored_key, *server_key};
}

std::string ScramVerifier::to_string() const {
  return std::string(kScramSha256) + "$" + std::to_string(iterations) + ":" + base64_encode(salt) +
         "$" + base64_encode(scram::view(stored_key)) + ":" +
         base64_encode(scram::view(server_key));
}

std::string make_nonce(std::string_view random) { return base64_encode(random); }

}  // namespace bascule::pgwire
