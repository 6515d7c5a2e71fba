// One row and one script a scenario: what others do to data directories behind the agent's back.
#include <algorithm>

#include "sim/by_hand.h"
#include "sim/scenario_kit.h"

namespace bascule::sim {

using namespace control;

namespace {

// What a stray primary acknowledges to those who reach it is nobody's promise.
const std::vector<Endpoint> kClients = {kDirectClients, kFirstProxy, kFirstProxy + 1};

void expect_the_same_wal(Script& s) {
  const Member* leader = s.leader();
  if (leader == nullptr) return s.expect(false, "nobody leads");
  for (const auto& m : s.cluster().members()) {
    const auto same = [&](const WalRecord& r) {
      const auto& wal = leader->pg().data().wal;
      const size_t i = leader->pg().data().index_at(r.start);
      return i < wal.size() && wal[i].id == r.id;
    };
    const DataDirectory& d = m->pg().data();
    s.expect(std::all_of(d.wal.begin(), d.wal.begin() + static_cast<long>(d.flushed), same),
             fmt::format("{} holds WAL that {} does not", m->name().str(), leader->name().str()));
  }
}

void started_by_somebody_else(Script& s) {
  Member& old = s.primary();
  s.strikes("a data directory that was fenced is started as a primary by somebody else");
  old.power_loss();
  s.expect_taken_over_within(kSilence);
  s.cut(old, kClients);
  old.pg().start_primary({}, 1, [](bool) {});
  s.wait(millis(0), millis(1500));
  old.boot();
  s.wait(millis(5000));
  s.expect(old.pg().run() != PostgresModel::Run::kPrimary, "it runs as a primary");
  s.heal(old, kClients);
  s.expect_changes(1, 1);
  s.expect_together();
  expect_the_same_wal(s);
}

void promote_by_hand(Script& s, Member& m, int records) {
  s.cut(m, kClients);
  bool done = false;
  promote_by_hand(m, records, [&done] { done = true; });
  s.expect(s.cluster().run_until([&] { return done; }, millis(5000)), "it was not promoted");
  s.expect(m.pg().data().timeline == s.leader()->pg().data().timeline, "the ids differ");
  s.heal(m, kClients);
}

void primary_promoted_by_hand(Script& s) {
  Member& old = s.primary();
  s.strikes("a lost primary's directory is promoted by hand, to the id that its successor has");
  old.power_loss();
  s.expect_taken_over_within(kSilence);
  promote_by_hand(s, old, static_cast<int>(s.random().between(1, 1000)));
  old.boot();
  s.expect_changes(1, 1);
  s.expect_together();
  expect_the_same_wal(s);
}

// It ends below the fork, or beyond: its WAL is not the leader's from where it was promoted on.
void laggard_promoted_by_hand(Script& s) {
  Member& lags = s.other();
  s.strikes("a standby that was away is promoted by hand, to the id that the next leader has");
  lags.power_loss();
  s.wait(millis(1000), millis(3000));
  s.primary().power_loss();
  s.expect_taken_over_within(kSilence);
  promote_by_hand(s, lags, s.random().chance(0.5) ? 10 : 20000);
  lags.boot();
  s.primary().boot();
  s.expect_changes(1, 1);
  s.expect_together();
  expect_the_same_wal(s);
}

// By its position it would be the best.
void promoted_by_hand_is_not_elected(Script& s) {
  Member& lags = s.other();
  s.strikes("a standby that was promoted by hand comes back when the next leader is lost");
  lags.power_loss();
  s.wait(millis(1000));
  s.primary().power_loss();
  s.expect_taken_over_within(kSilence);
  Member& next = *s.leader();
  promote_by_hand(s, lags, 50000);
  s.primary().boot();
  s.wait(millis(10000));
  next.power_loss();
  lags.boot();
  s.expect_taken_over_within(millis(15000), next);
  s.expect_leader(s.primary());
  next.boot();
  s.expect_together();
  expect_the_same_wal(s);
}

void from_a_backup(Plan& p) { p.shell.restores_backup = true; }

// It goes on on the timeline that the backup ended on, everywhere and also after a fail-over.
void made_from_a_backup(Script& s) {
  const DataDirectory restored = s.primary().pg().data();
  const auto goes_on_at = [&](uint32_t timeline) {
    const ClusterView& view = s.cluster().truth().view();
    const LeaderRecord& leader = view.leader->value;
    return leader.timeline.value == timeline &&
           view.history.at(leader.epoch).timeline.value == timeline &&
           s.leader()->pg().data().timeline == timeline;
  };
  s.expect(restored.ancestors.size() == 2, "it was not made from a backup");
  s.expect(goes_on_at(restored.timeline), "the records show another timeline than PostgreSQL");
  s.strikes("the primary of a cluster that was made from a backup is lost");
  s.primary().power_loss();
  s.expect_taken_over_within(kSilence);
  s.expect(goes_on_at(restored.timeline + 1), "the next timeline is not the next one");
  s.primary().boot();
  s.expect_changes(1, 1);
  s.expect_together();
  for (auto& m : s.cluster().members()) {
    const DataDirectory& d = m->pg().data();
    s.expect(d.system_id == restored.system_id, "another identity");
    s.expect(d.wal.size() > 300 && d.wal[299].id == restored.wal[299].id,
             "what was restored is not there");
  }
}

const Scenario kOutside[] = {
    {"59", "a cluster made from a backup", made_from_a_backup, from_a_backup},
    {"66", "a lost primary is promoted by hand to the id of its successor's timeline",
     primary_promoted_by_hand},
    {"66b", "so is a standby that was away", laggard_promoted_by_hand},
    {"66c", "and it is back when the leader is lost", promoted_by_hand_is_not_elected,
     asynchronous},
    {"70", "a fenced data directory is started by somebody else", started_by_somebody_else},
};

}  // namespace

std::span<const Scenario> outside_scenarios() { return kOutside; }

}  // namespace bascule::sim
