// Failsafe and early take-over, as readable examples; the simulation tries them under faults.
#include <gmock/gmock.h>

#include "control/agent_world_test.h"

namespace bascule::control {
namespace {

class NamesakeTest : public AgentTest {};

TEST_F(NamesakeTest, NobodyTakesTheNameOfAMemberThatLives) {
  start_three();
  const int port = world.view().members.at(name("n2")).port;
  const Member& stranger = world.add("n2", {}, "", "stranger");
  world.pass(10s);
  EXPECT_THAT(stranger.ops, testing::IsEmpty());
  EXPECT_EQ(world.view().members.at(name("n2")).port, port);
  EXPECT_THAT(stranger.agent->reason(), testing::HasSubstr("two members can't have one name"));
}

TEST_F(NamesakeTest, AMemberThatHasMovedIsKnownByItsNewAddress) {
  start_three();
  const int port = world.view().members.at(name("n2")).port;
  world.at("n2").exited = true;
  world.add("n2", {}, "", "moved");
  world.pass(5s);
  EXPECT_NE(world.view().members.at(name("n2")).port, port);
}

TEST_F(NamesakeTest, AMemberIsNotItsOwnNamesake) {
  start_three();
  Member& n2 = world.at("n2");
  n2.port += 100;  // as if its host had got another name: what answers at the old one is n2 itself
  restart_agent(n2);
  world.pass(5s);
  EXPECT_EQ(world.view().members.at(name("n2")).port, n2.port);
}

class FailsafeTest : public AgentTest {
 protected:
  void store_outage(Nanos duration) {
    world.store_answers = false;
    world.pass(duration);
  }
  bool leads(std::string_view who) {
    Member& m = world.at(who);
    return m.pg.run == PgRun::kPrimary && m.agent->phase() == Phase::kLeading &&
           m.armed > world.now;
  }
};

TEST_F(FailsafeTest, LeaderGoesOnThroughAStoreOutageWhileItsVoterFollows) {
  start_three();
  store_outage(60s);
  EXPECT_TRUE(leads("n1")) << dump(world.at("n1"));
  EXPECT_TRUE(noted(world.at("n1"), "failsafe"));
  world.store_answers = true;
  world.pass(3s);
  EXPECT_EQ(world.leader(), "n1");
  EXPECT_EQ(world.view().leader->value.epoch, Epoch{1});
  EXPECT_TRUE(noted(world.at("n1"), "failsafe ended"));
}

TEST_F(FailsafeTest, PartitionedInAdditionItIsFencedInTime) {
  start_three();
  store_outage(20s);
  world.at("n1").peers_cut = true;
  world.pass(3500ms);  // 0.6 ttl after the last pledge was asked for
  EXPECT_EQ(world.at("n1").pg.run, PgRun::kStopped) << dump(world.at("n1"));
}

// A renewal whose answer comes late counts for less than pledges that were asked for after it.
// Armed again with the same deadline, a guard that was replaced meanwhile would watch over nothing
// it has started (seed 712209, on a host that its hypervisor had paused).
TEST_F(FailsafeTest, ALateRenewalDoesNotArmTheGuardForWhatPledgesHaveCovered) {
  start_three();
  Member& n1 = world.at("n1");
  store_outage(1800ms);
  ASSERT_TRUE(noted(n1, "failsafe"));
  ASSERT_FALSE(n1.unanswered.empty());
  n1.armings.clear();
  for (const RequestId id : std::vector(n1.unanswered)) {
    n1.give(event::StoreCommitted{id, {store::TxnOutcome::kCommitted, world.revision + 1, ""}});
  }
  EXPECT_TRUE(n1.armings.empty());
  EXPECT_TRUE(leads("n1")) << dump(n1);
}

TEST_F(FailsafeTest, SwitchedOffItFencesAsBefore) {
  world.config.failsafe = false;
  start_three();
  store_outage(4s);
  EXPECT_EQ(world.at("n1").pg.run, PgRun::kStopped);
}

TEST_F(FailsafeTest, AsynchronousNeedsThePledgeOfEverybodyWhoMayBeElected) {
  world.config.sync_mode = SyncMode::kOff;
  start_three();
  store_outage(20s);
  EXPECT_TRUE(leads("n1"));
  world.at("n3").peers_cut = true;
  world.pass(4s);
  EXPECT_EQ(world.at("n1").pg.run, PgRun::kStopped);
}

TEST_F(FailsafeTest, OneWhoIsBoundDoesNotBallotThoughItSeesTheStore) {
  start_three();
  Member& bound = world.at(voter());
  const PeerRequest pledge{PeerRequest::Kind::kPledge, name("n1"), Epoch{1}, 5s, {}};
  bound.give(event::PeerAsked{7, pledge});
  ASSERT_TRUE(bound.last_reply.granted) << bound.last_reply.why;
  world.at("n1").exited = true;  // silent in the store; as seen from there it might be in failsafe
  for (int i = 0; i < 20; ++i) {
    world.pass(1s);
    bound.give(event::PeerAsked{7, pledge});
    ASSERT_TRUE(bound.last_reply.granted) << bound.last_reply.why;
  }
  EXPECT_FALSE(world.view().ballots.contains(bound.self));
  world.pass(7s);  // nobody asks any more: the pledge ends
  EXPECT_NE(world.leader(), "n1");
}

TEST_F(FailsafeTest, NobodyPledgesWithABallotOfItsOwn) {
  start_three();
  Member& n2 = world.at("n2");
  Member& n3 = world.at("n3");
  world.at("n1").exited = true;
  (voter() == "n2" ? n2 : n3).exited = true;  // nobody can be elected, so the ballot stays
  Member& other = n2.exited ? n3 : n2;
  world.pass(8s);
  ASSERT_TRUE(world.view().ballots.contains(other.self));
  other.give(event::PeerAsked{7, {PeerRequest::Kind::kPledge, name("n1"), Epoch{1}, 5s, {}}});
  EXPECT_FALSE(other.last_reply.granted);
}

TEST_F(FailsafeTest, NobodyPledgesToALeaderOfAnotherEpoch) {
  start_three();
  Member& n2 = world.at("n2");
  n2.give(event::PeerAsked{7, {PeerRequest::Kind::kPledge, name("n1"), Epoch{2}, 5s, {}}});
  EXPECT_FALSE(n2.last_reply.granted);
  n2.give(event::PeerAsked{7, {PeerRequest::Kind::kPledge, name("n3"), Epoch{1}, 5s, {}}});
  EXPECT_FALSE(n2.last_reply.granted);
}

class EarlyTest : public AgentTest {
 protected:
  EarlyTest() { world.config.early_takeover = true; }
  void start() {
    start_three();
    world.pass(6s);  // no early evidence counts within the first ttl of an agent's life
  }
};

TEST_F(EarlyTest, AllProcessesOfTheHostKilledAreReplacedAtOnce) {
  start();
  kill_host(world.at("n1"));
  world.pass(1s);
  EXPECT_NE(world.leader(), "n1");
  EXPECT_NE(world.leader(), "");
  EXPECT_EQ(world.view().history.rbegin()->second.trigger, "early");
}

TEST_F(EarlyTest, SilenceIsEvidenceAfterTheBlipTolerance) {
  start();
  world.at("n1").power = false;
  kill_host(world.at("n1"));
  world.pass(1500ms);
  EXPECT_EQ(world.leader(), "n1");
  world.pass(1700ms);
  EXPECT_NE(world.leader(), "n1");
}

TEST_F(EarlyTest, OffByDefault) {
  world.config.early_takeover = false;
  start();
  kill_host(world.at("n1"));
  world.pass(3s);
  EXPECT_EQ(world.leader(), "n1");
}

TEST_F(EarlyTest, ALeaderWhoseCommitsWaitForNobodyKeepsItsTime) {
  start();
  world.at("n2").exited = world.at("n3").exited = true;
  world.at("n2").pg.run = world.at("n3").pg.run = PgRun::kStopped;
  world.pass(3s);
  ASSERT_TRUE(world.view().sync->value.generations.back().voters.empty()) << "alone";
  restart_agent(world.at("n2"));
  world.at("n2").exited = false;
  kill_host(world.at("n1"));
  world.pass(3s);
  EXPECT_EQ(world.leader(), "n1");
}

TEST_F(EarlyTest, AnAgentThatAnswersIsNotSuspected) {
  start();
  for (const char* who : {"n2", "n3"}) world.at(who).served = false;  // its connections broke
  world.pass(4s);
  EXPECT_EQ(world.leader(), "n1");
  for (const char* who : {"n2", "n3"}) EXPECT_FALSE(noted(world.at(who), "suspected")) << who;
}

TEST_F(EarlyTest, ALeaderThatRenewsIsNotSuspectedByOneWhoIsCutOff) {
  start();
  Member& n2 = world.at(voter());
  // Its way to the leader is gone, the leader's to the store is not.
  n2.served = false;
  n2.peers_cut = true;
  world.pass(10s);
  EXPECT_EQ(world.leader(), "n1");
  EXPECT_EQ(world.view().leader->value.epoch, Epoch{1});
}

}  // namespace
}  // namespace bascule::control
