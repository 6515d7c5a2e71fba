// One row and one script a scenario: load, ports, certificates, lag, names, parameters. Most are
// about what must not happen.
#include <algorithm>
#include <cctype>

#include "sim/scenario_kit.h"

namespace bascule::sim {

using namespace control;

namespace {

// The write probe has a connection of its own.
void connections_exhausted(Script& s) {
  s.strikes("clients have taken every connection of the primary");
  s.primary().pg().set_connections_exhausted(true);
  s.wait(millis(20000), millis(30000));
  s.expect_nothing_changed();
  s.primary().pg().set_connections_exhausted(false);
  s.expect_writable_within(millis(1000));
}

// Disk, agent and network of the host take many times as long as they do.
void primary_is_overloaded(Script& s) {
  Member& m = s.primary();
  s.strikes("the primary's host is overloaded");
  m.pg().disk().flush_low = millis(10);
  m.pg().disk().flush_high = millis(250);
  m.faults().persist_high = millis(250);
  m.faults().sample_takes = millis(300);
  for (const Endpoint e : Script::everything()) {
    if (e == m.host()) continue;
    s.world().set_delay(m.host(), e, millis(60));
    s.world().set_delay(e, m.host(), millis(60));
  }
  s.wait(millis(30000));
  s.expect_nothing_changed();
  s.expect_gap_below(millis(3000));
}

// Silence of the agents is no evidence that PostgreSQL is dead while it streams.
void api_ports_silent(Script& s) {
  s.wait(millis(5500));  // early evidence counts once the agents have run for a ttl
  const bool all = s.random().chance(0.5);
  s.strikes(all ? "no agent's port answers" : "the port of the leader's agent does not answer");
  for (auto& m : s.cluster().members()) {
    m->faults().api_silent = all || m.get() == &s.primary();
  }
  s.wait(millis(30000));
  s.expect_nothing_changed();
  s.expect_gap_below(millis(600));
}

// Whoever has the new one already is not let in by who has not.
void certificates_are_rotated(Script& s) {
  s.strikes("certificates are replaced, member after member: the store refuses each for a moment");
  for (auto& m : s.cluster().members()) {
    s.cut(*m, {kStoreEndpoint});
    s.wait(millis(200), millis(1200));
    s.heal(*m, {kStoreEndpoint});
    s.wait(millis(1000), millis(3000));
  }
  s.expect_nothing_changed();
  s.expect_gap_below(millis(1000));
}

// Routing by lag goes by what the members publish of themselves.
void lag_is_published(Script& s) {
  Member& lags = s.other();
  const auto end = [&] { return s.primary().pg().data().flushed_end(); };
  const uint64_t before = end();
  s.strikes("a replica lags");
  lags.pg().set_receive_delay(millis(8000));
  s.wait(millis(6000));
  const uint64_t much = (end() - before) / 2;
  const auto published_lag = [&] {
    const ClusterView& view = s.cluster().truth().view();
    const Lsn there = view.member(lags.name())->replay_lsn;
    const Lsn written = view.leader->value.flush_lsn;
    return written > there ? written.value - there.value : 0;
  };
  s.expect(published_lag() > much, fmt::format("it says that it lags {} bytes", published_lag()));
  s.expect_nothing_changed();
  lags.pg().set_receive_delay(Nanos{0});
  s.expect(s.cluster().run_until([&] { return published_lag() < much; }, millis(15000)),
           "it does not say that it has caught up");
}

// A configuration file that was copied to another host.
void duplicate_name(Script& s) {
  const auto& all = s.cluster().members();
  Member& copy = all.back().get() == &s.primary() ? *all[all.size() - 2] : *all.back();
  const NodeName own = copy.name();
  const NodeName taken = all.front()->name();
  s.strikes("a member is started again under the name of another one");
  copy.power_loss();
  s.wait(millis(500), millis(3000));
  copy.rename(taken);
  copy.boot();
  s.wait(millis(6000), millis(15000));
  s.expect(copy.agent() != nullptr && copy.agent()->phase() == Phase::kRefused,
           "it was not refused");
  s.expect(!copy.pg().any_process(), "its PostgreSQL was started");
  s.expect_nothing_changed();
  copy.power_loss();
  copy.rename(own);
  copy.boot();
  s.expect_together();
}

// Whoever has that name acknowledges in place of the standby that is waited for.
void same_application_name(Script& s) {
  Member& waited_for = s.standby();
  Member& stranger = s.other();
  std::string name = s.primary().pg().sync_setting().at(0);
  std::ranges::transform(name, name.begin(),
                         [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  s.strikes("a second receiver calls itself as the synchronous standby, in other case");
  const std::string own = stranger.name().str() + "_" + stranger.persisted().incarnation;
  const Upstream primary{s.primary().name(), "10.0.0.1", 5432};
  const uint64_t before = s.count("op.terminate_senders");
  stranger.pg().set_upstream(primary, name);
  s.expect(
      s.cluster().run_until([&] { return s.count("op.terminate_senders") > before; }, millis(5000)),
      "they were not told apart");
  s.wait(millis(0), millis(5000));
  stranger.pg().set_upstream(primary, own);
  s.wait(millis(3000));
  s.expect_nothing_changed();
  s.expect(waited_for.pg().receiver_streaming(), "the member's own receiver is not back");
  s.expect_writable_within(millis(1000));
}

// A standby must not have less than its primary: what is lowered is lowered there first.
void max_connections_changes(Script& s, int to) {
  const bool lowered = to < 100;
  s.strikes(lowered ? "max_connections is lowered" : "max_connections is raised");
  s.cluster().change_config(
      [to](ClusterConfig& c) { c.parameters["max_connections"] = std::to_string(to); });
  const auto all_wait = [&] {
    return std::ranges::all_of(s.cluster().members(), [&](const auto& m) {
      const MemberRecord* r = s.cluster().truth().view().member(m->name());
      return r != nullptr && r->pending_restart && r->restart_first == lowered;
    });
  };
  s.expect(s.cluster().run_until(all_wait, millis(10000)), "nobody waits for a restart");
  TaskRecord task;
  task.kind = TaskKind::kRestart;
  task.only_pending = true;
  for (const auto& m : s.cluster().members()) {
    task.steps.push_back({m->name(), StepState::kWaiting, ""});
  }
  s.cluster().task(task);
  const auto in_force = [to](const auto& m) { return m->pg().max_connections() == to; };
  const auto all_changed = [&] {
    const bool primary = s.primary().pg().max_connections() == to;
    const auto changed = std::ranges::count_if(s.cluster().members(), in_force);
    const auto others = changed - (primary ? 1 : 0);
    const auto replicas = static_cast<long>(s.cluster().members().size()) - 1;
    s.expect(lowered ? primary || others == 0 : !primary || others == replicas,
             "a standby has less than its primary");
    return primary && others == replicas;
  };
  s.expect(s.cluster().run_until(all_changed, millis(60000)), "it is not in force everywhere");
  s.expect_writable_within(kRestart);
  s.expect_nothing_changed();
  s.expect_together();
}
void max_connections_lowered(Script& s) { max_connections_changes(s, 50); }
void max_connections_raised(Script& s) { max_connections_changes(s, 200); }

constexpr Scenario kServers[] = {
    {"12", "connections exhausted", connections_exhausted},
    {"13", "full load", primary_is_overloaded},
    {"24", "ports of agents silent, early take-over", api_ports_silent, early},
    {"30", "certificates replaced", certificates_are_rotated},
    {"45b", "duplicate name", duplicate_name},
    {"52", "max_connections lowered", max_connections_lowered},
    {"52b", "max_connections raised", max_connections_raised},
    {"56", "a replica lags", lag_is_published},
    {"71", "a second receiver of the standby's name in other case", same_application_name},
};

}  // namespace

std::span<const Scenario> server_scenarios() { return kServers; }

}  // namespace bascule::sim
