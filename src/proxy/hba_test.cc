#include "proxy/hba.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace bascule::proxy {
namespace {

using testing::HasSubstr;

HbaRules rules(std::string_view text, std::string_view ident = "") {
  auto parsed = HbaRules::parse(text, "hba", ident, "ident");
  EXPECT_TRUE(parsed) << parsed.error().message;
  return parsed ? std::move(*parsed) : HbaRules{};
}

std::string problems(std::string_view text, std::string_view ident = "") {
  const auto parsed = HbaRules::parse(text, "hba", ident, "ident");
  return parsed ? "none" : parsed.error().message;
}

HbaClient client(const char* address, std::string_view user = "app",
                 std::string_view database = "db") {
  HbaClient c;
  if (address != nullptr) c.address = parse_address(address);
  c.user = user;
  c.database = database;
  return c;
}

int line_of(const HbaRules& r, const HbaClient& c) {
  const HbaRule* rule = r.match(c);
  return rule == nullptr ? 0 : rule->line;
}

TEST(Hba, FirstRuleThatMatchesDecides) {
  const HbaRules r = rules(
      "# a comment\n"
      "host db app 10.0.0.0/8 reject  # why\n"
      "\n"
      "host all all all md5\n");
  EXPECT_EQ(line_of(r, client("10.255.0.1")), 2);
  EXPECT_EQ(line_of(r, client("11.0.0.1")), 4);
  EXPECT_EQ(line_of(r, client("10.0.0.1", "app", "other")), 4);
  EXPECT_EQ(line_of(r, client(nullptr)), 0) << "host is not a unix socket";
}

TEST(Hba, ListsQuotesAndKeywords) {
  const HbaRules r = rules(
      "host \"all\",db2 \"a b\",app all trust\n"
      "host sameuser, x all all trust\n"
      "host replication all all trust\n");
  EXPECT_EQ(line_of(r, client("1.1.1.1", "app", "db2")), 1);
  EXPECT_EQ(line_of(r, client("1.1.1.1", "app", "all")), 1) << "quoted: a database of that name";
  EXPECT_EQ(line_of(r, client("1.1.1.1", "a b", "db2")), 1);
  EXPECT_EQ(line_of(r, client("1.1.1.1", "app", "db9")), 0);
  EXPECT_EQ(line_of(r, client("1.1.1.1", "u", "u")), 2);
  EXPECT_EQ(line_of(r, client("1.1.1.1", "u", "x")), 2);
  HbaClient standby = client("1.1.1.1", "u", "u");
  standby.replication = true;
  EXPECT_EQ(line_of(r, standby), 3) << "no database: sameuser does not mean it";
}

TEST(Hba, AddressesOfBothFamiliesAndMasks) {
  const HbaRules r = rules(
      "host all all 192.168.4.0/22 trust\n"
      "host all all 10.1.0.0 255.255.0.0 trust\n"
      "host all all fe80::/10 trust\n"
      "host all all 0.0.0.0/0 trust\n");
  EXPECT_EQ(line_of(r, client("192.168.7.255")), 1);
  EXPECT_EQ(line_of(r, client("192.168.8.0")), 4);
  EXPECT_EQ(line_of(r, client("::ffff:192.168.5.1")), 1) << "as a dual-stack socket shows it";
  EXPECT_EQ(line_of(r, client("10.1.2.3")), 2);
  EXPECT_EQ(line_of(r, client("febf::1")), 3);
  EXPECT_EQ(line_of(r, client("fec0::1")), 0) << "0.0.0.0/0 is IPv4 only";
}

TEST(Hba, EncryptionIsPartOfTheRule) {
  const HbaRules r = rules(
      "hostssl all all all trust\nhostnossl all all all trust\n"
      "local all all trust\n");
  HbaClient c = client("1.1.1.1");
  EXPECT_EQ(line_of(r, c), 2);
  c.tls = true;
  EXPECT_EQ(line_of(r, c), 1);
  EXPECT_EQ(line_of(r, client(nullptr)), 3);
}

TEST(Hba, RolesMatchOnlyWhereTheyAreKnown) {
  const HbaRules r = rules("host all +staff all trust\nhost samerole all all trust\n");
  EXPECT_TRUE(r.needs_roles());
  HbaClient c = client("1.1.1.1");
  EXPECT_EQ(line_of(r, c), 0);
  const std::vector<std::string> roles = {"app", "staff"};
  c.roles = &roles;
  EXPECT_EQ(line_of(r, c), 1);
  const std::vector<std::string> others = {"app", "db"};
  c.roles = &others;
  EXPECT_EQ(line_of(r, c), 2);
}

TEST(Hba, PatternsAreNeverRunOnLongNames) {
  const HbaRules r = rules("host all /^app_[0-9]+$ all trust\n");
  EXPECT_EQ(line_of(r, client("1.1.1.1", "app_12")), 1);
  EXPECT_EQ(line_of(r, client("1.1.1.1", "xapp_12")), 0);
  EXPECT_EQ(line_of(r, client("1.1.1.1", "app_" + std::string(60, '1'))), 0);
}

TEST(Hba, MapsTranslateNames) {
  const HbaRules r = rules("hostssl all all all cert map=m\n",
                           "m \"CN=Ada, O=x\" ada\nm /^(.*)@corp$ \\1\nm root all\n");
  EXPECT_TRUE(r.allows("m", "CN=Ada, O=x", "ada"));
  EXPECT_FALSE(r.allows("m", "CN=Ada, O=x", "bob"));
  EXPECT_TRUE(r.allows("m", "bob@corp", "bob"));
  EXPECT_FALSE(r.allows("m", "bob@corp", "ada"));
  EXPECT_TRUE(r.allows("m", "root", "anybody"));
  EXPECT_TRUE(r.allows("", "app", "app"));
  EXPECT_FALSE(r.allows("", "", "")) << "no name is nobody";
  EXPECT_TRUE(r.needs_certificates());
}

TEST(Hba, LinesGoOnAfterABackslash) {
  const HbaRules r = rules("host all \\\n  all all \\\n trust\nhost all all all reject\n");
  EXPECT_EQ(line_of(r, client("1.1.1.1")), 1);
}

TEST(Hba, EveryProblemIsNamedWithItsLine) {
  const std::string all = problems(
      "host all all all gss\n"
      "host all all db.example trust\n"
      "host all @users all trust\n"
      "include other\n"
      "host all all 10.0.0.1 trust\n"
      "host all all all cert\n"
      "local all all peer clientcert=verify-ca\n"
      "host all \"x all trust\n"
      "host all all 10.0.0.0 255.0.255.0 trust\n"
      "hostgssenc all all all trust\n"
      "host all all samenet trust\n"
      "hostssl all all all cert map=none\n"
      "host all all\n"
      "host all all 10.0.0.0/33 trust\n"
      "host all /( all trust\n"
      "host all all all nonsense\n",
      "one two\n");
  const std::pair<int, const char*> expected[] = {{1, "gss is not offered"},
                                                  {2, "host names"},
                                                  {3, "@file"},
                                                  {4, "included files"},
                                                  {5, "needs a length"},
                                                  {6, "hostssl only"},
                                                  {7, "option clientcert"},
                                                  {8, "not closed"},
                                                  {9, "holes"},
                                                  {10, "GSSAPI"},
                                                  {11, "samenet"},
                                                  {12, "map \"none\" is not defined"},
                                                  {13, "too short"},
                                                  {14, "address"},
                                                  {15, "regular expression"},
                                                  {16, "expected a method"}};
  for (const auto& [line, what] : expected) {
    const std::string prefix = "hba:" + std::to_string(line) + ": ";
    const size_t at = all.find(prefix);
    ASSERT_NE(at, std::string::npos) << prefix << "\n" << all;
    EXPECT_THAT(all.substr(at, all.find('\n', at) - at), HasSubstr(what));
  }
  EXPECT_THAT(all, HasSubstr("ident:1: expected three words"));
}

TEST(Hba, AFileWithoutRulesLetsNobodyIn) {
  EXPECT_EQ(line_of(rules("# nothing\n"), client("1.1.1.1")), 0);
}

}  // namespace
}  // namespace bascule::proxy
