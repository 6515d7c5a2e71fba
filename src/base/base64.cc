#include "base/base64.h"

#include <array>
#include <cstdint>

namespace bascule {
namespace {

constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr uint8_t kNoDigit = 0xff;

constexpr std::array<uint8_t, 256> digits() {
  std::array<uint8_t, 256> table{};
  table.fill(kNoDigit);
  for (size_t i = 0; i < kAlphabet.size(); ++i) {
    table[static_cast<unsigned char>(kAlphabet[i])] = static_cast<uint8_t>(i);
  }
  return table;
}
constexpr auto kDigits = digits();

}  // namespace

std::string base64_encode(std::string_view bytes) {
  std::string out((bytes.size() + 2) / 3 * 4, '=');
  char* to = out.data();
  const auto byte = [&](size_t i) -> uint32_t { return static_cast<unsigned char>(bytes[i]); };
  const auto put = [&to](uint32_t group, int digits) {
    for (int i = 0; i < digits; ++i) *to++ = kAlphabet[group >> (18 - 6 * i) & 63];
  };
  for (; bytes.size() >= 3; bytes.remove_prefix(3)) put(byte(0) << 16 | byte(1) << 8 | byte(2), 4);
  if (bytes.size() == 2) put(byte(0) << 16 | byte(1) << 8, 3);
  if (bytes.size() == 1) put(byte(0) << 16, 2);
  return out;
}

Result<std::string> base64_decode(std::string_view text) {
  const auto bad = [] { return fail(ErrorCode::kInvalid, "malformed base64"); };
  if (text.size() % 4 != 0) return bad();
  std::string out;
  out.reserve(text.size() / 4 * 3);
  for (size_t i = 0; i < text.size(); i += 4) {
    const bool last = i + 4 == text.size();
    const size_t padding = !last || text[i + 3] != '=' ? 0 : text[i + 2] != '=' ? 1 : 2;
    uint32_t group = 0;
    for (size_t j = 0; j < 4; ++j) {
      const uint8_t digit =
          j < 4 - padding ? kDigits[static_cast<unsigned char>(text[i + j])] : uint8_t{0};
      if (digit == kNoDigit) return bad();
      group = group << 6 | digit;
    }
    // Bits that no encoder sets would let two texts mean one value.
    if ((group & ((1u << (8 * padding)) - 1)) != 0) return bad();
    for (size_t j = 0; j < 3 - padding; ++j)
      out.push_back(static_cast<char>(group >> (16 - 8 * j)));
  }
  return out;
}

}  // namespace bascule
