#include "sql/write_reach.h"

#include <gmock/gmock.h>

namespace bascule::sql {
namespace {

using testing::UnorderedElementsAre;

TableName in_shop(std::string name) { return {"shop", std::move(name)}; }

WriteReach shop() {
  WriteReach reach;
  for (const char* name : {"orders", "lines", "notes", "watched", "days", "monday", "loop"}) {
    EXPECT_TRUE(reach.add("r", in_shop(name), {}));
  }
  EXPECT_TRUE(reach.add("r", {"old", "lines"}, {}));
  EXPECT_TRUE(reach.add("r", {"old", "notes"}, {}));
  EXPECT_TRUE(reach.add("a", {"old", "notes"}, {}));
  EXPECT_TRUE(reach.add("a", in_shop("watched"), {}));
  EXPECT_TRUE(reach.add("e", in_shop("orders"), in_shop("lines")));
  EXPECT_TRUE(reach.add("e", in_shop("lines"), in_shop("loop")));
  EXPECT_TRUE(reach.add("e", in_shop("loop"), in_shop("orders")));
  EXPECT_TRUE(reach.add("e", in_shop("days"), in_shop("monday")));
  EXPECT_TRUE(reach.add("e", in_shop("days"), in_shop("watched")));
  EXPECT_TRUE(reach.add("z", {}, {}));
  return reach;
}

TEST(WriteReach, FollowsWhatTablesLeadTo) {
  const WriteReach reach = shop();
  EXPECT_THAT(*reach.of(in_shop("monday")), UnorderedElementsAre(in_shop("monday")));
  EXPECT_THAT(*reach.of(in_shop("orders")),
              UnorderedElementsAre(in_shop("orders"), in_shop("lines"), in_shop("loop")));
}

TEST(WriteReach, WhatLeadsAnywhereOrIsNotKnownMayWriteAnything) {
  const WriteReach reach = shop();
  EXPECT_FALSE(reach.of(in_shop("watched")));
  EXPECT_FALSE(reach.of(in_shop("days"))) << "by way of another";
  EXPECT_FALSE(reach.of(in_shop("nowhere")));
  EXPECT_FALSE(reach.of({"old", "orders"}));
}

TEST(WriteReach, ANameWithoutItsSchemaMayBeAny) {
  const WriteReach reach = shop();
  EXPECT_TRUE(reach.of({"", "lines"}));
  EXPECT_FALSE(reach.of({"", "notes"}));
}

TEST(WriteReach, NothingIsKnownBeforeItsEnd) {
  WriteReach reach;
  EXPECT_TRUE(reach.add("r", in_shop("orders"), {}));
  EXPECT_FALSE(reach.of(in_shop("orders")));
  EXPECT_FALSE(reach.add("x", in_shop("orders"), {}));
  EXPECT_FALSE(reach.add("r", in_shop(std::string(256, 'x')), {}));
  EXPECT_TRUE(reach.add("z", {}, {}));
  EXPECT_TRUE(reach.of(in_shop("orders")));
  EXPECT_FALSE(reach.add("r", in_shop("orders"), {}));
}

}  // namespace
}  // namespace bascule::sql
