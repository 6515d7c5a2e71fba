// Monitors on a store in memory and databases of a few lines each. Time is moved by hand; nothing
// is lost or late here (that is what sim/monitor_*.cc is for).
#include "monitor/monitor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>

namespace bascule::monitor {
namespace {

using control::FailoverStep;
using control::LeaderPhase;
using control::MonitorState;
using testing::HasSubstr;

NodeName name(std::string_view text) { return NodeName::parse(text).value(); }

struct Database {
  bool reachable = true;
  bool refuses = false;
  bool in_recovery = true;
  bool read_only = false;
  bool fence_fails = false;
  bool promote_fails = false;
  bool streaming = true;
  std::optional<Millis> silence;
  Timeline timeline{1};
  Lsn lsn{1000};
  uint64_t system_id = 77;
  int promotions = 0, fences = 0, unfences = 0;
};

class MonitorTest : public testing::Test {
 protected:
  struct Instance {
    std::unique_ptr<Monitor> monitor;
    bool alive = true;
    bool store_cut = false;
    std::deque<Event> inbox;
    std::vector<effect::Note> notes;
    std::map<std::string, bool> cannot_reach;
  };

  MonitorTest() {
    config_.cluster = "db";
    config_.instance = "i1";
    for (const char* n : {"east", "north", "west"}) {
      EndpointConfig e;
      e.name = name(n);
      e.host = n;
      e.region = n == std::string("north") ? "east" : n;
      e.priority = n == std::string("east") ? 10 : n == std::string("west") ? 8 : 6;
      e.health_interval = 1s;
      config_.endpoints.push_back(e);
      databases_[n];
    }
    databases_["east"].in_recovery = false;
  }

  Instance& start(const std::string& who) {
    MonitorConfig config = config_;
    config.name = who;
    config.instance = who + std::to_string(++instances_);
    auto& instance = monitors_.emplace_back();
    instance.monitor = std::make_unique<Monitor>(config, now_);
    carry_out(instance, instance.monitor->start(now_));
    return instance;
  }

  // ---- the world
  store::Snapshot snapshot() const {
    store::Snapshot out{"s", revision_, {}};
    for (const auto& [key, value] : values_)
      out.entries.push_back({key, value.first, value.second});
    return out;
  }
  store::TxnResult apply(const store::Txn& txn) {
    for (const auto& c : txn.compares) {
      const auto found = values_.find(c.key);
      if ((found == values_.end() ? 0 : found->second.second) != c.revision) {
        return {store::TxnOutcome::kConflict, 0, ""};
      }
    }
    ++revision_;
    for (const auto& w : txn.writes) {
      if (w.value) {
        values_[w.key] = {*w.value, revision_};
      } else {
        values_.erase(w.key);
      }
    }
    on_commit();
    return {store::TxnOutcome::kCommitted, revision_, ""};
  }
  void put(const std::string& key, std::string value) { apply({{}, {{key, std::move(value)}}}); }

  void on_commit() {
    const auto view = this->view();
    if (!view.leader) return;
    const std::string state =
        fmt::format("{} {} {}", view.leader->value.holder.str(), view.leader->value.epoch.value,
                    control::to_string(view.leader->value.phase));
    if (record_.empty() || record_.back() != state) record_.push_back(state);
  }

