// Everything that happens in a run, for checkers: one interface that they implement in parts.
#pragma once

#include "control/agent.h"
#include "sim/postgres_model.h"
#include "sim/world.h"

namespace bascule::sim {

class Member;

class Observer : public PostgresObserver {
 public:
  // PostgreSQL's own events: see PostgresObserver.

  virtual void store_applied(const store::Txn&, store::Revision, Endpoint /*by*/) {}
  virtual void proxy_forwarded(Endpoint /*proxy*/, const WalRecord&, Epoch /*of the route*/) {}
  // The consumer of a failover slot: everything that ends beyond `from`; each commit that reached
  // it.
  virtual void consumer_asked(Endpoint, uint64_t /*from*/) {}
  virtual void consumer_slot_made(Endpoint, uint64_t /*what ends beyond is kept*/) {}
  virtual void consumer_sent(Endpoint, const WalRecord&) {}
  virtual void operation_begun(Member&, const control::Op&) {}
  virtual void operation_done(Member&, const control::Op&, const Result<control::OpData>&) {}
  virtual void guard_armed(Member&, MonoTime /*deadline*/) {}
  virtual void agent_started(Member&) {}
  virtual void agent_stepped(Member&) {}  // after its effects were begun
  virtual void commit_sent(Member&, const store::Txn&, control::RequestId, MonoTime /*sent*/) {}
  virtual void commit_answered(Member&, control::RequestId, const store::TxnResult&) {}
  // It has promised not to ballot before `until`, by its own clock.
  virtual void pledged(Member&, const control::PeerRequest&, MonoTime /*until*/) {}
  virtual void noted(Member&, const control::effect::Note&) {}
  virtual void host_thawed(Endpoint, World::FrozenClock) {}
};

}  // namespace bascule::sim
