// The synchronous set against a model of what may have been acknowledged: whatever fails and in
// whatever order, the recorded voters always have every acknowledged commit among them.
#include "control/sync_set.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <vector>

#include "base/prng.h"

namespace bascule::control {
namespace {

constexpr Epoch kEpoch{3};
const char* const kNames[] = {"b_1", "c_1", "d_1"};

NodeName name(std::string_view text) { return *NodeName::parse(text); }

class Model {
 public:
  Model(uint64_t seed, UnsafeMutations unsafe) : unsafe_(unsafe), set(unsafe_), prng(seed) {
    record.generations.push_back({kEpoch, name("a"), "a_1", {}, 0});
    set.in_force_from_start({}, SyncSet::Confirm::kNo, now);
    config.sync_mode = SyncMode::kOn;
    for (const char* n : kNames) standbys[n] = {};
  }

  void tick() {
    now += Millis(prng.between(10, 120));
    if (prng.chance(0.01)) preferred = kNames[prng.below(3)];  // the region that is wanted changes
    primary += 10;
    for (auto& [n, s] : standbys) {
      if (prng.chance(0.06)) s.up = !s.up;
      // A walsender sees a reload when it comes to it, but before it sends anything written later.
      if (s.up && prng.chance(0.6))
        s.flush += static_cast<uint64_t>(prng.between(0, 12)) * (primary - s.flush) / 12;
    }
    acknowledge();
    observe();
    act();
    check();
  }

  // What may release a commit now: the setting in force; walsenders that have not come to the
  // reload yet (they reload before they send anything written after it); and backends that have not
  // learnt from the checkpointer that there is something to wait for.
  void acknowledge() {
    const auto release = [&](const SyncSetting& setting) {
      uint64_t up_to = primary;
      if (!setting.empty()) {
        std::vector<uint64_t> flushed;
        for (const std::string& n : setting.names) flushed.push_back(standbys[n].flush);
        std::ranges::sort(flushed, std::greater{});
        if (setting.count > flushed.size()) return;
        up_to = flushed[setting.count - 1];
      }
      acknowledged = std::max(acknowledged, up_to);
    };
    release(in_force);
    if (!backends_know) release({});
    std::erase_if(stale, [&](const Stale& s) {
      return !standbys[s.name].up || standbys[s.name].flush >= s.marker;
    });
    for (const Stale& s : stale) release(s.setting);
  }

  void reload(const SyncSetting& setting) {
    if (in_force != setting) {
      for (const std::string& n : in_force.names) stale.push_back({n, in_force, primary});
    }
    if (in_force.empty() && !setting.empty()) backends_know = false;
    if (setting.empty()) backends_know = true;
    in_force = setting;
    primary += 10;
    acknowledge();
  }

  void observe() {
    PgStatus status;
    status.sampled_at = now;
    status.run = PgRun::kPrimary;
    status.timeline = status.checkpoint_timeline = Timeline{2};
    status.flush_lsn = Lsn{primary};
    status.sync_standbys = in_force.names;
    status.sync_count = in_force.count;
    std::vector<SyncCandidate> candidates;
    for (const auto& [n, s] : standbys) {
      if (!s.up) continue;
      status.senders.push_back({n, true, Lsn{s.flush}, Lsn{s.flush}});
      candidates.push_back({n, name(n.substr(0, 1)), 0, Lsn{s.flush}});
      candidates.back().preferred = n == preferred;
    }
    set.observe(status, candidates, config.sync_degrade_after, now);
  }

  void act() {
    const SyncStep step = set.plan(record, kEpoch, {name("a"), "a_1"}, config, now);
    ++steps[step.kind];
    if (step.kind == SyncStep::Kind::kRecord) {
      if (!prng.chance(0.1)) record = step.record;  // else: the store did not take it
    } else if (step.kind == SyncStep::Kind::kApply) {
      set.applying();
      const bool fails = prng.chance(0.2);
      const SyncSetting setting{step.names, step.count};
      if (!fails || prng.chance(0.5)) reload(setting);
      if (fails) return set.apply_failed(setting);
      if (step.from_empty) backends_know = true;
      primary += 10;
      set.applied(setting, Lsn{primary}, now);
    } else if (step.kind == SyncStep::Kind::kTerminate) {
      for (const std::string& n : step.names) standbys[n].up = false;
    }
  }