  void carry_out(Instance& instance, Effects effects) {
    for (Effect& effect : effects) {
      std::visit([&](auto& e) { carry_out(instance, e); }, effect);
    }
  }
  void carry_out(Instance& i, effect::ReadStore&) {
    if (i.store_cut) {
      i.inbox.push_back(event::StoreRead{now_, fail(ErrorCode::kTimeout, "cut")});
    } else {
      i.inbox.push_back(
          event::StoreRead{now_, control::parse_cluster(control::Keys("db"), snapshot())});
    }
  }
  void carry_out(Instance& i, effect::CommitStore& e) {
    if (i.store_cut) {
      i.inbox.push_back(event::StoreCommitted{e.id, {store::TxnOutcome::kUnknown, 0, "cut"}});
    } else {
      i.inbox.push_back(event::StoreCommitted{e.id, apply(e.txn)});
    }
  }
  void carry_out(Instance& i, effect::Probe& e) {
    const Database& d = databases_[e.endpoint.str()];
    event::Probed out{e.id, e.endpoint, Answer::kOk, {}, "", Millis{3}};
    if (!d.reachable || i.cannot_reach[e.endpoint.str()]) {
      out.answer = Answer::kDown;
      out.error = "connection refused";
    } else if (d.refuses) {
      out.answer = Answer::kRefused;
      out.error = "too many connections";
    } else {
      out.sample.in_recovery = d.in_recovery;
      out.sample.read_only = d.read_only;
      out.sample.timeline = d.timeline;
      out.sample.written = d.in_recovery ? Lsn{} : d.lsn;
      out.sample.received = out.sample.replayed = d.in_recovery ? d.lsn : Lsn{};
      out.sample.streaming = d.in_recovery && d.streaming;
      out.sample.receiver_silence = d.silence;
      out.sample.system_id = d.system_id;
    }
    i.inbox.push_back(out);
  }
  void carry_out(Instance& i, effect::Act& e) {
    Database& d = databases_[e.endpoint.str()];
    EXPECT_GE(e.not_after, now_);
    event::ActionDone out{e.id, ActionData{d.lsn}};
    const bool reaches = d.reachable && !i.cannot_reach[e.endpoint.str()];
    if (!reaches) {
      out.result = fail(ErrorCode::kUnavailable, "connection refused");
    } else if (e.kind == ActionKind::kPromote) {
      ++d.promotions;
      if (d.promote_fails) {
        out.result = fail(ErrorCode::kUnavailable, "promotion failed");
      } else {
        if (d.in_recovery) ++d.timeline.value;
        d.in_recovery = d.read_only = false;
      }
    } else if (e.kind == ActionKind::kFence) {
      ++d.fences;
      if (d.fence_fails) {
        out.result = fail(ErrorCode::kConflict, "permission denied");
      } else {
        d.read_only = true;
      }
    } else {
      ++d.unfences;
      d.read_only = false;
    }
    i.inbox.push_back(out);
  }
  void carry_out(Instance& i, effect::Note& e) { i.notes.push_back(e); }

  // Moves time on, in steps that nobody sleeps through.
  void run(Nanos time) {
    const MonoTime end = now_ + time;
    while (now_ < end) {
      now_ += 50ms;
      for (Instance& i : monitors_) {
        if (!i.alive) continue;
        i.monitor->set_wall_time(WallTime(Millis(to_ms(now_.time_since_epoch()))));
        carry_out(i, i.monitor->step(event::Tick{}, now_));
        while (!i.inbox.empty()) {
          Event event = std::move(i.inbox.front());
          i.inbox.pop_front();
          carry_out(i, i.monitor->step(event, now_));
        }
      }
    }
  }

  control::ClusterView view() const {
    return control::parse_cluster(control::Keys("db"), snapshot());
  }
  const control::LeaderRecord leader() const { return view().leader->value; }
  std::string state() const {
    const auto v = view();
    return v.monitor && v.monitor->health ? std::string(to_string(v.monitor->health->state)) : "";
  }
  std::string reason() const { return view().monitor->health->reason; }
  void request(control::RequestKind kind, const std::string& candidate, bool force = false) {
    control::RequestRecord r;
    r.id = "r" + std::to_string(++requests_);
    r.kind = kind;
    if (!candidate.empty()) r.candidate = name(candidate);
    r.force = force;
    r.by = "test";
    put(control::Keys("db").request(), control::encode(r));
  }
  std::string outcome() const { return view().request->value.outcome; }

