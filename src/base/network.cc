#include "base/network.h"

#include <arpa/inet.h>

#include <cstring>
#include <string>

namespace bascule {
namespace {

constexpr size_t kAddressTextMax = 64;

}  // namespace

std::optional<IpAddress> parse_address(std::string_view text) {
  const std::string copy(text);
  if (copy.size() > kAddressTextMax) return std::nullopt;
  IpAddress address{};
  if (::inet_pton(AF_INET, copy.c_str(), address.data() + 12) == 1) {
    address[10] = address[11] = 0xff;
    return address;
  }
  if (::inet_pton(AF_INET6, copy.c_str(), address.data()) == 1) return address;
  return std::nullopt;
}

bool Network::contains(const IpAddress& other) const {
  const auto whole = static_cast<size_t>(bits / 8);
  if (std::memcmp(address.data(), other.data(), whole) != 0) return false;
  if (bits % 8 == 0) return true;
  const auto mask = static_cast<uint8_t>(0xff << (8 - bits % 8));
  return ((address[whole] ^ other[whole]) & mask) == 0;
}

std::optional<Network> Network::parse(std::string_view text) {
  const size_t slash = text.find('/');
  const std::string_view host = text.substr(0, slash);
  const auto address = parse_address(host);
  if (!address) return std::nullopt;
  const int width = host.find(':') == std::string_view::npos ? 32 : 128;
  if (slash == std::string_view::npos) return Network{*address, 128};
  const std::string_view digits = text.substr(slash + 1);
  if (digits.empty() || digits.size() > 3 ||
      digits.find_first_not_of("0123456789") != std::string_view::npos) {
    return std::nullopt;
  }
  int bits = 0;
  for (const char c : digits) bits = bits * 10 + (c - '0');
  if (bits > width) return std::nullopt;
  return Network{*address, 128 - width + bits};
}

}  // namespace bascule
