#include "sql/catalog.h"

#include <gtest/gtest.h>

#include "sql/builtins.h"
#include "sql/testing.h"

namespace bascule::sql {
namespace {

TEST(Catalog, AnAnswerWithoutItsEndIsRefused) {
  Catalog::Builder builder;
  ASSERT_TRUE(builder.add("f", "public", "a", "s"));
  EXPECT_FALSE(std::move(builder).build());
}

TEST(Catalog, RowsOfAnotherFormAreRefused) {
  Catalog::Builder builder;
  EXPECT_FALSE(builder.add("x", "", "", ""));
  EXPECT_FALSE(builder.add("", "", "", ""));
  EXPECT_FALSE(builder.add("f", "", std::string(256, 'x'), "s"));
  EXPECT_TRUE(builder.add("z", "", "", ""));
  EXPECT_FALSE(builder.add("f", "", "x", "s"));
}

TEST(Catalog, ADatabaseThatIsTooLargeProvesNothing) {
  Catalog::Builder builder;
  for (size_t i = 1; i < Catalog::kRowsMax; ++i) {
    ASSERT_TRUE(builder.add("r", "public", "t", "s"));
  }
  ASSERT_TRUE(builder.add("z", "", "", ""));
  EXPECT_FALSE(std::move(builder).build());
}

TEST(Catalog, TheWorstObjectOfANameCounts) {
  const Catalog catalog = shop_catalog();
  EXPECT_EQ(catalog.relation("", "twin"), Safety::kUnsafe);
  EXPECT_EQ(catalog.relation("public", "twin"), Safety::kSafe);
  EXPECT_EQ(catalog.function("", "upper"), Safety::kUnsafe);
  EXPECT_EQ(catalog.function("pg_catalog", "upper"), Safety::kSafe);
  EXPECT_EQ(catalog.function("", "abs"), Safety::kSafe);
  EXPECT_EQ(catalog.function("public", "abs"), Safety::kUnknown);
  EXPECT_EQ(catalog.function("", "nextval"), Safety::kUnsafe);
}

TEST(Builtins, TheTableKnowsVolatility) {
  EXPECT_EQ(builtin_function("abs"), Builtin::kReadOnly);
  EXPECT_EQ(builtin_function("now"), Builtin::kReadOnly);
  EXPECT_EQ(builtin_function("nextval"), Builtin::kVolatile);
  EXPECT_EQ(builtin_function("random"), Builtin::kReadOnly);
  EXPECT_EQ(builtin_function("txid_current"), Builtin::kServerState);
  EXPECT_EQ(builtin_function("no_such_function"), Builtin::kUnknown);
  EXPECT_EQ(builtin_function(""), Builtin::kUnknown);
}

}  // namespace
}  // namespace bascule::sql
