// What the members of a cluster agree through: the records under /bascule/<cluster>/ in the store,
// as values, with their JSON form; and ClusterView, the parsed immutable snapshot that every
// decision, API answer and route table is made from.
//
// JSON from the store is treated as hostile: a record that does not parse is reported in
// ClusterView::problems and counts as absent for a decision to act, and as present (unknown) for a
// decision to take over (`leader_unreadable`).
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "base/types.h"
#include "control/monitor_records.h"
#include "control/task_records.h"
#include "store/store.h"

namespace bascule::control {

using store::Revision;

// ---- dynamic configuration: <prefix>/config ------------------------------------------------
// kOn: one named standby. kQuorum: any sync_count of all that keep up.
enum class SyncMode { kOff, kOn, kQuorum };
std::string_view to_string(SyncMode mode);  // off, on, quorum
enum class OnCrash { kFailover, kRestart, kRestartThenFailover };
// A full disk of the primary: hand over to a member that has room, or stay and say why.
enum class OnDiskFull { kFailover, kStay };
// Which standbys are preferred to be waited for, by the primary's region.
enum class SyncRegion { kAny, kOther, kSame };

// What of a member's PostgreSQL has no room left. kWal: not for another segment of WAL (the whole
// directory, where that is on the same file system).
enum class DiskFull { kNo, kData, kWal };
std::string_view to_string(DiskFull full);  // "", data, wal

// A replication slot of somebody outside the cluster, by name.
struct PermanentSlot {
  std::string plugin;  // of a logical one; empty: physical
  std::string database;
  bool logical() const { return !plugin.empty(); }
  bool operator==(const PermanentSlot&) const = default;
};

// The primary of another cluster that this one follows as a whole: none of its members accepts
// writes as long as this is there (docs/operating/standby-cluster.md).
struct StandbyCluster {
  std::string host;
  int port = 5432;
  std::string primary_slot_name;  // a slot of ours there; empty: none
  std::string restore_command;    // of the standby leader; empty: none
  bool operator==(const StandbyCluster&) const = default;
};
// What is streamed from then, in place of a member's name.
const NodeName& followed_cluster();

struct ClusterConfig {
  Millis ttl{5000};
  SyncMode sync_mode = SyncMode::kOn;
  size_t sync_count = 1;                  // quorum: a commit waits for so many standbys
  bool sync_strict = false;               // block rather than lose redundancy
  Millis sync_degrade_after{400};         // a synchronous standby silent for so long is replaced
  OnCrash on_crash = OnCrash::kFailover;  // only with a healthy synchronous standby, else restart
  OnDiskFull on_disk_full = OnDiskFull::kFailover;
  size_t failover_limit = 20;      // automatic ones within failover_window; 0: no limit
  Millis failover_window{600000};  // ... then they wait until fewer are left in it
  SyncRegion sync_region = SyncRegion::kAny;
  uint64_t maximum_lag_bytes = 16 << 20;  // asynchronous mode: no promotion beyond this
  Millis ballot_window{400};              // how long ballots of slower members are waited for
  Millis drain_timeout{3000};             // switchover: running transactions may end within this
  Millis promote_timeout{10000};          // a promotion that takes longer is undone
  Millis rejoin_timeout{30000};           // a replica that can't stream for so long is cloned anew
  std::map<std::string, std::string> parameters;  // of PostgreSQL; a member's own ones win
  std::map<std::string, PermanentSlot> slots;     // kept at whoever leads
  std::string primary_region;                     // preferred in an election; empty: none
  bool failsafe = true;         // the store is silent: lead on while the others pledge to follow
  bool early_takeover = false;  // synchronous modes: before ttl, on evidence (ADR 0024)
  Millis blip_tolerance{2000};  // ... silence is evidence after so long
  bool region_relays = false;   // a region streams from the leader once, by one of its members
  std::optional<StandbyCluster> standby_cluster;
  bool operator==(const ClusterConfig&) const = default;

