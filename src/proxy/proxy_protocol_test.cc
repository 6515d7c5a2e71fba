#include "proxy/proxy_protocol.h"

#include <gtest/gtest.h>

namespace bascule::proxy {
namespace {

using pgwire::FrameState;

std::string binary(unsigned char command, unsigned char family, const std::string& body) {
  std::string out("\r\n\r\n\0\r\nQUIT\n", 12);
  out += static_cast<char>(0x20 | command);
  out += static_cast<char>(family);
  out += static_cast<char>(body.size() >> 8);
  out += static_cast<char>(body.size() & 0xff);
  return out + body;
}

const std::string kV4("\x0a\x01\x02\x03\x0a\x09\x09\x09\0\1\0\2", 12);

TEST(ProxyProtocol, NamesTheClientInBothVersions) {
  EXPECT_EQ(parse_proxy_header("PROXY TCP4 10.1.2.3 10.9.9.9 1 2\r\nx").host, "10.1.2.3");
  EXPECT_EQ(parse_proxy_header("PROXY TCP6 2001:DB8::1 ::1 1 2\r\n").host, "2001:db8::1");
  EXPECT_EQ(parse_proxy_header(binary(1, 0x11, kV4 + "\x04" + std::string("\0\1x", 3))).host,
            "10.1.2.3");
  const std::string v6 = std::string(15, '\0') + "\1" + std::string(20, '\0');
  EXPECT_EQ(parse_proxy_header(binary(1, 0x21, v6)).host, "::1");
}

TEST(ProxyProtocol, TheBalancersOwnConnectionsKeepTheirAddress) {
  for (const std::string& header :
       {std::string("PROXY UNKNOWN whatever\r\n"), binary(0, 0x11, kV4), binary(1, 0, "")}) {
    const ProxyHeader parsed = parse_proxy_header(header);
    EXPECT_EQ(parsed.state, FrameState::kComplete);
    EXPECT_EQ(parsed.size, header.size());
    EXPECT_EQ(parsed.host, "");
  }
}

TEST(ProxyProtocol, IsIncompleteUntilItsLastByte) {
  for (const std::string& header :
       {std::string("PROXY TCP4 10.1.2.3 10.9.9.9 1 2\r\n"), binary(1, 0x11, kV4)}) {
    for (size_t n = 0; n < header.size(); ++n) {
      EXPECT_EQ(parse_proxy_header(header.substr(0, n)).state, FrameState::kIncomplete) << n;
    }
    EXPECT_EQ(parse_proxy_header(header + "rest").size, header.size());
  }
}

TEST(ProxyProtocol, AnythingElseIsRefusedEarly) {
  for (const std::string& bad :
       {std::string("GET /"), std::string("PROXY TCP4 x y 1 2\r\n"), std::string("PROXY TCP4\r\n"),
        std::string("PROXY TCP5 1.1.1.1 1.1.1.1 1 2\r\n"),
        std::string("PROXY TCP4 1.1.1.1 1.1.1.1 1 2 3\r\n"), "PROXY TCP4 " + std::string(200, '1'),
        std::string("\0\0\0\x08", 4), binary(2, 0x11, kV4), binary(1, 0x12, kV4),
        binary(1, 0x31, kV4), binary(1, 0x11, "short"),
        binary(1, 0x11, std::string(8000, 'x')).substr(0, 16)}) {
    EXPECT_EQ(parse_proxy_header(bad).state, FrameState::kBad) << bad.substr(0, 30);
  }
}

}  // namespace
}  // namespace bascule::proxy
