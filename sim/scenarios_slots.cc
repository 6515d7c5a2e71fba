// One row and one script a scenario: consumers of failover slots (PostgreSQL 17 and later) while
// primaries change. What they were sent is checkers/consumers.cc's to judge.
#include <algorithm>

#include "sim/scenario_kit.h"

namespace bascule::sim {

using namespace control;

namespace {

constexpr char kMadeAnew[] = "exception.slot_made_anew";

// A promotion anywhere would go on from the slot: what the documentation asks operators to see.
void expect_carried_everywhere(Script& s) {
  const auto carried = [&] {
    return std::ranges::all_of(s.cluster().members(), [&](const auto& m) {
      return m.get() == s.leader() || s.cluster().consumer()->carried_by(*m);
    });
  };
  s.expect(s.cluster().run_until(carried, millis(60000)), "not every standby has the slot");
}

void expect_sent_everything(Script& s) {
  const Member* leader = s.leader();
  if (leader == nullptr) return s.expect(false, "nobody leads");
  const uint64_t end = leader->pg().data().end();
  s.expect(s.cluster().run_until([&] { return s.cluster().consumer()->received() >= end; },
                                 millis(30000)),
           "the consumer is not sent what is written");
}

void switch_over(Script& s, const Member& from) {
  std::vector<Member*> to;
  for (auto& m : s.cluster().members()) {
    if (m.get() != &from && m->pg().receiver_streaming()) to.push_back(m.get());
  }
  if (to.empty()) return;
  s.cluster().request(RequestKind::kSwitchover, to[s.random().below(to.size())]->name(), false);
}

// Clients reach one that is cut off: it must not show them what it loses.
void cut_off(Script& s, Member& m) {
  std::vector<Endpoint> from = s.members();
  if (s.random().chance(0.7)) from.push_back(kStoreEndpoint);
  s.cut(m, from);
}

void blow(Script& s, Member& m) {
  switch (s.random().below(5)) {
    case 0:
      s.world().trace("scenario: postmaster of {}", m.name().str());
      return kill_postmaster(m);
    case 1:
      s.world().trace("scenario: host of {}", m.name().str());
      return m.power_loss();
    case 2:
      s.world().trace("scenario: processes of {}", m.name().str());
      return m.kill_processes(random_ms(s.random(), 100, 9000));
    case 3:
      return switch_over(s, m);
    default:
      s.world().trace("scenario: links of {}", m.name().str());
      return cut_off(s, m);
  }
}

// The standbys are some way behind: the consumer must be, too.
void lag_a_little(Script& s) {
  for (auto& m : s.cluster().members()) {
    if (s.random().chance(0.4)) m->pg().set_receive_delay(random_ms(s.random(), 1, 700));
  }
}

// The others are healed, and the consumer goes on.
void expect_no_phantom(Script& s) {
  s.heal_everything();
  s.expect_together(millis(90000));
  expect_sent_everything(s);
}

void expect_no_gap(Script& s) {
  expect_no_phantom(s);
  s.expect(s.count(kMadeAnew) == 0, "the slot was lost, and made anew");
}

void one_failover(Script& s) {
  expect_carried_everywhere(s);
  lag_a_little(s);
  s.wait(millis(0), millis(3000));
  s.strikes("the primary of a consumer is lost, or hands over");
  blow(s, s.primary());
  s.wait(millis(1000), millis(10000));
  expect_no_gap(s);
}

void second_right_after(Script& s) {
  expect_carried_everywhere(s);
  lag_a_little(s);
  s.strikes("the primary of a consumer is lost, and the next one right after");
  blow(s, s.primary());
  s.cluster().run_until([&] { return s.leader() != nullptr && s.leader() != &s.primary(); },
                        millis(12000));
  s.wait(millis(0), millis(1500));
  if (Member* second = s.leader()) blow(s, *second);
  s.wait(millis(1000), millis(10000));
  expect_no_phantom(s);
  // PostgreSQL 17 copies no slot over one that a member had as a primary: Bascule drops that once
  // the member streams, and until the copy is sound the member has none.
  s.expect(s.count(kMadeAnew) == 0 || s.leader() == &s.primary(), "a copy of the slot was lost");
}

// Standbys go and come, the primary is alone for a while, k changes: a crash between any two steps.
void set_changes(Script& s) {
  expect_carried_everywhere(s);
  s.strikes("the set of standbys that a consumer waits for changes, and the primary is lost");
  std::vector<Member*> away;
  for (auto& m : s.cluster().members()) {
    if (m.get() == &s.primary() || !s.random().chance(0.5)) continue;
    away.push_back(m.get());
    m->power_loss();
    s.wait(millis(0), millis(1500));
  }
  if (s.random().chance(0.5)) {
    s.cluster().change_config([&](ClusterConfig& c) { c.sync_count = 1 + s.random().below(2); });
  }
  s.wait(millis(0), millis(3000));
  for (Member* m : away) {
    m->boot();
    s.wait(millis(0), millis(3000));
  }
  blow(s, s.primary());
  s.wait(millis(1000), millis(10000));
  expect_no_gap(s);
}

void several_in_a_row(Script& s) {
  s.strikes("the primary of a consumer changes again and again");
  for (int i = 0; i < 3; ++i) {
    expect_carried_everywhere(s);
    lag_a_little(s);
    s.wait(millis(0), millis(2000));
    if (Member* l = s.leader()) blow(s, *l);
    s.wait(millis(1000), millis(9000));
    expect_no_gap(s);
  }
}

void with_consumer(Plan& p) {
  p.consumer.on = true;
  p.config.slots["cdc"] = {.plugin = "pgoutput", .database = "app"};
  p.config.parameters = {
      {"hot_standby_feedback", "on"}, {"sync_replication_slots", "on"}, {"wal_level", "logical"}};
  p.slow_reloads = 0.2;
  Prng modes = Prng::stream(p.seed, "plan: consumer");
  p.config.sync_strict = modes.chance(0.5);
  if (modes.chance(0.5)) return;
  p.config.sync_mode = SyncMode::kQuorum;
  if (!modes.chance(0.4)) return;
  p.nodes = 4;
  p.config.sync_count = 1 + modes.below(2);
}

void two_with_consumer(Plan& p) {
  with_consumer(p);
  p.nodes = 2;
  p.config.sync_count = 1;
}

constexpr Scenario kScenarios[] = {
    {"55", "a consumer of a failover slot, one fail-over", one_failover, with_consumer},
    {"55b", "a consumer, a second fail-over right after", second_right_after, with_consumer},
    {"55c", "a consumer, the set changes, the primary is lost", set_changes, with_consumer},
    {"55d", "a consumer, three fail-overs", several_in_a_row, with_consumer},
    {"55e", "a consumer, two members", set_changes, two_with_consumer},
};

}  // namespace

std::span<const Scenario> slot_scenarios() { return kScenarios; }

}  // namespace bascule::sim
