#include "cli/units.h"

#include <gtest/gtest.h>

namespace bascule::cli {
namespace {

TEST(Units, DurationsNeedAUnit) {
  EXPECT_EQ(parse_duration("400ms").value(), 400ms);
  EXPECT_EQ(parse_duration("5s").value(), 5s);
  EXPECT_EQ(parse_duration("1.5 s").value(), 1500ms);
  EXPECT_EQ(parse_duration("2min").value(), 2min);
  EXPECT_EQ(parse_duration("1h").value(), 1h);
  EXPECT_EQ(parse_duration("0").value(), 0ms);
  for (const char* bad :
       {"", "5", "s", "-5s", "5 parsecs", "1e9s", "1.2.3s", "9999999999999999h"}) {
    EXPECT_FALSE(parse_duration(bad)) << bad;
  }
}

TEST(Units, WhatIsFormattedParsesToTheSame) {
  for (Millis value :
       {0ms, 1ms, 400ms, 1500ms, Millis{5s}, Millis{90s}, Millis{2min}, Millis{3h}}) {
    EXPECT_EQ(parse_duration(format_duration(value)).value(), value) << format_duration(value);
  }
  for (uint64_t value : {0ull, 17ull, 8192ull, 16ull << 20, 3ull << 30}) {
    EXPECT_EQ(parse_size(format_size(value)).value(), value) << format_size(value);
  }
}

TEST(Units, AddressesNeedAPort) {
  EXPECT_EQ(parse_host_port("127.0.0.1:6432").value(), (HostPort{"127.0.0.1", 6432}));
  EXPECT_EQ(parse_host_port("[::1]:6432").value(), (HostPort{"::1", 6432}));
  EXPECT_EQ(parse_host_port("*:1").value(), (HostPort{"0.0.0.0", 1}));
  EXPECT_EQ((HostPort{"::1", 1}).to_string(), "[::1]:1");
  for (const char* bad : {"", "x", ":1", "h:", "h:0", "h:65536", "h:1x", "::1:5432"}) {
    EXPECT_FALSE(parse_host_port(bad)) << bad;
  }
}

TEST(Units, NearestFindsTypingSlipsAndNothingElse) {
  const std::vector<std::string> words = {"port", "host", "data_dir"};
  EXPECT_EQ(nearest("prot", words), "port");
  EXPECT_EQ(nearest("datadir", words), "data_dir");
  EXPECT_EQ(nearest("frobnicate", words), "");
}

}  // namespace
}  // namespace bascule::cli
