#include "cli/config_change.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "api/command_parser.h"

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

// Every key other than its default, so that nothing is equal by chance.
control::ClusterConfig unusual() {
  control::ClusterConfig c;
  c.ttl = 7s;
  c.sync_mode = control::SyncMode::kQuorum;
  c.sync_count = 2;
  c.sync_strict = true;
  c.sync_degrade_after = 1234ms;
  c.on_crash = control::OnCrash::kRestartThenFailover;
  c.on_disk_full = control::OnDiskFull::kStay;
  c.failover_limit = 3;
  c.failover_window = 5min;
  c.sync_region = control::SyncRegion::kOther;
  c.maximum_lag_bytes = (3 << 20) + 1;
  c.ballot_window = 250ms;
  c.drain_timeout = 1s;
  c.promote_timeout = 12s;
  c.rejoin_timeout = 45s;
  c.parameters = {{"work_mem", "8MB"}, {"log_line_prefix", "%m \"q\": "}};
  c.slots = {{"cdc", {"pgoutput", "app"}}, {"arch", {}}};
  c.primary_region = "eu";
  c.failsafe = false;
  c.early_takeover = true;
  c.blip_tolerance = 1500ms;
  c.region_relays = true;
  return c;
}

Result<control::ClusterConfig> sent(const control::ClusterConfig& before, const std::string& method,
                                    const std::string& body) {
  api::Request request;
  request.method = method;
  request.path = "/config";
  request.body = body;
  const auto parsed = api::parse_command(request, api::Command::Kind::kConfig, {}, NodeName());
  if (!parsed) return std::unexpected(parsed.error());
  control::ClusterView view;
  view.config = {before, 41};
  const auto txn = change_config(
      view,
      {"main", parsed->command.changes, "ops@host", WallTime{Millis{0}}, parsed->command.replace},
      {});
  if (!txn) return std::unexpected(txn.error());
  return control::decode_config(*txn->writes[0].value);
}

TEST(ConfigChange, WhatTheApiAnswersCanBeSentBack) {
  const control::ClusterConfig usual;
  control::ClusterConfig follows = unusual();
  follows.standby_cluster = control::StandbyCluster{"db9", 5433, "them", ""};
  for (const char* method : {"PUT", "PATCH"}) {
    const auto there = sent(usual, method, control::encode(unusual()));
    ASSERT_TRUE(there) << there.error().to_string();
    EXPECT_EQ(*there, unusual());
    control::ClusterConfig before = follows;
    before.ttl = 9s;
    const auto follower = sent(before, method, control::encode(follows));
    ASSERT_TRUE(follower) << follower.error().to_string();
    EXPECT_EQ(*follower, follows);
  }
  const auto back = sent(unusual(), "PUT", control::encode(usual));
  ASSERT_TRUE(back) << back.error().to_string();
  EXPECT_EQ(*back, usual) << "what is not named gets its default";
}

TEST(ConfigChange, WhatTheApiAnswersCanBeEdited) {
  auto document = nlohmann::json::parse(control::encode(unusual()));
  document["ttlMs"] = 11'000;
  document["parameters"].erase("work_mem");
  document["slots"]["more"] = "logical:app:pgoutput";
  control::ClusterConfig wanted = unusual();
  wanted.ttl = 11s;
  wanted.parameters.erase("work_mem");
  wanted.slots["more"] = {"pgoutput", "app"};
  const auto after = sent(unusual(), "PUT", document.dump());
  ASSERT_TRUE(after) << after.error().to_string();
  EXPECT_EQ(*after, wanted);
}

TEST(ConfigChange, WhatNoBodyMayBeIsRefused) {
  const auto why = [](const char* body) {
    const auto after = sent({}, "PATCH", body);
    return after ? std::string("accepted") : after.error().to_string();
  };
  EXPECT_THAT(why(R"({"ttl": "10s", "ttlMs": 10000})"), HasSubstr("ttl: is there twice"));
  EXPECT_THAT(why(R"({"ttlMs": true})"), HasSubstr("ttl"));
  EXPECT_THAT(why(R"({"ttl": null})"), HasSubstr("ttl")) << "it can't be taken away";
  EXPECT_THAT(why(R"({"slots": {"x": {"plugin": "p"}}})"), HasSubstr("slots"));
  EXPECT_THAT(why(R"({"slots": {"x": {"kind": "p"}}})"), HasSubstr("slots.x"));
  EXPECT_THAT(why(R"({"slots": {"x": {"plugin": ["p"]}}})"), HasSubstr("slots.x"));
  EXPECT_THAT(why(R"({"parameters": {"x": {"a": 1}}})"), HasSubstr("parameters.x"));
  EXPECT_THAT(why(R"({"parameters": {}})"), HasSubstr("expected 1 to"));
  EXPECT_THAT(why(R"({"tllMs": 5})"), HasSubstr("tll"));
  control::ClusterConfig preferring;
  preferring.primary_region = "eu";
  EXPECT_EQ(sent(preferring, "PATCH", R"({"primary_region": null})")->primary_region, "");
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
