#include "cli/units.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <vector>

namespace bascule::cli {
namespace {

struct Unit {
  std::string_view name;
  uint64_t factor;
};
constexpr Unit kTimeUnits[] = {{"ms", 1},     {"s", 1000},      {"min", 60'000},
                               {"m", 60'000}, {"h", 3'600'000}, {"d", 86'400'000}};
constexpr Unit kSizeUnits[] = {{"B", 1},           {"kB", 1ull << 10}, {"KB", 1ull << 10},
                               {"MB", 1ull << 20}, {"GB", 1ull << 30}, {"TB", 1ull << 40}};
constexpr double kValueMax = 1e15;  // far below 2^63 in the smallest unit

struct Quantity {
  double value = 0;
  std::string_view unit;
};

Result<Quantity> split(std::string_view text, std::string_view example) {
  const size_t end = text.find_first_not_of("0123456789.");
  const std::string_view digits = text.substr(0, end);
  std::string_view unit = end == std::string_view::npos ? "" : text.substr(end);
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  Quantity quantity{.value = 0, .unit = unit};
  const auto [stop, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), quantity.value);
  if (digits.empty() || error != std::errc() || stop != digits.data() + digits.size()) {
    return fail(ErrorCode::kInvalid, fmt::format("\"{}\" is not a number with a unit", text),
                fmt::format("Write it like {}", example));
  }
  return quantity;
}

template <size_t N>
Result<uint64_t> scaled(std::string_view text, const Unit (&units)[N], std::string_view example) {
  const auto quantity = split(text, example);
  if (!quantity) return std::unexpected(quantity.error());
  if (quantity->unit.empty() && quantity->value == 0) return 0;
  for (const Unit& unit : units) {
    if (unit.name != quantity->unit) continue;
    const double value = quantity->value * static_cast<double>(unit.factor);
    if (value > kValueMax) break;
    return static_cast<uint64_t>(std::llround(value));
  }
  if (quantity->unit.empty()) {
    return fail(ErrorCode::kInvalid, fmt::format("\"{}\" has no unit", text),
                fmt::format("Write it like {}", example));
  }
  return fail(ErrorCode::kInvalid,
              fmt::format("\"{}\" is out of range or its unit is unknown", text),
              fmt::format("Write it like {}", example));
}

}  // namespace

Result<Millis> parse_duration(std::string_view text) {
  const auto ms = scaled(text, kTimeUnits, "400ms, 5s, 2min or 1h");
  if (!ms) return std::unexpected(ms.error());
  return Millis{static_cast<int64_t>(*ms)};
}

std::string format_duration(Millis duration) {
  const int64_t ms = duration.count();
  if (ms == 0) return "0s";
  if (ms % 3'600'000 == 0) return fmt::format("{}h", ms / 3'600'000);
  if (ms % 60'000 == 0) return fmt::format("{}min", ms / 60'000);
  if (ms % 1000 == 0) return fmt::format("{}s", ms / 1000);
  return fmt::format("{}ms", ms);
}

Result<uint64_t> parse_size(std::string_view text) {
  return scaled(text, kSizeUnits, "8kB, 16MB or 1GB");
}

std::string format_size(uint64_t bytes) {
  const Unit units[] = {
      {"TB", 1ull << 40}, {"GB", 1ull << 30}, {"MB", 1ull << 20}, {"kB", 1ull << 10}};
  for (const Unit& unit : units) {
    if (bytes != 0 && bytes % unit.factor == 0) {
      return fmt::format("{}{}", bytes / unit.factor, unit.name);
    }
  }
  return fmt::format("{}B", bytes);
}

std::string human_bytes(uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes);
  const char* unit = "B";
  for (const char* next : {"kB", "MB", "GB", "TB"}) {
    if (value < 1024) break;
    value /= 1024;
    unit = next;
  }
  return value < 10 ? fmt::format("{:.1f} {}", value, unit) : fmt::format("{:.0f} {}", value, unit);
}

std::string HostPort::to_string() const {
  return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port)
                                             : fmt::format("[{}]:{}", host, port);
}

Result<HostPort> parse_host_port(std::string_view text) {
  const auto bad = [&] {
    return fail(ErrorCode::kInvalid, fmt::format("\"{}\" is not an address and a port", text),
                "Write it like 127.0.0.1:6432");
  };
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return bad();
  std::string_view host = text.substr(0, colon);
  const std::string_view digits = text.substr(colon + 1);
  if (host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return bad();  // an IPv6 address needs its brackets
  }
  int port = 0;
  const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (error != std::errc() || stop != digits.data() + digits.size() || port < 1 || port > 65535) {
    return bad();
  }
  if (host == "*") host = "0.0.0.0";
  return HostPort{.host = std::string(host), .port = port};
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace bascule::cli
