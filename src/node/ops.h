// The operations of control/events.h on a real PostgreSQL. Blocking, in the pool, one at a time.
// Each is a state machine of PostgreSQL's own; where it can be interrupted half-way with harm, a
// marker file is written first (see Marker).
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <string>

#include "control/events.h"
#include "node/server.h"

namespace bascule::node {

class SlotKeeper;

// Shared by the operation in the pool and the shell on the loop.
struct OpControl {
  std::atomic<bool> cancelled{false};  // by Kill: end in an error soon
  MonoTime begun{};
};

struct OpContext {
  Server& server;
  OpControl& control;
  std::function<void(std::string)> progress;             // for PgStatus::progress; any thread
  std::function<void(std::string, std::string)> remark;  // (what, why) for the notes; any thread
  SlotKeeper* slots = nullptr;                           // none: there are no copies of slots
  // Of EnsureSlots on a primary: permanent slots that are not as configured, and why.
  std::vector<std::string> slot_troubles{};

  std::function<bool()> cancelled() const {
    return [this_control = &control] { return this_control->cancelled.load(); };
  }
  Bound within(Nanos time) const { return server.within(time, cancelled()); }
};

Result<control::OpData> run_op(OpContext& context, const control::Op& op);

// One a kind. Kill is not here: it goes through the guard, on the loop.
using OpResult = Result<control::OpData>;
OpResult init_db(OpContext&, const control::op::InitDb&);                      // ops_create.cc
OpResult clone(OpContext&, const control::op::Clone&);                         // ops_create.cc
OpResult rewind(OpContext&, const control::op::Rewind&);                       // ops_rewind.cc
OpResult start_primary(OpContext&, const control::op::StartPrimary&);          // ops_start.cc
OpResult start_standby(OpContext&, const control::op::StartStandby&);          // ops_start.cc
OpResult clean_stop(OpContext&, const control::op::CleanStop&);                // ops_stop.cc
OpResult verify_received(OpContext&, const control::op::VerifyReceived&);      // ops_stop.cc
OpResult set_upstream(OpContext&, const control::op::SetUpstream&);            // ops_receiver.cc
OpResult stop_receiver(OpContext&, const control::op::StopReceiver&);          // ops_receiver.cc
OpResult promote(OpContext&, const control::op::Promote&);                     // ops_promote.cc
OpResult set_sync(OpContext&, const control::op::SetSync&);                    // ops_sync.cc
OpResult ensure_slots(OpContext&, const control::op::EnsureSlots&);            // ops_sync.cc
OpResult terminate_senders(OpContext&, const control::op::TerminateSenders&);  // ops_sync.cc
OpResult checkpoint(OpContext&, const control::op::Checkpoint&);               // ops_sync.cc
OpResult reload(OpContext&, const control::op::Reload&);                       // ops_reload.cc

// -- shared by them
// Writes the configuration, reloads, and waits until a new session shows it. Returns that session,
// one that speaks the replication protocol too.
Result<PgConnection> reconfigure(OpContext& context, const ServerSettings& settings,
                                 const Bound& bound);
enum class Reserve { kNow, kAtFirstUse };  // kNow: WAL is kept for the slot from now on
Status create_slots(PgConnection& session, const std::vector<std::string>& slots, Reserve reserve,
                    const Bound& bound);
// The file of dynamic parameters by the newest record that the node has seen, so that a value which
// PostgreSQL can't start with is gone once it was set right, though nothing runs that could read
// it. Whether it was written anew; else it stays as it is, and a remark says why.
bool refresh_dynamic(OpContext& context);
// Of the parameters that a standby needs as high as its primary: those that are configured lower,
// with what it needs (ops_reload.cc).
std::map<std::string, std::string> standby_floors(OpContext& context);
// Starts in recovery and waits until it accepts connections.
Status start_in_recovery(OpContext& context, const ServerSettings& settings);
std::unexpected<Error> in_context(const char* what, Error error);

}  // namespace bascule::node
