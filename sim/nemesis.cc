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
      {"stale_leader", 3, &Nemesis::stale_leader, false},
      {"lossy", 3, &Nemesis::lossy, true},
      {"slow_disk", 4, &Nemesis::slow_disk, true},
      {"hung_disk", 3, &Nemesis::hung_disk, false},
      {"full_disk", 3, &Nemesis::full_disk, false},
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
      {"forced_in_failsafe", 2, &Nemesis::forced_in_failsafe, false},
      {"pause", 2, &Nemesis::pause, false},
      {"configuration", 3, &Nemesis::configuration, false},
      {"task", 4, &Nemesis::task, false},
      {"remove_member", 3, &Nemesis::remove_member, false},
  };
  return all;
}

Nemesis::Nemesis(Cluster& cluster)
    : Checker(cluster.truth()),
      cluster_(cluster),
      random_(cluster.world().stream("nemesis")),
      by_hand_(cluster.world().stream("nemesis: by hand")) {
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
  if (cluster_.plan().by_hand) {
    world().after(cluster_.plan().fault_time * by_hand_.between(0, 70) / 100, ProcessId::kWorld,
                  [this] { by_hand(); });
  }
  next();
}

void Nemesis::next() {
  const Profile profile = cluster_.plan().profile;
  const bool calm = profile == Profile::kSingle || profile == Profile::kBlips;
  const Nanos gap = profile == Profile::kLong ? random_ms(random_, 30e3, 1200e3)
                    : calm                    ? random_ms(random_, 3000, 9000)
                                              : random_ms(random_, 50, 5000);
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
    if (cluster_.plan().profile == Profile::kLong && random_.chance(0.2)) duration *= 40;
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

}  // namespace bascule::sim
