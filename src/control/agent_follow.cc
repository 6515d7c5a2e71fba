// Not holding the record: bootstrap, resuming one's own record, and rejoining a leader by the
// cheapest way that is right: follow, pg_rewind, or a new clone.
#include "control/agent_impl.h"

namespace bascule::control {
namespace {

constexpr Millis kJustNow{1000};
constexpr Lsn kSomeWal{1};
constexpr Millis kRelayPatience{4000};  // a relay that does not serve for so long is passed by
constexpr Millis kRelayAvoided{30000};

}  // namespace

void Agent::Impl::follow() {
  if (shutdown_) return shut_down();
  if (!view_fresh() && doubt_.empty()) {
    request_read();
    wake_at(now_ + 100ms);
    return;
  }
  if (!doubt_.empty()) {
    fence_stray_primary();
    reason_ = "elections are refused: " + doubt_;
    return;
  }
  if (!name_is_ours_ && namesake_lives()) return fence_stray_primary();
  const bool initialised = view_->init && view_->init->value.system_id != 0;
  if (local_.bootstrapping && initialised && pg_.data == DataDir::kReady &&
      pg_.system_id == view_->init->value.system_id) {
    local_.bootstrapping = false;  // what is here is the cluster's: never wiped as an own remnant
    persist({});
  }
  const bool foreign = initialised && pg_.system_id != 0 && pg_.data != DataDir::kEmpty &&
                       pg_.system_id != view_->init->value.system_id;
  if (foreign && local_.bootstrapping && pg_down()) {
    pg_.data = DataDir::kHalfCloned;  // remains of our own attempt to create the cluster
  } else if (foreign) {
    set_phase(Phase::kRefused,
              fmt::format("the data directory belongs to another cluster (system identifier {}, "
                          "this cluster has {}): move it away and restart the agent",
                          pg_.system_id, view_->init->value.system_id));
    fence_stray_primary();
    return;
  }
  if (view_->leader_unreadable) {
    fence_stray_primary();
    reason_ = "the leader or sync record can't be read: " +
              (view_->problems.empty() ? std::string("?") : view_->problems.front());
    return;
  }
  if (view_->leader && view_->leader->value.holder == config_.name) {
    if (asked_for_record()) return resume_record();
    if (!leader_expired()) {
      // Of another with our name, or of a directory that is lost: not ours to give away.
      fence_stray_primary();
      if (now_ >= leader_seen_at_ + std::max(view_->leader->value.ttl, config().ttl))
        request_read();
      wake_at(now_ + 100ms);
      return set_phase(Phase::kStopped,
                       "the record names this member, but not with this data directory: waiting "
                       "until it expires");
    }
  }
  fence_stray_primary();
  if (kill_) return;
  if (removed_here()) return stay_away();
  if (!view_->leader || !initialised) return bootstrap();
  if (pledged()) return rejoin();
  if (leader_live() && !suspected()) watch_leader(view_->leader->value);
  if (view_->leader->value.vacant() || leader_expired() || suspected()) return contest();
  rejoin();
}

// A primary without the record must not live.
void Agent::Impl::fence_stray_primary() {
  if (held_ || kill_ || pg_.run != PgRun::kPrimary) return;
  note(LogLevel::kWarn, "fenced", "PostgreSQL runs as a primary and this member does not lead");
  op_.reset();
  run(op::Kill{});
}

// By this member's own clock and a read begun after the time was over (Timing; Election 1).
bool Agent::Impl::leader_expired() const {
  if (!view_->leader || view_->leader->value.vacant()) return false;
  const MonoTime due = leader_seen_at_ + std::max(view_->leader->value.ttl, config().ttl);
  return view_begun_ >= due;
}

void Agent::Impl::await_expiry(const LeaderRecord& leader) {
  const MonoTime due = leader_seen_at_ + std::max(leader.ttl, config().ttl);
  if (leader_expired()) return;  // and this member is bound by a pledge
  if (now_ >= due) {
    request_read();  // confirm before contesting
    wake_at(now_ + 50ms);
  } else {
    wake_at(due);
  }
}

bool Agent::Impl::leader_live() const {
  return view_->leader && !view_->leader->value.vacant() && !leader_expired();
}

// ---- bootstrap
// -----------------------------------------------------------------------------------

void Agent::Impl::bootstrap() {
  const bool first = !view_->leader;
  if (!first && !view_->leader->value.vacant()) {
    if (!leader_expired()) {
      const MonoTime due = leader_seen_at_ + view_->leader->value.ttl;
      if (now_ >= due) request_read();
      wake_at(std::max(due, now_ + 50ms));
      set_phase(Phase::kWaitingInit,
                fmt::format("{} is creating the cluster", view_->leader->value.holder.str()));
      return;
    }
  }
  if (view_->paused) return set_phase(Phase::kWaitingInit, "paused");
  if (config_.nofailover) {
    return set_phase(Phase::kWaitingInit,
                     "tagged nofailover: another member has to create the cluster");
  }
  if (!may_retry()) return;  // an initdb that failed would fail the next moment, too
  if (txn_pending(TxnKind::kBootstrap) || op_running() || !persists_.empty()) return;
  const bool own_remains = local_.bootstrapping || pg_.data == DataDir::kHalfCloned;
  if (pg_.data != DataDir::kEmpty && !own_remains) {
    return set_phase(
        Phase::kRefused,
        "the data directory is not empty, but the store knows no cluster: point to the "
        "right store, or move the directory away to create a new cluster");
  }
  if (pg_.run != PgRun::kStopped) {
    run(op::Kill{});
    return;
  }
  if (!local_.bootstrapping) {
    local_.bootstrapping = true;
    persist({});
    return;
  }
  const Epoch epoch = first ? Epoch{1} : view_->leader->value.epoch.next();
  const Timeline timeline{1};
  LeaderRecord leader{.holder = config_.name,
                      .epoch = epoch,
                      .counter = 1,
                      .phase = LeaderPhase::kPreparing,
                      .timeline = timeline,
                      .ttl = config().ttl,
                      .why = "creating the cluster",
                      .handover_to = {},
                      .final_position = {},
                      .request_id = "",
                      .flush_lsn = {}};
  SyncRecord sync;
  if (!follows_another() && config().sync_mode != SyncMode::kOff) {
    sync.generations.push_back(make_generation(epoch, {config_.name, sync_name()}, {}));
  }
  HistoryRecord history{.epoch = epoch,
                        .leader = config_.name,
                        .parent_epoch = {},
                        .timeline = timeline,
                        .fork = {},
                        .reason = "new cluster",
                        .trigger = "bootstrap",
                        .at = wall_,
                        .gap_ms = -1,
                        .following = follows_another()};
  store::Txn txn;
  txn.compares = {{keys_.init(), view_->init ? view_->init->revision : 0},
                  {keys_.leader(), view_->leader_revision},
                  {keys_.history(epoch), 0}};
  txn.writes = {{keys_.init(), encode(InitRecord{0, config_.name})},
                {keys_.leader(), encode(leader)},
                {keys_.sync(), encode(sync)},
                {keys_.history(epoch), encode(history)},
                {keys_.roster(), encode(RosterRecord{{config_.name}})}};
  if (!view_->config) txn.writes.push_back({keys_.config(), encode(config_.initial)});
  set_phase(Phase::kBootstrapping, "asking to create the cluster");
  commit(TxnKind::kBootstrap, std::move(txn), std::move(leader));
}

// ---- the record names us, but this process does not hold it
// -----------------------------------------

// Persisted before each transaction that writes our name into the record, and until it has gone on
// to somebody else.
bool Agent::Impl::asked_for_record() const {
  return local_.led_epoch == view_->leader->value.epoch || local_.ballot_intent ||
         local_.bootstrapping;
}

// While this member was down somebody has promoted its directory by hand: what it has gained is in
// no epoch, and its timeline id may be the next leader's.
bool Agent::Impl::promoted_elsewhere(const LeaderRecord& mine) const {
  const bool declared = view_->init && view_->init->value.system_id != 0;
  return declared && !following_epoch(mine.epoch) && pg_.timeline > mine.timeline;
}

std::string Agent::Impl::why_elsewhere() const {
  return fmt::format("somebody else has promoted its data directory, to timeline {}",
                     pg_.timeline.value);
}

// After a restart of the agent, or when a take-over's answer was lost. An own later compare-and-set
// is what settles it, never a read.
void Agent::Impl::resume_record() {
  if (txn_pending(TxnKind::kResume) || txn_pending(TxnKind::kTakeOver) ||
      txn_pending(TxnKind::kBootstrap) || !persists_.empty()) {
    return;
  }
  const LeaderRecord& mine = view_->leader->value;
  const auto history = view_->history.find(mine.epoch);
  const bool elsewhere = promoted_elsewhere(mine);
  const bool led = local_.led_epoch == mine.epoch && pg_.data == DataDir::kReady && !elsewhere;
  const bool following = following_epoch(mine.epoch);
  const PgRun goes_on_as = following ? PgRun::kStandby : PgRun::kPrimary;
  const bool in_place = led && history != view_->history.end() && !op_running() &&
                        (pg_.run == goes_on_as || pg_down());
  const bool promotable = !led && located_ && history != view_->history.end() &&
                          history->second.fork == *located_ && pg_.run == PgRun::kStandby &&
                          local_.ballot_intent && !op_running();
  LeaderRecord next = mine;
  ++next.counter;
  next.ttl = config().ttl;
  if (in_place || promotable) {
    if (pg_.run != goes_on_as) next.phase = LeaderPhase::kPreparing;
    next.why = in_place ? "the agent came back" : "the answer to the take-over was lost";
    next.handover_to = {};
    held_for_ = following  ? HeldFor::kFollowing
                : in_place ? HeldFor::kRestart
                           : HeldFor::kPromotion;
  } else {
    if (op_running()) return;
    if (!pg_down()) {
      // It may be a primary that is too busy to answer, or a promotion that an earlier life of this
      // agent began may be under way: the record is not given away before PostgreSQL is dead.
      note(LogLevel::kWarn, "fenced", "the record names this member, which did not get to lead");
      return run(op::Kill{});
    }
    next.phase = LeaderPhase::kVacant;
    next.holder = {};
    next.why = elsewhere ? why_elsewhere() : "the take-over could not be completed";
    next.final_position = {};
  }
  store::Txn txn;
  txn.compares = {{keys_.leader(), view_->leader_revision}};
  txn.writes = {{keys_.leader(), encode(next)}};
  if (in_place && history->second.lacks_origin() && local_.led_origin.at != Lsn{}) {
    HistoryRecord settled = history->second;  // those whom it waits for may wait for this
    settled.origin = local_.led_origin;
    txn.writes.push_back({keys_.history(settled.epoch), encode(settled)});
  }
  commit(TxnKind::kResume, std::move(txn), std::move(next));
}

// ---- rejoin
// ------------------------------------------------------------------------------------------

void Agent::Impl::rejoin() {
  const LeaderRecord& leader = view_->leader->value;
  await_expiry(leader);
  give_up_start(leader);
  if (kill_ || op_running() || !persists_.empty()) return;
  if (view_->ballots.contains(config_.name) || local_.ballot_intent) return leave_ballot();
  contest_revision_ = 0;
  if (!may_retry()) return;
  if (pg_.run != PgRun::kPrimary && tend_own_turn(leader)) return;
  switch (pg_.run) {
    case PgRun::kStopped:
      return start_from_stopped(&leader);
    case PgRun::kStarting:
      return set_phase(Phase::kIsolated, "PostgreSQL is starting");
    case PgRun::kUnresponsive:
      reason_ = "PostgreSQL does not answer";
      return give_up_hung(config().rejoin_timeout);
    case PgRun::kStandby:
      hung_since_ = {};
      return rejoin_running(leader);
    case PgRun::kPrimary:
      return;  // being fenced
  }
}

// A start alone, or from a member that leads no more, never ends where the WAL that makes the copy
// consistent is only at the leader (a rewind's source died; a start begun by an earlier agent).
void Agent::Impl::give_up_start(const LeaderRecord& leader) {
  const auto* start = op_ ? std::get_if<op::StartStandby>(&op_->op) : nullptr;
  const bool elsewhere = start ? !start->upstream || start->upstream->member != leader.holder
                               : !op_running() && pg_.run == PgRun::kStarting &&
                                     !upstream_of(leader.holder).host.empty();
  if (!elsewhere) {
    starting_since_ = {};
    return;
  }
  if (starting_since_ == MonoTime{}) starting_since_ = now_;
  const MonoTime limit = starting_since_ + config().rejoin_timeout * 4;  // replay may take its time
  if (now_ < limit) return wake_at(limit);
  starting_since_ = {};
  copied_ = true;  // with the leader's WAL the next time; that start is not given up
  copied_from_ = {};
  note(LogLevel::kWarn, "start given up",
       "not consistent yet: starting again with the leader's WAL");
  run(op::Kill{});
}

// Rule 8: the ballot is deleted, confirmed, before the receiver may run again.
void Agent::Impl::leave_ballot() {
  if (txn_pending(TxnKind::kDropBallot) || txn_pending(TxnKind::kBallot) ||
      txn_pending(TxnKind::kTakeOver)) {
    return;
  }
  if (view_->ballots.contains(config_.name)) {
    commit(TxnKind::kDropBallot, {{}, {{keys_.ballot(config_.name), std::nullopt}}});
    return;
  }
  local_.ballot_intent.reset();
  persist({});
}

void Agent::Impl::start_from_stopped(const LeaderRecord* leader) {
  switch (pg_.data) {
    case DataDir::kForeign:
      return set_phase(Phase::kRefused, "the data directory is not usable by this PostgreSQL");
    case DataDir::kEmpty:
    case DataDir::kHalfCloned:
      if (!leader) return set_phase(Phase::kStopped, "no data here, and no leader to clone from");
      return clone(*leader,
                   pg_.data == DataDir::kEmpty ? "no data yet" : "an earlier clone broke off");
    case DataDir::kHalfRewound:
      if (!leader) {
        return set_phase(Phase::kStopped, "a rewind broke off: waiting for a leader to repeat it");
      }
      if (local_.rewinding != leader->epoch) {
        // Which line it was on is not known any more, and pg_rewind goes by timeline ids.
        return clone(*leader, "an earlier rewind, from another leader, broke off");
      }
      return resync(*leader, "an earlier rewind broke off");
    case DataDir::kReady:
      break;
  }
  // Alone first: where its WAL ends decides what comes next. A fresh copy is not consistent without
  // its upstream: that may be what is missing where one that nobody has seen running does not start
  // alone. Any other might be on a line of its own, and stream by an id that only looks the same.
  const bool never_ran = !local_.high_water.known() && local_.led_epoch == Epoch{};
  const bool incomplete =
      never_ran && !copy_failed_ && starts_failed_ % 2 == 1 && rewinds_tried_ == 0;
  const bool with_leader =
      leader && (copied_ || incomplete) && !upstream_of(leader->holder).host.empty();
  set_phase(Phase::kIsolated, with_leader ? "starting as a standby of the leader"
                                          : "starting alone to see where the WAL ends");
  // The guard may still hold the deadline of a record that an earlier agent of this member held.
  out_.push_back(effect::DisarmGuard{});
  // A copy of this leader is on its line; anything else is looked at once it runs.
  if (with_leader && copied_from_ == leader->epoch) followed_epoch_ = leader->epoch;
  run(op::StartStandby{with_leader ? std::optional(upstream_of(leader->holder)) : std::nullopt});
}

void Agent::Impl::rejoin_running(const LeaderRecord& leader) {
  if (locates_early(leader)) return;
  const NodeName source = source_of(leader);
  const bool direct = source == leader.holder;
  const Upstream upstream = upstream_of(source);
  if (upstream.host.empty()) {
    reason_ = fmt::format("{} has not published its address yet", source.str());
    return;
  }
  // The same holder may have come back on another line: what streams has been let in by it. Not so
  // by somebody who was promoted by hand: before there is more behind it, it is looked at.
  const bool streams_on = (direct && pg_.receiver_streaming) || followed_epoch_ == leader.epoch;
  const bool checked = streams_on && !is_beyond(pg_.timeline, leader);
  if (pg_.upstream == source && checked && !renamed_) {
    if (pg_.receiver_streaming) {
      rewinds_tried_ = 0;
      if (std::exchange(copied_, false)) persist({});  // never taken for a fresh copy again
      followed_epoch_ = leader.epoch;
    }
    const Nanos waited = now_ - not_streaming_since_;
    if (!direct && !pg_.receiver_streaming && waited > kRelayPatience) {
      const MemberRecord* relay = view_->member(source);
      relays_avoided_[source] = {now_ + kRelayAvoided, relay ? relay->written_at : WallTime{}};
      note(LogLevel::kWarn, "following", source.str() + " does not serve: back to the leader");
      return;
    }
    // Not the record's phase: the leader may be waiting for this very standby.
    const bool streams = pg_.receiver_streaming || pg_.receiver_new;
    if (leader_writes() && !streams && waited > config().rejoin_timeout) {
      // On the line and yet not served: the WAL that it needs is gone. pg_rewind would not help.
      return clone(leader, fmt::format("could not stream from {} for {} s", leader.holder.str(),
                                       to_ms(waited) / 1000));
    }
    set_phase(Phase::kFollowing, pg_.receiver_streaming ? "" : "connecting to " + source.str());
    if (pg_.receiver_streaming) keep_parameters();
    return;
  }
  if (!located_) return locate("a new leader: where does the WAL end here?");
  const Lineage line = lineage(view_->history, leader.epoch);
  if (line.empty()) {
    reason_ = fmt::format("the history of epoch {} is missing", leader.epoch.value);
    return;
  }
  const auto tip = view_->history.find(leader.epoch);
  if (tip->second.lacks_origin() && located_->timeline == tip->second.timeline &&
      leader.phase == LeaderPhase::kPreparing) {
    // By its id alone that timeline may be another one.
    return set_phase(Phase::kIsolated,
                     fmt::format("waiting until {} has told how timeline {} began",
                                 leader.holder.str(), located_->timeline.value));
  }
  if (located_on(line)) {
    note(LogLevel::kInfo, "following",
         fmt::format("{} at {} is on the line of epoch {}", config_.name.str(),
                     located_->to_string(), leader.epoch.value),
         {{"leader", leader.holder.str()}, {"source", source.str()}});
    set_phase(Phase::kFollowing, "repointing to " + source.str());
    followed_epoch_ = leader.epoch;
    run(op::SetUpstream{upstream});
    return;
  }
  if (is_beyond(located_->timeline, leader) && leader_written_after_ < located_at_) {
    // A later epoch's, by a view that is old, or that of a leader who was promoted by hand.
    return set_phase(Phase::kIsolated,
                     fmt::format("timeline {} is of no epoch yet: waiting for {} to renew",
                                 located_->timeline.value, leader.holder.str()));
  }
  const auto namesake = std::ranges::find(line, located_->timeline, &Segment::timeline);
  const HistoryRecord& oldest = view_->history.at(line.front().epoch);
  if (namesake == line.end() && oldest.parent_epoch == Epoch{} && oldest.fork.known()) {
    // From what its WAL parted is not known; pg_rewind would go by the ids of timelines.
    return clone(leader, fmt::format("diverged: {} was forced to lead from a timeline of no epoch",
                                     oldest.leader.str()));
  }
  if (namesake != line.end() &&
      (located_->lsn < namesake->begin.at || located_origin_.contradicts(namesake->begin))) {
    // Promoted by somebody else. pg_rewind would see one timeline and keep what is not the same.
    return clone(leader, fmt::format("diverged: its timeline {} is not that of epoch {}",
                                     located_->timeline.value, namesake->epoch.value));
  }
  resync(leader, fmt::format("diverged: {} is beyond the fork of epoch {}", located_->to_string(),
                             leader.epoch.value));
}

// On a timeline that by what is known here nobody has begun yet.
bool Agent::Impl::is_beyond(Timeline timeline, const LeaderRecord& leader) const {
  return leader.timeline != Timeline{} && timeline > leader.timeline &&
         !following_epoch(leader.epoch);
}

void Agent::Impl::locate(std::string why) {
  set_phase(Phase::kIsolated, std::move(why));
  run(op::StopReceiver{});
}

// Not the record's phase: a leader may wait for standbys before it lets clients in.
bool Agent::Impl::leader_writes() const {
  const LeaderRecord& leader = view_->leader->value;
  const MemberRecord* m = view_->member(leader.holder);
  const bool serves = m && (m->role == "primary" || m->role == "standby leader");
  return serves && m->epoch == leader.epoch && m->timeline == leader.timeline;
}

// pg_rewind, and a clone where that fails twice.
void Agent::Impl::resync(const LeaderRecord& leader, std::string why) {
  if (rewinds_tried_ >= 2) return clone(leader, why + "; pg_rewind failed");
  if (following_epoch(leader.epoch)) return clone(leader, why);
  const MemberRecord* source = view_->member(leader.holder);
  if (!leader_writes() || source->checkpoint_timeline != leader.timeline) {
    // Before its first checkpoint pg_rewind takes the source for being on the old timeline.
    return set_phase(Phase::kIsolated,
                     why + fmt::format("; waiting for {} to be writable and have a checkpoint",
                                       leader.holder.str()));
  }
  if (!sure_of_leader()) return;
  set_phase(Phase::kRewinding, why);
  const Upstream upstream = upstream_of(leader.holder);
  new_incarnation();
  local_.led_epoch = {};
  local_.high_water = {};
  local_.rewinding = leader.epoch;
  copied_from_ = leader.epoch;
  note(LogLevel::kInfo, "rewinding", why, {{"source", upstream.member.str()}});
  persist([this, upstream] { replace_data(op::Rewind{upstream}); });
}

// Before data is given up: what led to it was seen just now, not before a pause of this process,
// and the leader has written its record within ttl. One that was seen once, after an outage of the
// store, may be long dead, and what is here the only copy that may be elected.
bool Agent::Impl::sure_of_leader() {
  if (pg_.data != DataDir::kReady) return true;  // nothing to lose
  const bool looked = now_ - view_begun_ <= kJustNow && now_ - pg_.sampled_at <= kJustNow;
  const bool writes = leader_written_after_ != MonoTime{} &&
                      now_ - leader_written_after_ <= view_->leader->value.ttl;
  if (looked && writes) return true;
  if (now_ - view_begun_ > kJustNow) request_read();
  wake_at(now_ + 100ms);
  return false;
}

void Agent::Impl::replace_data(Op op) {
  if (op_running() || held_ || kill_) return;
  if (!sure_of_leader()) {
    renamed_ = true;  // decided anew; should it stream on, then under the new name
    return;
  }
  if (std::holds_alternative<op::Rewind>(op)) ++rewinds_tried_;
  local_.high_water = {};  // a sample may have come since, of what is given up
  run(std::move(op));
}

bool Agent::Impl::answered(const NodeName& source) const {
  return source_answered_ && source_answered_->first == source &&
         now_ - source_answered_->second <= kJustNow;
}

void Agent::Impl::clone(const LeaderRecord& leader, std::string why) {
  const Upstream upstream = upstream_of(leader.holder);
  if (!leader_writes() || upstream.host.empty()) {
    return set_phase(Phase::kStopped,
                     why + fmt::format("; waiting for {} to be writable", leader.holder.str()));
  }
  if (!sure_of_leader()) return;
  const op::Clone copy = copy_of(leader);
  if (pg_.data == DataDir::kReady && !answered(copy.source.member)) {
    // Who gives up its name as a voter can't be elected. If the leader is out of reach that name
    // may be all that a later election has.
    reason_ = why + "; does " + copy.source.member.str() + " answer?";
    if (now_ < ask_source_at_) return wake_at(ask_source_at_);
    return run(op::VerifyReceived{copy.source, {leader.timeline, kSomeWal}, 0ms});
  }
  not_streaming_since_ = now_;
  set_phase(Phase::kCloning, why);
  new_incarnation();
  local_.led_epoch = {};
  local_.high_water = {};
  copy_failed_ = true;  // until it is made; nobody may tell that it was broken off
  // A replica's copy is looked at once it runs.
  copied_from_ = copy.from_replica ? Epoch{} : leader.epoch;
  note(LogLevel::kInfo, "cloning", why, {{"source", copy.source.member.str()}});
  persist([this, copy] { replace_data(copy); });
}

void Agent::Impl::op_done(const op::StartStandby& o, const OpData&) {
  if (leads_standbys()) followed_in_force_ = o.upstream;
  renamed_ = false;
  starts_failed_ = 0;
  pg_.run = PgRun::kStandby;
  pg_.upstream.reset();
  have_pg_ = false;  // decide on a new sample
}

void Agent::Impl::op_done(const op::SetUpstream& o, const OpData&) {
  renamed_ = false;
  if (o.upstream) pg_.upstream = o.upstream->member;
  if (leads_standbys()) followed_in_force_ = o.upstream;
  not_streaming_since_ = now_;
}

void Agent::Impl::op_done(const op::Rewind&, const OpData&) {
  note(LogLevel::kInfo, "rewound", "stands on the leader's line again");
  pg_.run = PgRun::kStopped;
  pg_.data = DataDir::kReady;
  copied_ = true;
  have_pg_ = false;
}

void Agent::Impl::op_done(const op::Clone&, const OpData& data) {
  note(LogLevel::kInfo, "cloned", data.problem.empty() ? "a copy of the leader" : data.problem);
  if (!data.problem.empty()) copied_from_ = {};  // looked at once it runs
  // Before it is started; the first copy of a standby cluster is an attempt until it is announced.
  if (!held_ && std::exchange(local_.bootstrapping, false)) persist({});
  if (turn_ == TurnStage::kCopy) turn_ = TurnStage::kStart;
  rewinds_tried_ = 0;
  copy_failed_ = false;
  pg_.run = PgRun::kStopped;
  pg_.data = DataDir::kReady;
  copied_ = true;
  have_pg_ = false;
}

}  // namespace bascule::control
