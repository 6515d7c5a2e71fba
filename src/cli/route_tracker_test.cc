#include "cli/route_tracker.h"

#include <gtest/gtest.h>

namespace bascule::cli {
namespace {

using control::ClusterView;
using control::LeaderPhase;

NodeName name(const char* text) { return NodeName::parse(text).value(); }
MonoTime at(Nanos t) { return MonoTime(t); }

ClusterView view_of(LeaderPhase phase, control::Revision revision, uint64_t epoch = 3) {
  ClusterView view;
  control::LeaderRecord leader;
  if (phase != LeaderPhase::kVacant) leader.holder = name("n1");
  leader.epoch = Epoch{epoch};
  leader.timeline = Timeline{4};
  leader.phase = phase;
  leader.ttl = 5s;
  leader.why = "n1 died";
  view.leader = {leader, revision};
  view.leader_revision = revision;
  for (const char* who : {"n1", "n2", "n3"}) {
    control::MemberRecord member;
    member.name = name(who);
    member.host = "127.0.0.1";
    member.port = 5430 + (who[1] - '0');
    member.state = who == std::string("n1") ? "running" : "streaming";
    member.timeline = Timeline{4};
    view.members[member.name] = member;
  }
  return view;
}

TEST(MakeRouteTable, OnlyARunningLeaderIsTheWritersPrimary) {
  const auto open = make_route_table(view_of(LeaderPhase::kRunning, 1));
  ASSERT_TRUE(open.primary);
  EXPECT_EQ(open.primary->endpoint, (env::Endpoint{"127.0.0.1", 5431}));
  EXPECT_EQ(open.epoch, Epoch{3});
  EXPECT_EQ(open.state, proxy::RouteState::kOpen);
  for (LeaderPhase phase :
       {LeaderPhase::kPreparing, LeaderPhase::kStopping, LeaderPhase::kVacant}) {
    const auto table = make_route_table(view_of(phase, 1));
    EXPECT_FALSE(table.primary) << to_string(phase);
    EXPECT_FALSE(table.reason.empty()) << to_string(phase);
  }
  const auto draining = make_route_table(view_of(LeaderPhase::kDraining, 1));
  EXPECT_TRUE(draining.primary);
  EXPECT_EQ(draining.state, proxy::RouteState::kDraining);
}

TEST(MakeRouteTable, WithoutALeaderRecordStatementsWait) {
  const auto table = make_route_table(ClusterView{});
  EXPECT_FALSE(table.primary);
  EXPECT_EQ(table.epoch, Epoch{0});
}

TEST(MakeRouteTable, ALeaderWithoutAnAddressIsNotAPrimary) {
  ClusterView view = view_of(LeaderPhase::kRunning, 1);
  view.members[name("n1")].port = 70000;
  EXPECT_FALSE(make_route_table(view).primary);
  view.members.erase(name("n1"));
  EXPECT_FALSE(make_route_table(view).primary);
}

TEST(MakeRouteTable, NobodyIsLedToAReplicaThatIsTaggedNoloadbalance) {
  ClusterView view = view_of(LeaderPhase::kRunning, 1);
  view.members[name("n2")].tags.noloadbalance = true;
  const auto table = make_route_table(view);
  ASSERT_EQ(table.replicas.size(), 1u);
  EXPECT_EQ(table.replicas[0].endpoint, (env::Endpoint{"127.0.0.1", 5433}));
  view.members[name("n1")].tags.noloadbalance = true;
  EXPECT_TRUE(make_route_table(view).primary) << "it is about reading";
}

TEST(MakeRouteTable, ReplicasStreamOnTheLeadersTimeline) {
  ClusterView view = view_of(LeaderPhase::kRunning, 1);
  EXPECT_EQ(make_route_table(view).replicas.size(), 2u);
  view.members[name("n2")].timeline = Timeline{3};
  view.members[name("n3")].state = "cloning";
  EXPECT_TRUE(make_route_table(view).replicas.empty());
}

TEST(RouteTracker, TheFirstReadGivesNoPermit) {
  RouteTracker tracker;
  const auto change = tracker.on_read(view_of(LeaderPhase::kRunning, 7), at(100s));
  ASSERT_TRUE(change.publish);
  EXPECT_LE(change.publish->permit_until, at(100s));
}

TEST(RouteTracker, ARenewalSeenSoonExtendsByFenceAfter) {
  RouteTracker tracker;
  tracker.on_read(view_of(LeaderPhase::kRunning, 7), at(100s));
  const auto change = tracker.on_read(view_of(LeaderPhase::kRunning, 8), at(100s + 900ms));
  EXPECT_FALSE(change.publish);
  EXPECT_EQ(change.extend, at(100s + 900ms + 3s));
}

TEST(RouteTracker, AReadThatShowsNoChangeExtendsNothing) {
  RouteTracker tracker;
  tracker.on_read(view_of(LeaderPhase::kRunning, 7), at(100s));
  tracker.on_read(view_of(LeaderPhase::kRunning, 8), at(101s));
  const auto change = tracker.on_read(view_of(LeaderPhase::kRunning, 8), at(102s));
  EXPECT_FALSE(change.publish);
  EXPECT_FALSE(change.extend);
}

// The proxy was stopped for a minute; the change it sees then may be nearly a minute old, and the
// next leader may take over in the next moment.
TEST(RouteTracker, AfterAPauseAnOldRenewalGivesNoFreshPermit) {
  RouteTracker tracker;
  tracker.on_read(view_of(LeaderPhase::kRunning, 7), at(100s));
  const auto change = tracker.on_read(view_of(LeaderPhase::kRunning, 8), at(160s));
  ASSERT_TRUE(change.extend);
  EXPECT_EQ(*change.extend, at(100s + 1s + 3s));
}

TEST(RouteTracker, ANewEpochIsPublishedWithAPermitOfItsOwn) {
  RouteTracker tracker;
  tracker.on_read(view_of(LeaderPhase::kRunning, 7), at(100s));
  tracker.on_read(view_of(LeaderPhase::kVacant, 8), at(100s + 10ms));
  tracker.on_read(view_of(LeaderPhase::kPreparing, 9, 4), at(100s + 200ms));
  const auto change = tracker.on_read(view_of(LeaderPhase::kRunning, 10, 4), at(100s + 300ms));
  ASSERT_TRUE(change.publish);
  EXPECT_EQ(change.publish->epoch, Epoch{4});
  EXPECT_EQ(change.publish->permit_until, at(100s + 300ms + 3s));
}

TEST(RouteTracker, AStoreThatWentBackDoesNotTurnClientsToAnEarlierPrimary) {
  RouteTracker tracker;
  tracker.on_read(view_of(LeaderPhase::kRunning, 7, 4), at(100s));
  const auto change = tracker.on_read(view_of(LeaderPhase::kRunning, 5, 3), at(101s));
  EXPECT_FALSE(change.publish);
  EXPECT_FALSE(change.extend);
}

TEST(RouteTracker, LagIsPublishedWhenItHasGrownMuch) {
  RouteTracker tracker;
  ClusterView view = view_of(LeaderPhase::kRunning, 1);
  view.leader->value.flush_lsn = Lsn{1 << 20};
  for (auto& [who, member] : view.members) member.flush_lsn = member.replay_lsn = Lsn{1 << 20};
  ASSERT_TRUE(tracker.on_read(view, at(1s)).publish);
  view.leader->value.flush_lsn = Lsn{(1 << 20) + 1000};
  EXPECT_FALSE(tracker.on_read(view, at(2s)).publish);  // a little
  view.leader->value.flush_lsn = Lsn{64 << 20};
  view.members.at(name("n2")).flush_lsn = view.members.at(name("n2")).replay_lsn = Lsn{64 << 20};
  view.members.at(name("n3")).region = "eu";
  const auto change = tracker.on_read(view, at(9s));
  ASSERT_TRUE(change.publish);
  EXPECT_EQ(change.publish->replicas[0].lag_time, 0s);
  EXPECT_EQ(change.publish->replicas[1].lag_time, 8s);
  EXPECT_GT(change.publish->replicas[1].lag_bytes, 60u << 20);
  EXPECT_EQ(change.publish->replicas[1].region, "eu");
}

}  // namespace
}  // namespace bascule::cli
