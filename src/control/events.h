// The boundary between deciding and doing. control::Agent::step() takes one Event and answers with
// Effects; the shell (node/ with a real PostgreSQL, sim/ with a modelled one) carries them out in
// order and reports back with events. Nothing else crosses.
//
// Shell's duties, which the safety arguments in agent.h rely on:
//   - At most one operation (Op) runs at a time, except that Kill may be started while another
//     runs: it always goes ahead at once, and the other then ends in an error (or is never
//     reported).
//   - `OpDone` carries the id of the operation. "Done" means done: durable where it says so.
//   - ArmGuard: the guard process makes sure that no process of PostgreSQL is alive at `deadline`
//     (CLOCK_BOOTTIME), whether the agent lives or not; DisarmGuard takes that back.
//   - PgExited is sent once when every process of PostgreSQL (orphaned backends included) has been
//     reaped, except after Kill / CleanStop / Rewind / Clone, whose OpDone says it.
//   - Persist is durable (fsync of file and directory) before PersistDone is sent.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "base/time.h"
#include "base/types.h"
#include "control/records.h"
#include "store/store.h"

namespace bascule::control {

using OpId = uint64_t;       // unique in the life of an agent process, ascending, from 1
using RequestId = uint64_t;  // of store requests and persists, likewise

// Where to stream from. The shell renders primary_conninfo from it, with the member's own
// sync_name as application_name and the slot named slot_name(own member name).
struct Upstream {
  NodeName member;
  std::string host;
  int port = 0;
  // Of a cluster that is followed: its slot for us (empty: none) and where else WAL comes from.
  std::string slot{};
  std::string restore_command{};
  bool without_slot = false;  // of a member: it need not have one for us, and holds no WAL
  bool operator==(const Upstream&) const = default;
};

// ---- operations on PostgreSQL ------------------------------------------------------------------
namespace op {
// Creates a data directory of a new cluster (initdb), not started. OpData.system_id.
struct InitDb {};
// Starts as a primary: the caller holds the record and has armed the guard. Removes standby.signal,
// starts, waits until it accepts writes (recovery ended), puts standby.signal (empty conninfo)
// back. Timeline is unchanged. `sync_standbys` is in force from the first moment.
struct StartPrimary {
  std::vector<std::string> sync_standbys;  // empty: synchronous_standby_names = ''
  size_t sync_count = 1;                   // so many of them: "ANY sync_count (...)"
};
// Starts in recovery (standby.signal) and waits until it is consistent and accepts connections.
// No upstream: isolated, empty primary_conninfo.
struct StartStandby {
  std::optional<Upstream> upstream;
};
// primary_conninfo by reload; done when a new session shows it. Replay resumes if it was paused.
struct SetUpstream {
  std::optional<Upstream> upstream;
};
// Fencing for a ballot (control-plane.md, Election 3): empty conninfo + reload, a new session shows
// it, replay resumed, conflicting queries cancelled, receiver SIGTERMed by pidfd; done only when no
// receiver process is left and the startup process, after having seen the reload, waits for its
// retry interval, i.e. all valid WAL on disk is replayed. OpData.position is then the end of valid
// WAL on disk, OpData.origin of its timeline. Falls back to restarting PostgreSQL isolated.
struct StopReceiver {};
// Promotes a standby (receiver stopped) to exactly `timeline`; creates the physical slots first;
// sync_standbys is in force before the promotion. Done when writable on that timeline and
// standby.signal is back; a CHECKPOINT has then been started, not awaited. OpData.origin is the
// timeline's. Error if another timeline came out.
struct Promote {
  Timeline timeline;
  std::vector<std::string> sync_standbys;
  std::vector<std::string> slots;
  size_t sync_count = 1;
};
// SIGKILL of every process of PostgreSQL by the guard; done when all are reaped. Never fails for
// long: retried until it has succeeded.
struct Kill {};
// CHECKPOINT, bounded by time.
struct Checkpoint {};
// Fast shutdown within `limit`. OpData.position is the end of the shutdown checkpoint record; only
// success if pg_control then says "shut down". On error PostgreSQL may still be stopping: Kill it.
struct CleanStop {
  Millis limit{0};
};
// Success if `candidate` has received and flushed `position` (asked of the candidate itself,
// again and again up to `limit`). With a limit of 0: does it answer, and on that timeline?
struct VerifyReceived {
  Upstream candidate;
  Position position;
  Millis limit{0};
};
// synchronous_standby_names by reload; then, coming from empty, a CHECKPOINT; then a WAL record
// (marker) is written and flushed locally. OpData.position.lsn is the marker's end.
struct SetSync {
  std::vector<std::string> standbys;
  bool from_empty = false;
  size_t count = 1;  // a commit waits for so many of them
};
// Creates missing physical slots, drops those of `drop`.
struct EnsureSlots {
  std::vector<std::string> slots;
  std::vector<std::string> drop;
  std::map<std::string, PermanentSlot> permanent{};  // of others; dropped on a standby
};
// Dynamic parameters to where PostgreSQL reads them, and a reload if it runs; done when a session
// shows that they were read. What PostgreSQL would refuse at its next start is not written:
// OpData.problem says why, and what was there before stays. Works on a stopped server, too.
struct Reload {
  std::map<std::string, std::string> parameters;
};
// Ends the walsenders with these application_names (duplicates, stragglers of a set change).
struct TerminateSenders {
  std::vector<std::string> names;
};
// pg_rewind from source, on a stopped or isolated standby: the shell stops it cleanly first. Leaves
// PostgreSQL stopped, ready for StartStandby. A marker file persists "half-rewound" until done. An
// error, too, where pg_rewind sees no divergence: it judges by the ids of timelines.
struct Rewind {
  Upstream source;
};
// Wipes and pg_basebackups. Likewise with a "half-cloned" marker. Progress through
// PgStatus::progress.
struct Clone {
  Upstream source;
  bool from_replica = false;  // no slot of ours is left behind there
};
}  // namespace op

using Op = std::variant<op::InitDb, op::StartPrimary, op::StartStandby, op::SetUpstream,
                        op::StopReceiver, op::Promote, op::Kill, op::Checkpoint, op::CleanStop,
                        op::VerifyReceived, op::SetSync, op::EnsureSlots, op::TerminateSenders,
                        op::Rewind, op::Clone, op::Reload>;
std::string_view op_name(const Op& op);
// The WAL that the data directory held before is given up with it.
inline bool replaces_data(const Op& op) {
  return std::holds_alternative<op::Rewind>(op) || std::holds_alternative<op::Clone>(op);
}

struct OpData {
  Position position{};     // as the operation's comment says
  uint64_t system_id = 0;  // InitDb
  std::string problem{};   // Reload
  Origin origin{};         // StopReceiver: of the position's timeline; Promote: of the new one
};

// ---- what the shell sees of PostgreSQL ----------------------------------------------------------
struct WalSender {
  std::string application_name;
  bool streaming = false;
  Lsn flush_lsn;  // as the standby last reported
  Lsn replay_lsn;
  bool operator==(const WalSender&) const = default;
};

enum class PgRun {
  kStopped,       // no process
  kStarting,      // processes exist, no connection accepted (starting, recovering, stopping)
  kStandby,       // in recovery, accepts connections
  kPrimary,       // not in recovery
  kUnresponsive,  // was connectable, does not answer within the probe's deadline
};
enum class DataDir { kEmpty, kReady, kHalfCloned, kHalfRewound, kForeign };

struct PgStatus {
  MonoTime sampled_at{};  // when sampling began: everything below is at least that fresh
  PgRun run = PgRun::kStopped;
  DataDir data = DataDir::kEmpty;
  uint64_t system_id = 0;
  Timeline timeline;             // running: current; stopped: of the last checkpoint
  Timeline checkpoint_timeline;  // of pg_control
  Lsn flush_lsn;                 // primary: flushed; standby: end of received WAL; 0 unknown
  Lsn replay_lsn;
  bool receiver_streaming = false;  // at two samples running: one that is refused says so, too
  bool receiver_new = false;        // ... at this one only: it may have been served, or not
  Lsn upstream_lsn;  // standby: latest end of WAL reported by the upstream; 0 unknown
  std::optional<NodeName> upstream;        // in force (shown by a session)
  std::vector<WalSender> senders;          // of a primary or a standby leader
  std::vector<std::string> sync_standbys;  // in force (shown by a new session)
  size_t sync_count = 1;                   // likewise
  int running_transactions = 0;            // of clients, replication and ourselves excluded
  Nanos write_waits{0};  // primary: so long a flush of WAL has been waited for; 0: it works
  DiskFull disk_full = DiskFull::kNo;
  bool pending_restart = false;
  bool pending_lowers = false;  // ... and what waits lowers a limit that standbys must not undercut
  std::string progress;         // "cloning 43 %", may be empty
  std::map<std::string, std::string> slots;  // permanent logical ones here, in words
  bool operator==(const PgStatus&) const = default;
};

// ---- what survives the agent's death (one small file, fsynced)
// -----------------------------------
struct LocalState {
  std::string incarnation;     // random, new with every clone: never copied
  std::string store_identity;  // of the store last seen; empty: none yet
  Revision highest_revision = 0;
  Epoch highest_epoch;
  uint64_t seed = 0;  // number of the newest seed of the store that was trusted
  // While set, every start of PostgreSQL renders an empty primary_conninfo.
  std::optional<Revision> ballot_intent;
  // The epoch whose leader this data directory was, once promotion (or initdb) was complete: such a
  // directory may be started in place while the record still names us with that epoch. 0: none.
  Epoch led_epoch;
  Origin led_origin{};      // of its timeline
  Position high_water;      // WAL known to be on disk here; a ballot below it is a lie of the disk
  std::string task;         // of the operators' tasks: the last one begun here ...
  std::string task_result;  // ... and how it ended; empty: it has not
  Epoch rewinding;          // whose leader the directory was last rewound from, or was to be
  bool bootstrapping = false;  // initdb was begun and has not led to a cluster: may be wiped
  bool operator==(const LocalState&) const = default;
};
std::string encode(const LocalState&);
Result<LocalState> decode_local_state(std::string_view json);

// ---- agent to agent ----------------------------------------------------------------------------
// What one agent asks of another, over their API ports; authenticated by the shell.
struct PeerRequest {
  enum class Kind {
    kLook,    // are you there?
    kPledge,  // failsafe: follow me, and neither ballot nor take over, for `ttl` from now on
  };
  Kind kind = Kind::kLook;
  NodeName from;
  Epoch epoch;    // that `from` leads (kPledge), or that is asked about
  Millis ttl{0};  // kPledge
  Lsn flush_lsn;  // kPledge: end of the leader's WAL, by which lag is measured afterwards
  bool operator==(const PeerRequest&) const = default;
};
struct PeerReply {
  bool granted = false;   // kPledge
  Epoch leading;          // that it leads; 0: none
  std::string sync_name;  // of who answers: a voter that was rebuilt is not the voter it was
  std::string why;        // not granted: why
  bool operator==(const PeerReply&) const = default;
};
enum class PeerOutcome {
  kAnswered,
  kRefused,  // its host says that nobody listens there
  kSilent,   // no answer within the time, or none that can be believed
};
std::string encode(const PeerRequest&);
std::string encode(const PeerReply&);
Result<PeerRequest> decode_peer_request(std::string_view json);
Result<PeerReply> decode_peer_reply(std::string_view json);

// ---- events -----------------------------------------------------------------------------------
namespace event {
struct Tick {};  // a time asked for by Agent::next_wakeup() has come
struct StoreRead {
  RequestId id = 0;
  Result<SharedView> result;  // decoded by the shell (ClusterParser)
};
struct StoreCommitted {
  RequestId id = 0;
  store::TxnResult result;
};
struct StoreChanged {};  // watch: look again
struct Observed {
  PgStatus status;
};
struct PgExited {
  std::string how;  // "signal 9", "exit 1"
};
struct OpDone {
  OpId id = 0;
  Result<OpData> result;
};
struct PersistDone {
  RequestId id = 0;
};
struct GuardLost {  // the guard process died; PostgreSQL is dying (PR_SET_PDEATHSIG) or must be
                    // killed
  std::string how;
};
struct PeerAnswered {
  RequestId id = 0;
  PeerOutcome outcome = PeerOutcome::kSilent;
  PeerReply reply;  // kAnswered
};
struct PeerAsked {
  uint64_t token = 0;  // to be given back with AnswerPeer
  PeerRequest request;
};
struct Retagged {  // the member's own file was read again
  int priority = 100;
  bool nofailover = false;
  MemberTags tags;
};
struct ShutdownRequested {};  // SIGTERM to the agent: leave the cluster in order
}  // namespace event

using Event = std::variant<event::Tick, event::StoreRead, event::StoreCommitted,
                           event::StoreChanged, event::Observed, event::PgExited, event::OpDone,
                           event::PersistDone, event::GuardLost, event::PeerAnswered,
                           event::PeerAsked, event::Retagged, event::ShutdownRequested>;

// ---- effects ----------------------------------------------------------------------------------
namespace effect {
struct ReadStore {
  RequestId id = 0;  // everything under Keys::prefix
};
struct CommitStore {
  RequestId id = 0;
  store::Txn txn;
};
struct StartOp {
  OpId id = 0;
  Op op;
};
struct ArmGuard {
  MonoTime deadline;
};
struct DisarmGuard {};
struct Persist {
  RequestId id = 0;
  LocalState state;
};
// Sample PostgreSQL every so often from now on, and once right away.
struct SetSampling {
  Millis every{250};
};
// A decision, to act or not to, with its reason. Goes to the log and to the event history.
struct Note {
  LogLevel level = LogLevel::kInfo;
  std::string what;  // "detected", "fenced", "elected", "promoted", "stepped down", ...
  std::string why;
  std::vector<std::pair<std::string, std::string>> fields;
};
// One PeerAnswered comes for each, within a second at most.
struct AskPeer {
  RequestId id = 0;
  NodeName member;
  std::string url;  // its API, as it has published it
  PeerRequest request;
};
struct AnswerPeer {
  uint64_t token = 0;
  PeerReply reply;
};
struct Exit {};  // after ShutdownRequested: everything is in order, the agent may end
}  // namespace effect

using Effect =
    std::variant<effect::ReadStore, effect::CommitStore, effect::StartOp, effect::ArmGuard,
                 effect::DisarmGuard, effect::Persist, effect::SetSampling, effect::Note,
                 effect::AskPeer, effect::AnswerPeer, effect::Exit>;
using Effects = std::vector<Effect>;

}  // namespace bascule::control
