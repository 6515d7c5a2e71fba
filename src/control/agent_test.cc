// The agents of a small cluster in an ideal world: operations succeed at once, the store answers at
// once. What goes wrong in a real one is the simulation's job (sim/); this is the happy path and a
// readable example of every flow.
#include "control/agent.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>

#include "control/history.h"

namespace bascule::control {
namespace {

NodeName name(std::string_view text) { return *NodeName::parse(text); }

struct World;

struct Member {
  World& world;
  NodeName self;
  std::unique_ptr<Agent> agent;
  PgStatus pg;
  LocalState disk;
  std::vector<effect::Note> notes;
  MonoTime armed{};
  bool exited = false;
  bool rewinds_fail = false;
  bool verify_fails = false;
  bool inits_fail = false;
  bool starts_hang = false;  // of isolated standbys: never consistent
  int starts_fail = 0;       // so many starts of a standby from now on
  int clones_fail = 0;
  bool served = true;  // by the leader that it streams from

  void give(const Event& event);
  void carry_out(const Effects& effects);
  Result<OpData> perform(const Op& op);
};

struct World {
  MonoTime now{std::chrono::hours(1)};
  std::map<std::string, store::Entry> entries;
  store::Revision revision = 0;
  std::map<NodeName, std::unique_ptr<Member>> members;
  std::deque<std::function<void()>> queue;
  bool store_answers = true;
  ClusterConfig config;

  Member& add(std::string_view text) {
    const NodeName n = name(text);
    AgentConfig c;
    c.cluster = "test";
    c.name = n;
    c.host = "127.0.0.1";
    c.port = 5000 + static_cast<int>(members.size());
    c.initial = config;
    c.new_incarnation = "i" + std::to_string(members.size());
    auto& m = members[n] = std::make_unique<Member>(Member{*this, n, nullptr, {}, {}, {}});
    m->agent = std::make_unique<Agent>(c, LocalState{}, now);
    m->carry_out(m->agent->start(now));
    return *m;
  }

  Member& at(std::string_view text) { return *members.at(name(text)); }

  store::TxnResult apply(const store::Txn& txn) {
    for (const store::Compare& c : txn.compares) {
      const auto it = entries.find(c.key);
      if ((it == entries.end() ? 0 : it->second.revision) != c.revision) {
        return {store::TxnOutcome::kConflict, 0, ""};
      }
    }
    ++revision;
    for (const store::Write& w : txn.writes) {
      if (w.value)
        entries[w.key] = {w.key, *w.value, revision};
      else
        entries.erase(w.key);
    }
    for (auto& [n, m] : members) {
      queue.push_back([&member = *m] { member.give(event::StoreChanged{}); });
    }
    return {store::TxnOutcome::kCommitted, revision, ""};
  }

  store::Snapshot snapshot() const {
    store::Snapshot s{"store-1", revision, {}};
    for (const auto& [k, e] : entries) s.entries.push_back(e);
    return s;
  }

  ClusterView view() const { return parse_cluster(Keys("test"), snapshot()); }

  void drain() {
    for (int i = 0; i < 100000 && !queue.empty(); ++i) {
      auto next = std::move(queue.front());
      queue.pop_front();
      next();
    }
    ASSERT_TRUE(queue.empty()) << "the agents never come to rest";
  }

  // Replication, sampling and timers in steps of 50 ms.
  void pass(Nanos duration) {
    for (const MonoTime end = now + duration; now < end;) {
      now += 50ms;
      for (auto& [n, m] : members) stream(*m);
      for (auto& [n, m] : members) {
        if (m->exited) continue;
        m->pg.sampled_at = now;
        m->give(event::Observed{m->pg});
        if (now >= m->agent->next_wakeup()) m->give(event::Tick{});
      }
      drain();
    }
  }