  bool synchronous() const { return sync_mode != SyncMode::kOff; }
  // So that a store that is away for 0.4 ttl is no reason to fence (docs/control-plane.md, Time).
  static Millis renew_every(Millis ttl) { return ttl / 10; }
  // The holder waits so long for the store's answer before it asks again; a later answer counts.
  static Millis answer_within(Millis ttl) {
    return std::clamp(ttl / 20, Millis(100), Millis(1000));
  }
  // The holder is unable to acknowledge writes this long after the send time of its last
  // successful renewal; the remaining 0.4 ttl covers kill time and clock-rate error.
  static Millis fence_after(Millis ttl) { return ttl * 6 / 10; }
};
// Refuses settings under which fencing can't be on time; the message names the setting.
Status validate(const ClusterConfig& config);

// ---- leader: <prefix>/leader (never deleted; vacancy is a value) -----------------------------
enum class LeaderPhase {
  kVacant,     // nobody; `why` says how it came to be
  kPreparing,  // taken over, not yet writable (bootstrap, promotion, restart in place)
  kRunning,    // writable: proxies route to it
  kDraining,   // planned switchover: proxies hold new transactions, running ones may end
  kStopping,   // planned switchover: shutting down cleanly
  kFollowing,  // standby cluster: streams from the cluster that is followed, never writable
};
std::string_view to_string(LeaderPhase phase);

struct LeaderRecord {
  NodeName holder;       // empty when vacant
  Epoch epoch;           // of the holder, or of the last one when vacant
  uint64_t counter = 0;  // changes with every renewal
  LeaderPhase phase = LeaderPhase::kVacant;
  Timeline timeline;  // the timeline the holder writes (or will write) on
  Millis ttl{5000};
  std::string why;
  NodeName handover_to;     // planned switchover: this member is preferred
  Position final_position;  // when vacant after a clean stop: nothing was written beyond this
  std::string request_id;   // the operator's request being carried out
  Lsn flush_lsn;  // the holder's WAL at its last renewal: asynchronous lag is measured by it
  bool operator==(const LeaderRecord&) const = default;
  bool vacant() const { return phase == LeaderPhase::kVacant; }
};

// ---- members/<name>: written by that member only ---------------------------------------------
// What a member's configuration says about its use, beside nofailover and priority.
struct MemberTags {
  bool nosync = false;         // never waited for
  bool noloadbalance = false;  // no reads by way of proxy and load balancers
  bool clonefrom = false;      // others are cloned from here rather than from the leader
  NodeName replicatefrom;      // streams from that member while it can; empty: from the leader
  bool operator==(const MemberTags&) const = default;
};

struct MemberRecord {
  NodeName name;
  std::string role;    // "primary", "standby leader", "replica", "none"
  std::string state;   // "running", "streaming", "starting", "balloting", "rewinding", ...
  std::string reason;  // why it is in this state / why it does not do more
  Epoch epoch;         // of the history that it follows
  Timeline timeline;
  Lsn flush_lsn;  // primary: flushed; standby: received and flushed
  Lsn replay_lsn;
  Timeline checkpoint_timeline;  // of its last checkpoint (pg_control): pg_rewind's precondition
  std::string host;
  int port = 0;
  std::string api_url;
  std::string region;
  int priority = 100;  // higher is preferred
  bool nofailover = false;
  MemberTags tags;
  NodeName upstream;      // that it streams from, or tries to
  std::string sync_name;  // application_name of its receiver: name + "_" + incarnation
  uint64_t system_id = 0;
  bool pending_restart = false;
  DiskFull disk_full = DiskFull::kNo;
  bool restart_first = false;  // what waits for it lowers a limit: standbys can't go first
  std::map<std::string, std::string> slots;  // permanent logical ones there, in words
  std::string config_problem;                // why the dynamic parameters are not in force here
  std::string task;                          // the last one that it took its turn in
  std::string task_result;                   // of that: empty: under way
  WallTime written_at{};                     // for people only; never compared between hosts
  bool operator==(const MemberRecord&) const = default;
};

// How a timeline began, by PostgreSQL itself. Promotions to the same id that are not the same
// promotion differ in it, be it by the time that a promotion writes into its first record.
struct Origin {
  Lsn at;             // by its history file; 0: not known, or the first timeline
  uint32_t mark = 0;  // of its first record; 0: not known (that WAL may be gone)
  bool operator==(const Origin&) const = default;
  bool contradicts(const Origin& other) const {
    if (at == Lsn{} || other.at == Lsn{}) return false;
    return at != other.at || (mark != 0 && other.mark != 0 && mark != other.mark);
  }
};

// ---- ballots/<name> --------------------------------------------------------------------------
// "My receiver is stopped, my WAL ends here, and it stays so until I have deleted this ballot."
struct Ballot {
  NodeName member;
  Revision answers = 0;   // revision of `leader` that it answers; void for any other
  Revision fetching = 0;  // void: before it answers this revision, another one's WAL is fetched
  Position position;
  Origin origin{};                  // of that timeline, as the member has it
  uint64_t receiver_lag_bytes = 0;  // what the member last knew itself to be behind the primary
  std::string sync_name;  // voters are counted by it: a rebuilt member is not the voter it was
  Epoch led_epoch;        // its data directory is that of this epoch's leader; 0: of none
  bool operator==(const Ballot&) const = default;
};

// ---- sync: the generations whose acknowledged commits must survive ---------------------------
// Every commit acknowledged in a generation is on its leader and on at least one member of every
// set of `quorum` voters. No voters: only the leader has all of them ("alone"). Voters are sync
// names (member and incarnation): a member that was rebuilt is not the voter it was.
struct Generation {
  Epoch epoch;
  NodeName leader;
  std::string leader_sync_name;  // its incarnation: one that was rebuilt is not the leader it was
  std::vector<std::string> voters;  // sorted
  size_t quorum = 0;                // election size q; 0 iff no voters
  bool operator==(const Generation&) const = default;
};
struct SyncRecord {
  std::vector<Generation> generations;  // oldest first; empty in asynchronous mode
  bool operator==(const SyncRecord&) const = default;
};

// ---- history/<epoch>: written in the take-over transaction ------------------------------------
struct HistoryRecord {
  Epoch epoch;
  NodeName leader;
  Epoch parent_epoch;  // the epoch whose timeline the winner stood on; 0 at bootstrap
  Timeline timeline;   // reserved for this epoch, used by no other
  Position fork;       // where the winner stood on the parent's timeline: WAL beyond is diverged
  // Of `timeline`, once it was promoted to: before `fork` where that ended within a record, beyond
  // it where an archive had more.
  Origin origin{};
  std::string reason;
  std::string trigger;  // "bootstrap", "expired", "vacant", "switchover", "forced"
  WallTime at{};
  // For people, as the winner measured it (by a monitor: gap_ms alone, begin to open); -1: unknown.
  int64_t silent_ms = -1;   // the last sign of the leader before -> taken for gone
  int64_t gap_ms = -1;      // vacancy or silence seen -> take-over
  int64_t promote_ms = -1;  // take-over -> writable
  int64_t route_ms = -1;    // writable -> the record that says so is sent
  int64_t lost_bytes = -1;  // WAL that the leader before is known to have had, beyond `fork`
  // Standby cluster: the leader of this epoch writes nothing. What its members have is the WAL of
  // the cluster that they follow; `timeline` and `fork` say only where it stood.
  bool following = false;
  bool operator==(const HistoryRecord&) const = default;
  // Promoted to, perhaps, and nobody has told how that began.
  bool lacks_origin() const { return !following && parent_epoch.value != 0 && origin.at == Lsn{}; }
};

// ---- request, pause, init, roster ---------------------------------------------------------------
enum class RequestKind { kSwitchover, kFailover };
struct RequestRecord {
  std::string id;
  RequestKind kind = RequestKind::kSwitchover;
  NodeName candidate;             // empty: the best one
  bool force = false;             // failover: accept losing acknowledged commits
  bool old_primary_dead = false;  // forced: somebody has made sure that it is off
  std::string by;                 // who asked, for the audit
  std::string progress;           // "" (new), "checking", "draining", "stopping", "handed over"
  std::string outcome;            // "" while open, else "done" or "refused: ..." / "failed: ..."
  // Forces what `open` forces, and says what that one may be waiting for.
  bool confirms(const RequestRecord& open) const {
    return old_primary_dead && force && open.force && !open.old_primary_dead;
  }
  bool operator==(const RequestRecord&) const = default;
};
struct InitRecord {
  uint64_t system_id = 0;  // 0: bootstrap under way
  NodeName by;
  bool operator==(const InitRecord&) const = default;
};
struct RosterRecord {
  std::vector<NodeName> members;  // may be elected; sorted
  bool operator==(const RosterRecord&) const = default;
};

// ---- seed: the store was filled again by the leader, after it was wiped or restored ------------
struct SeedRecord {
  uint64_t number = 0;  // ascends: a backup of a seeded store does not pass for a seed
  NodeName by;
  Epoch epoch;
  bool operator==(const SeedRecord&) const = default;
};

// ---- removed/<name>: a member that was taken out and may still run
struct RemovedRecord {
  std::string sync_name;  // it comes back under another one, with a new copy
  std::string by;
  bool operator==(const RemovedRecord&) const = default;
};

// ---- keys
// ---------------------------------------------------------------------------------------- prefix =
// "/bascule/<cluster>/"
struct Keys {
  std::string prefix;
  explicit Keys(std::string_view cluster);
  std::string leader() const { return prefix + "leader"; }
  std::string config() const { return prefix + "config"; }
  std::string init() const { return prefix + "init"; }
  std::string roster() const { return prefix + "roster"; }
  std::string sync() const { return prefix + "sync"; }
  std::string request() const { return prefix + "request"; }
  std::string task(std::string_view id) const { return prefix + "tasks/" + std::string(id); }
  std::string pause() const { return prefix + "pause"; }
  std::string seed() const { return prefix + "seed"; }
  std::string removed(const NodeName& n) const { return prefix + "removed/" + n.str(); }
  std::string member(const NodeName& n) const { return prefix + "members/" + n.str(); }
  std::string ballot(const NodeName& n) const { return prefix + "ballots/" + n.str(); }
  std::string history(Epoch e) const;  // zero-padded, so that keys sort by epoch
};

template <typename T>
struct Versioned {
  T value;
  Revision revision = 0;
};

struct ClusterView {
  std::string identity;   // of the store
  Revision revision = 0;  // of the snapshot
  std::optional<Versioned<LeaderRecord>> leader;
  bool leader_unreadable = false;
  Revision leader_revision = 0;  // also when unreadable; 0 when absent
  std::optional<Versioned<ClusterConfig>> config;
  std::optional<Versioned<InitRecord>> init;
  std::optional<Versioned<RosterRecord>> roster;
  std::optional<Versioned<SyncRecord>> sync;
  std::optional<Versioned<RequestRecord>> request;
  std::optional<Versioned<SeedRecord>> seed;
  bool paused = false;
  std::map<NodeName, MemberRecord> members;
  std::map<NodeName, Versioned<Ballot>> ballots;
  std::map<Epoch, HistoryRecord> history;
  std::map<std::string, Versioned<TaskRecord>> tasks;  // by id
  std::map<NodeName, Versioned<RemovedRecord>> removed;
  std::optional<MonitorView> monitor;  // databases without an agent: a monitor decides
  std::vector<std::string> problems;

