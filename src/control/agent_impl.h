// The inside of control::Agent. One class, its jobs in one file each:
//   agent.cc             events in, bookkeeping of reads / transactions / persists / operations
//   agent_follow.cc      not holding the record: bootstrap, rejoin (follow, rewind, clone), fencing
//                        of a stray primary
//   agent_election.cc    ballot intent, receiver stop, ballot, take-over
//   agent_fetch.cc       what only a member has that may not lead is fetched before a take-over
//   agent_lead.cc        holding the record: renewals, promotion, roster, synchronous set
//   agent_crash.cc       a leader's PostgreSQL hangs or is gone
//   agent_limits.cc      bounds on failovers; what a full disk leads to
//   agent_switchover.cc  planned switchover and orderly shutdown
//   agent_sources.cc     where standbys stream and are copied from; slots
//   agent_tasks.cc       operators' tasks (restart, reload, reinit); parameters of PostgreSQL
//   agent_removal.cc     taking a member out of the cluster
//   agent_standby.cc     leading a cluster that follows another one
//   agent_peers.cc       failsafe by pledges, evidence for an early take-over
//   agent_reseed.cc      what is believed of the store; filling it again
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "control/agent.h"
#include "control/election.h"
#include "control/history.h"
#include "control/sync_set.h"

namespace bascule::control {

using store::TxnOutcome;

class Agent::Impl {
 public:
  Impl(AgentConfig config, LocalState persisted, MonoTime now, UnsafeMutations unsafe);

  Effects start(MonoTime now);
  Effects step(Event& event, MonoTime now);

  // What is said of a transaction when its answer comes.
  enum class TxnKind {
    kLeader,
    kBootstrap,
    kBallot,
    kDropBallot,
    kTakeOver,
    kResume,
    kSeed,
    kPublish
  };
  struct PendingTxn {
    RequestId id = 0;
    TxnKind kind = TxnKind::kPublish;
    MonoTime sent_at{};
    LeaderRecord record;                   // as written, where it writes the leader record
    std::function<void(TxnOutcome)> then;  // kLeader: extras' continuation
  };
  struct Held {
    LeaderRecord record;
    Revision revision = 0;
    Revision taken_at = 0;  // of the transaction that made it ours
    MonoTime deadline{};
    MonoTime proved_at{};    // what the deadline counts from
    MonoTime renewed_at{};   // send time of the last renewal that succeeded
    bool unsettled = false;  // a transaction of ours has an unknown outcome
    int renewals = 0;        // confirmed since the take-over
    MonoTime begun_at{};     // send time of the transaction that made it ours
    MonoTime promoted_at{};  // zero: not since then
    Origin origin{};         // of the timeline that was promoted to, if it was
    Timeline created_on{};   // a new cluster's: that its first primary started on
  };
  struct RunningOp {
    OpId id = 0;
    Op op;
    MonoTime since{};
  };

