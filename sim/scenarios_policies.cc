// One row and one script a scenario: members that may not lead, full disks, failovers that don't
// help.
#include <algorithm>

#include "sim/scenario_kit.h"

namespace bascule::sim {

using namespace control;

namespace {

// ---- a member that may not lead has the most ----------------------------------------------------

void n3_may_not_lead(Plan& p) {
  asynchronous(p);
  p.may_not_lead = "n3";
  p.config.ballot_window = Millis(2000);  // its ballot is waited for so long
}

// One that may lead falls behind, then the primary is lost. Where its WAL ends then.
uint64_t primary_is_lost_with_a_laggard(Script& s, Member& laggard) {
  laggard.pg().set_receive_delay(millis(60000));
  s.wait(millis(1500), millis(4000));
  s.strikes("the primary is lost; only a member that may not lead has its last WAL");
  s.primary().power_loss();
  laggard.pg().set_receive_delay(Nanos{0});
  s.wait(millis(200));  // what was on its way has come
  return s.named("n3").pg().data().flushed_end();
}

uint64_t fork_of_the_last_epoch(Script& s) {
  const Epoch last{s.epoch()};
  const std::string* text = s.cluster().store().value(s.cluster().keys().history(last));
  const auto history = text != nullptr ? decode_history(*text) : Result<HistoryRecord>({});
  return history ? history->fork.lsn.value : 0;
}

void its_wal_is_fetched(Script& s) {
  Member& laggard = s.standby();
  const uint64_t end = primary_is_lost_with_a_laggard(s, laggard);
  s.expect(laggard.pg().data().flushed_end() < end, "the candidate did not lag");
  s.expect_taken_over_within(kSilence + millis(3000));
  s.expect_leader(laggard);
  s.expect(fork_of_the_last_epoch(s) >= end, "WAL of the member that may not lead was given up");
  s.expect_changes(1, 1);
  s.primary().boot();
  s.expect_together();
}

// Beyond maximum_lag nobody could lead at all without it.
void its_wal_brings_within_the_limit(Script& s) {
  s.wait(millis(2000));
  its_wal_is_fetched(s);
}

// It balloted and is gone: what it has can't be had, and the election goes on.
void it_is_gone_after_its_ballot(Script& s) {
  Member& laggard = s.standby();
  primary_is_lost_with_a_laggard(s, laggard);
  Member& most = s.named("n3");
  const std::string key = s.cluster().keys().ballot(most.name());
  s.cluster().run_until([&] { return s.cluster().store().value(key) != nullptr; }, kSilence);
  most.power_loss();
  s.expect_taken_over_within(millis(12000));
  s.expect_leader(laggard);
}

// Whoever fetches dies in the middle of it: the next one does not wait for it for ever.
void whoever_fetches_dies(Script& s) {
  Member& laggard = s.standby();
  primary_is_lost_with_a_laggard(s, laggard);
  const uint64_t before = s.count("notes.fetching");
  s.cluster().run_until([&] { return s.count("notes.fetching") > before; }, kSilence);
  s.wait(millis(0), millis(150));
  if (s.leader() == nullptr) laggard.power_loss();
  s.expect_taken_over_within(kSilence + millis(12000));
}

void four_members_n3_may_not_lead(Plan& p) {
  n3_may_not_lead(p);
  p.nodes = 4;
}

// ---- full disks ---------------------------------------------------------------------------------

void wal_disk_is_full(Script& s) {
  s.strikes("the primary's disk is full of WAL");
  s.primary().pg().disk().full = DiskFull::kWal;
  s.expect_taken_over_within(kSilence + millis(10000));
  s.wait(millis(5000));
  s.expect(s.leader() != &s.primary(), "a member without room leads again");
  s.expect_changes(1, 2);
  s.primary().pg().disk().full = DiskFull::kNo;
  s.expect_together();
}

void data_disk_is_full(Script& s) {
  s.strikes("the primary's disk has no room for data: it is handed over in order");
  s.primary().pg().disk().full = DiskFull::kData;
  s.expect_taken_over_within(kSilence + millis(10000));
  s.expect_changes(1, 1);
  s.expect(s.count("op.rewind") == 0, "it was not handed over in order");
}

void disk_is_full_and_it_stays(Script& s) {
  s.strikes("the primary's disk is full of WAL; on_disk_full: stay");
  s.primary().pg().disk().full = DiskFull::kWal;
  s.wait(millis(15000), millis(25000));
  s.expect(s.count("model.panic_disk_full") > 0, "it never went down");
  s.expect_changes(0, 1);
  if (s.changes() > 0) return;  // it panicked before the full disk was seen: a crash like any other
  s.expect(s.primary().agent()->reason().find("no room") != std::string::npos ||
               s.primary().agent()->phase() == Phase::kRestarting,
           "it does not say why: " + s.primary().agent()->reason());
  s.primary().pg().disk().full = DiskFull::kNo;
  s.expect_writable_within(millis(12000));
  s.expect_leader(s.primary());
}

// Nobody is better: no member is given the lead that can't write either.
void every_disk_is_full(Script& s) {
  s.strikes("every disk is full of WAL");
  for (auto& m : s.cluster().members()) m->pg().disk().full = DiskFull::kWal;
  s.wait(millis(15000), millis(25000));
  s.expect_changes(0, 1);  // one if it panicked before the full disk was seen
  for (auto& m : s.cluster().members()) m->pg().disk().full = DiskFull::kNo;
  s.expect_writable_within(millis(12000));
  s.expect_together();
}

void flush_hangs(Script& s) {
  s.strikes("asynchronous: the primary's storage takes no writes any more");
  s.primary().pg().disk().hung_until = s.world().now() + millis(60000);
  s.expect_taken_over_within(kSilence + millis(1500));
  s.expect_changes(1, 1);
  s.expect(s.count("async.losses") == 0, "what was acknowledged had not been streamed");
}

// ---- failovers that help nothing ----------------------------------------------------------------

// Whoever leads crashes: after the limit PostgreSQL is started again where it is.
void whoever_leads_crashes(Script& s) {
  s.strikes("PostgreSQL of whoever leads crashes again and again");
  for (int i = 0; i < 8; ++i) {
    if (Member* l = s.leader(); l != nullptr && l->pg().accepts_writes()) kill_postmaster(*l);
    s.wait(millis(3000), millis(5000));
    s.expect_writable_within(millis(10000));
  }
  s.expect_changes(1, 3);
}

constexpr Scenario kScenarios[] = {
    {"3b", "whoever leads crashes: the limit of failovers", whoever_leads_crashes,
     [](Plan& p) {
       p.config.failover_limit = 3;
       p.config.failover_window = Millis(600000);
     }},
    {"9b", "WAL flush hangs, asynchronous", flush_hangs, asynchronous},
    {"10", "WAL disk full", wal_disk_is_full},
    {"10b", "data disk full", data_disk_is_full},
    {"10c", "WAL disk full, on_disk_full: stay", disk_is_full_and_it_stays,
     [](Plan& p) { p.config.on_disk_full = OnDiskFull::kStay; }},
    {"10d", "every disk full", every_disk_is_full},
    {"38", "most advanced may not lead", its_wal_is_fetched, n3_may_not_lead},
    {"38b", "... and the others are beyond maximum_lag", its_wal_brings_within_the_limit,
     [](Plan& p) {
       n3_may_not_lead(p);
       p.config.maximum_lag_bytes = 4 << 10;
     }},
    {"38c", "... and is gone after its ballot", it_is_gone_after_its_ballot, n3_may_not_lead},
    {"38d", "... and whoever fetches dies", whoever_fetches_dies, four_members_n3_may_not_lead},
};

}  // namespace

std::span<const Scenario> policy_scenarios() { return kScenarios; }

}  // namespace bascule::sim
