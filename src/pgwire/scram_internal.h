// Inside src/pgwire only: what both sides of SCRAM share.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "pgwire/scram.h"

namespace bascule::pgwire::scram {

Result<Sha256Key> hmac(std::string_view key, std::string_view text);
Result<Sha256Key> sha256(std::string_view text);
Sha256Key xor_keys(const Sha256Key& a, const Sha256Key& b);
// Also the part beyond size() that a short string keeps inside.
void wipe(std::string& secret);
void wipe(Sha256Key& secret);
void wipe(ScramKeys& keys);

inline std::string_view view(const Sha256Key& key) {
  return {reinterpret_cast<const char*>(key.data()), key.size()};
}
// nullopt unless base64 of exactly 32 bytes.
std::optional<Sha256Key> decode_key(std::string_view base64);
// 1 to kScramMaxNonce of printable ASCII without ','.
bool valid_nonce(std::string_view nonce);
// Decimal without sign or leading zero, 1 to `max`.
std::optional<uint32_t> parse_iterations(std::string_view text, uint32_t max);
// "<first-bare>,<server-first>,<final-without-proof>"
std::string auth_message(std::string_view first_bare, std::string_view server_first,
                         std::string_view without_proof);

struct Attribute {
  char name = 0;
  std::string_view value;
};
// Walks "a=value,b=value". A value goes to the next comma.
class Attributes {
 public:
  explicit Attributes(std::string_view text) : text_(text), rest_(text) {}
  std::optional<Attribute> next();
  // The value if the next attribute has this name.
  std::optional<std::string_view> next(char name);
  bool at_end() const { return rest_.empty(); }
  // Offset in the text of what was not read yet (its comma included).
  size_t offset() const { return text_.size() - rest_.size(); }

 private:
  std::string_view text_;
  std::string_view rest_;
};

}  // namespace bascule::pgwire::scram
