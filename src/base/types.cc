#include "base/types.h"

#include <fmt/format.h>

#include <charconv>

namespace bascule {
namespace {

bool parse_hex32(std::string_view text, uint32_t& out) {
  if (text.empty() || text.size() > 8) return false;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out, 16);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

std::string Lsn::to_string() const {
  return fmt::format("{:X}/{:X}", value >> 32, value & 0xFFFFFFFFu);
}

Result<Lsn> Lsn::parse(std::string_view text) {
  const size_t slash = text.find('/');
  uint32_t high = 0;
  uint32_t low = 0;
  if (slash == std::string_view::npos || !parse_hex32(text.substr(0, slash), high) ||
      !parse_hex32(text.substr(slash + 1), low)) {
    return fail(ErrorCode::kInvalid,
                fmt::format("\"{}\" is not a WAL position", text.substr(0, 40)),
                "Expected two hexadecimal numbers as in 16/B374D848");
  }
  return Lsn{(uint64_t{high} << 32) | low};
}

std::string Position::to_string() const {
  return fmt::format("{}@{}", timeline.value, lsn.to_string());
}

Result<NodeName> NodeName::parse(std::string_view text) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  };
  bool good = !text.empty() && text.size() <= 40 && text[0] >= 'a' && text[0] <= 'z';
  for (char c : text) good = good && allowed(c);
  if (!good) {
    return fail(ErrorCode::kInvalid, fmt::format("\"{}\" is not a member name", text.substr(0, 60)),
                "Use 1 to 40 of a-z, 0-9, _ and -, beginning with a letter");
  }
  return NodeName(std::string(text));
}

}  // namespace bascule