  void stream(Member& m) {
    if (m.pg.run == PgRun::kPrimary) {
      m.pg.flush_lsn.value += 8;
      m.pg.checkpoint_timeline = m.pg.timeline;
      m.pg.senders.clear();
      for (auto& [n, other] : members) {
        PgStatus& s = other->pg;
        s.receiver_streaming = s.receiver_streaming && s.upstream != m.self;
        if (s.run != PgRun::kStandby || s.upstream != m.self || !other->served) continue;
        s.timeline = m.pg.timeline;
        s.flush_lsn = s.replay_lsn = m.pg.flush_lsn;
        s.receiver_streaming = true;
        const std::string app = n.str() + "_" + other->agent->local().incarnation;
        m.pg.senders.push_back({app, true, s.flush_lsn, s.replay_lsn});
      }
    }
    if (m.pg.run == PgRun::kStandby && m.pg.upstream &&
        members.at(*m.pg.upstream)->pg.run != PgRun::kPrimary) {
      m.pg.receiver_streaming = false;
    }
  }

  std::string leader() const {
    const ClusterView v = view();
    return v.leader && v.leader->value.phase == LeaderPhase::kRunning ? v.leader->value.holder.str()
                                                                      : "";
  }
};

void Member::give(const Event& event) {
  if (!exited) carry_out(agent->step(event, world.now));
}

void Member::carry_out(const Effects& effects) {
  for (const Effect& e : effects) {
    const bool asks = std::holds_alternative<effect::ReadStore>(e) ||
                      std::holds_alternative<effect::CommitStore>(e);
    if (asks && !world.store_answers) continue;
    if (const auto* read = std::get_if<effect::ReadStore>(&e)) {
      world.queue.push_back(
          [this, id = read->id] { give(event::StoreRead{id, world.snapshot()}); });
    } else if (const auto* txn = std::get_if<effect::CommitStore>(&e)) {
      world.queue.push_back([this, t = *txn] {
        const auto result = world.apply(t.txn);
        give(event::StoreCommitted{t.id, result});
      });
    } else if (const auto* op = std::get_if<effect::StartOp>(&e)) {
      world.queue.push_back([this, o = *op] {
        const auto* start = std::get_if<op::StartStandby>(&o.op);
        if (starts_hang && start && !start->upstream) {
          pg.run = PgRun::kStarting;
          return;
        }
        auto result = perform(o.op);
        give(event::OpDone{o.id, std::move(result)});
      });
    } else if (const auto* p = std::get_if<effect::Persist>(&e)) {
      disk = p->state;
      world.queue.push_back([this, id = p->id] { give(event::PersistDone{id}); });
    } else if (const auto* arm = std::get_if<effect::ArmGuard>(&e)) {
      armed = arm->deadline;
    } else if (std::holds_alternative<effect::DisarmGuard>(e)) {
      armed = MonoTime{};
    } else if (const auto* n = std::get_if<effect::Note>(&e)) {
      notes.push_back(*n);
      if (std::getenv("AGENT_TRACE")) {
        std::printf("%8ld %s %s: %s\n", static_cast<long>(to_ms(world.now.time_since_epoch())),
                    self.str().c_str(), n->what.c_str(), n->why.c_str());
      }
    } else if (std::holds_alternative<effect::Exit>(e)) {
      exited = true;
    }
  }
}

Result<OpData> Member::perform(const Op& op) {
  OpData data;
  if (std::holds_alternative<op::InitDb>(op)) {
    if (inits_fail) return fail(ErrorCode::kConflict, "not empty");
    pg.data = DataDir::kReady;
    pg.system_id = data.system_id = 42;
    pg.timeline = Timeline{1};
    pg.flush_lsn = Lsn{1000};
  } else if (const auto* start = std::get_if<op::StartPrimary>(&op)) {
    pg.run = PgRun::kPrimary;
    pg.sync_standbys = start->sync_standbys;
  } else if (const auto* standby = std::get_if<op::StartStandby>(&op)) {
    if (armed != MonoTime{} && world.now >= armed) {
      return fail(ErrorCode::kConflict, "guard: the deadline has passed");
    }
    if (starts_fail > 0 && starts_fail-- > 0) return fail(ErrorCode::kUnavailable, "did not start");
    pg.run = PgRun::kStandby;
    pg.upstream.reset();
    if (standby->upstream) pg.upstream = standby->upstream->member;
  } else if (const auto* set = std::get_if<op::SetUpstream>(&op)) {
    pg.upstream = set->upstream->member;
  } else if (std::holds_alternative<op::StopReceiver>(op)) {
    pg.upstream.reset();
    pg.receiver_streaming = false;
    data.position = {pg.timeline, pg.flush_lsn};
  } else if (const auto* promote = std::get_if<op::Promote>(&op)) {
    pg.run = PgRun::kPrimary;
    pg.timeline = promote->timeline;
    pg.sync_standbys = promote->sync_standbys;
  } else if (std::holds_alternative<op::Kill>(op)) {
    pg.run = PgRun::kStopped;
  } else if (std::holds_alternative<op::CleanStop>(op)) {
    for (auto& [n, other] : world.members) {
      if (other->pg.upstream == self) other->pg.flush_lsn = pg.flush_lsn;
    }
    pg.run = PgRun::kStopped;
    data.position = {pg.timeline, pg.flush_lsn};
  } else if (const auto* verify = std::get_if<op::VerifyReceived>(&op)) {
    if (verify_fails ||
        world.members.at(verify->candidate.member)->pg.flush_lsn < verify->position.lsn) {
      return fail(ErrorCode::kTimeout, "not received");
    }
  } else if (const auto* sync = std::get_if<op::SetSync>(&op)) {
    pg.sync_standbys = sync->standbys;
    data.position = {pg.timeline, pg.flush_lsn};
  } else if (const auto* rewind = std::get_if<op::Rewind>(&op)) {
    if (rewinds_fail) {
      pg.run = PgRun::kStopped;
      return fail(ErrorCode::kUnavailable, "pg_rewind: exit 1");
    }
    const Member& source = *world.members.at(rewind->source.member);
    pg.run = PgRun::kStopped;
    served = true;
    pg.timeline = source.pg.timeline;
    pg.flush_lsn = source.pg.flush_lsn;
  } else if (const auto* clone = std::get_if<op::Clone>(&op)) {
    if (clones_fail > 0 && clones_fail-- > 0) return fail(ErrorCode::kUnavailable, "no answer");
    const Member& source = *world.members.at(clone->source.member);
    pg = PgStatus{};
    pg.data = DataDir::kReady;
    pg.system_id = source.pg.system_id;
    pg.timeline = source.pg.timeline;
    pg.flush_lsn = source.pg.flush_lsn;
  }
  return data;
}

class AgentTest : public ::testing::Test {
 protected:
  void start_three() {
    world.add("n1");
    world.pass(1s);
    world.add("n2");
    world.add("n3");
    world.pass(5s);
    ASSERT_EQ(world.leader(), "n1");
  }
  // A new agent on the same host, with what the old one has persisted.
  void restart_agent(Member& m) {
    AgentConfig c;
    c.cluster = "test";
    c.name = m.self;
    c.host = "127.0.0.1";
    c.port = 5000;
    c.new_incarnation = "again";
    m.agent = std::make_unique<Agent>(c, m.disk, world.now);
    m.carry_out(m.agent->start(world.now));
  }
  bool noted(const Member& m, std::string_view what) {
    return std::ranges::any_of(m.notes, [&](const auto& n) { return n.what == what; });
  }
  void crash(Member& m) {
    m.pg.run = PgRun::kStopped;
    m.give(event::PgExited{"signal 9"});
    world.drain();
  }
  std::string dump(Member& m) {
    return m.self.str() + ": " + std::string(to_string(m.agent->phase())) + ": " +
           m.agent->reason();
  }
  World world;
};

TEST_F(AgentTest, ThreeMembersBecomeAClusterWithASynchronousStandby) {
  start_three();
  const ClusterView v = world.view();
  ASSERT_TRUE(v.sync);
  ASSERT_EQ(v.sync->value.generations.size(), 1u);
  EXPECT_EQ(v.sync->value.generations[0].voters.size(), 1u);
  EXPECT_EQ(world.at("n1").pg.sync_standbys, v.sync->value.generations[0].voters);
  EXPECT_EQ(world.at("n2").agent->phase(), Phase::kFollowing) << dump(world.at("n2"));
  EXPECT_EQ(v.roster->value.members.size(), 3u);
  EXPECT_GT(world.at("n1").armed, world.now);
}

TEST_F(AgentTest, CrashOfThePrimaryHandsOverToTheSynchronousStandbyAndItReturnsByRewind) {
  start_three();
  const std::string voter = world.view().sync->value.generations[0].voters[0];
  const std::string successor = voter.substr(0, 2);
  world.at("n1").pg.flush_lsn.value += 500;  // written, acknowledged by nobody
  crash(world.at("n1"));
  world.pass(500ms);
  EXPECT_EQ(world.leader(), successor);
  world.pass(10s);
  EXPECT_EQ(world.at("n1").agent->phase(), Phase::kFollowing) << dump(world.at("n1"));
  EXPECT_EQ(world.at("n1").pg.timeline, Timeline{2});
  bool rewound = false;
  for (const auto& n : world.at("n1").notes) rewound = rewound || n.what == "rewound";
  EXPECT_TRUE(rewound);
  const ClusterView v = world.view();
  ASSERT_EQ(v.sync->value.generations.size(), 1u) << "older generations are dropped";
  EXPECT_EQ(v.leader->value.epoch, Epoch{2});
}

TEST_F(AgentTest, SilentLeaderIsReplacedAfterTtl) {
  start_three();
  world.at("n1").exited = true;  // the host is gone
  world.at("n1").pg.run = PgRun::kStopped;
  world.pass(3900ms);  // the last renewal may be a second old
  EXPECT_EQ(world.leader(), "n1");
  world.pass(2500ms);
  EXPECT_NE(world.leader(), "n1");
  EXPECT_NE(world.leader(), "");
}

TEST_F(AgentTest, SwitchoverLeavesTheOldPrimaryAFollowerWithoutRewind) {
  start_three();
  RequestRecord request;
  request.id = "r1";
  request.candidate = name("n3");
  request.by = "test";
  world.apply({{}, {{Keys("test").request(), encode(request)}}});
  world.pass(3s);
  EXPECT_EQ(world.leader(), "n3");
  EXPECT_EQ(world.view().request->value.outcome, "done");
  world.pass(3s);
  EXPECT_EQ(world.at("n1").agent->phase(), Phase::kFollowing) << dump(world.at("n1"));
  for (const auto& n : world.at("n1").notes) EXPECT_NE(n.what, "rewinding");
}

TEST_F(AgentTest, RestartPolicyRecoversInPlaceOnTheSameTimeline) {
  world.config.on_crash = OnCrash::kRestart;
  start_three();
  crash(world.at("n1"));
  world.pass(2s);
  EXPECT_EQ(world.leader(), "n1") << dump(world.at("n1"));
  EXPECT_EQ(world.view().leader->value.epoch, Epoch{1});
  EXPECT_EQ(world.at("n1").pg.timeline, Timeline{1});
}

TEST_F(AgentTest, PausedClusterDoesNothingAndResumeHeals) {
  start_three();
  world.apply({{}, {{Keys("test").pause(), "{}"}}});
  world.pass(200ms);
  crash(world.at("n1"));
  world.pass(20s);
  EXPECT_EQ(world.leader(), "");
  EXPECT_EQ(world.view().leader->value.epoch, Epoch{1});
  world.apply({{}, {{Keys("test").pause(), std::nullopt}}});
  world.pass(2s);
  EXPECT_NE(world.leader(), "");
}

TEST_F(AgentTest, MemberThatCantBeRewoundIsClonedAtLast) {
  start_three();
  Member& n1 = world.at("n1");
  n1.rewinds_fail = true;
  n1.pg.flush_lsn.value += 500;  // written, acknowledged by nobody
  crash(n1);
  world.pass(15s);
  EXPECT_EQ(n1.agent->phase(), Phase::kFollowing) << dump(n1);
  EXPECT_TRUE(std::ranges::any_of(n1.notes, [](const auto& n) { return n.what == "cloned"; }));
}

TEST_F(AgentTest, AgentThatComesBackAfterItsGuardHasFencedRejoins) {
  start_three();
  Member& n1 = world.at("n1");
  n1.exited = true;  // the agent is killed; the guard, with its deadline, lives on
  n1.pg.run = PgRun::kStopped;
  world.pass(8s);
  ASSERT_NE(world.leader(), "n1");
  n1.armed = world.now - 1s;
  AgentConfig c;
  c.cluster = "test";
  c.name = n1.self;
  c.host = "127.0.0.1";
  c.port = 5000;
  n1.exited = false;
  n1.agent = std::make_unique<Agent>(c, n1.disk, world.now);
  n1.carry_out(n1.agent->start(world.now));
  world.pass(5s);
  EXPECT_EQ(n1.agent->phase(), Phase::kFollowing) << dump(n1);
}

TEST_F(AgentTest, LostSynchronousStandbyIsReplacedAndThenNobodyIsLeft) {
  start_three();
  const std::string first = world.view().sync->value.generations[0].voters[0].substr(0, 2);
  world.at(first).exited = true;
  world.at(first).pg.run = PgRun::kStopped;
  world.pass(2s);
  const auto second = world.view().sync->value.generations[0].voters;
  ASSERT_EQ(second.size(), 1u);
  EXPECT_NE(second[0].substr(0, 2), first);
  EXPECT_EQ(world.at("n1").pg.sync_standbys, second);
  Member& last = world.at(second[0].substr(0, 2));
  last.exited = true;
  last.pg.run = PgRun::kStopped;
  world.pass(3s);
  EXPECT_TRUE(world.view().sync->value.generations[0].voters.empty());
  EXPECT_TRUE(world.at("n1").pg.sync_standbys.empty());
  EXPECT_EQ(world.leader(), "n1");
}

TEST_F(AgentTest, RestartedAgentAdoptsItsRunningPrimary) {
  start_three();
  Member& n1 = world.at("n1");
  AgentConfig c;
  c.cluster = "test";
  c.name = n1.self;
  c.host = "127.0.0.1";
  c.port = 5000;
  n1.agent = std::make_unique<Agent>(c, n1.disk, world.now);
  n1.carry_out(n1.agent->start(world.now));
  world.pass(3s);
  EXPECT_EQ(world.leader(), "n1");
  EXPECT_EQ(n1.agent->phase(), Phase::kLeading) << dump(n1);
  EXPECT_EQ(world.view().leader->value.epoch, Epoch{1});
  for (const auto& n : n1.notes) EXPECT_NE(n.what, "restarting");
}

TEST_F(AgentTest, OrderlyShutdownOfThePrimaryLeavesItsFinalPosition) {
  start_three();
  world.at("n1").give(event::ShutdownRequested{});
  world.drain();
  world.pass(200ms);
  EXPECT_TRUE(world.at("n1").exited);
  world.pass(2s);
  EXPECT_NE(world.leader(), "n1");
  EXPECT_NE(world.leader(), "");
}

TEST_F(AgentTest, FinalPositionOfAnEarlierCleanStopIsNotLeftAfterMoreWasWritten) {
  start_three();
  Member& n1 = world.at("n1");
  n1.verify_fails = true;
  RequestRecord request;
  request.id = "r1";
  request.by = "test";
  world.apply({{}, {{Keys("test").request(), encode(request)}}});
  world.pass(10s);  // stopped cleanly, not verified, restarted in place
  ASSERT_EQ(world.leader(), "n1");
  world.apply({{}, {{Keys("test").pause(), "{}"}}});
  world.pass(500ms);
  crash(n1);
  n1.give(event::ShutdownRequested{});
  world.drain();
  world.pass(1s);
  ASSERT_TRUE(world.view().leader->value.vacant());
  EXPECT_FALSE(world.view().leader->value.final_position.known());
}

TEST_F(AgentTest, RecordIsNotGivenAwayWhilePostgresMayBeAPrimaryThatDoesNotAnswer) {
  start_three();
  Member& n1 = world.at("n1");
  n1.pg.run = PgRun::kStarting;  // what a sample shows of one that is too busy
  restart_agent(n1);
  world.pass(1s);
  EXPECT_FALSE(world.view().leader->value.vacant());
  n1.pg.run = PgRun::kPrimary;
  world.pass(1s);
  EXPECT_EQ(world.leader(), "n1");
  EXPECT_EQ(world.view().leader->value.epoch, Epoch{1});
}

TEST_F(AgentTest, RecordOfALostDataDirectoryIsLeftToExpire) {
  start_three();
  Member& n1 = world.at("n1");
  n1.disk = {};
  n1.pg = {};
  restart_agent(n1);
  world.pass(3s);
  EXPECT_EQ(world.view().leader->value.holder, n1.self);
  world.pass(15s);
  EXPECT_NE(world.leader(), "n1");
  EXPECT_NE(world.leader(), "");
  EXPECT_EQ(n1.agent->phase(), Phase::kFollowing) << dump(n1);
}

TEST_F(AgentTest, ReplicaIsNotClonedForATimeThatNobodySaw) {
  start_three();
  const std::string voter = world.view().sync->value.generations[0].voters[0].substr(0, 2);
  Member& replica = world.at(voter);
  replica.notes.clear();
  replica.pg.receiver_streaming = false;
  restart_agent(replica);
  replica.pg.sampled_at = world.now;
  replica.give(event::Observed{replica.pg});
  world.drain();
  EXPECT_FALSE(noted(replica, "cloning"));
  world.pass(1s);
  world.now += std::chrono::minutes(10);  // the host was suspended
  replica.pg.receiver_streaming = false;
  replica.pg.sampled_at = world.now;
  replica.give(event::Observed{replica.pg});
  world.drain();
  EXPECT_FALSE(noted(replica, "cloning"));
}

TEST_F(AgentTest, StartAloneThatNeverGetsConsistentIsRepeatedWithTheLeadersWal) {
  start_three();
  Member& n3 = world.at("n3");
  n3.starts_hang = true;
  crash(n3);
  world.pass(10s);
  ASSERT_EQ(n3.pg.run, PgRun::kStarting);
  world.pass(world.config.rejoin_timeout * 4);
  EXPECT_EQ(n3.agent->phase(), Phase::kFollowing) << dump(n3);
}

TEST_F(AgentTest, BootstrapThatBrokeOffAfterInitdbGoesOn) {
  Member& n1 = world.add("n1");
  for (int i = 0; i < 100 && n1.pg.data == DataDir::kEmpty; ++i) {
    world.now += 1ms;
    n1.give(event::Observed{n1.pg});
    if (!world.queue.empty()) {
      auto next = std::move(world.queue.front());
      world.queue.pop_front();
      next();
    }
  }
  ASSERT_EQ(n1.pg.data, DataDir::kReady);
  world.queue.clear();
  n1.inits_fail = true;  // "not empty"
  n1.pg.run = PgRun::kStopped;
  restart_agent(n1);
  world.pass(15s);
  EXPECT_EQ(world.leader(), "n1") << dump(n1);
}

TEST_F(AgentTest, RemainsOfAnOwnBootstrapAreReplacedThoughTheFirstCloneFails) {
  start_three();
  Member& n3 = world.at("n3");
  n3.disk = {};
  n3.disk.bootstrapping = true;  // it was creating the cluster when n1 did
  n3.pg = {};
  n3.pg.data = DataDir::kReady;
  n3.pg.system_id = 666;
  n3.clones_fail = 1;
  restart_agent(n3);
  world.pass(5s);
  EXPECT_EQ(n3.agent->phase(), Phase::kFollowing) << dump(n3);
  EXPECT_EQ(n3.pg.system_id, 42u);
  EXPECT_FALSE(n3.disk.bootstrapping) << "a copy of the cluster is no remnant";
}

TEST_F(AgentTest, DataIsNotGivenUpForWhatWasSeenBeforeAPause) {
  start_three();
  const std::string voter = world.view().sync->value.generations[0].voters[0].substr(0, 2);
  Member& replica = world.at(voter);
  replica.served = false;
  replica.pg.receiver_streaming = false;
  replica.pg.sampled_at = world.now;
  replica.give(event::Observed{replica.pg});  // the connection has just broken
  replica.notes.clear();
  world.at("n1").exited = true;  // and n1 is lost while this agent is stopped
  world.at("n1").pg.run = PgRun::kStopped;
  world.now += std::chrono::minutes(1);
  replica.give(event::Tick{});
  world.drain();
  world.pass(8s);
  EXPECT_FALSE(noted(replica, "cloning"));
  EXPECT_EQ(world.leader(), voter);
}

TEST_F(AgentTest, DataIsNotGivenUpForALeaderThatWasSeenOnceAfterAnOutage) {
  start_three();
  const std::string voter = world.view().sync->value.generations[0].voters[0].substr(0, 2);
  Member& replica = world.at(voter);
  world.store_answers = false;
  world.pass(2s);
  // The last renewal, which nobody has seen, and the end of the leader.
  const ClusterView last = world.view();
  LeaderRecord renewed = last.leader->value;
  ++renewed.counter;
  world.apply({{}, {{Keys("test").leader(), encode(renewed)}}});
  world.at("n1").exited = true;
  world.at("n1").pg.run = PgRun::kStopped;
  world.pass(60s);
  replica.notes.clear();
  world.store_answers = true;
  world.pass(8s);
  EXPECT_FALSE(noted(replica, "cloning"));
  EXPECT_EQ(world.leader(), voter);
}

TEST_F(AgentTest, DivergedMemberWhoseFirstStartFailsIsRewoundNotLeftConnecting) {
  start_three();
  Member& n1 = world.at("n1");
  n1.pg.flush_lsn.value += 500;  // acknowledged by nobody
  n1.starts_fail = 1;
  n1.served = false;  // "requested starting point is ahead of"
  crash(n1);
  world.pass(10s);
  EXPECT_TRUE(noted(n1, "rewound"));
  EXPECT_EQ(n1.agent->phase(), Phase::kFollowing) << dump(n1);
}

TEST_F(AgentTest, HungStandbyIsKilledAndBallotsWhenThereIsNoLeader) {
  start_three();
  const std::string voter = world.view().sync->value.generations[0].voters[0].substr(0, 2);
  world.at(voter).pg.run = PgRun::kUnresponsive;  // SIGSTOP
  world.at(voter).pg.sampled_at = world.now;
  world.at(voter).give(event::Observed{world.at(voter).pg});
  crash(world.at("n1"));
  world.at("n1").exited = true;
  world.pass(5s);
  EXPECT_NE(world.leader(), voter);
  world.pass(world.config.promote_timeout + 5s);
  EXPECT_EQ(world.leader(), voter);
}

TEST_F(AgentTest, MemberThatLostTheWalOfANewerTimelineDoesNotBallot) {
  start_three();
  crash(world.at("n1"));
  world.pass(10s);
  Member& n1 = world.at("n1");
  ASSERT_EQ(n1.pg.timeline, Timeline{2});
  n1.pg.timeline = Timeline{1};  // the disk went back to what it was before the fail-over
  n1.pg.flush_lsn = Lsn{1000};
  n1.served = false;
  for (const char* other : {"n2", "n3"}) {
    world.at(other).exited = true;
    world.at(other).pg.run = PgRun::kStopped;
  }
  world.pass(8s);
  EXPECT_EQ(n1.agent->phase(), Phase::kRefused) << dump(n1);
  EXPECT_FALSE(world.view().ballots.contains(n1.self));
}

TEST_F(AgentTest, SettingThatSomebodyElseHasChangedIsSetAgain) {
  start_three();
  Member& n1 = world.at("n1");
  const auto before = n1.pg.sync_standbys;
  ASSERT_FALSE(before.empty());
  n1.pg.sync_standbys.clear();  // ALTER SYSTEM
  world.pass(1s);
  EXPECT_EQ(n1.pg.sync_standbys, before);
  EXPECT_EQ(world.view().sync->value.generations.back().voters, before);
}

TEST_F(AgentTest, AsynchronousClusterFailsOverAfterTtl) {
  world.config.sync_mode = SyncMode::kOff;
  start_three();
  EXPECT_TRUE(world.at("n1").pg.sync_standbys.empty());
  world.at("n1").exited = true;
  world.at("n1").pg.run = PgRun::kStopped;
  world.pass(8s);
  EXPECT_NE(world.leader(), "n1");
  EXPECT_NE(world.leader(), "");
}

}  // namespace
}  // namespace bascule::control