  MonitorConfig config_;
  MonoTime now_{1000s};
  std::map<std::string, Database> databases_;
  std::deque<Instance> monitors_;
  std::map<std::string, std::pair<std::string, store::Revision>> values_;
  store::Revision revision_ = 0;
  std::vector<std::string> record_;
  int requests_ = 0, instances_ = 0;
};

TEST_F(MonitorTest, TheOnlyWritableEndpointIsFoundAsThePrimary) {
  start("m1");
  run(5s);
  EXPECT_EQ(leader().holder, name("east"));
  EXPECT_EQ(leader().epoch, Epoch{1});
  EXPECT_EQ(state(), "healthy") << reason();
  EXPECT_EQ(view().members.at(name("west")).state, "streaming");
  EXPECT_EQ(view().history.at(Epoch{1}).trigger, "bootstrap");
}

TEST_F(MonitorTest, TwoWritableEndpointsArePersonsBusiness) {
  databases_["west"].in_recovery = false;
  start("m1");
  run(10s);
  EXPECT_TRUE(leader().holder.empty());
  EXPECT_EQ(state(), "unknown");
  EXPECT_THAT(reason(), HasSubstr("several endpoints accept writes"));
  EXPECT_EQ(databases_["east"].fences + databases_["west"].fences, 0);
  request(control::RequestKind::kFailover, "west", true);
  run(10s);
  EXPECT_EQ(outcome(), "done");
  EXPECT_EQ(leader().holder, name("west"));
  run(15s);
  EXPECT_TRUE(databases_["east"].read_only);
}

TEST_F(MonitorTest, ALostPrimaryIsReplacedAfterTheThreshold) {
  start("m1");
  run(5s);
  databases_["east"].reachable = false;
  run(1900ms);
  EXPECT_EQ(leader().phase, LeaderPhase::kRunning) << "two checks are not enough";
  run(10s);
  EXPECT_EQ(leader().holder, name("north")) << "of the same region";
  EXPECT_EQ(leader().epoch, Epoch{2});
  EXPECT_EQ(leader().phase, LeaderPhase::kRunning);
  EXPECT_EQ(state(), "failover_complete") << reason();
  EXPECT_EQ(view().history.at(Epoch{2}).trigger, "automatic");
  EXPECT_THAT(view().history.at(Epoch{2}).reason, HasSubstr("has failed 3 health checks"));
  EXPECT_THAT(record_, testing::ElementsAre(" 0 vacant", "east 1 running", " 1 vacant",
                                            "north 2 preparing", "north 2 running"));
}

TEST_F(MonitorTest, NobodyIsPromotedBeforeTheLastPermitHasRunOut) {
  put(control::MonitorKeys(control::Keys("db").prefix).proxy("p1"),
      control::encode(control::ProxyAck{"p1", 1}));
  start("m1");
  run(5s);
  databases_["east"].reachable = false;
  while (leader().phase == LeaderPhase::kRunning) run(50ms);
  const MonoTime closed = now_;
  while (databases_["north"].promotions == 0) run(50ms);
  EXPECT_GE(now_ - closed, config_.permit);
}

TEST_F(MonitorTest, ProxiesThatActByTheClosedRecordNeedNotBeWaitedFor) {
  const auto key = control::MonitorKeys(control::Keys("db").prefix).proxy("p1");
  put(key, control::encode(control::ProxyAck{"p1", 1}));
  start("m1");
  run(5s);
  databases_["east"].reachable = false;
  while (leader().phase == LeaderPhase::kRunning) run(50ms);
  put(key, control::encode(control::ProxyAck{"p1", view().leader_revision}));
  const MonoTime closed = now_;
  while (databases_["north"].promotions == 0) run(50ms);
  EXPECT_LE(now_ - closed, 2500ms);
}

TEST_F(MonitorTest, AFlappingPrimaryIsNotReplaced) {
  start("m1");
  run(5s);
  for (int i = 0; i < 20; ++i) {
    databases_["east"].reachable = false;
    run(1900ms);
    databases_["east"].reachable = true;
    run(1100ms);
  }
  EXPECT_EQ(leader().epoch, Epoch{1});
  EXPECT_EQ(leader().holder, name("east"));
}

TEST_F(MonitorTest, ExhaustedConnectionsAreNoFailure) {
  start("m1");
  run(5s);
  databases_["east"].refuses = true;
  run(60s);
  EXPECT_EQ(leader().holder, name("east"));
  EXPECT_EQ(leader().phase, LeaderPhase::kRunning);
  EXPECT_EQ(state(), "degraded");
  EXPECT_THAT(reason(), HasSubstr("too many connections"));
}

TEST_F(MonitorTest, APrimaryThatAnswersAgainInTimeStays) {
  start("m1");
  run(5s);
  put(control::MonitorKeys(control::Keys("db").prefix).proxy("p1"),
      control::encode(control::ProxyAck{"p1", 1}));
  databases_["east"].reachable = false;
  while (leader().phase == LeaderPhase::kRunning) run(50ms);
  databases_["east"].reachable = true;
  run(5s);
  EXPECT_EQ(leader().holder, name("east"));
  EXPECT_EQ(leader().epoch, Epoch{1});
  EXPECT_THAT(leader().why, HasSubstr("answers again"));
  EXPECT_EQ(databases_["north"].promotions, 0);
}

TEST_F(MonitorTest, TheReturnedPrimaryIsFencedAndNotRoutedTo) {
  start("m1");
  run(5s);
  databases_["east"].reachable = false;
  run(15s);
  ASSERT_EQ(leader().holder, name("north"));
  databases_["east"].reachable = true;
  run(5s);
  EXPECT_TRUE(databases_["east"].read_only);
  EXPECT_EQ(view().members.at(name("east")).state, "fenced");
  EXPECT_EQ(state(), "recovery_in_progress") << reason();
  // Rebuilt as a standby of the new primary.
  auto& east = databases_["east"];
  east.in_recovery = true;
  east.timeline = databases_["north"].timeline;
  databases_["west"].timeline = databases_["north"].timeline;
  run(70s);
  EXPECT_EQ(state(), "healthy") << reason();
  EXPECT_TRUE(view().monitor->operation->value.fenced.empty());
  EXPECT_GE(view().monitor->health->recoveries, 1u);
}

TEST_F(MonitorTest, AnotherSystemsDatabaseIsNeverFenced) {
  databases_["west"].in_recovery = false;
  databases_["west"].system_id = 78;
  databases_["west"].reachable = false;
  start("m1");
  run(10s);
  ASSERT_EQ(leader().holder, name("east"));
  databases_["west"].reachable = true;
  run(60s);
  EXPECT_EQ(databases_["west"].fences, 0);
  EXPECT_FALSE(databases_["west"].read_only);
  EXPECT_EQ(view().members.at(name("west")).state, "diverged");
}

TEST_F(MonitorTest, TheStandbyWithTheMostWalIsPreferredToTheNearOne) {
  start("m1");
  run(5s);
  databases_["west"].lsn = Lsn{1000};
  databases_["north"].lsn = Lsn{900};
  databases_["east"].reachable = false;
  run(15s);
  EXPECT_EQ(leader().holder, name("west"));
}

TEST_F(MonitorTest, BeyondTheLagNobodyTakesOverAndTheReasonSaysSo) {
  databases_["east"].lsn = Lsn{100 << 20};
  start("m1");
  run(5s);
  databases_["east"].reachable = false;
  run(30s);
  EXPECT_EQ(leader().phase, LeaderPhase::kRunning);
  EXPECT_THAT(reason(), HasSubstr("nobody may take over"));
  EXPECT_THAT(reason(), HasSubstr("bytes behind"));
  request(control::RequestKind::kFailover, "west");
  run(5s);
  EXPECT_THAT(outcome(), HasSubstr("refused"));
  request(control::RequestKind::kFailover, "west", true);
  run(15s);
  EXPECT_EQ(outcome(), "done");
  EXPECT_EQ(view().history.at(Epoch{2}).trigger, "forced");
}

TEST_F(MonitorTest, AWitnessThatStillStreamsKeepsThePrimary) {
  start("m1");
  run(5s);
  databases_["west"].silence = Millis{10};
  monitors_[0].cannot_reach["east"] = true;
  run(40s);
  EXPECT_EQ(leader().holder, name("east"));
  EXPECT_EQ(leader().phase, LeaderPhase::kRunning);
  EXPECT_THAT(reason(), HasSubstr("still streams from it"));
}

TEST_F(MonitorTest, AMonitorThatAloneDoesNotReachThePrimaryDoesNotAct) {
  start("m1");
  run(2s);
  start("m2");
  run(5s);
  monitors_[0].cannot_reach["east"] = true;
  run(30s);
  EXPECT_EQ(leader().holder, name("east"));
  EXPECT_EQ(leader().epoch, Epoch{1});
  EXPECT_THAT(reason(), HasSubstr("reaches it"));
  databases_["east"].reachable = false;  // now for real
  run(20s);
  EXPECT_EQ(leader().holder, name("north"));
}

TEST_F(MonitorTest, AnotherMonitorTakesTheLeaseAndGoesOnWhereTheFirstStopped) {
  start("m1");
  run(2s);
  start("m2");
  run(5s);
  put(control::MonitorKeys(control::Keys("db").prefix).proxy("p1"),
      control::encode(control::ProxyAck{"p1", 1}));
  databases_["east"].reachable = false;
  while (leader().phase == LeaderPhase::kRunning) run(50ms);
  monitors_[0].alive = false;
  EXPECT_EQ(view().monitor->lease->value.holder, "m1");
  run(20s);
  EXPECT_EQ(view().monitor->lease->value.holder, "m2");
  EXPECT_EQ(leader().holder, name("north"));
  EXPECT_EQ(leader().phase, LeaderPhase::kRunning);
  EXPECT_EQ(databases_["north"].promotions, 1);
}

TEST_F(MonitorTest, AMonitorCutFromTheStoreActsNoLonger) {
  start("m1");
  run(5s);
  monitors_[0].store_cut = true;
  EXPECT_TRUE(monitors_[0].monitor->leading(now_));
  run(4s);
  EXPECT_FALSE(monitors_[0].monitor->leading(now_));
  databases_["east"].reachable = false;
  run(30s);
  EXPECT_EQ(databases_["north"].promotions + databases_["west"].promotions, 0);
  monitors_[0].store_cut = false;
  run(15s);
  EXPECT_EQ(leader().holder, name("north"));
}

TEST_F(MonitorTest, ASwitchoverFencesWaitsForTheLastWalAndPromotes) {
  start("m1");
  run(5s);
  databases_["east"].lsn = Lsn{2000};
  request(control::RequestKind::kSwitchover, "west");
  run(8s);
  EXPECT_EQ(databases_["west"].promotions, 0) << "not everything has arrived";
  EXPECT_TRUE(databases_["east"].read_only);
  EXPECT_EQ(view().monitor->operation->value.step, FailoverStep::kCatchingUp);
  databases_["west"].lsn = Lsn{2000};
  run(5s);
  EXPECT_EQ(outcome(), "done");
  EXPECT_EQ(leader().holder, name("west"));
  EXPECT_EQ(view().history.at(Epoch{2}).trigger, "switchover");
}

TEST_F(MonitorTest, ASwitchoverThatCantCatchUpIsTakenBack) {
  config_.catch_up_timeout = 5s;
  start("m1");
  run(5s);
  databases_["east"].lsn = Lsn{2000};
  request(control::RequestKind::kSwitchover, "west");
  run(20s);
  EXPECT_THAT(outcome(), HasSubstr("failed: west has not replayed"));
  EXPECT_EQ(leader().holder, name("east"));
  EXPECT_EQ(leader().epoch, Epoch{1});
  EXPECT_FALSE(databases_["east"].read_only) << "its fence is lifted";
  EXPECT_EQ(state(), "healthy") << reason();
}

TEST_F(MonitorTest, AHealthyPrimaryThatCantBeFencedIsNotReplacedUnlessForced) {
  databases_["east"].fence_fails = true;
  start("m1");
  run(5s);
  request(control::RequestKind::kFailover, "west");
  run(30s);
  EXPECT_THAT(outcome(), HasSubstr("failed: east still answers and is not fenced"));
  EXPECT_EQ(leader().holder, name("east"));
  request(control::RequestKind::kFailover, "west", true);
  run(30s);
  EXPECT_EQ(outcome(), "done");
  EXPECT_EQ(leader().holder, name("west"));
}

TEST_F(MonitorTest, FailbackToTheRebuiltPrimary) {
  start("m1");
  run(5s);
  request(control::RequestKind::kFailover, "west");
  run(10s);
  ASSERT_EQ(leader().holder, name("west"));
  auto& east = databases_["east"];
  east.in_recovery = true;  // rebuilt; the copied setting is still there
  east.timeline = databases_["north"].timeline = databases_["west"].timeline;
  run(5s);
  request(control::RequestKind::kSwitchover, "east");
  run(10s);
  EXPECT_EQ(outcome(), "done");
  EXPECT_EQ(leader().holder, name("east"));
  EXPECT_FALSE(east.read_only);
  EXPECT_EQ(leader().epoch, Epoch{3});
}

TEST_F(MonitorTest, PausedMeansNoAutomaticFailover) {
  start("m1");
  run(5s);
  put(control::Keys("db").pause(), "{}");
  databases_["east"].reachable = false;
  run(30s);
  EXPECT_EQ(leader().epoch, Epoch{1});
  EXPECT_THAT(reason(), HasSubstr("paused"));
  apply({{}, {{control::Keys("db").pause(), std::nullopt}}});
  run(15s);
  EXPECT_EQ(leader().holder, name("north"));
}

TEST_F(MonitorTest, APromotionThatFailsGoesToTheNextCandidateUnderANewEpoch) {
  config_.promote_timeout = 5s;
  databases_["north"].promote_fails = true;
  start("m1");
  run(5s);
  databases_["east"].reachable = false;
  run(40s);
  EXPECT_EQ(leader().holder, name("west"));
  EXPECT_EQ(leader().epoch, Epoch{3});
  EXPECT_EQ(view().history.at(Epoch{3}).parent_epoch, Epoch{1});
}

TEST_F(MonitorTest, APromotionFromOutsideIsFollowed) {
  start("m1");
  run(5s);
  databases_["east"].in_recovery = true;
  databases_["west"].in_recovery = false;
  databases_["west"].timeline = Timeline{2};
  run(20s);
  EXPECT_EQ(leader().holder, name("west"));
  EXPECT_EQ(view().history.at(Epoch{2}).trigger, "external");
  EXPECT_EQ(databases_["west"].fences, 0);
}

TEST_F(MonitorTest, ASecondAutomaticFailoverWaitsForTheCooldown) {
  start("m1");
  run(5s);
  databases_["east"].reachable = false;
  run(15s);
  ASSERT_EQ(leader().holder, name("north"));
  databases_["west"].timeline = databases_["north"].timeline;
  databases_["north"].reachable = false;
  run(20s);
  EXPECT_EQ(leader().holder, name("north"));
  EXPECT_THAT(reason(), HasSubstr("cooldown"));
  run(60s);
  EXPECT_EQ(leader().holder, name("west"));
}

TEST_F(MonitorTest, WithEveryDatabaseDownTheStateIsUnknown) {
  start("m1");
  run(5s);
  for (auto& [n, d] : databases_) d.reachable = false;
  run(10s);
  EXPECT_EQ(state(), "unknown");
  EXPECT_EQ(leader().holder, name("east"));
}

TEST_F(MonitorTest, AClusterOfAgentsIsLeftAlone) {
  control::InitRecord init;
  init.system_id = 5;
  init.by = name("n1");
  put(control::Keys("db").init(), control::encode(init));
  start("m1");
  run(10s);
  EXPECT_FALSE(view().leader);
}

}  // namespace
}  // namespace bascule::monitor