  const MemberRecord* member(const NodeName& name) const;
  Revision sync_revision() const { return sync ? sync->revision : 0; }
};
// Never changed once it is made: whoever looks at one revision may look at the same object.
using SharedView = std::shared_ptr<const ClusterView>;

// Parses a snapshot of everything under keys.prefix. Never fails: see the top of this file.
ClusterView parse_cluster(const Keys& keys, const store::Snapshot& snapshot);

// The same for one who looks again and again: what has the text it had last time is not decoded
// again (most of an agent's time otherwise). The views are equal to parse_cluster's.
class ClusterParser {
 public:
  explicit ClusterParser(Keys keys) : keys_(std::move(keys)), names_(keys_) {}
  ClusterView parse(const store::Snapshot& snapshot);
  Result<SharedView> parse(Result<store::Snapshot> read);

 private:
  struct Names {  // made once, compared with every entry
    explicit Names(const Keys& keys);
    std::string leader, config, init, roster, sync, request, seed, pause;
    std::string members, ballots, history, tasks, removed;  // what their keys begin with
  };
  struct Decoded {
    std::string text;
    // std::monostate: nothing yet, or what belongs under another key.
    std::variant<std::monostate, LeaderRecord, ClusterConfig, InitRecord, RosterRecord, SyncRecord,
                 RequestRecord, SeedRecord, MemberRecord, Ballot, HistoryRecord, TaskRecord,
                 RemovedRecord>
        value;
  };
  using Cache = std::map<std::string, Decoded>;  // by key
  template <typename T>
  using KeyOf = std::string (*)(const Keys&, const T&);
  // Null: it does not parse, or its key is not that which `key_of` gives it.
  template <typename T>
  const T* decode(const store::Entry& entry, Result<T> (*decoder)(std::string_view),
                  KeyOf<T> key_of = nullptr);

