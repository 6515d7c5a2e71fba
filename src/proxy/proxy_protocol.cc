#include "proxy/proxy_protocol.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>

namespace bascule::proxy {
namespace {

using pgwire::FrameState;

constexpr std::string_view kSignature2("\r\n\r\n\0\r\nQUIT\n", 12);
constexpr std::string_view kSignature1 = "PROXY ";
constexpr size_t kLine1Max = 107;  // with CR LF, as the specification says
constexpr size_t kHeader2 = 16;

const ProxyHeader kBad{FrameState::kBad, 0, {}};

bool is_prefix(std::string_view bytes, std::string_view signature) {
  const size_t n = std::min(bytes.size(), signature.size());
  return bytes.substr(0, n) == signature.substr(0, n);
}

// The address as the system writes it; empty if it is none.
std::string normal(int family, const std::string& text) {
  std::array<unsigned char, 16> address{};
  std::array<char, INET6_ADDRSTRLEN> out{};
  if (::inet_pton(family, text.c_str(), address.data()) != 1) return {};
  return ::inet_ntop(family, address.data(), out.data(), out.size()) != nullptr ? out.data() : "";
}

ProxyHeader parse_line(std::string_view bytes) {
  const size_t end = bytes.substr(0, kLine1Max).find("\r\n");
  if (end == std::string_view::npos) return bytes.size() < kLine1Max ? ProxyHeader{} : kBad;
  ProxyHeader header{FrameState::kComplete, end + 2, {}};
  std::string_view rest = bytes.substr(kSignature1.size(), end - kSignature1.size());
  const std::string_view protocol = rest.substr(0, rest.find(' '));
  if (protocol == "UNKNOWN") return header;
  const int family = protocol == "TCP4" ? AF_INET : protocol == "TCP6" ? AF_INET6 : 0;
  if (family == 0 || rest.size() <= protocol.size()) return kBad;
  rest.remove_prefix(protocol.size() + 1);
  if (std::ranges::count(rest, ' ') != 3) return kBad;
  header.host = normal(family, std::string(rest.substr(0, rest.find(' '))));
  return header.host.empty() ? kBad : header;
}

ProxyHeader parse_binary(std::string_view bytes) {
  if (bytes.size() < kHeader2) return {};
  const auto byte = [&](size_t at) { return static_cast<unsigned char>(bytes[at]); };
  const unsigned command = byte(12) & 0xfu;
  const size_t size = kHeader2 + (size_t{byte(14)} << 8 | byte(15));
  if (byte(12) >> 4 != 2 || command > 1 || size > kProxyHeaderMax) return kBad;
  if (bytes.size() < size) return {};
  ProxyHeader header{FrameState::kComplete, size, {}};
  if (command == 0) return header;  // LOCAL: a health check of the balancer
  const unsigned family = byte(13);
  if (family == 0) return header;  // UNSPEC
  const bool v4 = family == 0x11;
  if (!v4 && family != 0x21) return kBad;  // a stream of IPv4 or IPv6
  if (size < kHeader2 + (v4 ? 12u : 36u)) return kBad;
  std::array<char, INET6_ADDRSTRLEN> out{};
  if (::inet_ntop(v4 ? AF_INET : AF_INET6, bytes.data() + kHeader2, out.data(), out.size()) ==
      nullptr) {
    return kBad;
  }
  header.host = out.data();
  return header;
}

}  // namespace

ProxyHeader parse_proxy_header(std::string_view bytes) {
  if (bytes.empty()) return {};
  if (is_prefix(bytes, kSignature1)) {
    return bytes.size() < kSignature1.size() ? ProxyHeader{} : parse_line(bytes);
  }
  if (is_prefix(bytes, kSignature2)) return parse_binary(bytes);
  return kBad;
}

}  // namespace bascule::proxy
