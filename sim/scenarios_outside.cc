// One row and one script a scenario: what others do to data directories behind the agent's back.
#include <algorithm>

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

const Scenario kOutside[] = {
    {"70", "a fenced data directory is started by somebody else", started_by_somebody_else},
};

}  // namespace

std::span<const Scenario> outside_scenarios() { return kOutside; }

}  // namespace bascule::sim