  Keys keys_;
  Names names_;
  Cache decoded_;
  // While parsing:
  Cache::iterator next_;  // both ascend
  std::vector<std::string> problems_;
};

std::string encode(const ClusterConfig&);
std::string encode(const LeaderRecord&);
std::string encode(const MemberRecord&);
std::string encode(const Ballot&);
std::string encode(const SyncRecord&);
std::string encode(const HistoryRecord&);
std::string encode(const RequestRecord&);
std::string encode(const InitRecord&);
std::string encode(const RosterRecord&);
std::string encode(const SeedRecord&);
std::string encode(const RemovedRecord&);
Result<ClusterConfig> decode_config(std::string_view json);
Result<LeaderRecord> decode_leader(std::string_view json);
Result<MemberRecord> decode_member(std::string_view json);
Result<Ballot> decode_ballot(std::string_view json);
Result<SyncRecord> decode_sync(std::string_view json);
Result<HistoryRecord> decode_history(std::string_view json);
Result<RequestRecord> decode_request(std::string_view json);
Result<InitRecord> decode_init(std::string_view json);
Result<RosterRecord> decode_roster(std::string_view json);
Result<SeedRecord> decode_seed(std::string_view json);
Result<RemovedRecord> decode_removed(std::string_view json);

}  // namespace bascule::control
