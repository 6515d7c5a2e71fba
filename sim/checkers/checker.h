// A checker watches a run for one property and reports the first breach to World::violation().
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "control/records.h"
#include "sim/decoded.h"
#include "sim/member.h"
#include "sim/observer.h"
#include "sim/store_model.h"

namespace bascule::sim {

// What every checker may look at: the truth of the run.
struct Truth {
  World& world;
  StoreModel& store;
  Decoded& decoded;
  const control::Keys& keys;
  const control::ClusterConfig& initial;
  std::vector<std::unique_ptr<Member>>& members;
  // What the store holds now. Valid until the next call.
  const control::ClusterView& view() const { return decoded.now(); }
  // Data directories or the store were destroyed on purpose, so less is promised.
  bool store_damaged = false;
  bool follows = false;       // begins as a standby cluster
  bool blips_only = false;    // every fault of this run is shorter than the tolerance
  SimTime healed_at{0};       // 0: not yet
  int disturbances = 0;       // faults and requests so far
  SimTime last_sync_off{-1};  // synchronous mode was last seen off by the store's truth

  // Somebody promotes it by hand: its WAL is nobody's history.
  bool runs_by_hand(Endpoint host) const {
    return members[static_cast<size_t>(host)]->pg().runs_by_hand();
  }

  struct Pledge {
    NodeName to;
    Epoch epoch;
    MonoTime until;             // by the clock of the member that gave it
    MonoTime until_for_leader;  // by that of the leader, as it stood then: should it stand still
  };
  std::array<std::optional<Pledge>, kHostsMax> pledges{};  // the newest of each member
  // By what the store holds, nobody could be elected before `deadline` of the leader's clock, as
  // far as that has not stood still since.
  bool bound_until(Member& leader, MonoTime deadline) const;

  bool was_rolled_back = false;  // the store was restored from an older backup
  std::array<store::Revision, kHostsMax> seen_before{};  // what each member had on disk then

  // True where nothing on this member's disk says that the store it sees has gone back.
  bool rolled_back(Endpoint host) const {
    return was_rolled_back && store.revision() >= seen_before[static_cast<size_t>(host)];
  }
  // Beyond the promise (docs/simulation.md): this member takes part in a store that was restored
  // from a backup that shows nothing older than what it has seen. What others have done since the
  // backup was made it can't know: from then on timeline ids repeat and histories part.
  bool excused(Endpoint host);
  bool parted = false;
  // The store says that this member leads, on this timeline.
  bool lawful(Endpoint host, uint32_t timeline) const;
  // Somebody forced a take-over after this timeline was promoted to: what that lacked was given up,
  // also where it came to nothing and another one followed.
  bool forced_since(uint32_t timeline, uint32_t up_to = UINT32_MAX) const;
  // Of the cluster that the store knows; 0: none has been declared. An initdb that was given up
  // before it was is another cluster: nobody is told of it, though it accepts connections.
  uint64_t system_id() const;
  const Member* leading() const;  // the member whose agent leads; nullptr if none or several
};

class Checker : public Observer {
 public:
  explicit Checker(Truth& truth) : truth_(truth) {}
  virtual void finish() {}  // the run is over and quiet

 protected:
  World& world() { return truth_.world; }
  Member& member(Endpoint host) { return *truth_.members[static_cast<size_t>(host)]; }
  Truth& truth_;
};

// Commit ids say how the client came: odd ones directly, even ones through a proxy.
inline bool is_direct(uint64_t commit) { return (commit & 1) != 0; }

std::vector<std::unique_ptr<Checker>> all_checkers(Truth& truth);
std::unique_ptr<Checker> make_one_writer(Truth& truth);
std::unique_ptr<Checker> make_durability(Truth& truth);
std::unique_ptr<Checker> make_wal_identity(Truth& truth);
std::unique_ptr<Checker> make_data_directory(Truth& truth);
std::unique_ptr<Checker> make_ballots(Truth& truth);
std::unique_ptr<Checker> make_pledges(Truth& truth);
std::unique_ptr<Checker> make_sync_rule(Truth& truth);
std::unique_ptr<Checker> make_fencing(Truth& truth);
std::unique_ptr<Checker> make_requests(Truth& truth);
std::unique_ptr<Checker> make_stability(Truth& truth);
std::unique_ptr<Checker> make_reasons(Truth& truth);
std::unique_ptr<Checker> make_consumers(Truth& truth);  // in runs that have one

// Hands every event to every checker.
class Observers : public Observer {
 public:
  std::vector<std::unique_ptr<Checker>> checkers;

  void wal_durable(Endpoint h, const WalRecord& r, uint64_t previous) override {
    for (auto& c : checkers) c->wal_durable(h, r, previous);
  }
  void commit_inserted(Endpoint h, const WalRecord& r) override {
    for (auto& c : checkers) c->commit_inserted(h, r);
  }
  void commit_released(Endpoint h, const WalRecord& r, const Release& by) override {
    for (auto& c : checkers) c->commit_released(h, r, by);
  }
  void started(Endpoint h, const DataDirectory& d) override {
    for (auto& c : checkers) c->started(h, d);
  }
  void promoted(Endpoint h, uint32_t timeline, uint64_t fork) override {
    for (auto& c : checkers) c->promoted(h, timeline, fork);
  }
  void store_applied(const store::Txn& t, store::Revision r, Endpoint by) override {
    for (auto& c : checkers) c->store_applied(t, r, by);
  }
  void proxy_forwarded(Endpoint p, const WalRecord& r, Epoch e) override {
    for (auto& c : checkers) c->proxy_forwarded(p, r, e);
  }
  void consumer_asked(Endpoint h, uint64_t from) override {
    for (auto& c : checkers) c->consumer_asked(h, from);
  }
  void consumer_slot_made(Endpoint h, uint64_t at) override {
    for (auto& c : checkers) c->consumer_slot_made(h, at);
  }
  void consumer_sent(Endpoint h, const WalRecord& r) override {
    for (auto& c : checkers) c->consumer_sent(h, r);
  }
  void operation_begun(Member& m, const control::Op& op) override {
    for (auto& c : checkers) c->operation_begun(m, op);
  }
  void operation_done(Member& m, const control::Op& op, const Result<control::OpData>& r) override {
    for (auto& c : checkers) c->operation_done(m, op, r);
  }
  void guard_armed(Member& m, MonoTime deadline) override {
    for (auto& c : checkers) c->guard_armed(m, deadline);
  }
  void agent_started(Member& m) override {
    for (auto& c : checkers) c->agent_started(m);
  }
  void agent_stepped(Member& m) override {
    for (auto& c : checkers) c->agent_stepped(m);
  }
  void commit_sent(Member& m, const store::Txn& t, control::RequestId id, MonoTime sent) override {
    for (auto& c : checkers) c->commit_sent(m, t, id, sent);
  }
  void commit_answered(Member& m, control::RequestId id, const store::TxnResult& r) override {
    for (auto& c : checkers) c->commit_answered(m, id, r);
  }
  void pledged(Member& m, const control::PeerRequest& r, MonoTime until) override {
    for (auto& c : checkers) c->pledged(m, r, until);
  }
  void noted(Member& m, const control::effect::Note& n) override {
    for (auto& c : checkers) c->noted(m, n);
  }
  void host_thawed(Endpoint h, World::FrozenClock clock) override {
    for (auto& c : checkers) c->host_thawed(h, clock);
  }
};

}  // namespace bascule::sim
