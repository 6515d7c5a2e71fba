// Changes that depend on the parameters of a Bind.
#include <charconv>
#include <utility>

#include "proxy/session_changes.h"
#include "proxy/sql_tokens.h"

namespace bascule::proxy {

using Kind = StateChange::Kind;

StateChange set_config_change(std::string_view name, std::string_view value,
                              std::string_view is_local) {
  if (is_local == "true" || is_local == "t") return StateChange::of(Kind::kNothing);
  if (is_local != "false" && is_local != "f")
    return StateChange::of_pin(Kind::kPin, Pin::kSetConfig);
  StateChange c = StateChange::of(Kind::kSet, lower_case(name));
  if (c.name == "session_authorization") c.name = "session authorization";
  c.text = "SELECT pg_catalog.set_config(" + quote_literal(name) + "," + quote_literal(value) +
           ",false)";
  return c;
}

namespace {

std::optional<uint32_t> take_number(std::string_view& bytes, size_t size) {
  if (bytes.size() < size) return std::nullopt;
  uint32_t value = 0;
  for (size_t i = 0; i < size; ++i) value = (value << 8) | static_cast<unsigned char>(bytes[i]);
  bytes.remove_prefix(size);
  return value;
}

struct Parameter {
  bool binary = false;
  std::string_view bytes;
};

// The `number`th parameter of a Bind, from 1; nothing if it is NULL or not there.
std::optional<Parameter> parameter(std::string_view values, uint32_t number) {
  const auto formats = take_number(values, 2);
  if (!formats || values.size() < *formats * 2) return std::nullopt;
  std::string_view format = values.substr(0, *formats * 2);
  values.remove_prefix(format.size());
  const auto count = take_number(values, 2);
  if (!count || number == 0 || number > *count) return std::nullopt;
  Parameter found;
  if (*formats == 1) {
    found.binary = format[1] != 0;
  } else if (number <= *formats) {
    found.binary = format[number * 2 - 1] != 0;
  }
  for (uint32_t i = 1;; ++i) {
    const auto length = take_number(values, 4);
    if (!length) return std::nullopt;
    const bool null = *length == 0xffffffff;
    if (!null && values.size() < *length) return std::nullopt;
    if (i == number) {
      if (null) return std::nullopt;
      found.bytes = values.substr(0, *length);
      return found;
    }
    if (!null) values.remove_prefix(*length);
  }
}

enum class As { kText, kNumber, kBoolean };

// The value of "$2" as text.
std::optional<std::string> value_of(std::string_view token, std::string_view values, As as) {
  uint32_t number = 0;
  std::from_chars(token.data() + 1, token.data() + token.size(), number);
  const auto p = parameter(values, number);
  if (!p) return std::nullopt;
  if (!p->binary || as == As::kText) return std::string(p->bytes);
  std::string_view bytes = p->bytes;
  if (as == As::kBoolean) return bytes == std::string_view("\0", 1) ? "false" : "true";
  if (bytes.size() != 4 && bytes.size() != 8) return std::nullopt;
  int64_t value = static_cast<signed char>(bytes[0]) < 0 ? -1 : 0;
  for (const char c : bytes) {
    value = static_cast<int64_t>((static_cast<uint64_t>(value) << 8) | static_cast<uint8_t>(c));
  }
  return std::to_string(value);
}

std::optional<std::string> argument(const std::string& raw, std::string_view values, As as) {
  if (raw.starts_with('=')) return raw.substr(1);
  return value_of(raw, values, as);
}

StateChange resolve_set_config(const StateChange& c, std::string_view values) {
  const auto name = argument(c.name, values, As::kText);
  const auto value = argument(c.text, values, As::kText);
  const auto is_local = argument(c.is_local, values, As::kBoolean);
  if (!name || !value || !is_local) return StateChange::of_pin(Kind::kPin, Pin::kSetConfig);
  return set_config_change(*name, *value, *is_local);
}

std::optional<StateChange> resolve_lock(const StateChange& c, std::string_view values) {
  StateChange known = c;
  known.parameters = false;
  known.name.clear();
  for (std::string_view rest = c.name; !rest.empty();) {
    const size_t end = std::min(rest.find(',', 1), rest.size());
    const std::string_view part = rest.substr(0, end);
    rest.remove_prefix(end);
    if (!part.starts_with(",$")) {
      known.name += part;
      continue;
    }
    const auto value = value_of(part.substr(1), values, As::kNumber);
    if (!value) {
      if (c.kind == Kind::kUnpin) return std::nullopt;
      return StateChange::of_pin(Kind::kPin, c.pin);
    }
    known.name += "," + *value;
  }
  return known;
}

}  // namespace

std::vector<StateChange> resolve(const std::vector<StateChange>& changes,
                                 std::optional<std::string_view> values) {
  std::vector<StateChange> known;
  for (const StateChange& c : changes) {
    if (!c.parameters) {
      known.push_back(c);
    } else if (c.kind == Kind::kSetConfig) {
      known.push_back(resolve_set_config(c, values.value_or("")));
      known.back().statement = c.statement;
    } else if (auto lock = resolve_lock(c, values.value_or(""))) {
      lock->statement = c.statement;
      known.push_back(std::move(*lock));
    }
  }
  return known;
}

}  // namespace bascule::proxy
