#include "posix/handover_wire.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <utility>

namespace bascule::posix {
namespace {

using Kind = HandOverMessage::Kind;

constexpr std::array<std::pair<Kind, std::string_view>, 9> kWords{
    {{Kind::kTake, "take"},
     {Kind::kSocket, "socket"},
     {Kind::kEnd, "end"},
     {Kind::kBusy, "busy"},
     {Kind::kAccepting, "accepting"},
     {Kind::kTaken, "taken"},
     {Kind::kLate, "late"},
     {Kind::kCancel, "cancel"},
     {Kind::kCancelled, "cancelled"}}};
constexpr std::string_view kVersion = "2";

// A decimal number, and the space behind it.
template <typename Number>
bool take(std::string_view& text, Number& number) {
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || (stop != end && *stop != ' ')) return false;
  text.remove_prefix(static_cast<size_t>(stop - text.data()) + (stop != end ? 1 : 0));
  return true;
}

std::string hex(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) out += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return out;
}

std::optional<std::string> unhex(std::string_view text) {
  std::string out;
  if (text.size() % 2 != 0) return std::nullopt;
  for (size_t i = 0; i < text.size(); i += 2) {
    unsigned value = 0;
    const auto [stop, error] = std::from_chars(text.data() + i, text.data() + i + 2, value, 16);
    if (error != std::errc() || stop != text.data() + i + 2) return std::nullopt;
    out += static_cast<char>(value);
  }
  return out;
}

}  // namespace

std::string encode(const HandOverMessage& m) {
  std::string out;
  for (const auto& [kind, word] : kWords) {
    if (kind == m.kind) out = word;
  }
  switch (m.kind) {
    case Kind::kTake:
      return fmt::format("{} {}", out, kVersion);
    case Kind::kSocket:
      return fmt::format("{} {} {}", out, m.port, m.text);
    case Kind::kBusy:
      return fmt::format("{} {}", out, m.text).substr(0, kHandOverMessageMax);
    case Kind::kCancel:
      return fmt::format("{} {} {} {}", out, m.number, m.pid, hex(m.text));
    case Kind::kCancelled:
      return fmt::format("{} {}", out, m.number);
    default:
      return out;
  }
}

std::optional<HandOverMessage> parse_hand_over(std::string_view text) {
  const size_t space = std::min(text.find(' '), text.size());
  const std::string_view first = text.substr(0, space);
  text.remove_prefix(std::min(space + 1, text.size()));
  HandOverMessage m;
  bool known = false;
  for (const auto& [kind, word] : kWords) {
    if (first != word) continue;
    m.kind = kind;
    known = true;
  }
  if (!known) return std::nullopt;
  bool right = false;
  switch (m.kind) {
    case Kind::kTake:
      right = text == kVersion;
      break;
    case Kind::kSocket:
      right = take(text, m.port);
      m.text = text;
      break;
    case Kind::kBusy:
      right = true;
      m.text = text;
      break;
    case Kind::kCancel: {
      right = take(text, m.number) && take(text, m.pid);
      const auto secret = unhex(text);
      right = right && secret;
      m.text = secret.value_or("");
      break;
    }
    case Kind::kCancelled:
      right = take(text, m.number) && text.empty();
      break;
    default:
      right = text.empty();
  }
  if (!right) return std::nullopt;
  return m;
}

}  // namespace bascule::posix
