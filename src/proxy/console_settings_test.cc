#include "proxy/console_settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proxy/console_tables.h"

namespace bascule::proxy {
namespace {

TEST(ConsoleSettings, ValuesAreInPgbouncersUnits) {
  ProxyConfig config;
  EXPECT_TRUE(set_config(config, "query_timeout", "1.5"));
  EXPECT_EQ(config.query_timeout, 1500ms);
  EXPECT_TRUE(set_config(config, "max_client_conn", "5"));
  EXPECT_EQ(config.clients_max, 5);
  EXPECT_TRUE(set_config(config, "server_check_query", "select 1; -- x"));
  EXPECT_EQ(config.server_check_query, "select 1; -- x");
}

TEST(ConsoleSettings, NonsenseChangesNothing) {
  ProxyConfig config;
  for (const auto& [name, value] :
       {std::pair("query_timeout", "-1"), std::pair("query_timeout", "x"),
        std::pair("query_timeout", ""), std::pair("query_timeout", "1e300"),
        std::pair("query_timeout", "nan"), std::pair("max_client_conn", "1.5"),
        std::pair("max_client_conn", "0"), std::pair("max_client_conn", "9999999999"),
        std::pair("query_wait_timeout", "0")}) {
    const Status status = set_config(config, name, value);
    ASSERT_FALSE(status) << name << " " << value;
    EXPECT_EQ(status.error().code, ErrorCode::kInvalid);
  }
  EXPECT_EQ(set_config(config, "nonsense", "1").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(set_config(config, "workers", "2").error().code, ErrorCode::kConflict);
  EXPECT_EQ(config.query_timeout, 0s);
  EXPECT_EQ(config.clients_max, ProxyConfig().clients_max);
}

TEST(ConsoleSettings, EverySettingThatIsShownAsChangeableCanBeSetToItsOwnValue) {
  ProxyConfig config;
  for (const auto& row : config_rows(config, config)) {
    if (row[3] != "yes") continue;
    EXPECT_TRUE(set_config(config, *row[0], *row[1])) << *row[0];
  }
}

TEST(ConsoleTables, AveragesAreOfWhatCameSinceTheLastButOnePeriod) {
  ConsoleSnapshot snapshot;
  Traffic& traffic = snapshot.traffic["shop"];
  traffic.older.queries = 100;
  traffic.older.query_time = 1s;
  traffic.now.queries = 400;
  traffic.now.query_time = 4s;
  traffic.now.received = 2'000;
  snapshot.period = 10s;
  const ProxyConfig config;
  const Controls controls;
  const ConsoleView view{snapshot, config, config, controls, nullptr, {}};
  const ConsoleTable table = table_of(ConsoleShow::kStats, view);
  const auto value = [&](std::string_view name) {
    for (size_t i = 0; i < table.columns.size(); ++i) {
      if (table.columns[i].name == name) return *table.rows.front()[i];
    }
    return std::string("no such column");
  };
  EXPECT_EQ(value("total_query_count"), "400");
  EXPECT_EQ(value("avg_query_count"), "30");
  EXPECT_EQ(value("avg_query_time"), "10000");
  EXPECT_EQ(value("avg_recv"), "200");
  EXPECT_EQ(value("avg_xact_time"), "0");
}

TEST(Databases, ANameOfItsOwnCountsBeforeTheStar) {
  std::vector<DatabaseRule> rules(2);
  rules[0].name = "*";
  rules[1].name = "shop";
  EXPECT_EQ(find_database(rules, "shop"), &rules[1]);
  EXPECT_EQ(find_database(rules, "other"), &rules[0]);
  rules.erase(rules.begin());
  EXPECT_EQ(find_database(rules, "other"), nullptr);
  EXPECT_EQ(find_database(rules, "*"), nullptr) << "no name of a database";
}

}  // namespace
}  // namespace bascule::proxy
