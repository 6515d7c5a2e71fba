// One run: a plan drawn from the seed, a cluster built by it, faults, healing, a quiet end,
// verdict.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "sim/checkers/checker.h"
#include "sim/clients.h"
#include "sim/failover_slot.h"
#include "sim/followed.h"

namespace bascule::sim {

enum class Profile {
  kBlips,   // every disturbance is shorter than the tolerance: nothing may happen
  kSingle,  // one fault at a time
  kStorm,   // faults overlap
  kAimed,   // as storm, and death strikes in the middle of chosen phases and operations
  kLong,    // a fault every few minutes, in hours of calm
};
std::string_view to_string(Profile profile);

struct Plan {
  uint64_t seed = 0;
  Profile profile = Profile::kSingle;
  int nodes = 3;
  control::ClusterConfig config;
  Nanos fault_time = millis(25000);
  StoreFaults store;
  ShellFaults shell;
  Workload workload;
  uint64_t wal_keep_bytes = 1 << 20;
  double slow_reloads = 0.03;
  std::vector<std::string> regions;  // by host
  bool tags_and_priorities = true;   // drawn; else everybody alike
  std::string may_not_lead{};        // nofailover; its name
  double clock_error = 0;            // each host's rate is 1 +- this at most
  bool damage_store = false;
  bool by_hand = false;     // somebody promotes a member's directory behind its agent's back
  ConsumerPlan consumer{};  // of a failover slot
  bool follows = false;     // it begins as a standby cluster, and is promoted at some time
  control::UnsafeMutations unsafe;
  std::vector<std::string> only_checkers;  // empty: all
};
Plan draw_plan(uint64_t seed);
// Hours instead of seconds: few faults, some of them long, few clients, longer ttl, and samples
// that show nothing new are told once a second.
Plan draw_long_plan(uint64_t seed);
// Empty on success, else what is wrong with the name.
std::string apply_mutation(Plan& plan, std::string_view name);
const std::vector<std::string>& mutation_names();

struct RunResult {
  uint64_t seed = 0;
  uint64_t hash = 0;
  uint64_t events = 0;
  SimTime simulated{0};
  uint64_t acknowledged = 0;
  std::vector<World::Violation> violations;
  std::map<std::string, uint64_t, std::less<>> counts;
};

class Cluster {
 public:
  explicit Cluster(const Plan& plan, bool tracing = false);
  ~Cluster();

  // The standard run: bootstrap, faults from the seed, healing, quiet, final checks.
  RunResult run_standard();

  // ---- for scripted scenarios -------------------------------------------------------------------
  void boot();
  bool run_for(Nanos time) { return world_.run_until(world_.now() + time); }
  // Runs until `condition` or the bound; false if the bound came first or a violation was reported.
  bool run_until(const std::function<bool()>& condition, Nanos bound);
  bool settled();  // one leader, everybody follows, clients write
  bool follows();  // as a standby cluster: one streams from the other cluster, the rest from it
  bool writable();
  // Ends the faults' part: from here on liveness is promised. Reports a violation if it isn't kept.
  void heal_and_settle();
  // Of the members that could be elected one was promoted by hand, and nobody else may lead.
  bool left_to_operator();
  void force_what_was_promoted();
  RunResult finish();

  World& world() { return world_; }
  StoreModel& store() { return store_; }
  Fabric& fabric() { return fabric_; }
  Truth& truth() { return truth_; }
  Clients& clients() { return *clients_; }
  FailoverSlot* consumer() { return consumer_.get(); }
  const Plan& plan() const { return plan_; }
  const control::Keys& keys() const { return keys_; }
  std::vector<std::unique_ptr<Member>>& members() { return members_; }
  Member& member(size_t i) { return *members_[i]; }
  Member* leader();
  Observers& observers() { return observers_; }
  // What an operator does through the API; false if another request is open.
  bool request(control::RequestKind kind, const NodeName& candidate, bool force,
               bool old_primary_dead = false);
  void task(control::TaskRecord record);
  void pause(bool on);
  void change_config(const std::function<void(control::ClusterConfig&)>& change);

 private:
  Plan plan_;
  World world_;
  StoreModel store_;
  control::Keys keys_;
  Decoded decoded_;
  Observers observers_;
  Fabric fabric_;
  std::vector<std::unique_ptr<Member>> members_;
  Truth truth_;
  std::unique_ptr<Followed> followed_;
  std::unique_ptr<FailoverSlot> consumer_;
  std::unique_ptr<Clients> clients_;
  int requests_ = 0;
};

}  // namespace bascule::sim
