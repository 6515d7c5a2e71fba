// A logical slot with `failover`, and its consumer, as PostgreSQL 17 serves them; in runs that have
// them (Plan::consumer). What decides in PostgreSQL is modelled (walsender.c, slotsync.c, slot.c of
// 17): a consumer is sent what every slot in synchronized_standby_slots has; a worker on each
// standby copies the slot's position, never beyond the standby's own WAL. What Bascule decides is
// taken from Bascule: the setting out of node::render_conf, who keeps and drops slots out of the
// agents' operations and configuration. Left out: catalog rows that are vacuumed too early, room
// for slots and WAL, subscribers that hold up a shutdown.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "sim/checkers/checker.h"

namespace bascule::sim {

struct ConsumerPlan {
  bool on = false;
  int version = 17;  // of PostgreSQL, for what Bascule writes into its configuration
  // A mutation: a standby's copy is moved on as far as its WAL goes.
  bool copies_too_far = false;
};

class FailoverSlot {
 public:
  static constexpr char kName[] = "cdc";

  FailoverSlot(Truth& truth, Observer& observer, const ConsumerPlan& plan);
  void start();

  // The operation is carried out on `host`. A primary makes the slot if it is named and not there.
  void ensured(Endpoint host, const control::op::EnsureSlots& op);

  uint64_t received() const { return received_; }  // everything up to here was sent
  bool carried_by(const Member& standby) const;    // a promotion would go on from its copy

 private:
  struct Standby {  // of one member, by host
    SimTime streaming_since{-1};
    SimTime released_at{-1};  // node/shell.cc has dropped what a primary left
    ProcessId agent{};
  };
  struct Session {  // a logical walsender
    uint64_t id = 0;
    Endpoint host = -1;
    ProcessId process{};
    uint64_t sent = 0;
    uint64_t target = 0;                // beyond `sent`: waits until the standbys have this
    std::vector<std::string> standbys;  // synchronous, as it has read the configuration
    std::vector<std::string> slots;     // synchronized_standby_slots, likewise
    bool in_flight = false;
  };

  World& world() { return truth_.world; }
  Member& member(Endpoint host) { return *truth_.members[static_cast<size_t>(host)]; }
  std::vector<std::string> slots_in_configuration(const Member& m) const;
  bool in_configuration(const Member& m) const;
  bool sync_worker_on() const;
  // standby
  void look_at(Endpoint host);
  void release(Member& m);
  void ask_primary(Member& m);
  void copy(Member& m, const std::optional<LogicalSlot>& theirs);
  // primary
  void accept(Member& m, uint64_t from);
  void serve(uint64_t session);
  void serve_later(uint64_t session);
  void reload(Member& m);
  bool standbys_have(const DataDirectory& data, uint64_t lsn) const;
  void send_up_to(Member& m, uint64_t lsn);
  // consumer
  void consume();
  void connect();
  bool still_connected();
  void receive(uint64_t session, const std::vector<WalRecord>& commits, uint64_t up_to);
  void apply(uint64_t session, uint64_t up_to);

  Truth& truth_;
  Observer& observer_;
  ConsumerPlan plan_;
  Prng random_;
  std::array<Standby, kHostsMax> standbys_{};
  uint64_t sessions_ = 0;
  Session session_;  // the newest

  ProcessId process_{};         // the consumer's
  uint64_t connected_ = 0;      // its session; 0: none
  SimTime connecting_until_{};  // asked, and not answered yet
  SimTime last_contact_{};
  uint64_t received_ = 0;
  uint64_t applied_ = 0;  // durable: it asks from here on
};

}  // namespace bascule::sim
