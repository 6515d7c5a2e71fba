// One row and one script a scenario: durability, rejoin, operations, adversarial.
// Bounds are in simulated time, where operations take what they take on a loaded host
// (operations.cc); the integration tests measure real ones.
#include <algorithm>

#include "sim/scenario_kit.h"

namespace bascule::sim {

using namespace control;

namespace {

// ---- durability ---------------------------------------------------------------------------------

void primary_and_its_standby_die(Script& s) {
  Member& waited_for = s.standby();
  s.strikes("the primary and the standby that has everything die");
  s.world().after(random_ms(s.random(), 0, 5), ProcessId::kWorld,
                  [&waited_for] { waited_for.power_loss(); });
  s.primary().power_loss();
  s.wait(millis(20000));
  s.expect_nobody_because("needs ballots of 1 of");
  waited_for.boot();
  s.expect_taken_over_within(millis(10000));
}

void standby_dies(Script& s) {
  s.strikes("the synchronous standby dies");
  s.standby().power_loss();
  s.expect_writable_within(kRestart);
  s.wait(millis(8000));
  s.expect_nothing_changed();
  s.expect_gap_below(millis(3500));
}

void standby_dies_strict(Script& s) {
  Member& only = s.standby();
  s.strikes("the only standby dies in strict mode");
  only.power_loss();
  s.wait(millis(8000));
  s.expect(s.gap() > millis(7000), "writes were acknowledged by nobody else");
  only.boot();
  s.expect_writable_within(millis(10000));
  s.expect_leader(s.primary());
}

void set_change_races_crash(Script& s) {
  s.strikes("the set changes, and the primary dies at any step of it");
  Member& lost = s.standby();
  lost.power_loss();
  s.wait(millis(0), millis(2500));
  s.primary().power_loss();
  s.wait(millis(7000));
  lost.boot();
  s.wait(millis(500));
  s.primary().boot();
  s.expect_writable_within(millis(15000));
}

void new_standby_races_crash(Script& s) {
  Member& only = s.standby();
  only.power_loss();
  s.wait(millis(4000));  // alone
  only.boot();
  s.strikes("a standby becomes the synchronous one, and the primary dies at any step of it");
  s.wait(millis(0), millis(2500));
  s.primary().power_loss();
  s.wait(millis(12000));
  s.primary().boot();
  s.expect_writable_within(millis(15000));
}

// ANY 1 of 2: nobody knows which of them has the last commits.
void quorum_loses_one_of_two(Script& s) {
  s.strikes("the primary and one of two standbys die");
  s.standby().power_loss();
  s.primary().power_loss();
  s.wait(millis(20000));
  s.expect_nobody_because("needs ballots of 2 of");
  s.standby().boot();
  s.expect_taken_over_within(millis(10000));
}
void any_one(Plan& p) { p.config.sync_mode = SyncMode::kQuorum; }
void any_two(Plan& p) {
  p.nodes = 4;
  p.config.sync_mode = SyncMode::kQuorum;
  p.config.sync_count = 2;
}

void quorum_survives_a_standby(Script& s) {
  s.strikes("one of the standbys dies; writes go on with the others");
  s.standby().power_loss();
  s.wait(millis(5000));
  s.expect_gap_below(millis(1500));
  s.primary().power_loss();
  s.expect_taken_over_within(kSilence);
  s.expect_changes(1, 1);
}

// 1 to 3 of 3 and back, others coming and going: with a crash between any two steps.
void quorum_changes_race_crash(Script& s) {
  s.strikes("the quorum's set and count change, and the primary dies at any step of it");
  Member& lost = s.other();
  if (s.random().chance(0.5)) lost.power_loss();
  s.cluster().change_config([&](ClusterConfig& c) { c.sync_count = 1 + s.random().below(3); });
  s.wait(millis(0), millis(1500));
  if (s.random().chance(0.5)) {
    s.cluster().change_config([&](ClusterConfig& c) { c.sync_count = 1 + s.random().below(3); });
    s.wait(millis(0), millis(800));
  }
  s.primary().power_loss();
  s.wait(millis(7000));
  lost.boot();
  s.primary().boot();
  s.expect_writable_within(millis(20000));
}

void lag_over_the_limit(Script& s) {
  s.strikes("the standbys lag, and the primary is lost");
  for (auto& m : s.cluster().members()) {
    if (m.get() != &s.primary()) m->pg().set_receive_delay(millis(60000));
  }
  s.wait(millis(5000));
  s.primary().power_loss();
  s.wait(millis(15000));
  s.expect_nobody_because("more than maximum_lag");
  s.cluster().request(RequestKind::kFailover, s.other().name(), /*force=*/true);
  s.expect_writable_within(millis(5000));
  s.expect(s.count("promotions.forced") == 1, "the history does not say that it was forced");
}

// What is forced waits until somebody says that the old primary is off: it can't be told from one
// that goes on with its standby, cut from the store.
void forced_after_two_deaths(Script& s) {
  Member& left = s.other();
  s.strikes("the primary and the standby that has everything die for good");
  s.primary().power_loss();
  s.standby().power_loss();
  s.wait(millis(8000));
  s.cluster().request(RequestKind::kFailover, left.name(), /*force=*/true);
  s.wait(millis(15000));
  s.expect_nobody_because("--old-primary-is-dead");
  s.expect_changes(0, 0);
  s.cluster().request(RequestKind::kFailover, left.name(), /*force=*/true, /*dead=*/true);
  s.expect_writable_within(millis(6000));
  s.expect_leader(left);
}

void forced_in_failsafe(Script& s) {
  Member& left = s.other();
  s.strikes("the primary and its standby lose the store, and the third member is forced");
  for (Member* m : {&s.primary(), &s.standby()}) s.cut(*m, {kStoreEndpoint, left.host()});
  s.wait(millis(500), millis(8000));
  s.cluster().request(RequestKind::kFailover, left.name(), /*force=*/true);
  s.wait(millis(20000));
  s.expect_nothing_changed();
  s.expect_gap_below(millis(2000));
}

// ---- rejoin -------------------------------------------------------------------------------------

void diverged_primary_is_rewound(Script& s) {
  s.strikes("the primary writes what nobody gets, and is lost");
  s.cut(s.primary(), {s.standby().host(), s.other().host(), kStoreEndpoint});
  s.expect_taken_over_within(kSilence);
  s.wait(millis(1000));
  s.heal(s.primary(), Script::everything());
  s.expect_together();
  s.expect(s.count("model.rewound") + s.count("op.clone") > 2, "it was neither rewound nor cloned");
  s.expect(s.count("model.rewound") >= 1, "it was not rewound");
  s.expect_changes(1, 1);
}

void source_dies_during_rewind(Script& s) {
  s.strikes("the source of a rewind dies in the middle of it");
  s.cut(s.primary(), {s.standby().host(), s.other().host(), kStoreEndpoint});
  s.wait(millis(8000));
  s.heal(s.primary(), Script::everything());
  Member& old = s.primary();
  s.cluster().run_until([&] { return old.agent()->phase() == Phase::kRewinding; }, millis(10000));
  s.wait(millis(0), millis(600));
  if (Member* source = s.leader()) {
    source->power_loss();
    s.wait(millis(12000));
    source->boot();
  }
  s.expect_writable_within(millis(15000));
  s.expect_together();
}

void wal_is_missing(Script& s) {
  Member& away = s.other();
  s.strikes("a replica is away for longer than its WAL is kept");
  away.power_loss();
  s.wait(millis(3000));
  s.primary().pg().data().oldest = s.primary().pg().data().end();
  const uint64_t clones = s.count("op.clone");
  away.boot();
  s.expect_together();
  s.expect(s.count("op.clone") > clones, "it was not cloned");
  s.expect_leader(s.primary());
}

void there_and_back(Script& s) {
  s.strikes("fail-overs from one to the other and back");
  for (int i = 0; i < 3; ++i) {
    Member* l = s.leader();
    if (l == nullptr) break;
    if (s.random().chance(0.5)) {
      kill_postmaster(*l);
    } else {
      l->power_loss();
      s.wait(millis(7000));
      l->boot();
    }
    s.expect_taken_over_within(kSilence, *l);
    s.expect_redundant();
  }
  s.expect_changes(3, 3);
}

void double_failover(Script& s) {
  s.strikes("two fail-overs; both old primaries return");
  s.primary().power_loss();
  s.expect_taken_over_within(kSilence);
  Member* second = s.leader();
  if (second != nullptr) second->power_loss();
  s.wait(millis(8000));
  s.primary().boot();
  s.wait(millis(0), millis(3000));
  if (second != nullptr) second->boot();
  s.expect_writable_within(millis(15000));
  s.expect_together();
}

void foreign_system_identifier(Script& s) {
  Member& foreign = s.other();
  s.strikes("a data directory of another cluster is put in place");
  foreign.power_loss();
  DataDirectory& d = foreign.pg().data();
  const DataDirectory good = d;
  d.system_id ^= 0xFFFF;
  foreign.boot();
  s.wait(millis(5000));
  s.expect(foreign.agent() != nullptr && foreign.agent()->phase() == Phase::kRefused,
           "it was not refused");
  s.expect(d.state == DataDir::kReady && d.system_id != good.system_id, "it was overwritten");
  s.expect_leader(s.primary());
  foreign.power_loss();
  foreign.pg().data() = good;
  foreign.boot();
  s.expect_together();
}

void total_power_loss(Script& s) {
  s.strikes("everybody loses power; they come back in any order");
  for (auto& m : s.cluster().members()) m->power_loss();
  s.wait(millis(2000));
  std::vector<Member*> order;
  for (auto& m : s.cluster().members()) order.push_back(m.get());
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[s.random().below(i)]);
  for (Member* m : order) {
    m->boot();
    s.wait(millis(0), millis(9000));
  }
  s.expect_writable_within(millis(20000));
  s.expect_together();
}

// ---- operations ---------------------------------------------------------------------------------

void switchover(Script& s) {
  Member& candidate = s.random().chance(0.5) ? s.standby() : s.other();
  s.strikes("switchover");
  s.cluster().request(RequestKind::kSwitchover, candidate.name(), false);
  s.cluster().run_until([&] { return s.leader() == &candidate; }, millis(5000));
  s.expect_leader(candidate);
  s.expect_writable_within(millis(3000));
  s.expect_gap_below(millis(2500));
  s.expect_together();
  s.expect(s.count("requests.done") == 1, "the request is not done");
  s.expect(s.count("op.rewind") == 0, "the old primary was rewound");
  s.expect_changes(1, 1);
}

void candidate_dies(Script& s) {
  Member& candidate = s.standby();
  s.strikes("the candidate of a switchover dies in the middle of it");
  s.cluster().request(RequestKind::kSwitchover, candidate.name(), false);
  s.wait(millis(0), millis(700));
  candidate.power_loss();
  s.expect_outcome_within(millis(40000));
  s.expect_writable_within(millis(15000));
  s.expect(s.leader() != &candidate, "the dead one leads");
}

void slow_shutdown(Script& s) {
  s.strikes("a switchover whose clean stop hangs in archiving");
  s.primary().pg().set_slow_shutdown(true);
  s.cluster().request(RequestKind::kSwitchover, s.standby().name(), false);
  s.expect_outcome_within(millis(40000));
  s.expect_writable_within(millis(15000));
}

void paused(Script& s) {
  s.strikes("paused, and the primary is killed");
  s.cluster().pause(true);
  s.wait(millis(300));
  kill_postmaster(s.primary());
  s.wait(millis(20000));
  s.expect(s.gap() > millis(19000), "something was done");
  s.expect_changes(0, 0);
  s.cluster().pause(false);
  s.expect_writable_within(kRestart);
}

// The wall clock of the leader says when; what nobody may begin waits, and is begun afterwards.
void scheduled_switchover(Script& s) {
  Member& candidate = s.standby();
  const bool paused = s.random().chance(0.5);
  TaskRecord task;
  task.kind = TaskKind::kSwitchover;
  task.candidate = candidate.name();
  const Nanos ahead = millis(6000);
  task.at = WallTime(std::chrono::duration_cast<Millis>(s.world().now() + ahead));
  if (paused) s.cluster().pause(true);
  s.strikes(paused ? "a scheduled switchover comes due while the cluster is paused"
                   : "a scheduled switchover comes due");
  s.cluster().task(task);
  s.wait(ahead - millis(200));
  s.expect_changes(0, 0);
  if (paused) {
    s.wait(millis(8000));
    s.expect_changes(0, 0);
    s.cluster().pause(false);
  }
  s.cluster().run_until([&] { return s.leader() == &candidate; }, millis(6000));
  s.expect_leader(candidate);
  s.expect_changes(1, 1);
  s.expect_gap_below(millis(2500));
  s.expect_together();
}

void daemons_restart(Script& s) {
  s.strikes("every agent is restarted, one after another");
  for (auto& m : s.cluster().members()) {
    m->kill_agent(random_ms(s.random(), 50, 800));
    s.wait(millis(3000));
  }
  s.expect_nothing_changed();
  s.expect_gap_below(millis(2000));
}

void region_lost(Script& s) {
  const std::string region = s.primary().config().region;
  std::vector<Member*> lost;
  for (auto& m : s.cluster().members()) {
    if (m->config().region == region) lost.push_back(m.get());
  }
  s.strikes("a region is lost");
  for (Member* m : lost) m->power_loss();
  s.expect_taken_over_within(kSilence);
  s.wait(millis(5000));
  for (Member* m : lost) m->boot();
  s.expect_together();
  s.expect_changes(1, 1);
}
void two_regions(Plan& p) {
  p.nodes = 4;
  p.config.sync_mode = SyncMode::kOff;
  p.regions = {"a", "a", "b", "b"};
}

void relays(Plan& p) {
  two_regions(p);
  p.config.region_relays = true;
}

void relay_dies(Script& s) {
  Member* below = nullptr;
  Member* relay = nullptr;
  const auto find_relay = [&] {
    for (auto& m : s.cluster().members()) {
      const auto upstream = m->pg().status().upstream;
      if (!upstream || *upstream == s.primary().name() || !m->pg().receiver_streaming()) continue;
      below = m.get();
      relay = &s.named(upstream->str());
    }
    return relay != nullptr;
  };
  s.expect(s.cluster().run_until(find_relay, millis(30000)), "no member streams from a relay");
  if (relay == nullptr) return;
  s.strikes("the relay of a region dies");
  relay->power_loss();
  const auto hangs_elsewhere = [&] {
    return below->pg().receiver_streaming() && below->pg().status().upstream != relay->name();
  };
  s.expect(s.cluster().run_until(hangs_elsewhere, millis(15000)), "it was not hung elsewhere");
  s.expect_nothing_changed();
  s.expect_gap_below(millis(2000));
  relay->boot();
}

void region_swap(Script& s) {
  const auto& all = s.cluster().members();
  const auto there = std::ranges::find_if(
      all, [&](const auto& m) { return m->config().region != s.primary().config().region; });
  s.strikes("planned swap of regions");
  s.cluster().request(RequestKind::kSwitchover, (*there)->name(), false);
  s.cluster().run_until([&] { return s.leader() == there->get(); }, millis(6000));
  s.expect_leader(**there);
  s.expect_together();
  s.expect(s.count("async.losses") == 0, "commits were lost");
}

void each_of_two_is_lost(Script& s) {
  Member& standby = s.standby();
  s.strikes("each of two members is lost in turn");
  standby.power_loss();
  s.expect_writable_within(kRestart);  // alone, recorded
  s.wait(millis(3000));
  standby.boot();
  s.expect_redundant();
  s.primary().power_loss();
  s.expect_taken_over_within(kSilence);
  s.expect_leader(standby);
}

// ---- adversarial --------------------------------------------------------------------------------

void replay_is_blocked(Script& s) {
  s.strikes("the standby that is asked to ballot can't replay");
  s.standby().pg().block_replay(millis(15000));
  s.wait(millis(100), millis(1500));
  s.primary().power_loss();
  s.expect_taken_over_within(kSilence + millis(2000));
  s.expect_changes(1, 1);
}

void standby_restarts_after_acknowledging(Script& s) {
  s.strikes("the standby restarts right after it acknowledged, and the primary dies");
  kill_postmaster(s.standby());
  s.wait(millis(0), millis(300));
  s.primary().power_loss();
  s.expect_taken_over_within(millis(15000));
}

void two_failovers_in_a_row(Script& s) {
  s.strikes("the second fail-over begins before the first one's standbys have caught up");
  s.other().pg().set_receive_delay(millis(2000));
  kill_postmaster(s.primary());
  s.expect_taken_over_within(millis(6000));  // the new primary may have asked the slow one first
  s.wait(millis(0), millis(800));
  if (Member* second = s.leader()) kill_postmaster(*second);
  s.expect_writable_within(millis(15000));
  s.expect_together();
}

void late_requests(Script& s) {
  s.strikes("requests to the store are applied seconds late while the record changes hands");
  StoreFaults& f = s.cluster().store().faults();
  f.apply_late = 0.5;
  f.client_timeout = millis(8000);
  s.wait(millis(0), millis(3000));
  s.primary().power_loss();
  s.wait(millis(12000));
  f.apply_late = 0;
  f.client_timeout = millis(1000);
  s.expect_writable_within(millis(20000));
}

void late_confirmation(Script& s) {
  s.strikes("the winner hears of its take-over after its deadline");
  StoreFaults& f = s.cluster().store().faults();
  f.reply_late = 0.6;
  f.client_timeout = millis(8000);
  s.primary().power_loss();
  s.wait(millis(15000));
  f.reply_late = 0;
  f.client_timeout = millis(1000);
  s.expect_writable_within(millis(20000));
}

// The leader asks for pledges while those whom it asks begin to suspect it.
void pledge_races_ballot(Script& s) {
  s.wait(millis(5500));  // early evidence counts once the agents have run for a ttl
  s.strikes("the primary loses the store for long, and the others for about the tolerance");
  s.cut(s.primary(), {kStoreEndpoint});
  s.cut(s.primary(), s.members());
  s.wait(millis(900), millis(2900));
  s.heal(s.primary(), s.members());
  s.expect_writable_within(kSilence + millis(5000));
  s.expect_changes(0, 1);
}

void agent_and_guard_killed(Script& s) {
  const bool agent_first = s.random().chance(0.5);
  s.strikes(agent_first ? "agent, then guard" : "guard, then agent");
  if (agent_first) s.primary().kill_agent(millis(12000));
  s.wait(millis(0), millis(300));
  s.primary().kill_guard();
  s.wait(millis(0), millis(300));
  if (!agent_first) s.primary().kill_agent(millis(12000));
  s.wait(millis(500));
  s.expect_writable_within(kSilence);
  s.expect_together();
}

constexpr Scenario kScenarios[] = {
    {"32", "primary and its standby die", primary_and_its_standby_die},
    {"32b", "ANY 1 of 2: primary and a standby die", quorum_loses_one_of_two, any_one},
    {"33", "synchronous standby dies", standby_dies},
    {"33c", "ANY 2 of 3: a standby dies, then the primary", quorum_survives_a_standby, any_two},
    {"33b", "only standby dies, strict", standby_dies_strict,
     [](Plan& p) {
       strict(p);
       two_members(p);
     }},
    {"34", "the set changes, the primary dies", set_change_races_crash},
    {"35", "a new standby, the primary dies", new_standby_races_crash, two_members},
    {"39", "asynchronous lag over the limit", lag_over_the_limit,
     [](Plan& p) {
       asynchronous(p);
       p.config.maximum_lag_bytes = 16 << 10;
     }},
    {"39b", "forced after the primary and its standby have died", forced_after_two_deaths},
    {"39c", "forced while the primary goes on without the store", forced_in_failsafe},
    {"40", "diverged primary", diverged_primary_is_rewound},
    {"41", "the source of a rewind dies", source_dies_during_rewind},
    {"42", "WAL missing", wal_is_missing},
    {"43", "there and back", there_and_back},
    {"44", "double fail-over", double_failover},
    {"45", "foreign system identifier", foreign_system_identifier},
    {"46", "total power loss", total_power_loss},
    {"47", "switchover under load", switchover},
    {"48", "candidate dies in the middle", candidate_dies},
    {"49", "clean stop hangs in archiving", slow_shutdown},
    {"50", "scheduled switchover, also while paused", scheduled_switchover},
    {"51", "paused, then the primary is killed", paused},
    {"53", "rolling restart of the daemons", daemons_restart},
    {"54", "the relay of a region dies", relay_dies, relays},
    {"57", "region lost", region_lost, two_regions},
    {"58", "planned swap of regions", region_swap, two_regions},
    {"60", "two members, each lost in turn", each_of_two_is_lost, two_members},
    {"61", "replay blocked at the ballot", replay_is_blocked},
    {"62", "standby restarts after acknowledging", standby_restarts_after_acknowledging},
    {"63", "two fail-overs in a row", two_failovers_in_a_row},
    {"64", "ANY k changes, the primary dies", quorum_changes_race_crash, any_two},
    {"65", "late requests", late_requests},
    {"67", "late confirmation", late_confirmation},
    {"69", "pledge and ballot race", pledge_races_ballot, early},
    {"72", "agent and guard killed", agent_and_guard_killed},
};

}  // namespace

std::span<const Scenario> data_scenarios() { return kScenarios; }

}  // namespace bascule::sim
