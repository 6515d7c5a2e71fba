// Faults of the standard runs: kinds, times and targets drawn from the seed, each with its undoing.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "sim/cluster.h"

namespace bascule::sim {

class Nemesis : public Checker {
 public:
  explicit Nemesis(Cluster& cluster);
  ~Nemesis() override;
  void start(SimTime until);
  void heal_everything();

  // Aimed profile: strikes at members in the middle of things.
  void agent_stepped(Member& m) override;
  void operation_begun(Member& m, const control::Op& op) override;

 private:
  struct Fault {
    const char* name;
    uint32_t weight;
    void (Nemesis::*inject)(Nanos duration);
    bool as_blip;  // harmless if shorter than the tolerance
  };
  static const std::vector<Fault>& faults();

  void next();
  void inject_one();
  void strike(Member& m);
  Member& target();  // often the leader
  Member& any_member();
  void undo_after(Nanos duration, std::function<void()> undo);
  void isolate(Endpoint a, const std::vector<Endpoint>& others, int directions);

  void kill_postmaster(Nanos d);
  void stop_postmaster(Nanos d);
  void kill_agent(Nanos d);
  void stop_agent(Nanos d);
  void kill_guard(Nanos d);
  void stop_guard(Nanos d);
  void kill_both(Nanos d);
  void kill_processes(Nanos d);
  void terminate_agent(Nanos d);
  void power_loss(Nanos d);
  void power_loss_everywhere(Nanos d);
  void suspend(Nanos d);
  void hypervisor_pause(Nanos d);
  void pause_with_clock(Endpoint host, Nanos d);
  void cut_from_everything(Nanos d);
  void cut_from_store(Nanos d);
  void cut_from_members(Nanos d);
  void split(Nanos d);
  void one_way(Nanos d);
  void cut_proxy(Nanos d);
  void stale_leader(Nanos d);
  void lossy(Nanos d);
  void slow_disk(Nanos d);
  void hung_disk(Nanos d);
  void full_disk(Nanos d);
  void store_outage(Nanos d);
  void store_flaky(Nanos d);
  void store_late(Nanos d);
  void lagging_standby(Nanos d);
  void blocked_replay(Nanos d);
  void slow_reload(Nanos d);
  void slow_shutdown(Nanos d);
  void kill_twice(Nanos d);
  void standby_then_primary(Nanos d);
  void lag_then_primary(Nanos d);
  void switchover(Nanos d);
  void failover(Nanos d);
  void forced_in_failsafe(Nanos d);
  void pause(Nanos d);
  void configuration(Nanos d);
  void task(Nanos d);
  void remove_member(Nanos d);
  void add_again(Member& m);
  void by_hand();
  void promote(Member& m);

  Cluster& cluster_;
  Prng random_;
  Prng by_hand_;  // its own, so that what else happens stays as it is
  SimTime until_{0};
  bool healing_ = false;
  std::vector<std::optional<std::function<void()>>> undo_;
  std::optional<control::Phase> aim_;
  std::optional<size_t> aim_op_;
  bool struck_ = false;
};

}  // namespace bascule::sim
