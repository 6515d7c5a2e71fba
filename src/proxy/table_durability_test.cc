#include "proxy/table_durability.h"

#include <gtest/gtest.h>

#include "proxy/durability.h"

namespace bascule::proxy {
namespace {

using Level = CommitLevel;

class TableDurabilityTest : public testing::Test {
 protected:
  std::optional<Level> demand(std::string_view sql) {
    return levels.demand(texts.of(sql, sql::Strings::kStandard), &reach);
  }

  TableDurabilityTest() {
    for (const sql::TableName& table : std::vector<sql::TableName>{{"public", "payments"},
                                                                   {"shop", "payments"},
                                                                   {"public", "logs"},
                                                                   {"public", "users"},
                                                                   {"audit", "visits"},
                                                                   {"other", "visits"},
                                                                   {"audit", "money"},
                                                                   {"public", "views"},
                                                                   {"public", "parts"},
                                                                   {"public", "old_logs"}}) {
      EXPECT_TRUE(reach.add("r", table, {}));
    }
    EXPECT_TRUE(reach.add("a", {"public", "views"}, {}));
    EXPECT_TRUE(reach.add("e", {"public", "parts"}, {"public", "logs"}));
    EXPECT_TRUE(reach.add("e", {"public", "old_logs"}, {"audit", "money"}));
    EXPECT_TRUE(reach.add("z", {}, {}));
  }

