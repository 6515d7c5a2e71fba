// The member's agent: decides what this member does next, and why. Pure: no clock, no I/O.
//
//   Agent agent(config, local_state_from_disk, now);
//   for (each event) for (effect : agent.step(event, now)) carry it out;
//   wake it with event::Tick at agent.next_wakeup() at the latest.
//
// One instance a member, used from one thread. Invariants and the reasons for every rule:
// docs/control-plane.md and ADRs 0010-0015; checkers in sim/checkers.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/time.h"
#include "base/types.h"
#include "control/events.h"
#include "control/records.h"

namespace bascule::control {

struct AgentConfig {
  std::string cluster;
  NodeName name;
  std::string host;  // where other members and proxies reach this PostgreSQL
  int port = 0;
  std::string api_url;
  std::string region;
  int priority = 100;
  bool nofailover = false;
  MemberTags tags;
  ClusterConfig initial;        // becomes the cluster's configuration at bootstrap
  std::string new_incarnation;  // random; used when LocalState has none yet
};

// Mutations for tests of the checkers: each removes one safety. Production never sets them.
struct UnsafeMutations {
  bool skip_fence = false;            // a leader that could not renew does not arm nor kill
  bool ignore_ballots = false;        // takes over without ballots of the voters
  bool promote_shorter_log = false;   // does not compare positions
  bool renew_after_deadline = false;  // treats a late renewal answer as valid
  bool skip_receiver_stop = false;    // ballots while its receiver runs
  bool sync_before_record = false;    // sets synchronous_standby_names before recording voters
  bool short_quorum = false;          // records an election size that does not meet every quorum
  bool reuse_timeline = false;        // reserves a timeline id that was used before
  bool early_without_voters = false;  // takes over early without ballots of the leader's voters
  bool early_when_alone = false;      // ... where commits wait for no standby
  bool failsafe_unpledged = false;    // leads on in a store outage without asking anybody
  bool pledge_with_ballot = false;    // pledges while its own ballot may count
  bool ballot_despite_pledge = false;
  bool force_despite_pledges = false;  // forced over a leader that may go on by pledges
  bool trust_leaders_clock = false;    // of the simulated proxies: what the leader says is believed
  bool forward_cancelled_waits = false;  // likewise: PostgreSQL's warning passes for an answer
};

// What the member does, for status and for checkers. Names are shown to people.
enum class Phase {
  kStarting,       // first look at PostgreSQL and the store
  kWaitingInit,    // no data here, the cluster is not bootstrapped by us
  kBootstrapping,  // initdb + first start, holding the record
  kIsolated,       // in recovery without upstream, finding out where it stands
  kFollowing,      // standby of the leader
  kStopped,        // PostgreSQL not running and not to be started now; reason says why
  kRewinding,
  kCloning,
  kBalloting,   // intent persisted, receiver being stopped, ballot being placed
  kCandidate,   // ballot placed: waiting for the others' ballots or for the winner
  kTakingOver,  // take-over transaction outstanding
  kPromoting,   // holds the record; renewing once more, then pg_promote
  kRestarting,  // holds the record: start in place after a crash or of the agent
  kLeading,
  kDraining,        // switchover: waiting for running transactions
  kHandingOver,     // switchover: clean stop, verification, release
  kStandbyLeading,  // holds the record of a standby cluster
  kStandingDown,    // killing PostgreSQL, then releasing the record
  kRefused,         // wrong system identifier, duplicate name: needs a person
};
std::string_view to_string(Phase phase);

class Agent {
 public:
  Agent(AgentConfig config, LocalState persisted, MonoTime now, UnsafeMutations unsafe = {});
  ~Agent();
  Agent(Agent&&) noexcept;
  Agent& operator=(Agent&&) noexcept;

  // First call after construction: effects that begin everything (reads, sampling).
  Effects start(MonoTime now);
  Effects step(Event event, MonoTime now);
  MonoTime next_wakeup() const;
  // Wall time for the records that people read, and for when an operator's request is due; nothing
  // else looks at it. Set before start / step.
  void set_wall_time(WallTime wall);

  Phase phase() const;
  const std::string& reason() const;  // of the phase, for people
  Epoch leading_epoch() const;        // 0 unless this member holds the record
  MonoTime deadline() const;          // of the record held; meaningless if not leading
  MonoTime proved_at() const;  // when the renewal or the pledges that it counts from were asked for
  const ClusterView& cluster() const;  // last snapshot seen
  const LocalState& local() const;

  class Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

// Slot name of a member: its name with '-' as '_' (slot names allow [a-z0-9_]), prefixed
// "bascule_".
std::string slot_name(const NodeName& member);

}  // namespace bascule::control
