#include "proxy/catalogs.h"

#include <gtest/gtest.h>

namespace bascule::proxy {
namespace {

MonoTime at(Nanos t) { return MonoTime(t); }
CatalogRef some() { return std::make_shared<const sql::Catalog>(); }

TEST(CatalogTable, OneFetchesForAll) {
  CatalogTable table({.refresh = 60s, .expire = 300s, .retry = 5s});
  EXPECT_TRUE(table.claim("a", at(100s)));
  EXPECT_FALSE(table.claim("a", at(100s)));
  EXPECT_TRUE(table.claim("b", at(100s)));
  EXPECT_EQ(table.find("a", at(100s)), nullptr);
  const uint64_t before = table.version();
  table.fetched("a", some(), at(101s));
  EXPECT_GT(table.version(), before);
  EXPECT_NE(table.find("a", at(101s)), nullptr);
  EXPECT_FALSE(table.claim("a", at(160s)));
  EXPECT_TRUE(table.claim("a", at(161s)));
}

TEST(CatalogTable, AFailureIsTriedAgainSoonAndTheOldSnapshotServesForAWhile) {
  CatalogTable table({.refresh = 60s, .expire = 300s, .retry = 5s});
  ASSERT_TRUE(table.claim("a", at(0s)));
  table.fetched("a", some(), at(0s));
  ASSERT_TRUE(table.claim("a", at(60s)));
  table.fetched("a", nullptr, at(61s));
  EXPECT_NE(table.find("a", at(61s)), nullptr);
  EXPECT_FALSE(table.claim("a", at(65s)));
  EXPECT_TRUE(table.claim("a", at(66s)));
  EXPECT_EQ(table.find("a", at(301s)), nullptr);
}

TEST(CatalogTable, AFetchThatNeverEndsIsTakenOver) {
  CatalogTable table({.refresh = 60s, .expire = 300s, .retry = 5s});
  ASSERT_TRUE(table.claim("a", at(0s)));
  EXPECT_FALSE(table.claim("a", at(59s)));
  EXPECT_TRUE(table.claim("a", at(60s)));
}

TEST(CatalogTable, DdlMakesItDue) {
  CatalogTable table({.refresh = 60s, .expire = 300s, .retry = 5s});
  ASSERT_TRUE(table.claim("a", at(0s)));
  table.fetched("a", some(), at(0s));
  EXPECT_FALSE(table.claim("a", at(1s)));
  table.outdated("a");
  EXPECT_TRUE(table.claim("a", at(1s)));
}

TEST(CatalogTable, DatabasesAreBounded) {
  CatalogTable table({});
  for (int i = 0; i < 1'000; ++i) EXPECT_TRUE(table.claim(std::to_string(i), at(0s)));
  EXPECT_FALSE(table.claim("one more", at(0s)));
}

}  // namespace
}  // namespace bascule::proxy
