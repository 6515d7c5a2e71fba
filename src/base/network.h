// Addresses and networks of them, as text has them. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace bascule {

// IPv4 is kept as ::ffff:a.b.c.d, so that a client of a dual-stack socket is what it was.
using IpAddress = std::array<uint8_t, 16>;
std::optional<IpAddress> parse_address(std::string_view text);

struct Network {
  IpAddress address{};
  int bits = 0;  // of 128
  bool contains(const IpAddress& other) const;
  bool operator==(const Network&) const = default;
  // "10.0.0.0/8", "::1/128", or an address alone.
  static std::optional<Network> parse(std::string_view text);
};

}  // namespace bascule
