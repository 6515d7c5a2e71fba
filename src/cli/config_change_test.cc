#include "cli/config_change.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace bascule::cli {
namespace {

using ::testing::HasSubstr;

control::ClusterView configured() {
  control::ClusterView view;
  view.config = {control::ClusterConfig{}, 41};
  return view;
}
ConfigRequest request(std::map<std::string, std::string> wanted) {
  return {"main", std::move(wanted), "ops@host", WallTime{Millis{0}}};
}

TEST(ConfigChange, IsWrittenWithItsAuthorUnderTheRevisionThatWasRead) {
  const auto txn = change_config(configured(), request({{"ttl", "10s"}, {"sync", "off"}}), {});
  ASSERT_TRUE(txn) << txn.error().to_string();
  ASSERT_EQ(txn->compares.size(), 1u);
  EXPECT_EQ(txn->compares[0].key, control::Keys("main").config());
  EXPECT_EQ(txn->compares[0].revision, 41u);
  ASSERT_EQ(txn->writes.size(), 2u);
  EXPECT_EQ(control::decode_config(*txn->writes[0].value)->ttl, 10s);
  const auto history = parse_config_history({{txn->writes[1].key, *txn->writes[1].value, 42}});
  ASSERT_EQ(history.size(), 1u);
  EXPECT_EQ(history[0].by, "ops@host");
  EXPECT_EQ(history[0].at, "1970-01-01T00:00:00.000Z");
  EXPECT_EQ(history[0].changes.at("ttl"), (std::pair<std::string, std::string>{"5s", "10s"}));
  EXPECT_EQ(history[0].changes.at("sync"), (std::pair<std::string, std::string>{"on", "off"}));
  EXPECT_EQ(history[0].changes.size(), 2u);
}

TEST(ConfigChange, TheHistoryLiesBesideTheRecordsThatMembersRead) {
  const auto txn = change_config(configured(), request({{"ttl", "10s"}}), {});
  ASSERT_TRUE(txn);
  EXPECT_FALSE(txn->writes[1].key.starts_with(control::Keys("main").prefix));
  EXPECT_TRUE(txn->writes[1].key.starts_with(config_history_prefix("main")));
  EXPECT_FALSE(NodeName::parse(".log").has_value()) << "no cluster can have that name";
}

TEST(ConfigChange, WhatIsWrongIsRefusedByName) {
  const auto why = [](std::map<std::string, std::string> wanted) {
    const auto txn = change_config(configured(), request(std::move(wanted)), {});
    return txn ? std::string("accepted") : txn.error().to_string();
  };
  EXPECT_THAT(why({{"tll", "10s"}}), HasSubstr("tll"));
  EXPECT_THAT(why({{"ttl", "10"}}), HasSubstr("ttl"));
  EXPECT_THAT(why({{"ttl", "5s"}}), HasSubstr("so already"));
  control::ClusterView none;
  EXPECT_FALSE(change_config(none, request({{"ttl", "10s"}}), {}));
}

TEST(ConfigChange, OldRecordsAreDroppedSoThatTheirNumberIsBounded) {
  std::vector<store::Entry> kept;
  for (size_t i = 0; i < kConfigChangesKept + 3; ++i) {
    kept.push_back({config_history_prefix("main") + std::to_string(1000 + i), "{}", i + 1});
  }
  const auto txn = change_config(configured(), request({{"ttl", "10s"}}), kept);
  ASSERT_TRUE(txn);
  const auto dropped =
      std::ranges::count_if(txn->writes, [](const store::Write& w) { return !w.value; });
  EXPECT_EQ(dropped, 4);
  EXPECT_EQ(txn->writes.back().key, kept[3].key);
  EXPECT_LE(txn->writes.size() + txn->compares.size(), store::kTxnItemsMax);
}

TEST(ConfigChange, HostileRecordsAreLeftOut) {
  const auto history = parse_config_history({{"a", "", 1},
                                             {"b", "[]", 1},
                                             {"c", R"({"changes":[]})", 1},
                                             {"d", R"({"changes":{"ttl":5},"by":7})", 1}});
  ASSERT_EQ(history.size(), 1u);
  EXPECT_TRUE(history[0].changes.empty());
  EXPECT_EQ(history[0].by, "");
}

}  // namespace
}  // namespace bascule::cli
