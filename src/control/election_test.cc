#include "control/election.h"

#include <gtest/gtest.h>

#include "control/history.h"

namespace bascule::control {
namespace {

NodeName name(std::string_view text) { return *NodeName::parse(text); }
Position at(uint32_t timeline, uint64_t lsn) { return {Timeline{timeline}, Lsn{lsn}}; }

HistoryRecord forked(uint64_t epoch, uint64_t parent, uint32_t timeline, Position fork) {
  HistoryRecord h;
  h.epoch = Epoch{epoch};
  h.parent_epoch = Epoch{parent};
  h.timeline = Timeline{timeline};
  h.fork = fork;
  return h;
}

class ElectionTest : public ::testing::Test {
 protected:
  ElectionTest() {
    view.leader = Versioned<LeaderRecord>{{}, 10};
    view.leader->value.epoch = Epoch{1};
    view.leader->value.why = "test";
    view.leader_revision = 10;
    view.roster = Versioned<RosterRecord>{{{name("a"), name("b"), name("c")}}, 3};
    view.history[Epoch{1}] = forked(1, 0, 1, {});
    view.config = Versioned<ClusterConfig>{{}, 2};
  }
  void ballot(std::string_view member, Position position, Epoch led = {}, Revision answers = 10) {
    Ballot b;
    b.member = name(member);
    b.answers = answers;
    b.position = position;
    b.sync_name = std::string(member) + "_1";
    b.led_epoch = led;
    view.ballots[b.member] = {b, 11};
    MemberRecord m;
    m.name = b.member;
    m.sync_name = b.sync_name;
    view.members.emplace(m.name, m);
  }
  void generation(uint64_t epoch, std::string_view leader, std::vector<std::string> voters) {
    if (!view.sync) view.sync = Versioned<SyncRecord>{{}, 5};
    const size_t q = voters.size();
    view.sync->value.generations.push_back(
        {Epoch{epoch}, name(leader), std::string(leader) + "_1", std::move(voters), q});
  }
  bool safe(std::string_view member) {
    for (const Candidate& c : elect(view).ranking) {
      if (c.name == name(member)) return c.safe;
    }
    return false;
  }
  ClusterView view;
};

TEST_F(ElectionTest, OnlyTheRecordedVoterOrTheOldLeaderIsSafe) {
  generation(1, "a", {"b_1"});
  ballot("a", at(1, 300), Epoch{1});
  ballot("b", at(1, 200));
  ballot("c", at(1, 250));
  EXPECT_TRUE(safe("a"));
  EXPECT_TRUE(safe("b"));
  EXPECT_TRUE(safe("c")) << "at least as advanced as the voter, which has everything";
  view.ballots.at(name("c")).value.position = at(1, 199);
  EXPECT_FALSE(safe("c"));
}

TEST_F(ElectionTest, WhoMayNotLeadGoesOnAsTheLeaderItWasForcedToBeIfNobodyElseCan) {
  view.leader->value.epoch = Epoch{2};
  view.history[Epoch{2}] = forked(2, 1, 2, at(1, 150));
  view.history[Epoch{2}].leader = name("c");
  ballot("c", at(2, 200));
  view.members.at(name("c")).nofailover = true;
  ballot("a", at(1, 180));
  EXPECT_FALSE(safe("c"));
  view.history[Epoch{2}].trigger = "forced";
  EXPECT_TRUE(safe("c"));
  EXPECT_FALSE(safe("a")) << "beyond the fork";
  ballot("b", at(1, 140));
  const Election e = elect(view);
  EXPECT_EQ(e.ranking[0].name, name("b")) << "anybody who may lead goes before it";
  EXPECT_EQ(e.ranking[0].fetch_from, name("c"));
}

// ADR 0027: its leader died before it could record how timeline 2 began.
class UnrecordedOriginTest : public ElectionTest {
 protected:
  UnrecordedOriginTest() {
    view.leader->value.epoch = Epoch{2};
    view.leader->value.phase = LeaderPhase::kPreparing;
    view.history[Epoch{2}] = forked(2, 1, 2, at(1, 150));
    view.history[Epoch{2}].leader = name("a");
    view.leader->value.holder = name("a");
  }
  void ballot_of(std::string_view member, Position position, Origin origin) {
    ballot(member, position);
    view.ballots.at(name(member)).value.origin = origin;
  }
};

TEST_F(UnrecordedOriginTest, TheLeadersOwnBallotTellsHowItsTimelineBegan) {
  ballot_of("a", at(2, 200), {Lsn{160}, 1});
  ballot_of("b", at(2, 190), {Lsn{160}, 1});
  ballot_of("c", at(2, 900), {Lsn{160}, 2});
  EXPECT_TRUE(safe("a"));
  EXPECT_TRUE(safe("b"));
  EXPECT_FALSE(safe("c")) << "promoted by somebody else";
}

TEST_F(UnrecordedOriginTest, WithoutItTwoThatContradictEachOtherAreNeitherOfThemBelieved) {
  ballot_of("b", at(2, 190), {Lsn{160}, 1});
  EXPECT_TRUE(safe("b"));
  ballot_of("c", at(2, 900), {Lsn{160}, 2});
  EXPECT_FALSE(safe("b"));
  EXPECT_FALSE(safe("c"));
}

TEST_F(UnrecordedOriginTest, WithoutItWhatBeganBeforeTheForkIsNotBelieved) {
  ballot_of("c", at(2, 900), {Lsn{120}, 2});
  ballot_of("b", at(1, 150), {});
  EXPECT_FALSE(safe("c")) << "it lacks what the leader had when it was elected";
  EXPECT_TRUE(safe("b"));
}

TEST_F(ElectionTest, WithoutTheVotersBallotNobodyElseIsSafe) {
  generation(1, "a", {"b_1"});
  ballot("c", at(1, 999));
  EXPECT_FALSE(safe("c"));
}

TEST_F(ElectionTest, RebuiltVoterDoesNotCount) {
  generation(1, "a", {"b_0"});  // an earlier incarnation
  ballot("b", at(1, 200));
  EXPECT_FALSE(safe("b"));
}

TEST_F(ElectionTest, WhileTheSetChangesBothVotersMustAnswer) {
  generation(1, "a", {"b_1", "c_1"});
  ballot("b", at(1, 200));
  EXPECT_FALSE(safe("b"));
  ballot("c", at(1, 300));
  EXPECT_FALSE(safe("b"));
  EXPECT_TRUE(safe("c"));
}

TEST_F(ElectionTest, AloneMeansOnlyTheOldLeader) {
  generation(1, "a", {});
  ballot("b", at(1, 500));
  ballot("a", at(1, 500), Epoch{1});
  EXPECT_FALSE(safe("b"));
  EXPECT_TRUE(safe("a"));
}

TEST_F(ElectionTest, StaleBallotIsVoid) {
  generation(1, "a", {"b_1"});
  ballot("b", at(1, 200), {}, 9);
  EXPECT_TRUE(elect(view).ranking.empty());
}

TEST_F(ElectionTest, WalBeyondARecordedForkIsDiverged) {
  view.leader->value.epoch = Epoch{2};
  view.history[Epoch{2}] = forked(2, 1, 2, at(1, 400));
  generation(2, "b", {"c_1"});
  ballot("a", at(1, 401), Epoch{1});
  ballot("c", at(1, 400));
  EXPECT_FALSE(safe("a"));
  EXPECT_TRUE(safe("c"));
}

TEST_F(ElectionTest, WhoHasEverythingUpToALaterForkIsSafeThoughNothingWasWrittenBehindIt) {
  // The old leader stopped cleanly, c took over for that and could not be promoted.
  view.leader->value.epoch = Epoch{2};
  view.history[Epoch{2}] = forked(2, 1, 2, at(1, 400));
  generation(1, "a", {"b_1"});
  generation(2, "c", {"b_1"});
  ballot("c", at(1, 400), Epoch{});
  EXPECT_TRUE(safe("c"));
  view.ballots.at(name("c")).value.position = at(1, 399);
  EXPECT_FALSE(safe("c")) << "the voter of epoch 1 may have more";
}

TEST_F(ElectionTest, EveryGenerationMustBeSafe) {
  view.leader->value.epoch = Epoch{2};
  view.history[Epoch{2}] = forked(2, 1, 2, at(1, 400));
  generation(1, "a", {"b_1"});
  generation(2, "b", {"c_1"});
  ballot("c", at(1, 390));  // it never came beyond the fork
  EXPECT_FALSE(safe("c")) << "what b acknowledged for epoch 1 may be missing";
  view.ballots.at(name("c")).value.position = at(2, 410);
  EXPECT_TRUE(safe("c")) << "beyond the fork it has all of epoch 1";
}

TEST_F(ElectionTest, CleanFinalPositionMakesWhoeverHasItSafeAndTheNamedSuccessorFirst) {
  generation(1, "a", {"b_1"});
  view.leader->value.final_position = at(1, 500);
  view.leader->value.handover_to = name("c");
  ballot("b", at(1, 500));
  ballot("c", at(1, 500));
  const Election e = elect(view);
  ASSERT_EQ(e.rank_of(name("c")), 0u) << e.summary;
  EXPECT_EQ(e.rank_of(name("b")), 1u);
  view.ballots.at(name("c")).value.position = at(1, 499);
  EXPECT_FALSE(elect(view).rank_of(name("c")));
}

TEST_F(ElectionTest, AsynchronousLagBeyondTheLimitIsNotPromoted) {
  ballot("b", at(1, 500));
  ballot("c", at(1, 600));
  EXPECT_EQ(elect(view).rank_of(name("c")), 0u);
  view.ballots.at(name("b")).value.receiver_lag_bytes = 1ull << 40;
  EXPECT_FALSE(safe("b"));
}

TEST_F(ElectionTest, NofailoverAndStrangersMayNotLead) {
  ballot("b", at(1, 500));
  view.members.at(name("b")).nofailover = true;
  EXPECT_FALSE(safe("b"));
  ballot("d", at(1, 500));
  EXPECT_FALSE(safe("d"));
}

TEST(HistoryTest, LineSkipsEpochsThatNobodyDescendsFrom) {
  std::map<Epoch, HistoryRecord> h;
  h[Epoch{1}] = forked(1, 0, 1, {});
  h[Epoch{2}] = forked(2, 1, 2, at(1, 100));  // never promoted
  h[Epoch{3}] = forked(3, 1, 3, at(1, 150));
  const Lineage line = lineage(h, Epoch{3});
  ASSERT_EQ(line.size(), 2u);
  EXPECT_TRUE(place(line, at(1, 150)));
  EXPECT_FALSE(place(line, at(1, 151)));
  EXPECT_FALSE(place(line, at(2, 120)));
  EXPECT_LT(*place(line, at(1, 150)), *place(line, at(3, 150)));
  EXPECT_EQ(next_timeline(h, Timeline{1}), Timeline{4});
  EXPECT_FALSE(place(line, Position{}));
}

// A standby that lagged was promoted by hand, to the id that the cluster's next leader took as
// well.
TEST(HistoryTest, ATimelineOfTheSameIdThatBeganElsewhereIsNotOnTheLine) {
  std::map<Epoch, HistoryRecord> h;
  h[Epoch{1}] = forked(1, 0, 1, {});
  h[Epoch{2}] = forked(2, 1, 2, at(1, 150));
  const Position below = at(2, 120), beyond = at(2, 300);
  EXPECT_TRUE(place(lineage(h, Epoch{2}), below)) << "nothing is known of the promotion";
  h[Epoch{2}].origin = {Lsn{150}, 7};
  const Lineage line = lineage(h, Epoch{2});
  EXPECT_FALSE(place(line, below));
  EXPECT_TRUE(place(line, beyond)) << "its own history is not known";
  EXPECT_TRUE(place(line, beyond, {Lsn{150}, 7}));
  EXPECT_TRUE(place(line, beyond, {Lsn{150}, 0})) << "the first WAL is gone";
  EXPECT_FALSE(place(line, beyond, {Lsn{100}, 0}));
  EXPECT_FALSE(place(line, beyond, {Lsn{150}, 8})) << "from the same position, by two promotions";
}

// An archive had more than the winner's ballot said, or its ballot ended within a record.
TEST(HistoryTest, WhatPostgresqlSaysOfTheForkCounts) {
  std::map<Epoch, HistoryRecord> h;
  h[Epoch{1}] = forked(1, 0, 1, {});
  h[Epoch{2}] = forked(2, 1, 2, at(1, 150));
  h[Epoch{2}].origin = {Lsn{180}, 1};
  EXPECT_TRUE(place(lineage(h, Epoch{2}), at(1, 180)));
  EXPECT_FALSE(place(lineage(h, Epoch{2}), at(1, 181)));
  EXPECT_EQ(left_at(lineage(h, Epoch{2}), 0).lsn, Lsn{150}) << "so much was promised";
  h[Epoch{2}].origin.at = Lsn{140};
  EXPECT_TRUE(place(lineage(h, Epoch{2}), at(1, 150))) << "received, and no whole record";
  EXPECT_TRUE(place(lineage(h, Epoch{2}), at(2, 145)));
}

// ---- forced ------------------------------------------------------------------------------------

class ForcedTest : public ElectionTest {
 protected:
  ForcedTest() {
    view.leader->value.holder = name("a");
    view.leader->value.phase = LeaderPhase::kRunning;  // silent, and perhaps in failsafe
    force({});
  }
  void force(std::string_view confirmed) {
    RequestRecord r{"r", RequestKind::kFailover, name("c"), true, !confirmed.empty(), "", "", ""};
    view.request = Versioned<RequestRecord>{r, 12};
  }
};

TEST_F(ForcedTest, WaitsWhileTheVoterMayHavePledgedToTheOldLeader) {
  generation(1, "a", {"b_1"});
  ballot("c", at(1, 50));
  EXPECT_FALSE(safe("c"));
  EXPECT_NE(elect(view).summary.find("--old-primary-is-dead"), std::string::npos);
  ballot("b", at(1, 100));  // who is bound has no ballot
  EXPECT_TRUE(safe("c"));
}

TEST_F(ForcedTest, NeedsBallotsOfAsManyVotersAsAnElection) {
  generation(1, "a", {"b_1", "c_1", "d_1"});
  view.sync->value.generations[0].quorum = 2;
  ballot("c", at(1, 50));
  EXPECT_FALSE(safe("c"));
  ballot("d", at(1, 10));
  EXPECT_TRUE(safe("c"));
}

TEST_F(ForcedTest, GoesOnWhenAPersonSaysThatTheOldPrimaryIsDead) {
  generation(1, "a", {"b_1"});
  ballot("c", at(1, 50));
  force("dead");
  EXPECT_TRUE(safe("c"));
}

TEST_F(ForcedTest, GoesOnWhenTheOldLeaderHasReleasedTheRecord) {
  generation(1, "a", {"b_1"});
  ballot("c", at(1, 50));
  view.leader->value.phase = LeaderPhase::kVacant;
  EXPECT_TRUE(safe("c"));
}

// What the force gives up is given up only where it is needed: the promises stay.
TEST_F(ForcedTest, WhoIsSafeAnywayIsNotForcedAndGoesFirst) {
  generation(1, "a", {"b_1"});
  view.leader->value.phase = LeaderPhase::kVacant;
  view.request->value.candidate = {};
  ballot("c", at(1, 80));
  ballot("b", at(1, 90));
  const Election e = elect(view);
  ASSERT_EQ(e.ranking.size(), 2u);
  EXPECT_EQ(e.ranking[0].name, name("b"));
  EXPECT_FALSE(e.ranking[0].by_force);
  EXPECT_TRUE(e.ranking[1].safe && e.ranking[1].by_force);
  view.request->value.candidate = name("c");
  const Election named = elect(view);
  EXPECT_EQ(named.ranking[0].name, name("c"));
  EXPECT_TRUE(named.ranking[0].by_force);
  EXPECT_FALSE(named.ranking[1].by_force);
}

TEST_F(ForcedTest, AsynchronousOneBallotOfTheRosterIsEnough) {
  view.config->value.maximum_lag_bytes = 0;
  view.leader->value.flush_lsn = Lsn{1000};
  ballot("c", at(1, 50));
  EXPECT_TRUE(safe("c"));
  view.roster->value.members = {name("a"), name("b")};
  EXPECT_FALSE(safe("c"));  // nobody asks for its pledge
}

TEST_F(ElectionTest, WalOfAMemberThatMayNotLeadIsToBeFetchedFirst) {
  view.config->value.maximum_lag_bytes = 50;
  view.leader->value.flush_lsn = Lsn{300};
  ballot("a", at(1, 260));
  ballot("b", at(1, 200));
  ballot("c", at(1, 300));
  view.members.at(name("c")).nofailover = true;
  const Election e = elect(view);
  ASSERT_EQ(e.ranking.size(), 3u);
  EXPECT_EQ(e.ranking[0].name, name("a"));
  EXPECT_EQ(e.ranking[0].fetch_from, name("c"));
  EXPECT_FALSE(e.ranking[1].safe && e.ranking[2].safe);
  for (const Candidate& candidate : e.ranking) {
    if (candidate.name == name("b")) {
      EXPECT_EQ(candidate.fetch_from, name("c")) << "what it lags is what it would fetch";
    }
    if (candidate.name == name("c")) {
      EXPECT_TRUE(candidate.fetch_from.empty());
    }
  }
}

// The record is older than the last WAL of a primary whose disk hung; its own ballot is not.
TEST_F(ElectionTest, AsynchronousLagIsMeasuredAgainstBallotsToo) {
  view.config->value.maximum_lag_bytes = 50;
  view.leader->value.flush_lsn = Lsn{250};
  ballot("b", at(1, 210));
  EXPECT_TRUE(safe("b"));
  ballot("a", at(1, 261));
  EXPECT_FALSE(safe("b"));
  EXPECT_TRUE(safe("a"));
  ballot("a", at(1, 260));
  EXPECT_TRUE(safe("b"));
  ballot("a", at(7, 900));
  EXPECT_TRUE(safe("b")) << "who has diverged has nothing that could be kept";
}

// ---- preferences: nothing is lost by them
// --------------------------------------------------------

TEST_F(ElectionTest, OfEqualsPriorityDecidesThenTheName) {
  ballot("a", at(1, 100));
  ballot("b", at(1, 100));
  ballot("c", at(1, 99));
  EXPECT_EQ(elect(view).ranking.front().name, name("a"));
  view.members.at(name("b")).priority = 107;
  view.members.at(name("c")).priority = 109;
  EXPECT_EQ(elect(view).ranking.front().name, name("b")) << "and more WAL goes before priority";
}

TEST_F(ElectionTest, TheRegionOfTheLastLeaderGoesBeforePriorityAlsoWhenItHasReleasedTheRecord) {
  ballot("a", at(1, 100));
  ballot("b", at(1, 100));
  ballot("c", at(1, 100));
  view.history.at(Epoch{1}).leader = name("c");
  view.ballots.erase(name("c"));
  view.members.at(name("c")).region = "east";
  view.members.at(name("b")).region = "east";
  view.members.at(name("a")).region = "west";
  view.members.at(name("a")).priority = 109;
  view.leader->value.phase = LeaderPhase::kVacant;
  EXPECT_EQ(elect(view).ranking.front().name, name("b"));
}

TEST_F(ElectionTest, ThePrimaryRegionGoesBeforeWalOnlyWhereCommitsWereWaitedFor) {
  ballot("a", at(1, 200));
  ballot("b", at(1, 150));
  view.members.at(name("b")).region = "home";
  view.config->value.primary_region = "home";
  EXPECT_EQ(elect(view).ranking.front().name, name("a"));
  generation(1, "c", {"b_1"});
  EXPECT_EQ(elect(view).ranking.front().name, name("b"));
  view.sync->value.generations[0].voters = {"a_1", "b_1"};
  view.sync->value.generations[0].quorum = 1;
  EXPECT_FALSE(safe("b")) << "a voter has more";
}

TEST_F(ElectionTest, NothingIsFetchedFromWhoMayLeadOrWhereCommitsWereWaitedFor) {
  ballot("a", at(1, 200));
  ballot("b", at(1, 300));
  ballot("c", at(1, 250));
  for (const Candidate& c : elect(view).ranking) EXPECT_TRUE(c.fetch_from.empty());
  view.members.at(name("c")).nofailover = true;
  for (const Candidate& c : elect(view).ranking) {
    EXPECT_EQ(c.fetch_from, c.name == name("a") ? name("c") : NodeName());
  }
  generation(1, "x", {"a_1"});
  for (const Candidate& c : elect(view).ranking) EXPECT_TRUE(c.fetch_from.empty());
}

TEST_F(ElectionTest, AVoidBallotElectsNobodyAndSaysWhy) {
  ballot("a", at(1, 200), {}, 0);
  view.ballots.at(name("a")).value.fetching = 10;
  const Election e = elect(view);
  EXPECT_TRUE(e.ranking.empty());
  EXPECT_EQ(e.fetching, std::vector<NodeName>{name("a")});
  EXPECT_NE(e.summary.find("a fetches WAL first"), std::string::npos) << e.summary;
}

TEST_F(ElectionTest, WithoutRoomForWalNobodyLeadsAndWithoutRoomForDataOthersGoFirst) {
  ballot("a", at(1, 300));
  ballot("b", at(1, 290));
  view.members.at(name("a")).disk_full = DiskFull::kData;
  EXPECT_EQ(elect(view).ranking.front().name, name("b"));
  EXPECT_TRUE(safe("a"));
  view.members.at(name("a")).disk_full = DiskFull::kWal;
  EXPECT_FALSE(safe("a"));
  EXPECT_TRUE(safe("b"));
}

}  // namespace
}  // namespace bascule::control