  // -- agent.cc: bookkeeping
  bool view_fresh() const { return have_view_ && view_->revision >= last_commit_; }
  void on(const event::Tick&) {}
  void on(event::StoreRead& e);
  void on(const event::StoreCommitted& e);
  void on(const event::StoreChanged&) { request_read(); }
  void on(event::Observed& e);
  void on(const event::PgExited& e);
  void on(const event::OpDone& e);
  void on(const event::PersistDone& e);
  void on(const event::GuardLost& e);
  void on(const event::PeerAnswered& e);
  void on(const event::PeerAsked& e);
  void on(const event::Retagged& e);
  void on(const event::ShutdownRequested&) { shutdown_ = true; }
  void decide();
  void request_read();
  RequestId commit(TxnKind kind, store::Txn txn, LeaderRecord record = {});
  void expire_requests();
  void run(Op op);
  void persist(std::function<void()> then);
  // A time that has come already is looked at again soon, not at once: nothing may spin here.
  void wake_at(MonoTime t) { wake_ = std::min(wake_, std::max(t, now_ + 1ms)); }
  void set_phase(Phase phase, std::string reason);
  void note(LogLevel level, std::string what, std::string why,
            std::vector<std::pair<std::string, std::string>> fields = {});
  void sample_every(Millis period);
  void publish();
  void introduce(MemberRecord& m) const;
  void describe(MemberRecord& m) const;
  void op_done(const op::InitDb&, const OpData& data);
  void op_done(const op::StartPrimary&, const OpData& data);
  void op_done(const op::StartStandby&, const OpData& data);
  void op_done(const op::SetUpstream&, const OpData& data);
  void op_done(const op::StopReceiver&, const OpData& data);
  void op_done(const op::Promote&, const OpData& data);
  void op_done(const op::Kill&, const OpData&) {}
  void op_done(const op::Checkpoint&, const OpData& data);
  void op_done(const op::CleanStop&, const OpData& data);
  void op_done(const op::VerifyReceived&, const OpData& data);
  void op_done(const op::SetSync&, const OpData& data);
  void op_done(const op::EnsureSlots&, const OpData& data);
  void op_done(const op::TerminateSenders&, const OpData&) {}
  void op_done(const op::Rewind&, const OpData& data);
  void op_done(const op::Clone&, const OpData& data);
  void op_done(const op::Reload&, const OpData& data);
  void op_error(const Op& op, const Error& error);
  void learn_store();
  bool op_running() const { return op_.has_value(); }
  bool may_retry() const { return now_ >= retry_at_; }
  void op_failed(const Error& error);
  const ClusterConfig& config() const;
  Upstream upstream_of(const NodeName& member) const;
  std::string sync_name() const;
  bool is_sync_name(std::string_view name) const;
  bool txn_pending(TxnKind kind) const;
  bool pg_down() const { return pg_.run == PgRun::kStopped; }
  void new_incarnation();
  bool answered(const NodeName& source) const;

  // -- agent_follow.cc
  void follow();
  void fence_stray_primary();
  bool leader_expired() const;
  bool leader_live() const;
  void await_expiry(const LeaderRecord& leader);
  void bootstrap();
  void resume_record();
  bool asked_for_record() const;
  bool promoted_elsewhere(const LeaderRecord& mine) const;
  std::string why_elsewhere() const;
  void rejoin();
  void rejoin_running(const LeaderRecord& leader);
  void give_up_start(const LeaderRecord& leader);
  void start_from_stopped(const LeaderRecord* leader);
  void resync(const LeaderRecord& leader, std::string why);
  void clone(const LeaderRecord& leader, std::string why);
  void leave_ballot();
  void locate(std::string why);
  bool leader_writes() const;
  bool sure_of_leader();
  void replace_data(Op op);

  // -- agent_election.cc
  void contest();
  void place_ballot();
  void give_up_hung(Millis patience);
  bool wal_was_lost() const;
  std::optional<Place> located_on(const Lineage& line) const {
    return place(line, *located_, located_origin_);
  }
  void consider_take_over();
  int64_t lost_with(const Candidate& winner, bool on_the_line) const;
  void take_over(const Election& election, std::string trigger, std::string why);
  Revision ballot_revision() const {
    const auto own = view_->ballots.find(config_.name);
    return own == view_->ballots.end() ? 0 : own->second.revision;
  }
  std::optional<HistoryRecord> settled_origin() const;
  SyncSetting first_standbys(const Election& election, const Lineage& line) const;
  void took_over(const PendingTxn& txn, Revision revision);

  // -- agent_fetch.cc
  bool fetches_first(const Election& election);
  bool others_fetch(const Candidate& own, const Election& election);
  bool awaits_source(const Election& election);
  bool begin_fetch(const Candidate& own);
  void void_ballot();
  bool fetched();

  // -- agent_crash.cc
  bool writes_hang() const;
  void hung();
  void crashed(std::string how);
  void apply_crash_policy();

  // -- agent_limits.cc
  void count_failovers();
  std::optional<MonoTime> failovers_held_until() const;
  std::string why_held() const;
  bool stays_on_full_disk() const;
  bool others_have_room() const;
  bool is_only_one_by_force() const;
  std::string why_start_again() const;
  NodeName candidate_with_room() const;
  void tend_full_disk();
  std::string why_disk_full() const;

