// One row and one script a scenario: processes, hosts, network, store.
// Bounds are in simulated time, where operations take what they take on a loaded host
// (operations.cc); the integration tests measure real ones.
#include <algorithm>

#include "sim/scenario_kit.h"

namespace bascule::sim {

using namespace control;

namespace {

// ---- failure ------------------------------------------------------------------------------------

void postmaster_killed_restart(Script& s) {
  const uint64_t epoch = s.epoch();
  s.strikes("the postmaster is killed");
  kill_postmaster(s.primary());
  s.expect_writable_within(kRestart);
  s.expect_leader(s.primary());
  s.expect(s.epoch() == epoch, "the epoch changed");
  s.expect(s.primary().pg().data().timeline == 1, "the timeline changed");
  s.expect_gap_below(kRestart);
}

void postmaster_killed_failover(Script& s) {
  s.strikes("the postmaster is killed");
  kill_postmaster(s.primary());
  s.expect_taken_over_within(kFailover);
  s.expect_changes(1, 1);
  s.expect_gap_below(kFailover);
}

void crash_loop(Script& s) {
  s.strikes("the postmaster is killed again and again");
  // Nobody is safe while the standbys wait for their next attempt to connect.
  for (int i = 0; i < 15 && (s.leader() == &s.primary() || s.leader() == nullptr); ++i) {
    if (s.primary().pg().any_process()) kill_postmaster(s.primary());
    s.wait(millis(500), millis(4000));
  }
  s.expect_taken_over_within(kRestart);
  s.wait(millis(20000));
  s.expect_changes(1, 2);  // it may win once more before its standbys have caught up
}

void host_lost(Script& s) {
  s.strikes("the primary's host is lost");
  s.primary().power_loss();
  s.expect_taken_over_within(kSilence);
  s.expect_changes(1, 1);
  s.expect_gap_below(kSilence);
}

void host_killed_early(Script& s) {
  s.wait(millis(5500));  // early evidence counts once the agents have run for a ttl
  s.strikes("every process of the primary's host is killed; its kernel lives");
  s.primary().kill_processes(millis(20000));
  s.expect_taken_over_within(kEarly);
  s.expect_changes(1, 1);
  s.expect_gap_below(kEarly);
}

void host_lost_early(Script& s) {
  s.wait(millis(5500));
  s.strikes("the primary's host is lost");
  s.primary().power_loss();
  s.expect_taken_over_within(kTolerance + millis(2500));
  s.expect_changes(1, 1);
  s.expect_gap_below(kTolerance + millis(2500));
}

void agent_killed(Script& s) {
  s.strikes("the agent is killed and comes back at once");
  s.primary().kill_agent(random_ms(s.random(), 50, 900));
  s.wait(millis(8000));
  s.expect_nothing_changed();
  s.expect_gap_below(millis(2000));
  s.strikes("the agent is killed and stays away");
  s.primary().kill_agent(millis(20000));
  s.wait(millis(1000));
  s.expect_taken_over_within(kSilence);
  s.expect(!s.primary().pg().any_process(), "the old primary has not been fenced");
  s.expect_changes(1, 1);
}

void agent_stopped(Script& s) {
  s.strikes("the agent is stopped");
  s.primary().stop_agent();
  s.wait(millis(1000));
  s.expect_taken_over_within(kSilence);
  s.expect(!s.primary().pg().any_process(), "the old primary has not been fenced");
  s.expect_gap_below(kSilence);
  s.primary().continue_agent();
  s.expect_together();
  s.expect_changes(1, 1);
}

void postmaster_stopped(Script& s) {
  s.strikes("PostgreSQL is stopped, all of it");
  s.world().stop(s.primary().pg().process());
  s.expect_taken_over_within(kSilence);
  s.expect_changes(1, 1);
  s.expect_together();
}

void host_suspended(Script& s) {
  s.strikes("the primary's host is suspended");
  s.freeze(s.primary(), World::FrozenClock::kRuns);
  s.expect_taken_over_within(kSilence);
  s.wait(millis(53000));
  s.thaw(s.primary());
  s.expect_together();
  s.expect_changes(1, 1);
}

// Its deadline seems to lie ahead when it wakes up: a proxy that sees nothing but it must not
// believe it.
void host_paused_with_its_clock(Script& s) {
  s.strikes("a proxy is cut from the store, and the primary's virtual machine is paused");
  s.cut_one_way(kStoreEndpoint, kFirstProxy);
  s.wait(millis(500), millis(2500));
  s.freeze(s.primary(), World::FrozenClock::kStops);
  s.expect_taken_over_within(kSilence + millis(5000));  // what it was pledged before ends first
  s.wait(millis(500), millis(5000));
  s.thaw(s.primary());
  s.wait(millis(8000));
  s.heal_everything();
  s.expect_together();
}

void flush_hangs(Script& s) {
  s.strikes("the primary's storage takes no writes any more");
  s.primary().pg().disk().hung_until = s.world().now() + millis(60000);
  s.expect_taken_over_within(kSilence);
  s.expect_changes(1, 1);
  s.expect_gap_below(kSilence);
}

void data_directory_gone(Script& s) {
  s.strikes("the data directory is deleted");
  s.primary().pg().kill_postmaster(Nanos{0});
  s.wait(micros(200));
  s.primary().pg().data() = DataDirectory{};
  s.expect_taken_over_within(kRestart);
  s.expect_together();
  s.expect(s.count("op.init_db") == 1, "another cluster was made");
}

void wall_clock_jumps(Script& s) {
  s.strikes("wall clocks jump by an hour, forth and back");
  for (int i = 0; i < 6; ++i) {
    Member& m = *s.cluster().members()[s.random().below(s.cluster().members().size())];
    m.jump_wall_clock(Millis(s.random().chance(0.5) ? 3600000 : -3600000));
    s.wait(millis(500), millis(2000));
  }
  s.expect_nothing_changed();
  s.expect_gap_below(millis(600));
}

void clients_wait_for_recovered_commits(Script& s) {
  s.strikes("commits wait for the standby when all backends die");
  s.standby().pg().set_receive_delay(millis(300));
  s.wait(millis(100), millis(250));
  kill_postmaster(s.primary());
  s.expect_writable_within(kRestart);
  s.expect_nothing_changed();
}

// ---- network ------------------------------------------------------------------------------------

void primary_cut_from_everything(Script& s) {
  const auto all = Script::everything();
  s.strikes("the primary is cut from everything");
  s.cut(s.primary(), all);
  s.expect_taken_over_within(kSilence);
  s.expect(!s.primary().pg().any_process(), "the old primary has not been fenced");
  s.expect_gap_below(kSilence);
  s.wait(millis(0), millis(10000));
  s.heal(s.primary(), all);
  s.expect_together();
  s.expect_changes(1, 1);
}

void primary_cut_from_store(Script& s) {
  s.strikes("the primary is cut from the store");
  s.cut(s.primary(), {kStoreEndpoint});
  s.wait(millis(3500));  // 0.6 ttl, and the killing
  s.expect(!s.primary().pg().any_process(), "the primary goes on without the record");
  s.expect_taken_over_within(kSilence);
  s.expect_changes(1, 1);
  s.expect_gap_below(kSilence);
}

void primary_cut_from_store_in_failsafe(Script& s) {
  s.strikes("the primary is cut from the store");
  s.cut(s.primary(), {kStoreEndpoint});
  s.wait(millis(30000));
  s.expect_nothing_changed();
  s.expect_gap_below(millis(2000));
  s.cut(s.primary(), s.members());
  s.expect_taken_over_within(kSilence + millis(5000));  // the pledges end first
  s.expect(!s.primary().pg().any_process(), "the old primary has not been fenced");
}

void replicas_cut_from_primary(Script& s) {
  s.strikes("the replicas are cut from the primary; all see the store");
  s.cut(s.primary(), s.members());
  s.expect_writable_within(kRestart);  // alone, recorded
  s.wait(millis(10000));
  s.expect_nothing_changed();
}

void majority_cut_from_store(Script& s) {
  Member& survivor = s.standby();
  s.strikes("the primary and one replica are cut from the store");
  s.cut(s.primary(), {kStoreEndpoint, survivor.host()});
  Member& other = s.other();
  s.cut(other, {kStoreEndpoint, survivor.host()});
  s.expect_taken_over_within(kSilence);
  s.expect_leader(survivor);
  s.expect_changes(1, 1);
}

void one_way_loss(Script& s) {
  s.strikes("what the primary sends is lost");
  for (const Endpoint e : Script::everything()) {
    if (e != s.primary().host()) s.cut_one_way(s.primary().host(), e);
  }
  s.expect_taken_over_within(kSilence);
  s.wait(millis(10000));
  s.expect_changes(1, 1);
}

void loss_and_jitter(Script& s) {
  s.strikes("5 % loss and up to 60 ms of delay everywhere");
  for (Endpoint a = 0; a < kEndpoints; ++a) {
    for (Endpoint b = 0; b < kEndpoints; ++b) {
      if (a == b) continue;
      s.world().set_loss(a, b, 0.05);
      s.world().set_delay(a, b, millis(60));
    }
  }
  s.wait(millis(60000));
  s.expect_changes(0, 0);
  for (Endpoint a = 0; a < kEndpoints; ++a) {
    for (Endpoint b = 0; b < kEndpoints; ++b) {
      if (a == b) continue;
      s.world().set_loss(a, b, 0);
      s.world().set_delay(a, b, Nanos{0});
    }
  }
}

void blip(Script& s) {
  s.cluster().truth().blips_only = true;
  for (int i = 0; i < 4; ++i) {
    s.strikes("the primary is away for less than the tolerance");
    s.cut(s.primary(), Script::everything());
    s.wait(millis(300), millis(1300));
    s.heal(s.primary(), Script::everything());
    s.wait(millis(4000), millis(6000));
  }
  s.expect_nothing_changed();
}

void waits_are_cancelled(Script& s) {
  s.strikes("commits wait for a standby that does not come, and clients cancel");
  s.cut(s.primary(), s.members());
  s.wait(millis(9000));  // the clients' patience is 3 s
  s.expect(s.count("proxy.cancelled_waits") > 0, "no proxy has told of a cancelled wait");
  s.expect_leader(s.primary());
  s.primary().power_loss();
  s.expect_taken_over_within(kSilence + kRestart);  // strict: with a standby
  s.heal_everything();
  s.expect_together();
}

void standbys_cut_off_for_long_may_still_be_elected(Script& s) {
  s.strikes("no standby reaches the primary for longer than the patience with which it waits");
  s.cut(s.primary(), s.members());
  s.wait(millis(15000), millis(30000));
  s.expect_leader(s.primary());
  s.primary().power_loss();
  s.expect_taken_over_within(kSilence + kRestart);  // strict: with a standby
  s.heal_everything();
  s.expect_together();
}

void clients_see_only_the_old_primary(Script& s) {
  s.strikes("the primary keeps its clients and loses the rest");
  std::vector<Endpoint> rest = s.members();
  rest.push_back(kStoreEndpoint);
  s.cut(s.primary(), rest);
  s.expect_taken_over_within(kSilence);
  s.expect(!s.primary().pg().any_process(), "the old primary has not been fenced");
  s.expect_changes(1, 1);
}

// ---- store --------------------------------------------------------------------------------------

void store_leader_change(Script& s) {
  s.strikes("the store is away for as long as an election of its own");
  s.cluster().store().set_outage(true);
  s.wait(millis(600), millis(1200));
  s.cluster().store().set_outage(false);
  s.wait(millis(8000));
  s.expect_nothing_changed();
}

void store_outage(Script& s) {
  s.strikes("the store is away for minutes");
  s.cluster().store().set_outage(true);
  s.wait(millis(60000), millis(180000));
  s.expect_writable_within(millis(1000));
  s.expect_gap_below(millis(2000));
  s.cluster().store().set_outage(false);
  s.wait(millis(8000));
  s.expect_nothing_changed();
}

void store_outage_and_partition(Script& s) {
  s.strikes("the store is away");
  s.cluster().store().set_outage(true);
  s.wait(millis(10000), millis(30000));
  s.strikes("and the primary is cut from the others");
  s.cut(s.primary(), s.members());
  s.wait(millis(3500));
  s.expect(!s.primary().pg().any_process(), "the primary goes on without a pledge");
  s.cluster().store().set_outage(false);
  s.expect_writable_within(kSilence);
}

void store_outage_then_primary_dies(Script& s) {
  s.strikes("the store is away, and the primary dies");
  s.cluster().store().set_outage(true);
  s.wait(millis(500), millis(5000));
  s.primary().power_loss();
  s.wait(millis(20000));
  s.expect_changes(0, 0);
  s.cluster().store().set_outage(false);
  s.expect_writable_within(kSilence);
  s.expect_changes(1, 1);
}

void store_rolling_restart(Script& s) {
  s.strikes("the store's members restart one after another");
  for (int i = 0; i < 3; ++i) {
    s.cluster().store().set_outage(true);
    s.wait(millis(300), millis(1000));
    s.cluster().store().set_outage(false);
    s.wait(millis(3000), millis(5000));
  }
  s.expect_nothing_changed();
}

void store_wiped(Script& s) {
  const uint64_t epoch = s.epoch();
  s.strikes("the store is wiped under a leader that lives");
  s.cluster().truth().store_damaged = true;
  s.cluster().store().wipe();
  s.expect(s.cluster().run_until([&] { return s.leader() == &s.primary(); }, millis(3000)),
           "the store has not been filled again");
  s.expect_writable_within(millis(2000));
  s.expect(s.epoch() == epoch, "another epoch");
  s.expect(s.count("op.init_db") == 1, "another cluster was made");
  s.wait(millis(8000));
  s.expect_together();
  s.strikes("and later the primary's host is lost");
  s.primary().power_loss();
  s.expect_taken_over_within(kSilence);
}

void store_restored(Script& s) {
  s.strikes("the store is restored from a backup under a leader that lives");
  Truth& truth = s.cluster().truth();
  truth.store_damaged = true;
  const uint64_t epoch = s.epoch();
  s.cluster().store().rollback(static_cast<size_t>(s.random().between(1, 30)));
  s.expect_writable_within(millis(5000));
  s.wait(millis(8000));
  s.expect_leader(s.primary());
  s.expect(s.epoch() == epoch, "another epoch");
  s.expect_together();
  s.strikes("and later the primary's host is lost");
  s.primary().power_loss();
  s.expect_taken_over_within(kSilence);
}

constexpr Scenario kScenarios[] = {
    {"1", "postmaster killed, restart policy", postmaster_killed_restart, on_crash_restart},
    {"2", "postmaster killed, fail-over policy, synchronous standby", postmaster_killed_failover},
    {"3", "crash loop", crash_loop, on_crash_restart},
    {"4", "the primary's host is lost", host_lost},
    {"4b", "all processes of its host killed, early take-over", host_killed_early, early},
    {"4c", "its host is lost, early take-over", host_lost_early, early},
    {"5", "agent killed: adopted, or fenced", agent_killed},
    {"6", "agent stopped", agent_stopped},
    {"7", "postmaster and children stopped", postmaster_stopped},
    {"8", "host suspended for a minute", host_suspended},
    {"8b", "virtual machine paused with its clock, asynchronous", host_paused_with_its_clock,
     asynchronous},
    {"9", "a flush of WAL hangs", flush_hangs},
    {"11", "data directory gone", data_directory_gone},
    {"14", "wall clocks jump by an hour", wall_clock_jumps},
    {"15", "a backend is killed while commits wait", clients_wait_for_recovered_commits,
     on_crash_restart},
    {"16", "primary cut from everything", primary_cut_from_everything},
    {"17", "primary cut from the store only", primary_cut_from_store_in_failsafe},
    {"17b", "the same without failsafe", primary_cut_from_store, no_failsafe},
    {"18", "replicas cut from the primary", replicas_cut_from_primary},
    {"18b", "replicas cut from the primary for long, which is then lost",
     standbys_cut_off_for_long_may_still_be_elected, strict},
    {"19", "most members cut from the store", majority_cut_from_store},
    {"20", "one-way loss", one_way_loss},
    {"21", "loss and jitter", loss_and_jitter},
    {"22", "blips", blip},
    {"23", "clients that reach only the old primary", clients_see_only_the_old_primary},
    {"25", "the store changes its leader", store_leader_change},
    {"26", "store away for minutes", store_outage},
    {"26b", "store away, and the primary cut from the others", store_outage_and_partition},
    {"26c", "store away for minutes, asynchronous", store_outage, asynchronous},
    {"27", "store away, then the primary dies", store_outage_then_primary_dies},
    {"28", "store wiped", store_wiped},
    {"29", "rolling restart of the store", store_rolling_restart},
    {"31", "synchronous, primary dies", host_lost},
    {"68", "store restored from a backup", store_restored},
    {"36", "waits for the standby are cancelled", waits_are_cancelled, strict},
    {"37", "restart with waiting commits", clients_wait_for_recovered_commits, on_crash_restart},
};

}  // namespace

std::span<const Scenario> fault_scenarios() { return kScenarios; }

}  // namespace bascule::sim
