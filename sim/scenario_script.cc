// What scenarios are written in, and the frame that each runs in.
#include <algorithm>

#include "sim/scenarios.h"

namespace bascule::sim {

using namespace control;

Script::Script(Cluster& cluster)
    : cluster_(cluster), random_(cluster.world().stream("scenario")), primary_(cluster.leader()) {}

Member& Script::standby() {
  Member* any = nullptr;
  for (auto& m : cluster_.members()) {
    if (m.get() == primary_) continue;
    const auto& waited_for = primary_->pg().sync_setting();
    if (std::ranges::any_of(waited_for, [&](const std::string& s) {
          return s.starts_with(m->name().str() + "_");
        })) {
      return *m;
    }
    if (any == nullptr || !m->config().nofailover) any = m.get();
  }
  return *any;
}

Member& Script::other() {
  const Member& waited_for = standby();
  for (auto& m : cluster_.members()) {
    if (m.get() != primary_ && m.get() != &waited_for) return *m;
  }
  return standby();
}

Member& Script::named(std::string_view name) {
  return **std::ranges::find_if(cluster_.members(),
                                [&](const auto& m) { return m->name().str() == name; });
}

void Script::strikes(std::string_view what) {
  world().trace("scenario: {}", what);
  ++cluster_.truth().disturbances;
  if (struck_) return;
  struck_ = true;
  epoch_before_ = epoch();
  cluster_.clients().measure_from_now();
}

void Script::wait(Nanos low, Nanos high) {
  cluster_.run_for(micros(random_.between(low.count() / 1000, high.count() / 1000)));
}

void Script::cut(Member& m, const std::vector<Endpoint>& from) {
  for (const Endpoint e : from) {
    if (e == m.host()) continue;
    cut_one_way(m.host(), e);
    cut_one_way(e, m.host());
  }
}

void Script::cut_one_way(Endpoint from, Endpoint to) {
  world().cut(from, to);
  cuts_.emplace_back(from, to);
}

void Script::heal(Member& m, const std::vector<Endpoint>& from) {
  std::erase_if(cuts_, [&](const auto& link) {
    const bool ours =
        (link.first == m.host() && std::ranges::find(from, link.second) != from.end()) ||
        (link.second == m.host() && std::ranges::find(from, link.first) != from.end());
    if (ours) world().heal(link.first, link.second);
    return ours;
  });
}

void Script::freeze(Member& m, World::FrozenClock clock) { world().freeze(m.host(), clock); }

void Script::thaw(Member& m) {
  cluster_.observers().host_thawed(m.host(), World::FrozenClock::kRuns);
  world().thaw(m.host());
}

void Script::heal_everything() {
  for (const auto& [from, to] : std::exchange(cuts_, {})) world().heal(from, to);
  cluster_.store().set_outage(false);
  cluster_.store().faults() = StoreFaults{};
  for (auto& m : cluster_.members()) {
    if (world().frozen(m->host())) thaw(*m);
    m->boot();
    m->continue_agent();
    if (m->pg().hung()) world().resume(m->pg().process());
    m->pg().set_receive_delay(Nanos{0});
    m->pg().set_slow_shutdown(false);
    m->pg().set_connections_exhausted(false);
    m->pg().disk() = Disk{};
    m->faults() = ShellFaults{.op_fails = 0, .op_unknown = 0};
    for (Endpoint e = 0; e < kEndpoints; ++e) {
      for (const auto& [a, b] : {std::pair{m->host(), e}, std::pair{e, m->host()}}) {
        world().set_loss(a, b, 0);
        world().set_delay(a, b, Nanos{0});
      }
    }
  }
}

std::vector<Endpoint> Script::members() const {
  std::vector<Endpoint> all;
  for (const auto& m : cluster_.members()) all.push_back(m->host());
  return all;
}

std::vector<Endpoint> Script::everything() {
  std::vector<Endpoint> all;
  for (Endpoint e = 0; e < kEndpoints; ++e) all.push_back(e);
  return all;
}

void Script::expect(bool condition, std::string what) {
  if (condition || !world().violations().empty()) return;
  for (auto& m : cluster_.members()) {
    what += fmt::format("; {} {}", m->name().str(),
                        m->agent() ? fmt::format("{}: {}", control::to_string(m->agent()->phase()),
                                                 m->agent()->reason())
                                   : "agent down");
  }
  world().violation("scenario", std::move(what));
}

void Script::expect_writable_within(Nanos bound) {
  const SimTime from = world().now();
  const bool reached = cluster_.run_until(
      [&] { return leader() != nullptr && cluster_.clients().last_proxied_ack() > from; }, bound);
  expect(reached, fmt::format("not writable within {} ms", to_ms(bound)));
}

void Script::expect_taken_over_within(Nanos bound, const Member& old) {
  const SimTime end = world().now() + bound;
  const bool taken =
      cluster_.run_until([&] { return leader() != nullptr && leader() != &old; }, bound);
  expect(taken, fmt::format("nobody has taken over within {} ms", to_ms(bound)));
  expect_writable_within(std::max(end - world().now(), millis(200)));
}

void Script::expect_leader(const Member& m) {
  expect(leader() == &m, fmt::format("'{}' leads instead of {}", leader_name(), m.name().str()));
}

void Script::expect_gap_below(Nanos bound) {
  expect(gap() < bound,
         fmt::format("writes stopped for {} ms; the bound is {}", to_ms(gap()), to_ms(bound)));
}

void Script::expect_changes(int least, int most) {
  expect(changes() >= least && changes() <= most,
         fmt::format("{} changes of leader; {} to {} expected", changes(), least, most));
}

void Script::expect_together(Nanos bound) {
  expect(cluster_.run_until([&] { return cluster_.settled(); }, bound),
         fmt::format("the cluster has not come together within {} ms", to_ms(bound)));
}

void Script::expect_nobody_because(std::string_view words) {
  expect(leader() == nullptr || !leader()->pg().any_process(), "somebody leads");
  const bool said = std::ranges::any_of(cluster_.members(), [&](const auto& m) {
    return m->agent() != nullptr && m->agent()->reason().find(words) != std::string::npos;
  });
  expect(said, fmt::format("nobody says why: no reason has '{}'", words));
}

uint64_t Script::epoch() {
  const std::string* text = cluster_.store().value(cluster_.keys().leader());
  const auto leader = text != nullptr ? decode_leader(*text) : Result<LeaderRecord>(LeaderRecord{});
  return leader ? leader->epoch.value : 0;
}

bool Script::redundant() {
  if (!cluster_.settled()) return false;
  const std::string* text = cluster_.store().value(cluster_.keys().sync());
  const auto sync = text != nullptr ? decode_sync(*text) : Result<SyncRecord>(SyncRecord{});
  if (!sync || sync->generations.empty()) return bool(sync);
  return sync->generations.size() == 1 && sync->generations[0].quorum > 0;
}

void Script::expect_redundant() {
  expect(cluster_.run_until([&] { return redundant(); }, millis(60000)),
         "no standby is recorded to have everything");
  wait(millis(500));  // and seen to be
}

void Script::expect_outcome_within(Nanos bound) {
  const auto ended = [&] {
    return count("requests.done") + count("requests.refused_or_failed") > 0;
  };
  expect(cluster_.run_until(ended, bound),
         fmt::format("the request has no outcome after {} ms", to_ms(bound)));
}

uint64_t Script::count(std::string_view what) const {
  const auto& counts = cluster_.world().counts();
  const auto it = counts.find(what);
  return it == counts.end() ? 0 : it->second;
}

Member* Script::leader() {
  const std::string* text = cluster_.store().value(cluster_.keys().leader());
  const auto record = text != nullptr ? decode_leader(*text) : Result<LeaderRecord>(LeaderRecord{});
  if (!record || record->phase != LeaderPhase::kRunning) return nullptr;
  const auto it = std::ranges::find(cluster_.members(), record->holder,
                                    [](const auto& m) -> const NodeName& { return m->name(); });
  return it == cluster_.members().end() ? nullptr : it->get();
}

std::string Script::leader_name() {
  const Member* l = leader();
  return l != nullptr ? l->name().str() : "";
}

// ---- the frame ----------------------------------------------------------------------------------

namespace {
Plan scenario_plan(const Scenario& scenario, uint64_t seed) {
  Plan p;
  p.seed = seed;
  p.nodes = 3;
  p.config = ClusterConfig{};
  p.config.rejoin_timeout = Millis(6000);
  p.shell.op_fails = p.shell.op_unknown = 0;
  p.tags_and_priorities = false;
  p.slow_reloads = 0;  // bounds are of the control plane; the nemesis has slow ones
  // Often enough that a gap is measured, not guessed.
  p.workload.think_low = millis(5);
  p.workload.think_high = millis(40);
  if (scenario.plan != nullptr) scenario.plan(p);
  return p;
}
}  // namespace

ScenarioResult run_scenario(const Scenario& scenario, uint64_t seed, bool tracing) {
  Cluster cluster(scenario_plan(scenario, seed), tracing);
  ScenarioResult result;
  cluster.boot();
  if (!cluster.run_until([&] { return cluster.settled(); }, millis(60000))) {
    cluster.world().violation("scenario", "the cluster has not bootstrapped within 60 s");
  } else {
    // Renewals, samples and permits are at a random point of their cycles.
    Prng random = cluster.world().stream("scenario begins");
    cluster.run_for(random_ms(random, 500, 2500));
    // A wait of before (settings that a slow server takes over late) is not the scenario's.
    cluster.run_until(
        [&] { return cluster.world().now() - cluster.clients().last_proxied_ack() < millis(50); },
        millis(10000));
    Script script(cluster);
    script.expect_redundant();
    result.leader_before = script.primary().name().str();
    scenario.script(script);
    script.heal_everything();
    if (cluster.world().violations().empty()) cluster.heal_and_settle();
    result.gap = script.gap();
    result.changes = script.changes();
    result.leader_after = script.leader_name();
  }
  result.run = cluster.finish();
  return result;
}

}  // namespace bascule::sim