  sql::WriteReach reach;
  WrittenTexts texts;
  TableDurability levels{{{{"", "payments"}, Level::kRemoteApply},
                          {{"", "logs"}, Level::kOff},
                          {{"audit", "visits"}, Level::kLocal},
                          {{"audit", "money"}, Level::kRemoteApply}},
                         Level::kDefault};
};

TEST_F(TableDurabilityTest, AStatementDemandsTheStrictestLevelOfItsTables) {
  EXPECT_EQ(demand("INSERT INTO payments VALUES (1)"), Level::kRemoteApply);
  EXPECT_EQ(demand("DELETE FROM shop.payments"), Level::kRemoteApply);
  EXPECT_EQ(demand("INSERT INTO logs VALUES ('x')"), Level::kOff);
  EXPECT_EQ(demand("INSERT INTO users VALUES (1)"), Level::kDefault);
  EXPECT_EQ(demand("INSERT INTO logs VALUES (1); UPDATE users SET a = 1"), Level::kDefault);
  EXPECT_EQ(demand("TRUNCATE logs, payments"), Level::kRemoteApply);
}

TEST_F(TableDurabilityTest, ReadsDemandNothingAndWhatMayWriteAnythingTheStrictestLevel) {
  EXPECT_EQ(demand("SELECT * FROM payments"), std::nullopt);
  EXPECT_EQ(demand("BEGIN"), std::nullopt);
  EXPECT_EQ(demand("SELECT pay()"), Level::kRemoteApply);
  EXPECT_EQ(demand("INSERT INTO logs SELECT pay()"), Level::kRemoteApply);
  EXPECT_EQ(demand("INSERT INTO"), Level::kRemoteApply) << "unreadable: the strictest of all";
}

TEST_F(TableDurabilityTest, WhatATableLeadsToCountsAsWritten) {
  EXPECT_EQ(demand("INSERT INTO views VALUES (1)"), Level::kRemoteApply);
  EXPECT_EQ(demand("INSERT INTO parts VALUES (1)"), Level::kDefault);
  EXPECT_EQ(demand("INSERT INTO old_logs VALUES (1)"), Level::kRemoteApply);
  EXPECT_EQ(demand("INSERT INTO nowhere VALUES (1)"), Level::kRemoteApply);
  EXPECT_EQ(levels.demand(texts.of("DELETE FROM logs", sql::Strings::kStandard), nullptr),
            Level::kRemoteApply)
      << "nothing is known";
}

TEST_F(TableDurabilityTest, SetConfigOfTheLevelIsTheClientsOwnWord) {
  const auto sets = [&](std::string_view sql) {
    return texts.of(sql, sql::Strings::kStandard).sets_commit;
  };
  EXPECT_TRUE(sets("SELECT set_config('Synchronous_Commit', 'off', true)"));
  EXPECT_FALSE(sets("SELECT set_config('app.user', 'x', true)"));
  EXPECT_FALSE(sets("SELECT 'synchronous_commit'"));
}

TEST_F(TableDurabilityTest, ANameWithoutItsSchemaIsTakenForTheStricter) {
  EXPECT_EQ(demand("INSERT INTO audit.visits VALUES (1)"), Level::kLocal);
  EXPECT_EQ(demand("INSERT INTO other.visits VALUES (1)"), Level::kDefault);
  EXPECT_EQ(demand("INSERT INTO visits VALUES (1)"), Level::kDefault);
  EXPECT_EQ(demand("INSERT INTO money VALUES (1)"), Level::kRemoteApply);
}

TEST_F(TableDurabilityTest, ATransactionIsOnlyRaisedOnceItHasBegun) {
  const sql::Written plain;
  EXPECT_EQ(levels.needed(Level::kOff), Level::kOff);
  levels.sent(plain, Level::kOff);
  levels.set_in_force(Level::kOff);
  EXPECT_EQ(levels.needed(Level::kOn), Level::kOn);
  levels.sent(plain, Level::kOn);
  EXPECT_EQ(levels.needed(Level::kLocal), Level::kOn);
  levels.on_idle();
  EXPECT_EQ(levels.needed(Level::kLocal), Level::kLocal);
  EXPECT_EQ(levels.in_force(), Level::kDefault);
}

TEST_F(TableDurabilityTest, WhatIsInForceIsUnknownAfterARollbackToASavepoint) {
  levels.sent({}, Level::kOn);
  levels.set_in_force(Level::kOn);
  sql::Written back;
  back.goes_back = true;
  levels.sent(back, std::nullopt);
  EXPECT_EQ(levels.in_force(), std::nullopt);
  EXPECT_EQ(levels.needed(Level::kOff), Level::kOn);
}

TEST_F(TableDurabilityTest, TheEndOfATransactionWithinABatchEndsItsLevel) {
  levels.set_server(Level::kLocal);
  levels.sent({}, Level::kOn);
  levels.set_in_force(Level::kOn);
  sql::Written end;
  end.ends = true;
  levels.sent(end, std::nullopt);
  EXPECT_EQ(levels.in_force(), Level::kLocal);
  EXPECT_EQ(levels.needed(Level::kOff), Level::kOff);
}

TEST_F(TableDurabilityTest, TextsThatDifferInLiteralsAreReadOnce) {
  const sql::Written* first = &texts.of("INSERT INTO a VALUES (1, 'x')", sql::Strings::kStandard);
  EXPECT_EQ(first, &texts.of("INSERT INTO a VALUES (22, 'y')", sql::Strings::kStandard));
  EXPECT_TRUE(texts.of("INSERT INTO a VALUES ('\\')", sql::Strings::kNonstandard).unreadable);
}

TEST(TableDurabilityRules, FitTheClientAndStartFromItsOwnLevel) {
  const std::vector<DurabilityRule> rules = {
      {"", "ann", "", "local", false, ""},
      {"", "", "", "off", false, "logs"},
      {"shop", "", "", "remote_apply", false, "s.payments"},
  };
  const auto levels = [&](std::string_view database, std::string_view user,
                          const Parameters& startup = {}, Demands demands = Demands::kNothing) {
    return table_durability_of(rules, database, user, startup, demands);
  };
  sql::Written payments, logs;
  sql::WriteReach reach;
  EXPECT_TRUE(reach.add("r", {"s", "payments"}, {}));
  EXPECT_TRUE(reach.add("r", {"s", "logs"}, {}));
  EXPECT_TRUE(reach.add("z", {}, {}));
  payments.tables = {{"s", "payments"}};
  logs.tables = {{"", "logs"}};
  EXPECT_EQ(levels("shop", "bob")->demand(payments, &reach), Level::kRemoteApply);
  EXPECT_EQ(levels("x", "bob")->demand(payments, &reach), Level::kDefault);
  EXPECT_EQ(levels("x", "ann")->demand(payments, &reach), Level::kLocal);
  EXPECT_EQ(levels("x", "ann")->demand(logs, &reach), Level::kOff);
  EXPECT_EQ(levels("x", "bob", {}, Demands::kStandby)->demand(logs, &reach), Level::kDefault);
  EXPECT_FALSE(levels("x", "bob", {{"synchronous_commit", "on"}}));
  EXPECT_EQ(durability_of(rules, "x", "bob", {}, Demands::kNothing), "");
}

}  // namespace
}  // namespace bascule::proxy