  // -- agent_lead.cc
  void lead();
  void enforce_deadline();
  void renew(bool force);
  bool leader_commit(LeaderRecord record, store::Txn extras,
                     std::function<void(TxnOutcome)> then = {});
  void leader_answer(const PendingTxn& txn, const store::TxnResult& result);
  void late_answer(const event::StoreCommitted& e);
  void extend(MonoTime renewed_at, const LeaderRecord& record);
  void hold_until(MonoTime deadline, MonoTime proved_at);
  void adopt_revision();
  bool settled() const;
  // Unable to acknowledge from then on, if the renewal sent at `sent` is the last that succeeded.
  static MonoTime fence_at(MonoTime sent, const LeaderRecord& record) {
    return sent + ClusterConfig::fence_after(record.ttl);
  }
  void promote();
  void promoted();
  void restart_in_place();
  void finish_start();
  void start_bootstrap();
  void await_own_write();
  void run_cluster();
  void keep_roster();
  void keep_slots();
  bool end_duplicates();
  void keep_sync();
  void apply_sync_step(const SyncStep& step);
  enum class Release { kYes, kNo };
  void stand_down(std::string why, Release release);
  void finish_standing_down();
  void drop_record(std::string why);
  std::vector<SyncCandidate> sync_candidates() const;
  static const SyncRecord& sync_of(const ClusterView& v) {
    static const SyncRecord kNone;
    return v.sync ? v.sync->value : kNone;
  }
  const SyncRecord& sync_record() const { return sync_of(*view_); }

  // -- agent_standby.cc
  bool follows_another() const { return config().standby_cluster.has_value(); }
  bool leads_standbys() const { return held_ && held_for_ == HeldFor::kFollowing; }
  bool following_epoch(Epoch epoch) const;
  bool is_beyond(Timeline timeline, const LeaderRecord& leader) const;
  Upstream followed() const;
  void lead_following();
  void start_following();
  void join_followed();
  void announce_following();
  void run_standby_cluster();
  void stop_following();
  void switch_standby_leader();
  void vacate_following(LeaderRecord record, store::Txn extras, std::string why);

  // -- agent_sources.cc: where standbys stream and are copied from
  bool is_recorded_voter() const;
  NodeName source_of(const LeaderRecord& leader) const;
  NodeName wanted_relay(const LeaderRecord& leader) const;
  bool is_avoided(const MemberRecord& relay) const;
  op::Clone copy_of(const LeaderRecord& leader) const;
  std::vector<SyncCandidate> voters() const;
  bool in_preferred_region(const MemberRecord& m) const;
  std::vector<std::string> slots() const;
  std::vector<std::string> stale_slots() const;

  // -- agent_removal.cc
  bool removed_here() const;
  void stay_away();
  void remove_member(const Versioned<TaskRecord>& task);
  bool being_removed(const NodeName& member) const;
  bool belongs(const MemberRecord& m) const;

  // -- agent_tasks.cc
  // What PostgreSQL here goes through in this member's turn.
  enum class TurnStage { kNone, kStop, kCopy, kStart, kReload };
  void tend_tasks();
  NodeName best_in_region(const std::string& region) const;
  bool add_request(const TaskRecord& task, RequestRecord request, store::Txn& extras) const;
  bool stops_writes(const TaskRecord& task) const;
  void begin_own_restart(const TaskRecord& task, store::Txn extras);
  void start_again();
  void take_turn(const std::string& task, TurnStage stage);
  void end_turn(std::string result);
  void end_turn_as_leader();
  bool tend_own_turn(const LeaderRecord& leader);
  void keep_parameters();
  void reload_failed(const Error& error);
  // -- agent_peers.cc
  struct Asked {
    RequestId id = 0;
    NodeName member;
    PeerRequest::Kind kind = PeerRequest::Kind::kLook;
    Epoch epoch;
    MonoTime sent_at{};
  };
  RequestId ask(const NodeName& member, PeerRequest request);  // 0: its address is not known
  std::string no_pledge_because(const PeerRequest& request) const;
  bool pledged() const;
  void keep_failsafe();
  void pledge_answered(const Asked& asked, const event::PeerAnswered& e);
  bool namesake_lives();
  void namesake_answered(const event::PeerAnswered& e);
  void extend_by_pledges();
  std::optional<MonoTime> bound_since() const;
  bool suspected() const;
  void watch_leader(const LeaderRecord& leader);
  std::string early_obstacle() const;