  void check() {
    if (record.generations.empty() || record.generations.back().voters.empty()) return;
    const Generation& g = record.generations.back();
    ASSERT_GE(g.quorum, 1u);
    ASSERT_LE(g.quorum, g.voters.size());
    // The worst q voters: the most advanced of them is what is elected.
    std::vector<uint64_t> flushed;
    for (const std::string& v : g.voters) flushed.push_back(standbys[v].flush);
    std::ranges::sort(flushed);
    if (flushed[g.quorum - 1] < acknowledged) violated = true;
  }

  struct Standby {
    bool up = true;
    uint64_t flush = 0;
  };
  UnsafeMutations unsafe_;
  ClusterConfig config;
  SyncSet set;
  Prng prng;
  MonoTime now{std::chrono::hours(1)};
  SyncRecord record;
  uint64_t primary = 1000;
  uint64_t acknowledged = 0;
  std::map<std::string, Standby> standbys;
  std::string preferred;
  SyncSetting in_force;
  bool backends_know = true;
  struct Stale {
    std::string name;
    SyncSetting setting;
    uint64_t marker;
  };
  std::vector<Stale> stale;
  std::map<SyncStep::Kind, int> steps;
  bool violated = false;
};

TEST(SyncSetTest, RecordedVotersAlwaysHaveEveryAcknowledgedCommit) {
  std::map<SyncStep::Kind, int> steps;
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    Model model(seed, {});
    model.config.sync_strict = seed % 3 == 0;
    for (int i = 0; i < 400 && !model.violated; ++i) model.tick();
    ASSERT_FALSE(model.violated) << "seed " << seed;
    for (const auto& [kind, n] : model.steps) steps[kind] += n;
  }
  EXPECT_GT(steps[SyncStep::Kind::kRecord], 1000);
  EXPECT_GT(steps[SyncStep::Kind::kApply], 1000);
}

TEST(SyncSetTest, EveryQuorumMeetsEveryElectionThoughTheSetAndItsCountChange) {
  std::map<SyncStep::Kind, int> steps;
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    Model model(seed, {});
    model.config.sync_mode = SyncMode::kQuorum;
    model.config.sync_strict = seed % 3 == 0;
    for (int i = 0; i < 400 && !model.violated; ++i) {
      if (i % 40 == 0) model.config.sync_count = 1 + model.prng.below(3);
      if (i % 90 == 89) model.config.sync_mode = SyncMode::kOn;
      if (i % 90 == 44) model.config.sync_mode = SyncMode::kQuorum;
      model.tick();
    }
    ASSERT_FALSE(model.violated) << "seed " << seed;
    for (const auto& [kind, n] : model.steps) steps[kind] += n;
  }
  EXPECT_GT(steps[SyncStep::Kind::kRecord], 1000);
  EXPECT_GT(steps[SyncStep::Kind::kApply], 1000);
}

TEST(SyncSetTest, TooSmallAnElectionIsCaught) {
  bool caught = false;
  for (uint64_t seed = 1; seed <= 300 && !caught; ++seed) {
    Model model(seed, {.short_quorum = true});
    model.config.sync_mode = SyncMode::kQuorum;
    for (int i = 0; i < 400 && !model.violated; ++i) model.tick();
    caught = model.violated;
  }
  EXPECT_TRUE(caught);
}

