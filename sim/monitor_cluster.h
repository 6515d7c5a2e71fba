// A simulated cluster of databases without agents: the production monitors, modelled databases and
// proxies, faults drawn from a seed, and checkers of what monitor.h promises.
//
// Hosts 0-2 are databases, 3-5 monitors; the store and the two proxies have the places that they
// have in sim/cluster.h. `The cloud` stands for the managed service: it rebuilds what has parted as
// a standby of the present primary, some time later.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "monitor/monitor.h"
#include "sim/store_model.h"
#include "sim/world.h"

namespace bascule::sim {

struct MonitorPlan {
  uint64_t seed = 1;
  int databases = 3;
  int monitors = 2;
  Millis interval{1000};
  int threshold = 3;
  Millis lease_ttl{3000};
  Millis permit{2000};
  bool blips_only = false;  // every fault is shorter than threshold - 1 checks
  bool store_faults = false;
  int faults = 12;
  Nanos stream_every = millis(40);  // how late standbys are
  Nanos fault_time = millis(90'000);
  Nanos quiet_time = millis(120'000);
  monitor::UnsafeMutations unsafe;
};
MonitorPlan draw_monitor_plan(uint64_t seed);

struct MonitorRunResult {
  std::vector<World::Violation> violations;
  std::map<std::string, uint64_t, std::less<>> counts;
  uint64_t hash = 0;
  uint64_t acknowledged = 0;
};

class MonitorCluster {
 public:
  explicit MonitorCluster(MonitorPlan plan, bool trace = false);
  ~MonitorCluster();
  MonitorRunResult run();

 private:
  struct Database;
  struct MonitorProcess;
  struct Proxy;

  // ---- monitor_cluster.cc: databases, proxies, the cloud
  void stream(int standby);
  void rebuild(int host, int from);
  void cloud();
  void proxy_read(int index);
  void proxy_act(int index, const control::ClusterView& view, MonoTime begun);
  void proxy_ack(int index);
  void proxy_write(int index);
  void acknowledge(int index, uint64_t commit, uint64_t epoch);
  // Without monitor/health, which nobody decides by: most of the text that would be decoded.
  control::ClusterView parse(control::ClusterParser& parser, store::Snapshot snapshot) const;
  control::ClusterView truth();
  control::ClusterParser parser_{control::Keys("db")};

  // ---- monitor_process.cc: the shell of a monitor
  void start_monitor(int index);
  void stop_monitor(int index);
  void step(int index, const monitor::Event& event);
  void carry_out(int index, monitor::Effects effects);
  void probe(int index, const monitor::effect::Probe& effect);
  void act(int index, const monitor::effect::Act& effect);
  Result<monitor::ActionData> perform(int index, const monitor::effect::Act& effect);
  void arm(int index);

  // ---- monitor_nemesis.cc
  void plan_faults();
  void one_fault(Prng& random, SimTime at);
  void heal_all();
  void request(control::RequestKind kind, int candidate, bool force);

  // ---- monitor_checkers.cc
  void on_applied(const store::Txn& txn, Endpoint by);
  void check_automatic_begin(const control::FailoverOperation& op, Endpoint by);
  void check_opened(const control::ClusterView& view);
  void note_fence(int index, const monitor::event::ActionDone& done);
  bool answered_its_fence(const control::ClusterView& view, Endpoint by) const;
  void check_lease(int index);
  void check_promotion(int database);
  void check_fence(int database);
  void check_liveness();

  MonitorPlan plan_;
  World world_;
  StoreModel store_;
  control::Keys keys_;
  std::vector<std::unique_ptr<Database>> databases_;
  std::vector<std::unique_ptr<MonitorProcess>> monitors_;
  std::vector<std::unique_ptr<Proxy>> proxies_;
  Prng random_;
  bool healed_ = false;
  uint64_t next_commit_ = 1;
  int requests_ = 0;

  // What the checkers remember.
  control::ClusterView before_;                // as of the last transaction
  std::map<uint64_t, uint64_t> acknowledged_;  // commit -> epoch
  uint64_t highest_epoch_ = 0;                 // that acknowledged anything
  struct Fenced {
    int monitor = -1;  // who was told
    uint64_t term = 0, epoch = 0;
    NodeName from;
  };
  Fenced fenced_;            // the newest fence of an operation's old primary that was confirmed
  uint64_t fenced_old_ = 0;  // the epoch whose promotion began by the one who knew that
};

// The databases' names, by host.
NodeName monitor_database_name(int host);

}  // namespace bascule::sim
