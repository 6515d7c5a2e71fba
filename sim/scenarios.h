// The fault scenarios of the specification (its numbers), scripted on the simulated cluster: which
// faults strike when, who has to lead afterwards, and how long writes may have stopped (simulated
// time, through the proxies). The checkers of every run watch as well; 0 lost is theirs to say.
//
// A new one is a function and a row in scenarios_faults.cc or scenarios_data.cc. The seed draws
// names, positions in every cycle, durations of operations, and the script's own moments.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sim/cluster.h"

namespace bascule::sim {

class Script;

struct Scenario {
  std::string_view id;  // its number in the specification; a letter for a variant of it
  std::string_view what;
  void (*script)(Script&);
  void (*plan)(Plan&) = nullptr;  // what differs from three members, synchronous, ttl 5 s
};
const std::vector<Scenario>& scenarios();  // by number
const Scenario* find_scenario(std::string_view id);

struct ScenarioResult {
  RunResult run;
  Nanos gap{0};     // the longest time without an acknowledgement, from the first fault on
  int changes = 0;  // of leader, likewise
  std::string leader_before;
  std::string leader_after;
};
ScenarioResult run_scenario(const Scenario& scenario, uint64_t seed, bool tracing = false);

// What a script is written in.
class Script {
 public:
  explicit Script(Cluster& cluster);

  Cluster& cluster() { return cluster_; }
  World& world() { return cluster_.world(); }
  Member& primary() { return *primary_; }  // when the script began
  Member& standby();                       // the synchronous one; without, any that may lead
  Member& other();                         // a standby that is not waited for
  Member& named(std::string_view name);

  // The moment of a fault: what follows is measured from the first one on.
  void strikes(std::string_view what);
  void wait(Nanos low, Nanos high);
  void wait(Nanos time) { wait(time, time); }
  void cut(Member& m, const std::vector<Endpoint>& from);
  void heal(Member& m, const std::vector<Endpoint>& from);
  void cut_one_way(Endpoint from, Endpoint to);
  void freeze(Member& m, World::FrozenClock clock);
  void thaw(Member& m);
  // What the script has left broken: power, links, frozen hosts, stopped processes, the store.
  void heal_everything();
  std::vector<Endpoint> members() const;
  static std::vector<Endpoint> everything();

  void expect(bool condition, std::string what);
  // A primary that acknowledges, within the bound from now.
  void expect_writable_within(Nanos bound);
  // The same, and it is another one than `old` (without: than when the script began).
  void expect_taken_over_within(Nanos bound) { expect_taken_over_within(bound, primary()); }
  void expect_taken_over_within(Nanos bound, const Member& old);
  void expect_leader(const Member& m);
  void expect_gap_below(Nanos bound);
  void expect_changes(int least, int most);  // of leader since the first fault
  void expect_nothing_changed() {
    expect_leader(primary());
    expect_changes(0, 0);
  }
  void expect_together(Nanos bound = millis(60000));
  // Together, and in synchronous mode one standby is recorded to have everything.
  void expect_redundant();
  void expect_outcome_within(Nanos bound);  // of the operator's request
  // Nobody leads now, and somebody says why with these words.
  void expect_nobody_because(std::string_view words);

  Prng& random() { return random_; }
  uint64_t epoch();
  bool redundant();
  uint64_t count(std::string_view what) const;
  Member* leader();  // whom the record names, once it says running
  std::string leader_name();
  Nanos gap() const { return cluster_.clients().longest_gap(); }
  int changes() { return struck_ ? static_cast<int>(epoch() - epoch_before_) : 0; }

 private:
  Cluster& cluster_;
  Prng random_;
  Member* primary_ = nullptr;
  bool struck_ = false;
  std::vector<std::pair<Endpoint, Endpoint>> cuts_;
  uint64_t epoch_before_ = 0;
};

}  // namespace bascule::sim
