#include "proxy/topology.h"

#include <gtest/gtest.h>

namespace bascule::proxy {
namespace {

ServerSpec spec(const std::string& name, ServerRole role = ServerRole::kAuto) {
  return {
      .name = name, .endpoint = {name, 5432}, .role = role, .region = {}, .weight = 1, .tags = {}};
}
ServerSeen primary(uint64_t lsn, uint32_t timeline = 1) {
  return {.in_recovery = false,
          .lsn = Lsn{lsn},
          .timeline = Timeline{timeline},
          .system_id = "1",
          .round_trip = 1ms};
}
ServerSeen standby(uint64_t lsn, const std::string& system = "1") {
  return {.in_recovery = true,
          .lsn = Lsn{lsn},
          .timeline = Timeline{1},
          .system_id = system,
          .round_trip = 1ms};
}
MonoTime at(Nanos t) { return MonoTime(t); }

TEST(StaticTopology, TheOneThatIsNoStandbyIsThePrimary) {
  StaticTopology topology({spec("a"), spec("b"), spec("c")});
  const auto first = topology.changed(at(0s));
  ASSERT_TRUE(first);
  EXPECT_FALSE(first->primary);
  EXPECT_NE(first->reason.find("a is not asked yet"), std::string::npos);
  topology.seen(0, standby(90), at(1s));
  topology.seen(1, primary(100), at(1s));
  topology.failed(2, "connection refused");
  const auto table = topology.changed(at(1s));
  ASSERT_TRUE(table && table->primary);
  EXPECT_EQ(table->primary->name, "b");
  ASSERT_EQ(table->replicas.size(), 1u);
  EXPECT_EQ(table->replicas[0].name, "a");
  EXPECT_EQ(table->replicas[0].lag_bytes, 10u);
  EXPECT_EQ(table->replicas[0].latency, 1ms);
  EXPECT_FALSE(topology.changed(at(1s)));
}

TEST(StaticTopology, APromotionIsANewEpoch) {
  StaticTopology topology({spec("a"), spec("b")});
  topology.seen(0, primary(100), at(1s));
  topology.seen(1, standby(100), at(1s));
  const Epoch before = topology.changed(at(1s))->epoch;
  for (int i = 0; i < StaticTopology::kFailuresMax; ++i) topology.failed(0, "refused");
  EXPECT_FALSE(topology.changed(at(2s))->primary);
  topology.seen(1, primary(100, 2), at(3s));
  const auto after = topology.changed(at(3s));
  ASSERT_TRUE(after && after->primary);
  EXPECT_EQ(after->primary->name, "b");
  EXPECT_GT(after->epoch, before);
}

TEST(StaticTopology, AFewFailedQuestionsAreNoOutage) {
  StaticTopology topology({spec("a"), spec("b")});
  topology.seen(0, primary(100), at(1s));
  topology.seen(1, standby(100), at(1s));
  ASSERT_TRUE(topology.changed(at(1s)));
  topology.failed(0, "time-out");
  topology.failed(1, "time-out");
  EXPECT_FALSE(topology.changed(at(2s)));
}

TEST(StaticTopology, AFormerPrimaryThatComesBackIsNotFollowed) {
  StaticTopology topology({spec("a"), spec("b")});
  topology.seen(0, primary(500, 1), at(1s));
  topology.seen(1, primary(400, 2), at(1s));
  const auto table = topology.changed(at(1s));
  ASSERT_TRUE(table && table->primary);
  EXPECT_EQ(table->primary->name, "b");
  EXPECT_TRUE(table->replicas.empty());
}

TEST(StaticTopology, TwoPrimariesOnOneTimelineAreForAPersonToSort) {
  StaticTopology topology({spec("a"), spec("b")});
  topology.seen(0, primary(500), at(1s));
  topology.seen(1, primary(400), at(1s));
  const auto table = topology.changed(at(1s));
  ASSERT_TRUE(table);
  EXPECT_FALSE(table->primary);
  EXPECT_NE(table->reason.find("two servers are primary"), std::string::npos);
}

TEST(StaticTopology, AServerOfAnotherClusterIsLeftOut) {
  StaticTopology topology({spec("a"), spec("b")});
  topology.seen(0, primary(500), at(1s));
  topology.seen(1, standby(500, "2"), at(1s));
  EXPECT_TRUE(topology.changed(at(1s))->replicas.empty());
}

TEST(StaticTopology, RolesThatAreGivenNeedNoQuestions) {
  StaticTopology topology({spec("a", ServerRole::kPrimary), spec("b", ServerRole::kReplica)});
  const auto table = topology.changed(at(0s));
  ASSERT_TRUE(table && table->primary);
  EXPECT_EQ(table->primary->name, "a");
  ASSERT_EQ(table->replicas.size(), 1u);
  // Once it is asked, it must answer.
  for (int i = 0; i < StaticTopology::kFailuresMax; ++i) topology.failed(1, "refused");
  EXPECT_TRUE(topology.changed(at(1s))->replicas.empty());
}

TEST(StaticTopology, LagInTimeIsMeasuredAgainstThePrimarysPast) {
  StaticTopology topology({spec("a"), spec("b")});
  topology.seen(0, primary(100), at(1s));
  topology.seen(1, standby(100), at(1s));
  ASSERT_TRUE(topology.changed(at(1s)));
  for (int s = 2; s <= 9; ++s)
    topology.seen(0, primary(100 + 10 * static_cast<uint64_t>(s)), at(s * 1s));
  topology.seen(1, standby(100), at(9s));
  const auto table = topology.changed(at(9s));
  ASSERT_TRUE(table);
  EXPECT_EQ(table->replicas[0].lag_time, 8s);
}

TEST(StaticTopology, NonsenseIsRefused) {
  EXPECT_FALSE(StaticTopology::validate({}));
  EXPECT_FALSE(StaticTopology::validate({spec("a"), spec("a")}));
  EXPECT_FALSE(
      StaticTopology::validate({spec("a", ServerRole::kPrimary), spec("b", ServerRole::kPrimary)}));
  EXPECT_TRUE(StaticTopology::validate({spec("a"), spec("b")}));
}

}  // namespace
}  // namespace bascule::proxy
