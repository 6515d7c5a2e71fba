// What each fault of the table in nemesis.cc does.
#include <algorithm>

#include "sim/by_hand.h"
#include "sim/nemesis.h"

namespace bascule::sim {

using namespace control;

// ---- processes and hosts ------------------------------------------------------------------------

void Nemesis::kill_postmaster(Nanos) {
  Member& m = target();
  m.pg().kill_postmaster(random_.chance(0.8) ? random_ms(random_, 0, 30)
                                             : random_ms(random_, 0, 400));
}

void Nemesis::stop_postmaster(Nanos d) {
  Member& m = target();
  if (!m.pg().any_process()) return;
  const ProcessId p = m.pg().process();
  world().stop(p);
  undo_after(d, [this, p] {
    if (world().alive(p)) world().resume(p);
  });
}

void Nemesis::kill_agent(Nanos d) {
  target().kill_agent(truth_.blips_only ? random_ms(random_, 20, 900) : d);
}

void Nemesis::stop_agent(Nanos d) {
  Member& m = target();
  m.stop_agent();
  undo_after(d, [&m] { m.continue_agent(); });
}

void Nemesis::kill_guard(Nanos) { target().kill_guard(); }
void Nemesis::stop_guard(Nanos) { target().stop_guard(); }

void Nemesis::kill_processes(Nanos d) { target().kill_processes(d); }

void Nemesis::kill_both(Nanos d) {
  Member& m = target();
  const bool agent_first = random_.chance(0.5);
  if (agent_first) {
    m.kill_agent(d);
  } else {
    m.kill_guard();
  }
  world().after(random_ms(random_, 0, 300), ProcessId::kWorld, [&m, agent_first, d] {
    if (agent_first) {
      m.kill_guard();
    } else {
      m.kill_agent(d);
    }
  });
}

void Nemesis::terminate_agent(Nanos) { target().terminate_agent(); }

void Nemesis::power_loss(Nanos d) {
  Member& m = target();
  m.power_loss();
  undo_after(d + millis(200), [&m] { m.boot(); });
}

void Nemesis::power_loss_everywhere(Nanos d) {
  for (auto& m : cluster_.members()) {
    m->power_loss();
    undo_after(d + random_ms(random_, 0, 5000), [member = m.get()] { member->boot(); });
  }
}

void Nemesis::suspend(Nanos d) {
  const Endpoint host = target().host();
  if (world().frozen(host)) return;
  world().freeze(host, World::FrozenClock::kRuns);
  undo_after(d, [this, host] {
    cluster_.observers().host_thawed(host, World::FrozenClock::kRuns);
    world().thaw(host);
  });
}

void Nemesis::hypervisor_pause(Nanos d) { pause_with_clock(target().host(), d); }

void Nemesis::pause_with_clock(Endpoint host, Nanos d) {
  if (world().frozen(host)) return;
  world().freeze(host, World::FrozenClock::kStops);
  undo_after(d, [this, host] {
    cluster_.observers().host_thawed(host, World::FrozenClock::kStops);
    world().thaw(host);
  });
}

// ---- network ------------------------------------------------------------------------------------

void Nemesis::cut_from_everything(Nanos) {
  std::vector<Endpoint> others;
  for (Endpoint e = 0; e < kEndpoints; ++e) others.push_back(e);
  // Clients stay with it half of the time: they are what makes an unfenced primary dangerous.
  if (random_.chance(0.5)) others.resize(kFirstProxy);
  isolate(target().host(), others, 3);
}

void Nemesis::cut_from_store(Nanos) { isolate(target().host(), {kStoreEndpoint}, 3); }

void Nemesis::cut_from_members(Nanos) {
  std::vector<Endpoint> others;
  for (const auto& m : cluster_.members()) others.push_back(m->host());
  isolate(target().host(), others, 3);
}

void Nemesis::split(Nanos) {
  // One side keeps the store; proxies and clients fall on either.
  std::vector<Endpoint> left;
  std::vector<Endpoint> right;
  for (Endpoint e = 0; e < kEndpoints; ++e) (random_.chance(0.5) ? left : right).push_back(e);
  for (const Endpoint a : left) isolate(a, right, 3);
}

void Nemesis::one_way(Nanos) {
  std::vector<Endpoint> others;
  if (random_.chance(0.6)) others.push_back(kStoreEndpoint);
  for (const auto& m : cluster_.members()) {
    if (others.empty() || random_.chance(0.5)) others.push_back(m->host());
  }
  isolate(target().host(), others, random_.chance(0.5) ? 1 : 2);
}

void Nemesis::cut_proxy(Nanos) {
  const Endpoint proxy = kFirstProxy + static_cast<Endpoint>(random_.below(kProxies));
  isolate(proxy, {kStoreEndpoint}, random_.chance(0.5) ? 3 : 2);
}

// A proxy that sees nothing but the leader, whose virtual machine stands still, with its clock,
// until somebody else leads.
void Nemesis::stale_leader(Nanos) {
  Member* l = cluster_.leader();
  if (l == nullptr || world().frozen(l->host())) return;
  const Endpoint proxy = kFirstProxy + static_cast<Endpoint>(random_.below(kProxies));
  const Nanos before = random_ms(random_, 100, 3000);
  const Nanos pause = random_ms(random_, 3000, 12000);
  world().cut(kStoreEndpoint, proxy);
  undo_after(before + pause + millis(4000), [this, proxy] { world().heal(kStoreEndpoint, proxy); });
  world().after(before, ProcessId::kWorld, [this, host = l->host(), pause] {
    if (!healing_) pause_with_clock(host, pause);
  });
}

void Nemesis::lossy(Nanos d) {
  const Endpoint host = target().host();
  const double p = static_cast<double>(random_.between(5, 40)) / 100;
  const Nanos jitter = random_ms(random_, 0, 120);
  for (Endpoint e = 0; e < kEndpoints; ++e) {
    for (const auto& [a, b] : {std::pair{host, e}, std::pair{e, host}}) {
      world().set_loss(a, b, truth_.blips_only ? p / 4 : p);
      world().set_delay(a, b, jitter);
    }
  }
  undo_after(d, [this, host] {
    for (Endpoint e = 0; e < kEndpoints; ++e) {
      for (const auto& [a, b] : {std::pair{host, e}, std::pair{e, host}}) {
        world().set_loss(a, b, 0);
        world().set_delay(a, b, Nanos{0});
      }
    }
  });
}

// ---- disk, store --------------------------------------------------------------------------------

void Nemesis::slow_disk(Nanos d) {
  Member& m = target();
  m.pg().disk().flush_low = millis(5);
  m.pg().disk().flush_high = millis(truth_.blips_only ? 60 : 700);
  m.faults().persist_high = millis(truth_.blips_only ? 60 : 900);
  undo_after(d, [&m] {
    m.pg().disk() = Disk{};
    m.faults().persist_high = ShellFaults{}.persist_high;
  });
}

void Nemesis::hung_disk(Nanos d) { target().pg().disk().hung_until = world().now() + d; }

void Nemesis::full_disk(Nanos d) {
  Member& m = target();
  using control::DiskFull;
  m.pg().disk().full = random_.chance(0.7) ? DiskFull::kWal : DiskFull::kData;
  undo_after(d, [&m] { m.pg().disk().full = DiskFull::kNo; });
}

void Nemesis::store_outage(Nanos d) {
  cluster_.store().set_outage(true);
  undo_after(d, [this] { cluster_.store().set_outage(false); });
}

void Nemesis::store_flaky(Nanos d) {
  StoreFaults& f = cluster_.store().faults();
  f.lose_request = static_cast<double>(random_.between(0, 30)) / 100;
  f.lose_reply = static_cast<double>(random_.between(5, 50)) / 100;
  f.watch_late = 0.5;
  undo_after(d, [this] {
    cluster_.store().faults().lose_request = cluster_.store().faults().lose_reply = 0;
    cluster_.store().faults().watch_late = StoreFaults{}.watch_late;
  });
}

void Nemesis::store_late(Nanos d) {
  StoreFaults& f = cluster_.store().faults();
  f.apply_late = static_cast<double>(random_.between(5, 60)) / 100;
  f.reply_late = static_cast<double>(random_.between(5, 60)) / 100;
  // A client library that waits long: answers come, and come late.
  f.client_timeout = millis(random_.chance(0.6) ? 8000 : 1000);
  undo_after(d, [this] {
    cluster_.store().faults().apply_late = cluster_.store().faults().reply_late = 0;
    cluster_.store().faults().client_timeout = cluster_.plan().store.client_timeout;
  });
}

// ---- PostgreSQL ---------------------------------------------------------------------------------

void Nemesis::lagging_standby(Nanos d) {
  Member& m = any_member();
  m.pg().set_receive_delay(random_ms(random_, 50, truth_.blips_only ? 150 : 4000));
  undo_after(d + millis(2000), [&m] { m.pg().set_receive_delay(Nanos{0}); });
}

void Nemesis::blocked_replay(Nanos d) { any_member().pg().block_replay(d); }

void Nemesis::slow_reload(Nanos d) {
  Member& m = target();
  m.pg().set_slow_reload(true);
  undo_after(d + millis(3000), [&m] { m.pg().set_slow_reload(false); });
}

void Nemesis::slow_shutdown(Nanos d) {
  Member& m = target();
  m.pg().set_slow_shutdown(true);
  undo_after(d + millis(3000), [&m] { m.pg().set_slow_shutdown(false); });
}

// The second failover begins before the first one's standbys have caught up.
void Nemesis::kill_twice(Nanos) {
  Member* first = cluster_.leader();
  if (first == nullptr) return;
  if (random_.chance(0.5)) {
    first->pg().kill_postmaster(random_ms(random_, 0, 20));
  } else {
    first->power_loss();
    undo_after(random_ms(random_, 500, 9000), [first] { first->boot(); });
  }
  aim_ = random_.chance(0.5) ? Phase::kLeading : Phase::kPromoting;
}

// The synchronous standby goes first, in one of several ways, and the primary right after.
void Nemesis::standby_then_primary(Nanos d) {
  Member* l = cluster_.leader();
  if (l == nullptr) return;
  Member& other = any_member();
  if (&other != l) {
    switch (random_.below(4)) {
      case 0:
        other.power_loss();
        undo_after(d, [&other] { other.boot(); });
        break;
      case 1:
        other.pg().kill_postmaster(Nanos{0});
        break;
      case 2:
        isolate(other.host(), {l->host()}, 3);
        break;
      default:
        other.pg().block_replay(d);
    }
  }
  world().after(random_ms(random_, 0, 2500), ProcessId::kWorld, [this, l, d] {
    if (healing_) return;
    if (random_.chance(0.5)) {
      l->power_loss();
      undo_after(d, [l] { l->boot(); });
    } else {
      isolate(l->host(), {kStoreEndpoint}, 3);
    }
  });
}

// A standby that isn't waited for lags, so that the wrong winner would lose commits, then the
// primary goes for a while.
void Nemesis::lag_then_primary(Nanos d) {
  Member* l = cluster_.leader();
  if (l == nullptr) return;
  const auto& waited_for = l->pg().sync_setting();
  for (auto& m : cluster_.members()) {
    const bool synchronous = std::ranges::any_of(
        waited_for, [&](const std::string& s) { return s.starts_with(m->name().str() + "_"); });
    if (m.get() == l || synchronous) continue;
    m->pg().set_receive_delay(random_ms(random_, 1000, 5000));
    undo_after(millis(9000), [member = m.get()] { member->pg().set_receive_delay(Nanos{0}); });
    if (random_.chance(0.5)) break;
  }
  world().after(random_ms(random_, 500, 3000), ProcessId::kWorld, [this, l, d] {
    if (healing_) return;
    switch (random_.below(3)) {
      case 0:
        l->pg().kill_postmaster(random_ms(random_, 0, 30));
        break;
      case 1:
        isolate(l->host(), {kStoreEndpoint}, 3);
        break;
      default:
        l->power_loss();
        undo_after(d + millis(3000), [l] { l->boot(); });
    }
  });
}

// ---- people -------------------------------------------------------------------------------------

void Nemesis::switchover(Nanos) {
  const NodeName who = random_.chance(0.5) ? any_member().name() : NodeName{};
  cluster_.request(RequestKind::kSwitchover, who, false);
}

void Nemesis::failover(Nanos) {
  cluster_.request(RequestKind::kFailover, any_member().name(), random_.chance(0.25));
}

// The leader and those it waits for lose the store and the others; there, somebody forces.
void Nemesis::forced_in_failsafe(Nanos) {
  Member* l = cluster_.leader();
  if (l == nullptr) return;
  std::vector<Endpoint> inside;
  std::vector<Endpoint> outside;
  NodeName forced;
  const auto& waited_for = l->pg().sync_setting();
  for (const auto& m : cluster_.members()) {
    const bool voter = std::ranges::any_of(
        waited_for, [&](const std::string& s) { return s.starts_with(m->name().str() + "_"); });
    (m.get() == l || voter ? inside : outside).push_back(m->host());
    if (m.get() != l && !voter) forced = m->name();
  }
  if (forced.empty()) return;
  outside.push_back(kStoreEndpoint);
  for (const Endpoint a : inside) {
    for (const Endpoint b : outside) {
      world().cut(a, b);
      world().cut(b, a);
    }
  }
  undo_after(random_ms(random_, 8000, 20000), [this, inside, outside] {
    for (const Endpoint a : inside) {
      for (const Endpoint b : outside) {
        world().heal(a, b);
        world().heal(b, a);
      }
    }
  });
  world().after(random_ms(random_, 100, 6000), ProcessId::kWorld, [this, forced] {
    if (!healing_) cluster_.request(RequestKind::kFailover, forced, /*force=*/true);
  });
}

void Nemesis::pause(Nanos d) {
  cluster_.pause(true);
  undo_after(d, [this] { cluster_.pause(false); });
}

// Restarts of all or one, in place or by switchover; a replica's copy made anew.
void Nemesis::task(Nanos) {
  TaskRecord task;
  const uint64_t kind = random_.below(4);
  task.kind = kind == 0 ? TaskKind::kReinit : kind == 1 ? TaskKind::kReload : TaskKind::kRestart;
  task.by_switchover = random_.chance(0.3);
  task.step_timeout = Millis(1000 + random_.below(60000));
  if (task.kind == TaskKind::kReinit || random_.chance(0.4)) {
    task.steps = {{any_member().name(), StepState::kWaiting, ""}};
  } else {
    for (const auto& m : cluster_.members()) {
      task.steps.push_back({m->name(), StepState::kWaiting, ""});
    }
  }
  cluster_.task(std::move(task));
}

void Nemesis::remove_member(Nanos) {
  TaskRecord task;
  task.kind = TaskKind::kRemove;
  Member& m = any_member();
  task.steps = {{m.name(), StepState::kWaiting, ""}};
  cluster_.task(std::move(task));
  add_again(m);
}

// As the operator is told to: with an empty data directory, once its daemon has stepped back.
void Nemesis::add_again(Member& m) {
  world().after(random_ms(random_, 500, 4000), ProcessId::kWorld, [this, &m] {
    const bool out = truth_.view().removed.contains(m.name()) && m.agent_running() &&
                     m.agent()->phase() == Phase::kRefused;
    if (!out || world().frozen(m.host())) return add_again(m);
    world().trace("operator adds {} again, empty", m.name().str());
    world().count("model.added_again");
    m.kill_processes(random_ms(random_, 100, 3000));
    m.pg().data() = DataDirectory{};
  });
}

// A member is away, with its host or alone; somebody starts its directory and promotes it. It may
// come back in the middle of that.
void Nemesis::by_hand() {
  if (healing_) return;
  Member* l = cluster_.leader();
  Member& m = l != nullptr && by_hand_.chance(0.5)
                  ? *l
                  : cluster_.member(by_hand_.below(cluster_.members().size()));
  const Nanos begins = random_ms(by_hand_, 0, 10000);
  const Nanos away = begins + random_ms(by_hand_, 300, 5000);
  ++truth_.disturbances;
  world().trace("fault: {} goes away for {} ms", m.name().str(), to_ms(away));
  if (by_hand_.chance(0.6)) {
    m.power_loss();
    undo_after(away, [&m] { m.boot(); });
  } else {
    m.kill_processes(away);
  }
  world().after(begins, ProcessId::kWorld, [this, &m] {
    const DataDirectory& d = m.pg().data();
    const bool complete = d.state == DataDir::kReady && d.system_id == truth_.system_id();
    if (!healing_ && m.agent() == nullptr && !m.pg().any_process() && complete) promote(m);
  });
}

void Nemesis::promote(Member& m) {
  const auto records = static_cast<int>(by_hand_.between(1, by_hand_.chance(0.5) ? 20 : 5000));
  world().count("fault.by_hand");
  world().trace("fault: {} is promoted by hand", m.name().str());
  promote_by_hand(m, records, [] {});
}

void Nemesis::configuration(Nanos) {
  cluster_.change_config([this](ClusterConfig& c) {
    switch (random_.below(5)) {
      case 4:
        c.parameters["work_mem"] = fmt::format("{}MB", random_.below(64) + 1);
        break;
      case 0:
        c.sync_mode = c.sync_mode != SyncMode::kOff   ? SyncMode::kOff
                      : cluster_.plan().seed % 3 == 0 ? SyncMode::kQuorum
                                                      : SyncMode::kOn;
        break;
      case 1:
        c.sync_strict = !c.sync_strict;
        break;
      case 2:
        c.on_crash = c.on_crash == OnCrash::kRestart ? OnCrash::kFailover : OnCrash::kRestart;
        break;
      default:
        c.ttl = c.ttl == Millis(5000) ? Millis(3000) : Millis(5000);
    }
  });
}

}  // namespace bascule::sim
