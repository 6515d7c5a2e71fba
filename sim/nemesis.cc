#include "sim/nemesis.h"

#include <algorithm>

namespace bascule::sim {

using namespace control;

namespace {
// Stands in the list of observers for a Nemesis that lives elsewhere, as long as it lives.
class Relay : public Checker {
 public:
  Relay(Truth& truth, Nemesis& nemesis) : Checker(truth), nemesis_(nemesis) {}
  void agent_stepped(Member& m) override { nemesis_.agent_stepped(m); }
  void operation_begun(Member& m, const Op& op) override { nemesis_.operation_begun(m, op); }

 private:
  Nemesis& nemesis_;
};
}  // namespace

const std::vector<Nemesis::Fault>& Nemesis::faults() {
  static const std::vector<Fault> all = {
      {"kill_postmaster", 10, &Nemesis::kill_postmaster, false},
      {"stop_postmaster", 3, &Nemesis::stop_postmaster, false},
      {"kill_agent", 6, &Nemesis::kill_agent, true},
      {"stop_agent", 6, &Nemesis::stop_agent, true},
      {"kill_guard", 3, &Nemesis::kill_guard, false},
      {"stop_guard", 3, &Nemesis::stop_guard, false},
      {"kill_agent_and_guard", 3, &Nemesis::kill_both, false},
      {"kill_processes", 6, &Nemesis::kill_processes, false},
      {"terminate_agent", 2, &Nemesis::terminate_agent, false},
      {"power_loss", 8, &Nemesis::power_loss, false},
      {"power_loss_everywhere", 1, &Nemesis::power_loss_everywhere, false},
      {"suspend", 5, &Nemesis::suspend, true},
      {"hypervisor_pause", 6, &Nemesis::hypervisor_pause, true},
      {"cut_from_everything", 6, &Nemesis::cut_from_everything, true},
      {"cut_from_store", 7, &Nemesis::cut_from_store, true},
      {"cut_from_members", 5, &Nemesis::cut_from_members, true},
      {"split", 4, &Nemesis::split, true},
      {"one_way", 5, &Nemesis::one_way, true},
      {"cut_proxy", 3, &Nemesis::cut_proxy, true},
      {"lossy", 3, &Nemesis::lossy, true},
      {"slow_disk", 4, &Nemesis::slow_disk, true},
      {"hung_disk", 3, &Nemesis::hung_disk, false},
      {"store_outage", 4, &Nemesis::store_outage, true},
      {"store_flaky", 4, &Nemesis::store_flaky, false},
      {"store_late", 5, &Nemesis::store_late, false},
      {"lagging_standby", 5, &Nemesis::lagging_standby, true},
      {"blocked_replay", 5, &Nemesis::blocked_replay, true},
      {"slow_reload", 3, &Nemesis::slow_reload, true},
      {"slow_shutdown", 1, &Nemesis::slow_shutdown, true},
      {"kill_twice", 6, &Nemesis::kill_twice, false},
      {"standby_then_primary", 6, &Nemesis::standby_then_primary, false},
      {"lag_then_primary", 7, &Nemesis::lag_then_primary, false},
      {"switchover", 8, &Nemesis::switchover, false},
      {"failover", 3, &Nemesis::failover, false},
      {"pause", 2, &Nemesis::pause, false},
      {"configuration", 3, &Nemesis::configuration, false},
      {"task", 4, &Nemesis::task, false},
  };
  return all;
}

Nemesis::Nemesis(Cluster& cluster)
    : Checker(cluster.truth()), cluster_(cluster), random_(cluster.world().stream("nemesis")) {
  cluster_.observers().checkers.push_back(std::make_unique<Relay>(truth_, *this));
}

Nemesis::~Nemesis() { cluster_.observers().checkers.pop_back(); }

void Nemesis::start(SimTime until) {
  until_ = until;
  truth_.blips_only = cluster_.plan().profile == Profile::kBlips;
  if (cluster_.plan().damage_store) {
    world().after(random_ms(random_, 0, 12000), ProcessId::kWorld, [this] {
      if (healing_) return;
      truth_.store_damaged = true;
      const bool wipe = random_.chance(0.5);
      world().trace("fault: store {}", wipe ? "wiped" : "rolled back");
      world().count(wipe ? "fault.store_wiped" : "fault.store_rolled_back");
      if (wipe) {
        cluster_.store().wipe();
      } else {
        cluster_.store().rollback(random_.below(30) + 1);
        truth_.was_rolled_back = true;
        for (const auto& m : cluster_.members()) {
          truth_.seen_before[static_cast<size_t>(m->host())] = m->persisted().highest_revision;
        }
      }
    });
  }
  next();
}

void Nemesis::next() {
  const Profile profile = cluster_.plan().profile;
  const bool calm = profile == Profile::kSingle || profile == Profile::kBlips;
  const Nanos gap = calm ? random_ms(random_, 3000, 9000) : random_ms(random_, 50, 5000);
  world().after(gap, ProcessId::kWorld, [this] {
    if (healing_ || world().now() >= until_) return;
    inject_one();
    next();
  });
  if (profile == Profile::kAimed && !aim_ && !aim_op_) {
    if (random_.chance(0.5)) {
      static constexpr Phase kPhases[] = {
          Phase::kIsolated,  Phase::kRewinding,   Phase::kCloning,      Phase::kBalloting,
          Phase::kCandidate, Phase::kTakingOver,  Phase::kPromoting,    Phase::kRestarting,
          Phase::kDraining,  Phase::kHandingOver, Phase::kStandingDown, Phase::kLeading};
      aim_ = kPhases[random_.below(std::size(kPhases))];
    } else {
      aim_op_ = random_.below(std::variant_size_v<Op>);
    }
  }
}

void Nemesis::inject_one() {
  const bool blips = truth_.blips_only;
  uint32_t total = 0;
  for (const Fault& f : faults()) total += !blips || f.as_blip ? f.weight : 0;
  uint64_t pick = random_.below(total);
  for (const Fault& f : faults()) {
    if (blips && !f.as_blip) continue;
    if (pick >= f.weight) {
      pick -= f.weight;
      continue;
    }
    Nanos duration =
        random_.chance(0.5) ? random_ms(random_, 20, 2500) : random_ms(random_, 1000, 14000);
    if (blips) duration = random_ms(random_, 20, 1300);
    ++truth_.disturbances;
    world().count(fmt::format("fault.{}", f.name));
    world().trace("fault: {} for {} ms", f.name, to_ms(duration));
    (this->*f.inject)(duration);
    return;
  }
}

void Nemesis::agent_stepped(Member& m) {
  if (!aim_ || m.agent()->phase() != *aim_ || struck_ || healing_) return;
  strike(m);
}

void Nemesis::operation_begun(Member& m, const Op& op) {
  if (!aim_op_ || op.index() != *aim_op_ || struck_ || healing_) return;
  strike(m);
}

// Death in the middle: of this member's processes or host, or of the leader's, a moment later.
void Nemesis::strike(Member& m) {
  struck_ = true;
  const Nanos when = random_.chance(0.5) ? random_ms(random_, 0, 50) : random_ms(random_, 0, 900);
  world().after(when, ProcessId::kWorld, [this, &m] {
    struck_ = false;
    if (aim_) world().count(fmt::format("strike.phase.{}", to_string(*aim_)));
    aim_.reset();
    aim_op_.reset();
    if (healing_) return;
    ++truth_.disturbances;
    const Nanos d = random_ms(random_, 100, 8000);
    switch (random_.below(7)) {
      case 0:
        world().trace("strike: agent of {} dies", m.name().str());
        m.kill_agent(d);
        break;
      case 1:
        world().trace("strike: PostgreSQL of {} dies", m.name().str());
        m.pg().kill_postmaster(random_ms(random_, 0, 50));
        break;
      case 2:
        if (!m.guard_alive() && m.agent() == nullptr) break;
        world().trace("strike: power loss of {}", m.name().str());
        m.power_loss();
        undo_after(d, [&m] { m.boot(); });
        break;
      case 3:
        world().trace("strike: agent of {} stops", m.name().str());
        m.stop_agent();
        undo_after(d, [&m] { m.continue_agent(); });
        break;
      case 4:
        world().trace("strike: {} is cut from the store", m.name().str());
        isolate(m.host(), {kStoreEndpoint}, 3);
        break;
      case 5:
        world().trace("strike: guard of {} dies", m.name().str());
        m.kill_guard();
        break;
      default:
        if (Member* l = cluster_.leader()) {
          world().trace("strike: power loss of the leader {}", l->name().str());
          l->power_loss();
          undo_after(d, [l] { l->boot(); });
        }
    }
  });
}

// ---- helpers ------------------------------------------------------------------------------------

Member& Nemesis::any_member() { return cluster_.member(random_.below(cluster_.members().size())); }

Member& Nemesis::target() {
  Member* l = cluster_.leader();
  return l != nullptr && random_.chance(0.6) ? *l : any_member();
}

void Nemesis::undo_after(Nanos duration, std::function<void()> undo) {
  const size_t index = undo_.size();
  undo_.push_back(std::move(undo));
  world().after(duration, ProcessId::kWorld, [this, index] {
    if (healing_ || !undo_[index]) return;
    const auto run = std::move(*undo_[index]);
    undo_[index].reset();
    run();
  });
}

void Nemesis::heal_everything() {
  healing_ = true;
  for (auto& undo : undo_) {
    if (!undo) continue;
    const auto run = std::move(*undo);
    undo.reset();
    run();
  }
  cluster_.store().faults() = StoreFaults{};
  cluster_.store().faults().client_timeout = cluster_.plan().store.client_timeout;
  for (auto& m : cluster_.members()) {
    m->faults() = ShellFaults{};
    m->faults().op_fails = m->faults().op_unknown = 0;
  }
}

void Nemesis::isolate(Endpoint a, const std::vector<Endpoint>& others, int directions) {
  for (const Endpoint b : others) {
    if (a == b) continue;
    if ((directions & 1) != 0) world().cut(a, b);
    if ((directions & 2) != 0) world().cut(b, a);
  }
  const Nanos d = truth_.blips_only ? random_ms(random_, 20, 1300) : random_ms(random_, 200, 14000);
  undo_after(d, [this, a, others, directions] {
    for (const Endpoint b : others) {
      if (a == b) continue;
      if ((directions & 1) != 0) world().heal(a, b);
      if ((directions & 2) != 0) world().heal(b, a);
    }
  });
}

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

void Nemesis::hypervisor_pause(Nanos d) {
  const Endpoint host = target().host();
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