TEST(SyncSetTest, QuorumTakesAllThatKeepUpAndDropsWhoDoesNot) {
  Model model(1, {});
  model.config.sync_mode = SyncMode::kQuorum;
  model.config.sync_count = 2;
  const auto turn = [&] {
    model.now += 50ms;
    model.primary += 10;
    for (auto& [n, s] : model.standbys) s.flush = s.up ? model.primary : s.flush;
    model.observe();
    model.act();
  };
  for (int i = 0; i < 100; ++i) turn();
  EXPECT_EQ(model.in_force, (SyncSetting{{"b_1", "c_1", "d_1"}, 2}));
  EXPECT_EQ(model.record.generations.back().quorum, 2u);  // 3 - 2 + 1
  EXPECT_TRUE(model.set.healthy(model.record, kEpoch));
  model.standbys["c_1"].up = false;
  for (int i = 0; i < 40; ++i) turn();
  EXPECT_EQ(model.in_force, (SyncSetting{{"b_1", "d_1"}, 2}));
  EXPECT_EQ(model.record.generations.back().quorum, 1u);
  model.standbys["d_1"].up = false;
  for (int i = 0; i < 40; ++i) turn();
  EXPECT_EQ(model.in_force, (SyncSetting{{"b_1"}, 1}))
      << "fewer than asked for, outside strict mode";
}

TEST(SyncSetTest, StandbyThatIsOnlyHopedForDoesNotRaiseTheCount) {
  Model model(1, {});
  model.config.sync_mode = SyncMode::kQuorum;
  model.config.sync_count = 2;
  model.config.sync_strict = true;
  model.standbys.erase("c_1");
  model.standbys["d_1"].up = false;  // rebuilt: it never comes back under this name
  model.in_force = {{"d_1"}, 1};
  model.record.generations.back() = make_generation(kEpoch, {name("a"), "a_1"}, {{"d_1"}, 1});
  model.set.in_force_from_start({{"d_1"}, 1}, SyncSet::Confirm::kYes, model.now);
  for (int i = 0; i < 100; ++i) {
    model.now += 50ms;
    model.standbys["b_1"].flush = model.primary;
    model.observe();
    model.act();
  }
  EXPECT_EQ(model.in_force, (SyncSetting{{"b_1"}, 1}));
  EXPECT_TRUE(model.set.caught_up());
}

TEST(SyncSetTest, SettingBeforeRecordIsCaught) {
  bool caught = false;
  for (uint64_t seed = 1; seed <= 300 && !caught; ++seed) {
    Model model(seed, {.sync_before_record = true});
    for (int i = 0; i < 400 && !model.violated; ++i) model.tick();
    caught = model.violated;
  }
  EXPECT_TRUE(caught);
}

TEST(SyncSetTest, SettingChangedBySomebodyElseIsSetAgainAsIfComingFromEmpty) {
  Model model(1, {});
  while (model.set.setting().empty() || !model.set.healthy(model.record, kEpoch)) {
    model.now += 50ms;
    for (auto& [n, s] : model.standbys) s.flush = model.primary;
    model.observe();
    model.act();
  }
  const auto before = model.in_force.names;
  model.in_force = {};
  model.observe();
  EXPECT_FALSE(model.set.healthy(model.record, kEpoch));
  const SyncStep step =
      model.set.plan(model.record, kEpoch, {name("a"), "a_1"}, model.config, model.now);
  EXPECT_EQ(step.kind, SyncStep::Kind::kApply);
  EXPECT_EQ(step.names, before);
  EXPECT_TRUE(step.from_empty);
}

TEST(SyncSetTest, StrictModeNeverGoesOnAlone) {
  Model model(7, {});
  model.config.sync_strict = true;
  for (int i = 0; i < 50; ++i) model.tick();
  for (auto& [n, s] : model.standbys) s.up = false;
  for (int i = 0; i < 100; ++i) {
    model.now += 100ms;
    model.observe();
    model.act();
  }
  EXPECT_FALSE(model.set.setting().empty());
}

TEST(SyncSetTest, ModeOffEmptiesTheSettingBeforeTheRecord) {
  Model model(8, {});
  for (int i = 0; i < 50; ++i) model.tick();
  model.config.sync_mode = SyncMode::kOff;
  for (int i = 0; i < 50 && !model.record.generations.empty(); ++i) {
    model.tick();
    EXPECT_TRUE(!model.record.generations.empty() || model.set.setting().empty());
  }
  EXPECT_TRUE(model.record.generations.empty());
}

}  // namespace
}  // namespace bascule::control
