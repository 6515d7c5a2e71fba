#include "store/etcd_wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/base64.h"

namespace bascule::store::etcd {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

TEST(EtcdWire, PrefixRangesCoverExactlyThePrefix) {
  EXPECT_EQ(prefix_range("a/").key, "a/");
  EXPECT_EQ(prefix_range("a/").end, "a0");
  EXPECT_EQ(prefix_range("a\xff").end, "b");
  const std::string all(1, '\0');
  EXPECT_EQ(prefix_range("").key, all);
  EXPECT_EQ(prefix_range("").end, all);
  EXPECT_EQ(prefix_range("\xff\xff").end, all);
}

TEST(EtcdWire, EveryTransactionReadsSomethingSoThatEtcdAnswersItLinearizably) {
  for (const auto& body : {txn_body({{"k", 7}}, {}, "fence"),
                           txn_body({{"k", 7}}, {{"k", "v"}, {"gone", std::nullopt}}, "fence")}) {
    const json parsed = json::parse(body);
    EXPECT_EQ(parsed["compare"][0]["mod_revision"], "7");
    EXPECT_EQ(parsed["compare"][0]["key"], base64_encode("k"));
    EXPECT_EQ(parsed["failure"][0]["request_range"]["key"], base64_encode("fence"));
    ASSERT_FALSE(parsed["success"].empty());
  }
  const json read = json::parse(read_body({{"a", "b"}, {"c", ""}}));
  EXPECT_EQ(read["success"].size(), 2u);
  EXPECT_FALSE(read["success"][1]["request_range"].contains("range_end"));
}

TEST(EtcdWire, PasswordsMayHoldAnyByte) {
  const json body = json::parse(authenticate_body("u\"x", "p\\\n\xff"));
  EXPECT_EQ(body["name"], "u\"x");
}

TEST(EtcdWire, ATransactionsAnswerIsRead) {
  const auto answer = parse_txn(
      R"({"header":{"cluster_id":"14841639068965178418","member_id":"1","revision":"12",
      "raft_term":"2"},"succeeded":true,"responses":[{"response_range":{"header":{"revision":"12"},
      "kvs":[{"key":"YQ==","create_revision":"3","mod_revision":"9","version":"2","value":"dg=="}],
      "count":"1"}},{"response_put":{}},{"response_range":{}}]})");
  ASSERT_TRUE(answer.has_value()) << answer.error().message;
  EXPECT_EQ(answer->cluster_id, 14841639068965178418u);
  EXPECT_EQ(answer->revision, 12u);
  EXPECT_TRUE(answer->succeeded);
  ASSERT_EQ(answer->ranges.size(), 2u);
  EXPECT_EQ(answer->ranges[0].count, 1u);
  EXPECT_EQ(answer->ranges[0].entries, (std::vector<Entry>{{"a", "v", 9}}));
  EXPECT_TRUE(answer->ranges[1].entries.empty());
}

TEST(EtcdWire, WhatIsLeftOutIsZero) {
  const auto answer = parse_txn(R"({"header":{}})");
  ASSERT_TRUE(answer.has_value());
  EXPECT_FALSE(answer->succeeded);
  EXPECT_EQ(answer->revision, 0u);
}

TEST(EtcdWire, HostileAnswersAreErrors) {
  for (const char* text :
       {"", "null", "[]", "{}", "{\"header\":[]}", "{\"header\":{\"revision\":\"-1\"}}",
        "{\"header\":{\"revision\":\"99999999999999999999999\"}}",
        "{\"header\":{\"revision\":1.5}}", "{\"header\":{},\"succeeded\":\"yes\"}",
        "{\"header\":{},\"responses\":{}}", "{\"header\":{},\"responses\":[1]}",
        "{\"header\":{},\"responses\":[{\"response_range\":[]}]}",
        "{\"header\":{},\"responses\":[{\"response_range\":{\"kvs\":5}}]}",
        "{\"header\":{},\"responses\":[{\"response_range\":{\"kvs\":[{\"key\":\"%\"}]}}]}"}) {
    EXPECT_FALSE(parse_txn(text).has_value()) << text;
  }
  const std::string deep = std::string(200'000, '[');
  EXPECT_FALSE(parse_txn(deep).has_value());
  EXPECT_FALSE(parse_watch("{\"result\":{\"header\":{},\"events\":[{}]}}").has_value());
  EXPECT_FALSE(parse_token("{\"token\":\"a\\r\\nX-Evil: 1\"}").has_value());
  EXPECT_FALSE(parse_token("{\"token\":\"\"}").has_value());
}

TEST(EtcdWire, AWatchSaysWhatItSawAndWhyItEnded) {
  auto line = parse_watch(
      R"({"result":{"header":{"revision":"20"},"events":[{"kv":{"key":"YQ==","mod_revision":"18"}},
      {"type":"DELETE","kv":{"key":"YQ==","mod_revision":"19"}}]}})");
  ASSERT_TRUE(line.has_value());
  EXPECT_EQ(line->last_change, 19u);
  line = parse_watch(R"({"result":{"header":{},"canceled":true,"compact_revision":"7"}})");
  ASSERT_TRUE(line.has_value());
  EXPECT_TRUE(line->canceled);
  EXPECT_EQ(line->compacted, 7u);
  line = parse_watch(R"({"error":{"grpc_code":14,"message":"etcdserver: no leader"}})");
  ASSERT_TRUE(line.has_value());
  EXPECT_TRUE(line->canceled);
  EXPECT_EQ(line->reason, "etcdserver: no leader");
}

TEST(EtcdWire, RefusalsSayWhetherAnotherAttemptCanHelp) {
  const auto refusal = [](int status, const char* body) {
    return parse_failure(status, body).refusal;
  };
  EXPECT_EQ(refusal(503, R"({"error":"etcdserver: no leader","code":14})"), Refusal::kElsewhere);
  EXPECT_EQ(refusal(401, R"({"message":"etcdserver: invalid auth token","code":16})"),
            Refusal::kToken);
  EXPECT_EQ(refusal(400, R"({"error":"etcdserver: user name is empty","code":3})"),
            Refusal::kToken);
  EXPECT_EQ(refusal(403, R"({"error":"etcdserver: permission denied","code":7})"), Refusal::kFinal);
  EXPECT_EQ(refusal(400, R"({"error":"etcdserver: request is too large","code":3})"),
            Refusal::kFinal);
  EXPECT_EQ(refusal(404, "not found"), Refusal::kElsewhere);
  // These may come after the proposal was made.
  EXPECT_EQ(refusal(503, R"({"error":"etcdserver: request timed out","code":14})"),
            Refusal::kUnclear);
  EXPECT_EQ(refusal(503, R"({"error":"etcdserver: leader changed","code":14})"), Refusal::kUnclear);
  EXPECT_EQ(refusal(500, "<html>"), Refusal::kUnclear);
  EXPECT_EQ(refusal(503, R"({"error":"transport is closing","code":14})"), Refusal::kUnclear);
}

TEST(EtcdWire, AForeignServersMessageStaysOneShortLine) {
  const auto failure = parse_failure(500, json{{"error", std::string(5000, '\n')}}.dump());
  EXPECT_LE(failure.message.size(), 300u);
  EXPECT_EQ(failure.message.find('\n'), std::string::npos);
}

}  // namespace
}  // namespace bascule::store::etcd