  // -- agent_reseed.cc
  std::string doubt_about(const ClusterView& view) const;
  bool seeded_anew(const ClusterView& view) const;
  void trust_store();
  void keep_seed();
  store::Txn seed_txn(const LeaderRecord& record) const;
  void seed_tasks(store::Txn& txn) const;
  void seed_removed(store::Txn& txn) const;
  void seed_answered(const PendingTxn& txn, const store::TxnResult& result);
  const ClusterView& known() const { return good_ ? *good_ : *view_; }

  // -- agent_switchover.cc
  void hold_samples();
  void handle_request();
  bool checkpointed_for(const std::string& request);
  void begin_switchover(const RequestRecord& request);
  void begin_drain();
  void finish_request(const RequestRecord& request, std::string outcome);
  void end_request_by_take_over(LeaderRecord& record, store::Txn& extras) const;
  void drain();
  void hand_over();
  void shut_down();
  NodeName best_candidate(const std::function<bool(const NodeName&)>& fits) const;
  NodeName choose_candidate(const RequestRecord& request, std::string& refusal) const;
  bool leader_stops() const;
  // Pointed at it, and no receiver has said that it streams.
  bool cut_off_from(const LeaderRecord& leader) const {
    return pg_.upstream == leader.holder && !pg_.receiver_streaming && !pg_.receiver_new;
  }
  bool locates_early(const LeaderRecord& leader);
  bool leaves_it_to_successor();

  AgentConfig config_;
  LocalState local_;
  UnsafeMutations unsafe_;
  Keys keys_;

  MonoTime now_{};
  MonoTime wake_{};
  Effects out_;
  uint64_t next_id_ = 1;

  // store
  SharedView view_ = std::make_shared<ClusterView>();
  bool have_view_ = false;
  MonoTime view_begun_{};  // when the read that brought view_ was begun
  RequestId read_id_ = 0;
  MonoTime read_sent_{};
  bool read_again_ = false;
  std::vector<PendingTxn> txns_;
  std::vector<PendingTxn> late_;  // renewals that were given up: an answer still counts
  Revision last_commit_ = 0;      // of ours: decisions wait for a view that shows it
  MonoTime read_retry_at_{};
  Revision revision_seen_ = 0;
  std::string rolled_back_;    // seen once, it is not forgotten when revisions have grown again
  int promotions_failed_ = 0;  // in a row: each reserves a timeline id, so they are not hurried
  WallTime wall_{};
  Revision leader_seen_ = 0;
  MonoTime leader_seen_at_{};
  MonoTime leader_written_after_{};  // begin of the last read that did not show it yet; {}: unknown
  std::string doubt_;                // why elections are refused: store wiped or rolled back
  MonoTime doubt_since_{};
  SharedView good_;          // in doubt: what was seen last before; else null
  MonoTime committed_at_{};  // when last_commit_ was answered
  MonoTime seed_again_{};

  // PostgreSQL
  PgStatus pg_;
  bool have_pg_ = false;
  MonoTime pg_ignored_until_{};  // samples begun before this show a state that is over
  std::optional<RunningOp> op_;
  std::optional<OpId> kill_;
  bool replaced_data_ = false;  // the kill under way interrupted a rewind or a clone
  bool renamed_ = false;        // the upstream is to be set again, with the new application_name
  Epoch followed_epoch_;        // whose line was checked before the upstream was set
  bool copied_ = false;         // just rewound or cloned: not consistent without its upstream
  Epoch copied_from_;           // whose leader the copy was made of
  bool copy_failed_ = false;    // what is here may be what was to be given up
  std::optional<std::pair<NodeName, MonoTime>> source_answered_;  // before a copy, and when
  MonoTime ask_source_at_{};                                      // not before: it did not answer
  int starts_failed_ = 0;                                         // of the standby, in a row
  MonoTime retry_at_{};
  int op_failures_ = 0;
  int rewinds_tried_ = 0;  // since it streamed; "no rewind required" is no success
  Millis sampling_{0};
  std::optional<Position> located_;  // end of WAL on disk; valid while the receiver stays stopped
  MonoTime located_at_{};
  Origin located_origin_;  // of its timeline
  MonoTime not_streaming_since_{};
  MonoTime observed_at_{};
  MonoTime hung_since_{};
  MonoTime starting_since_{};  // isolated or from another member, while there is a leader

  // persists
  std::vector<std::pair<RequestId, std::function<void()>>> persists_;
  MonoTime persisted_at_{};

