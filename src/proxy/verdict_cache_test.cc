#include "proxy/verdict_cache.h"

#include <gtest/gtest.h>

#include <string>

namespace bascule::proxy {
namespace {

using sql::Kind;
using sql::Reason;
using sql::Strings;

std::shared_ptr<const sql::Catalog> catalog_with(const char* function, const char* flag) {
  sql::Catalog::Builder builder;
  EXPECT_TRUE(builder.add("f", "public", function, flag));
  EXPECT_TRUE(builder.add("r", "public", "t", "s"));
  EXPECT_TRUE(builder.add("z", "", "", ""));
  return std::make_shared<const sql::Catalog>(std::move(*std::move(builder).build()));
}

TEST(VerdictCache, TextsThatDifferInLiteralsShareAVerdict) {
  VerdictCache cache({});
  cache.set_catalog(catalog_with("f", "s"));
  EXPECT_EQ(cache.verdict("SELECT * FROM t WHERE a = 1", Strings::kStandard).analysis.kind,
            Kind::kRead);
  EXPECT_EQ(cache.verdict("SELECT * FROM t WHERE a = 22", Strings::kStandard).analysis.kind,
            Kind::kRead);
  EXPECT_EQ(cache.misses(), 1u);
  EXPECT_EQ(cache.hits(), 1u);
}

TEST(VerdictCache, HintsAreOfTheTextAndNotOfTheVerdict) {
  VerdictCache cache({});
  cache.set_catalog(catalog_with("f", "s"));
  EXPECT_EQ(cache.verdict("SELECT 1 /* bascule: affinity=a */", Strings::kStandard).affinity, "a");
  EXPECT_EQ(cache.verdict("SELECT 1 /* bascule: affinity=b */", Strings::kStandard).affinity, "b");
  EXPECT_EQ(cache.verdict("SELECT 1 /* bascule: primary  */", Strings::kStandard).analysis.reason,
            Reason::kHint);
  EXPECT_EQ(cache.verdict("SELECT 1 /* nothing to see   */", Strings::kStandard).analysis.kind,
            Kind::kRead);
}

TEST(VerdictCache, AnotherCatalogForgetsEveryVerdict) {
  VerdictCache cache({});
  cache.set_catalog(catalog_with("f", "s"));
  EXPECT_EQ(cache.verdict("SELECT f()", Strings::kStandard).analysis.kind, Kind::kRead);
  cache.set_catalog(catalog_with("f", "s"));  // an equal one
  EXPECT_EQ(cache.size(), 1u);
  cache.set_catalog(catalog_with("f", "u"));
  EXPECT_EQ(cache.verdict("SELECT f()", Strings::kStandard).analysis.reason, Reason::kVolatile);
}

// Long enough to be asked for before the scan.
std::string long_text(std::string_view end) {
  return "SELECT " + std::string(200, 'x') + " FROM t WHERE a = " + std::string(end);
}

TEST(VerdictCache, ALongTextThatComesAgainIsTheSame) {
  VerdictCache cache({});
  cache.set_catalog(catalog_with("f", "s"));
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(cache.verdict(long_text("f()"), Strings::kStandard).analysis.kind, Kind::kRead);
    EXPECT_EQ(cache.verdict(long_text("g()"), Strings::kStandard).analysis.reason,
              Reason::kUnknownFunction);
    EXPECT_EQ(cache.verdict(long_text("'1'"), Strings::kStandard).analysis.kind, Kind::kRead);
  }
  EXPECT_EQ(cache.misses(), 3u);
  EXPECT_EQ(cache.hits(), 12u);
  cache.set_catalog(catalog_with("f", "u"));
  EXPECT_EQ(cache.verdict(long_text("f()"), Strings::kStandard).analysis.reason, Reason::kVolatile);
}

TEST(VerdictCache, OfALongTextHintsAndStringsCountEachTime) {
  VerdictCache cache({});
  cache.set_catalog(catalog_with("f", "s"));
  for (int i = 0; i < 5; ++i) {
    std::string sql = long_text("1 /* bascule: affinity=a */");
    EXPECT_EQ(cache.verdict(sql, Strings::kStandard).affinity, "a");
    sql = long_text("'\\'");
    EXPECT_EQ(cache.verdict(sql, Strings::kStandard).analysis.kind, Kind::kRead);
    EXPECT_EQ(cache.verdict(sql, Strings::kNonstandard).analysis.reason, Reason::kStrings);
  }
}

TEST(VerdictCache, TextsThatTakeEachOthersPlaceKeepTheirVerdicts) {
  VerdictCache cache({});
  cache.set_catalog(catalog_with("f", "s"));
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 500; ++i) {
      const std::string f = (i % 2 == 0 ? "f() + c" : "g() + c") + std::to_string(i);
      const Kind kind = i % 2 == 0 ? Kind::kRead : Kind::kPrimary;
      for (int times = 0; times < 3; ++times) {
        EXPECT_EQ(cache.verdict(long_text(f), Strings::kStandard).analysis.kind, kind);
      }
    }
  }
}

TEST(VerdictCache, CountAndBytesAreBounded) {
  VerdictCache cache({.count = 100, .bytes = 1 << 20});
  cache.set_catalog(catalog_with("f", "s"));
  for (int i = 0; i < 1'000; ++i) {
    (void)cache.verdict("SELECT c" + std::to_string(i) + " FROM t", Strings::kStandard);
    EXPECT_LE(cache.size(), 100u);
  }
  VerdictCache small({.count = 1'000'000, .bytes = 100'000});
  small.set_catalog(catalog_with("f", "s"));
  for (int i = 0; i < 1'000; ++i) {
    (void)small.verdict("SELECT c" + std::to_string(i) + std::string(1'000, 'x') + " FROM t",
                        Strings::kStandard);
    EXPECT_LE(small.bytes(), 100'000u);
  }
  EXPECT_GT(small.size(), 10u);
}

TEST(VerdictCache, WhatIsUsedStays) {
  VerdictCache cache({.count = 100, .bytes = 1 << 20});
  cache.set_catalog(catalog_with("f", "s"));
  for (int i = 0; i < 1'000; ++i) {
    (void)cache.verdict("SELECT often FROM t", Strings::kStandard);
    (void)cache.verdict("SELECT c" + std::to_string(i) + " FROM t", Strings::kStandard);
  }
  EXPECT_EQ(cache.misses(), 1'001u);
}

TEST(VerdictCache, ALongTextIsNotKept) {
  VerdictCache cache({.count = 100, .bytes = 16 * 1024});
  cache.set_catalog(catalog_with("f", "s"));
  (void)cache.verdict("SELECT " + std::string(10'000, 'x') + " FROM t", Strings::kStandard);
  EXPECT_EQ(cache.size(), 0u);
}

}  // namespace
}  // namespace bascule::proxy
