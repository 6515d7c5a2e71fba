// Faults for the databases without agents, and people who ask for things.
#include <algorithm>

#include "sim/monitor_cluster.h"
#include "sim/monitor_model.h"

namespace bascule::sim {

void MonitorCluster::request(control::RequestKind kind, int candidate, bool force) {
  const auto view = truth();
  if (!view.leader || view.paused) return;
  if (view.request && view.request->value.outcome.empty()) return;
  control::RequestRecord r;
  r.id = "r" + std::to_string(++requests_);
  r.kind = kind;
  if (candidate >= 0) r.candidate = monitor_database_name(candidate);
  r.force = force;
  r.by = "operator";
  world_.count(kind == control::RequestKind::kSwitchover ? "request.switchover"
                                                         : "request.failover");
  store_.apply({{{keys_.request(), view.request ? view.request->revision : 0}},
                {{keys_.request(), control::encode(r)}}},
               kDirectClients);
}

void MonitorCluster::plan_faults() {
  Prng random = Prng::stream(plan_.seed, "monitor-nemesis");
  if (plan_.store_faults) {
    StoreFaults& f = store_.faults();
    f.lose_request = 0.01;
    f.lose_reply = 0.02;
    f.apply_late = 0.01;
    f.reply_late = 0.02;
  }
  // The first primary is found in peace.
  const int64_t begin = 15'000, end = to_ms(plan_.fault_time) - 1000;
  for (int i = 0; i < plan_.faults; ++i) {
    one_fault(random, millis(random.between(begin, end)));
  }
}

void MonitorCluster::one_fault(Prng& random, SimTime at) {
  const auto pick = [&](int n) { return static_cast<int>(random.below(static_cast<uint64_t>(n))); };
  const int64_t long_ms = random.between(500, 40'000);
  const int64_t blip_ms =
      std::max<int64_t>(50, (plan_.threshold - 1) * plan_.interval.count() - 1500);
  const Nanos time = millis(plan_.blips_only ? std::min(blip_ms, long_ms) : long_ms);
  const auto world = ProcessId::kWorld;
  const auto cut = [&](Endpoint a, Endpoint b) {
    world_.at(at, world, [this, a, b] { world_.cut(a, b), world_.cut(b, a); });
    world_.at(at + time, world, [this, a, b] { world_.heal(a, b), world_.heal(b, a); });
  };
  const int db = pick(plan_.databases), mon = pick(plan_.monitors), proxy = pick(kProxies);
  if (plan_.blips_only) {
    // Two blips in a row may add up to more than one: one kind each, so that they rarely meet.
    if (blip_ms <= 50) return;
    return cut(kFirstMonitor + mon, db);
  }
  switch (pick(12)) {
    case 0:
    case 1:  // a database dies and comes back as what it was
      world_.at(at, world, [this, db] {
        databases_[static_cast<size_t>(db)]->alive = false;
        world_.count("fault.database_killed");
      });
      world_.at(at + time, world,
                [this, db] { databases_[static_cast<size_t>(db)]->alive = true; });
      break;
    case 2:
      world_.at(at, world, [this, db] { world_.freeze(db, World::FrozenClock::kRuns); });
      world_.at(at + time, world, [this, db] { world_.thaw(db); });
      break;
    case 3:
      cut(kFirstMonitor + mon, db);
      break;
    case 4:
      cut(kFirstMonitor + mon, kStoreEndpoint);
      break;
    case 5:
      cut(kFirstProxy + proxy, kStoreEndpoint);
      break;
    case 6:  // a region is cut off: a proxy in it goes on reaching its database
      cut(kFirstProxy + proxy, kStoreEndpoint);
      for (int i = 0; i < plan_.monitors; ++i) cut(kFirstMonitor + i, db);
      for (int i = 0; i < plan_.databases; ++i) {
        if (i != db) cut(i, db);
      }
      break;
    case 7:
      world_.at(at, world, [this, mon] {
        stop_monitor(mon);
        world_.count("fault.monitor_killed");
      });
      world_.at(at + time, world, [this, mon] {
        stop_monitor(mon);
        start_monitor(mon);
      });
      break;
    case 8:
      world_.at(at, world,
                [this, mon] { world_.freeze(kFirstMonitor + mon, World::FrozenClock::kRuns); });
      world_.at(at + time, world, [this, mon] { world_.thaw(kFirstMonitor + mon); });
      break;
    case 9: {
      const bool planned = random.chance(0.5);
      const bool force = !planned && random.chance(0.3);
      const int candidate = random.chance(0.5) ? db : -1;
      world_.at(at, world, [this, planned, force, candidate] {
        request(planned ? control::RequestKind::kSwitchover : control::RequestKind::kFailover,
                candidate, force);
      });
      break;
    }
    case 10:
      world_.at(at, world, [this] { store_.set_outage(true); });
      world_.at(at + time / 4, world, [this] { store_.set_outage(false); });
      break;
    case 11:
      world_.at(at, world,
                [this, proxy] { world_.freeze(kFirstProxy + proxy, World::FrozenClock::kRuns); });
      world_.at(at + time, world, [this, proxy] { world_.thaw(kFirstProxy + proxy); });
      break;
  }
  if (random.chance(0.05)) {
    world_.at(at, world,
              [this, db] { databases_[static_cast<size_t>(db)]->may_not_be_fenced = true; });
  }
}

void MonitorCluster::heal_all() {
  healed_ = true;
  for (Endpoint a = 0; a < kEndpoints; ++a) {
    for (Endpoint b = 0; b < kEndpoints; ++b) {
      for (int i = 0; i < 50; ++i) world_.heal(a, b);
    }
    world_.thaw(a);
  }
  store_.set_outage(false);
  store_.faults() = StoreFaults{};
  for (auto& db : databases_) db->alive = true, db->may_not_be_fenced = false;
  for (int i = 0; i < plan_.monitors; ++i) {
    if (!world_.alive(monitors_[static_cast<size_t>(i)]->process)) start_monitor(i);
  }
}

}  // namespace bascule::sim