  // election
  Revision ballot_answers_ = 0;  // revision that our ballot in the store answers; 0: none known
  MonoTime contest_since_{};
  Revision contest_revision_ = 0;
  MonoTime complete_since_{};
  Revision released_by_us_ = 0;  // vacancy that we made: the others go first
  std::string election_summary_;
  struct Fetch {  // of WAL, before a take-over
    NodeName from;
    Position upto;
    Lsn seen;
    MonoTime since{};
    MonoTime progress_at{};
  };
  std::optional<Fetch> fetch_;
  MonoTime fetch_again_{};
  Revision fetch_seen_ = 0;  // of another one's void ballot, and since when
  MonoTime fetch_seen_at_{};

  // limits
  std::optional<Epoch> counted_epoch_;
  std::vector<MonoTime> failovers_;  // automatic ones within the window, as they were seen
  DiskFull disk_full_seen_ = DiskFull::kNo;
  MonoTime disk_full_since_{};  // zero: there is room
  MonoTime disk_full_again_{};

  // leading
  std::optional<Held> held_;
  enum class Stage { kNone, kStart, kWritable, kRunning } stage_ = Stage::kNone;
  enum class HeldFor {
    kPromotion,
    kRestart,
    kBootstrap,
    kFollowing
  } held_for_ = HeldFor::kPromotion;
  bool promote_started_ = false;
  std::optional<Upstream> followed_in_force_;  // of a standby leader
  SyncSet sync_set_;
  std::string crash_;          // PostgreSQL is gone while leading: how
  bool restart_helps_ = true;  // unless it is the disk
  int crashes_ = 0;
  MonoTime first_crash_{};
  bool release_on_down_ = false;
  bool sync_was_healthy_ = false;
  std::vector<std::string> known_slots_;
  MonoTime slots_ensured_{};
  std::string standing_down_;

  // switchover
  std::optional<RequestRecord> request_;
  NodeName candidate_;
  MonoTime drain_since_{};
  MonoTime stopping_since_{};     // the leader's record says so; zero: it does not
  std::string checkpointed_for_;  // request or task
  int quiet_samples_ = 0;
  Position final_;
  bool verified_ = false;
  bool shutdown_ = false;
  bool exited_ = false;

  // tasks and parameters
  TurnStage turn_ = TurnStage::kNone;
  std::string step_seen_;  // the step under way, and since when the leader knows
  MonoTime step_since_{};
  std::optional<std::map<std::string, std::string>> parameters_;  // in force; none: not known
  std::string parameters_problem_;
  MonoTime reload_retry_at_{};
  std::map<std::string, PermanentSlot> known_permanent_;
  struct Avoided {  // a relay that did not serve us
    MonoTime until{};
    WallTime written_at{};  // of its record then
  };
  std::map<NodeName, Avoided> relays_avoided_;
  MonoTime copies_avoided_until_{};
  // agent to agent
  struct Pledge {  // given by this member
    NodeName to;
    Epoch epoch;
    MonoTime until{};
    Lsn flush_lsn;
  };
  struct Pledged {  // given to this member
    MonoTime sent_at{};
    std::string sync_name;
  };
  MonoTime started_at_{};
  std::vector<Asked> asked_;
  std::optional<Pledge> pledge_;
  std::map<NodeName, Pledged> pledges_;
  MonoTime pledges_asked_at_{};
  bool failsafe_ = false;          // leads by pledges
  bool records_in_doubt_ = false;  // a write of sync or roster has an unknown outcome
  Revision suspected_ = 0;         // revision of the record whose holder is taken for gone
  RequestId looking_ = 0;
  MonoTime looked_at_{};
  Epoch looked_epoch_;
  bool was_cut_off_ = false;
  int refused_ = 0, silent_ = 0;  // answers of the leader's agent, in a row
  bool name_is_ours_ = false;     // nobody else runs under it
  MonoTime namesake_asked_at_{};
  int namesake_absent_ = 0;  // answers, in a row, that did not come from one

  // publishing
  bool published_ = false;  // the store has published_record_, as far as known
  MemberRecord published_record_, draft_;
  MonoTime published_at_{};

  Phase phase_ = Phase::kStarting;
  std::string reason_ = "starting";
};

}  // namespace bascule::control
