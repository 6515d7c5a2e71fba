#include "proxy/routing.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>

namespace bascule::proxy {
namespace {

class RoutingTest : public testing::Test {
 protected:
  RouteMember& add(const std::string& name) {
    members_.push_back(std::make_unique<RouteMember>());
    members_.back()->name = name;
    candidates_.push_back({.member = members_.back().get()});
    return *members_.back();
  }
  Candidate& candidate(const std::string& name) {
    for (Candidate& c : candidates_) {
      if (c.member->name == name) return c;
    }
    std::abort();
  }
  void add_primary(const std::string& name = "p") {
    add(name);
    candidate(name).primary = true;
  }
  std::string once(const ReadRequest& request = {}) {
    const auto chosen = choose(candidates_, policy_, request, prng_);
    return chosen ? candidates_[*chosen].member->name : "nobody";
  }
  // Shares of many draws.
  std::map<std::string, double> shares(const ReadRequest& request = {}) {
    std::map<std::string, double> out;
    for (int i = 0; i < kDraws; ++i) out[once(request)] += 1.0 / kDraws;
    return out;
  }
  static constexpr int kDraws = 50'000;
  RoutingPolicy policy_;
  Prng prng_{1};
  std::vector<std::unique_ptr<RouteMember>> members_;
  std::vector<Candidate> candidates_;
};

TEST_F(RoutingTest, ThePrimaryKeepsItsShare) {
  add_primary();
  add("a");
  add("b");
  for (const double share : {0.0, 0.3, 0.5, 1.0}) {
    policy_.primary_share = share;
    auto got = shares();
    EXPECT_NEAR(got["p"], share, 0.01);
    EXPECT_NEAR(got["a"], (1 - share) / 2, 0.01);
    EXPECT_NEAR(got["b"], (1 - share) / 2, 0.01);
  }
}

TEST_F(RoutingTest, WeightsDivideTheReplicasReads) {
  policy_.primary_share = 0;
  add_primary();
  add("a").weight = 3;
  add("b").weight = 1;
  add("none").weight = 0;
  auto got = shares();
  EXPECT_NEAR(got["a"], 0.75, 0.01);
  EXPECT_NEAR(got["b"], 0.25, 0.01);
  EXPECT_EQ(got["none"], 0);
  EXPECT_EQ(candidate("none").excluded, Exclusion::kNoWeight);
}

TEST_F(RoutingTest, TheLessBusyOneOfTwoIsTaken) {
  policy_.primary_share = 0;
  add("a");
  add("b");
  candidate("a").in_use = 10;
  // Both draws fall on the busy one in a quarter of the cases.
  EXPECT_NEAR(shares()["b"], 0.75, 0.01);
}

TEST_F(RoutingTest, ConnectionsCountByWeight) {
  policy_.primary_share = 0;
  add("a").weight = 10;
  add("b").weight = 1;
  candidate("a").in_use = 20;
  candidate("b").in_use = 3;  // busier for its weight
  EXPECT_GT(shares()["a"], 0.98);
}

TEST_F(RoutingTest, SlowServersGetFewerReads) {
  policy_.primary_share = 0;
  add("near"), add("far"), add("asleep");
  candidate("near").latency = 1ms;
  candidate("far").latency = 4ms;
  candidate("asleep").latency = 1s;
  auto got = shares();
  EXPECT_NEAR(got["near"] / got["far"], 4, 0.5);
  EXPECT_NEAR(got["near"] / got["asleep"], 10, 1.5);  // and keeps some
}

TEST_F(RoutingTest, LatenciesOfALocalNetworkAreAllTheSame) {
  policy_.primary_share = 0;
  add("a"), add("b");
  candidate("a").latency = 40us;
  candidate("b").latency = 190us;
  EXPECT_NEAR(shares()["a"], 0.5, 0.01);
}

TEST_F(RoutingTest, WhoLagsTooMuchIsLeftOutWithTheReason) {
  policy_.lag_bytes_max = 1000;
  policy_.lag_time_max = 5s;
  add_primary();
  add("a").lag_bytes = 1001;
  add("b").lag_time = 6s;
  add("c").healthy = false;
  add("d");
  candidate("d").reachable = false;
  EXPECT_EQ(once(), "p");
  EXPECT_EQ(candidate("a").excluded, Exclusion::kLagBytes);
  EXPECT_EQ(candidate("b").excluded, Exclusion::kLagTime);
  EXPECT_EQ(candidate("c").excluded, Exclusion::kUnhealthy);
  EXPECT_EQ(candidate("d").excluded, Exclusion::kUnreachable);
  members_[1]->lag_bytes = 1000;
  policy_.primary_share = 0;
  EXPECT_EQ(once(), "a");
}

TEST_F(RoutingTest, ASessionReadsWhatItWrote) {
  policy_.primary_share = 0;
  add_primary();
  add("a").replayed = Lsn{100};
  add("b").replayed = Lsn{200};
  add("unknown");
  EXPECT_EQ(shares({.affinity = {}, .min_lsn = Lsn{150}}).size(), 1u);
  EXPECT_EQ(once({.affinity = {}, .min_lsn = Lsn{150}}), "b");
  EXPECT_EQ(candidate("unknown").excluded, Exclusion::kBehind);
  EXPECT_EQ(once({.affinity = "g", .min_lsn = Lsn{250}}), "p");
}

TEST_F(RoutingTest, ReplicasOfTheOwnRegionComeFirst) {
  policy_.region = "eu";
  add_primary();
  members_[0]->region = "us";
  add("near").region = "eu";
  add("far").region = "us";
  EXPECT_EQ(shares().size(), 1u);
  EXPECT_EQ(once(), "near");
  EXPECT_EQ(candidate("p").excluded, Exclusion::kRegion);
  candidate("near").reachable = false;
  auto got = shares();
  EXPECT_NEAR(got["p"], 0.3, 0.01);
  EXPECT_NEAR(got["far"], 0.7, 0.01);
}

TEST_F(RoutingTest, AnOwnRegionWithoutReplicasIsServedByItsPrimary) {
  policy_.region = "eu";
  add_primary();
  members_[0]->region = "eu";
  add("far").region = "us";
  EXPECT_EQ(once(), "p");
}

TEST_F(RoutingTest, TagsAreWantedOfReplicas) {
  policy_.tags = {"analytics"};
  policy_.primary_share = 0;
  add_primary();
  add("a").tags = {"x", "analytics"};
  add("b").tags = {"x"};
  EXPECT_EQ(once(), "a");
  EXPECT_EQ(candidate("b").excluded, Exclusion::kTag);
}

TEST_F(RoutingTest, AKeyStaysOnItsReplica) {
  add_primary();
  add("a"), add("b"), add("c");
  std::map<std::string, int> counts;
  std::map<std::string, std::string> before;
  for (int i = 0; i < 3'000; ++i) {
    const std::string key = "game-" + std::to_string(i);
    before[key] = once({.affinity = key, .min_lsn = {}});
    EXPECT_EQ(once({.affinity = key, .min_lsn = {}}), before[key]);
    ++counts[before[key]];
  }
  for (const auto* name : {"a", "b", "c"}) EXPECT_NEAR(counts[name], 1'000, 100) << name;
  candidate("b").reachable = false;
  for (const auto& [key, server] : before) {
    const std::string now = once({.affinity = key, .min_lsn = {}});
    EXPECT_NE(now, "b");
    if (server != "b") {
      EXPECT_EQ(now, server);
    }
  }
}

TEST_F(RoutingTest, KeysFallByWeight) {
  add("a").weight = 3;
  add("b").weight = 1;
  int a = 0;
  for (int i = 0; i < 4'000; ++i) {
    const std::string key = std::to_string(i);
    a += once({.affinity = key, .min_lsn = {}}) == "a" ? 1 : 0;
  }
  EXPECT_NEAR(a, 3'000, 150);
}

TEST_F(RoutingTest, WithNobodyLeftNobodyIsChosen) {
  EXPECT_EQ(once(), "nobody");
  add("a").healthy = false;
  EXPECT_EQ(once(), "nobody");
  add_primary();
  candidate("p").reachable = false;
  EXPECT_EQ(once(), "nobody");
}

TEST_F(RoutingTest, WithoutAPrimaryReplicasGoOnAnswering) {
  add("a");
  EXPECT_EQ(once(), "a");
}

}  // namespace
}  // namespace bascule::proxy
