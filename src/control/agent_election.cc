// Election by fenced ballots: intent, receiver stopped for sure, ballot, take-over in one
// transaction.
#include "control/agent_impl.h"

namespace bascule::control {
namespace {

constexpr Millis kSlowerBallots{80};       // ballots of live members come within this
constexpr Millis kHandoverPatience{2000};  // the named successor goes first
constexpr Millis kLookOften{60}, kLookOftenFor{3000};

// The epoch that a member off the line is on: the one that reserved its timeline, unless somebody
// else's promotion has the same id, or may have. 0: of none.
Epoch epoch_of(const std::map<Epoch, HistoryRecord>& history, Timeline timeline,
               const Origin& origin) {
  Epoch found;
  for (const auto& [epoch, h] : history) {
    if (h.timeline != timeline) continue;
    const bool known = h.origin.at != Lsn{} && origin.at != Lsn{};
    const bool same = h.parent_epoch == Epoch{} || (known && !origin.contradicts(h.origin));
    found = same ? epoch : Epoch{};
  }
  return found;
}

}  // namespace

// The record is vacant or has expired.
void Agent::Impl::contest() {
  const Revision revision = view_->leader_revision;
  const LeaderRecord& last = view_->leader->value;
  if (contest_revision_ != revision) {
    contest_revision_ = revision;
    contest_since_ = now_;
    fetch_.reset();
    note(LogLevel::kWarn, "detected",
         last.vacant()       ? "the leader record is vacant: " + last.why
         : !leader_expired() ? fmt::format("{} is taken for gone", last.holder.str())
                             : fmt::format("{} has not renewed for {} ms", last.holder.str(),
                                           to_ms(now_ - leader_seen_at_)),
         {{"epoch", std::to_string(last.epoch.value)}});
  }
  if (view_->paused)
    return set_phase(pg_down() ? Phase::kStopped : Phase::kFollowing,
                     "paused: no election is held");
  if (op_running() || !persists_.empty() || !may_retry()) return;
  if (leaves_it_to_successor()) return;
  if (pg_down()) return start_from_stopped(nullptr);
  if (pg_.run != PgRun::kStandby) {
    set_phase(Phase::kIsolated, "no leader; PostgreSQL is not ready for an election");
    return give_up_hung(config().promote_timeout);
  }
  hung_since_ = {};
  if (fetch_ && !fetched()) return;
  if (local_.ballot_intent != revision) {
    local_.ballot_intent = revision;
    set_phase(Phase::kBalloting, "no leader: recording the intent to ballot");
    persist({});
    return;
  }
  if (!located_ && unsafe_.skip_receiver_stop) {
    located_ = {pg_.timeline, pg_.flush_lsn};
    located_origin_ = {};
  }
  if (!located_) {
    set_phase(Phase::kBalloting, "no leader: stopping the WAL receiver");
    run(op::StopReceiver{});
    return;
  }
  if (wal_was_lost()) {
    return set_phase(Phase::kRefused,
                     fmt::format("WAL on disk ends at {}, but {} was there before: it is damaged; "
                                 "this member does not ballot",
                                 located_->to_string(), local_.high_water.to_string()));
  }
  const auto own = view_->ballots.find(config_.name);
  if (own == view_->ballots.end() || own->second.value.answers != revision ||
      own->second.value.position != *located_) {
    return place_ballot();
  }
  if (!last.vacant() && !leader_expired()) await_expiry(last);
  consider_take_over();
}

// A standby that hangs (stopped, or on a disk that does) is killed and started again, alone:
// without a leader it may be the only one that may be elected.
void Agent::Impl::give_up_hung(Millis patience) {
  if (pg_.run != PgRun::kUnresponsive) {
    hung_since_ = {};
    return;
  }
  if (hung_since_ == MonoTime{}) hung_since_ = now_;
  if (now_ < hung_since_ + patience) return wake_at(hung_since_ + patience);
  hung_since_ = {};
  note(LogLevel::kWarn, "hung", "PostgreSQL does not answer: it is killed and started again");
  run(op::Kill{});
}

// The disk ends before what was known to be on it, on whichever timeline of the line that was.
bool Agent::Impl::wal_was_lost() const {
  const Position& high = local_.high_water;
  if (high.timeline == located_->timeline) return located_->lsn < high.lsn;
  const Lineage line = lineage(view_->history, view_->leader->value.epoch);
  const auto here = located_on(line);
  const auto before = place(line, high);
  return here && before && *here < *before;
}

void Agent::Impl::place_ballot() {
  if (txn_pending(TxnKind::kBallot) || txn_pending(TxnKind::kTakeOver)) return;
  Lsn newest = pg_.upstream_lsn;
  if (pledge_ && pledge_->epoch == view_->leader->value.epoch) {
    newest = std::max(newest, pledge_->flush_lsn);  // its record may have been silent for long
  }
  const uint64_t behind = newest > located_->lsn ? newest.value - located_->lsn.value : 0;
  const Ballot ballot{.member = config_.name,
                      .answers = view_->leader_revision,
                      .position = *located_,
                      .origin = located_origin_,
                      .receiver_lag_bytes = behind,
                      .sync_name = sync_name(),
                      .led_epoch = local_.led_epoch};
  set_phase(Phase::kBalloting, "placing the ballot at " + located_->to_string());
  note(LogLevel::kInfo, "balloted", "WAL ends at " + located_->to_string(),
       {{"position", located_->to_string()}});
  commit(TxnKind::kBallot, {{{keys_.leader(), view_->leader_revision},
                             {keys_.ballot(config_.name), ballot_revision()}},
                            {{keys_.ballot(config_.name), encode(ballot)}}});
}

void Agent::Impl::consider_take_over() {
  // A watch may come late, and the best candidate be the one that waits for it.
  if (now_ < contest_since_ + kLookOftenFor) {
    if (now_ >= view_begun_ + kLookOften) request_read();
    wake_at(now_ + kLookOften);
  }
  if (txn_pending(TxnKind::kTakeOver) || txn_pending(TxnKind::kBallot)) return;
  const Election election = elect(*view_, unsafe_);
  if (fetches_first(election)) return;
  const auto rank = election.rank_of(config_.name);
  if (!rank) {
    if (election.summary != election_summary_) {
      election_summary_ = election.summary;
      note(LogLevel::kInfo, "not elected", election.summary);
    }
    return set_phase(Phase::kCandidate, "no take-over: " + election.summary);
  }
  const LeaderRecord& last = view_->leader->value;
  const bool early = !last.vacant() && !leader_expired();
  if (const std::string why = early ? early_obstacle() : ""; !why.empty()) {
    return set_phase(Phase::kCandidate, "waiting until the record expires: " + why);
  }
  const bool planned = last.vacant() && !last.handover_to.empty();
  if (const auto until = failovers_held_until(); until && !planned) {
    wake_at(*until);
    return set_phase(Phase::kCandidate,
                     fmt::format("{}: the next one in {} s, or by bascule failover", why_held(),
                                 to_ms(*until - now_) / 1000));
  }
  const Millis window = config().ballot_window;
  const bool synchronous = view_->sync && !view_->sync->value.generations.empty();
  MonoTime start = contest_since_;
  // Asynchronous: the slower members may have more. Synchronous: what must survive is here already,
  // but a standby that has a little more would have to be rewound before it can acknowledge again.
  const bool more_elsewhere = !election.missing.empty() && !last.final_position.known();
  if (more_elsewhere) start += synchronous ? std::min(window, kSlowerBallots) : window;
  start += window * static_cast<int>(*rank);
  if (!last.handover_to.empty() && last.vacant() && last.handover_to != config_.name) {
    start = std::max(start, contest_since_ + kHandoverPatience);
  }
  if (released_by_us_ == view_->leader_revision) {  // after everybody else who could
    start += window * (static_cast<int>(election.ranking.size()) + 1);
  }
  if (promotions_failed_ > 0) {
    start += std::min(Millis(30000), Millis(250) * (1 << std::min(promotions_failed_, 7)));
  }
  if (now_ < start) {
    wake_at(start);
    return set_phase(Phase::kCandidate,
                     "may take over; letting better candidates go first: " + election.summary);
  }
  const auto own = std::ranges::find(election.ranking, config_.name, &Candidate::name);
  if (awaits_source(election)) return;
  if (begin_fetch(*own)) return;  // whoever ranks before has not done it
  std::string trigger = last.vacant() ? "vacant" : early ? "early" : "expired";
  if (!last.handover_to.empty() && last.handover_to == config_.name) trigger = "switchover";
  std::string why = last.vacant() ? last.why
                                  : fmt::format("{} has not renewed for {} ms", last.holder.str(),
                                                to_ms(now_ - leader_seen_at_));
  take_over(election, std::move(trigger), std::move(why));
}

// Unforced, where commits were waited for or it stopped cleanly, nothing that was acknowledged.
int64_t Agent::Impl::lost_with(const Candidate& winner, bool on_the_line) const {
  const LeaderRecord& last = view_->leader->value;
  if (!on_the_line) return -1;
  const bool promised = view_->sync && !view_->sync->value.generations.empty();
  const bool clean = last.vacant() && last.final_position.known();
  if (!winner.by_force && (promised || clean)) return 0;
  const Lsn newest = clean ? last.final_position.lsn : last.flush_lsn;
  return newest > winner.position.lsn
             ? static_cast<int64_t>(newest.value - winner.position.lsn.value)
             : 0;
}

void Agent::Impl::take_over(const Election& election, std::string trigger, std::string why) {
  const LeaderRecord& last = view_->leader->value;
  const Epoch epoch = last.epoch.next();
  const Lineage line = lineage(view_->history, last.epoch);
  const auto here = located_on(line);
  const auto own = std::ranges::find(election.ranking, config_.name, &Candidate::name);
  const bool forced = own->by_force;  // whoever gets here has a rank
  const bool following = follows_another() && following_epoch(last.epoch);
  Timeline timeline =
      following ? located_->timeline : next_timeline(view_->history, located_->timeline);
  if (unsafe_.reuse_timeline) timeline = Timeline{located_->timeline.value + 1};
  // A diverged member gets here only when forced: its parent is the epoch that reserved its
  // timeline.
  const Epoch parent = here ? line[here->segment].epoch
                            : epoch_of(view_->history, located_->timeline, located_origin_);

  SyncRecord sync = sync_record();
  if (forced) sync.generations.clear();
  const Leader self{config_.name, sync_name()};
  if (following) {
    sync.generations.clear();
  } else if (config().sync_mode != SyncMode::kOff) {
    sync.generations.push_back(
        make_generation(epoch, self, first_standbys(election, line), unsafe_));
  } else if (!sync.generations.empty()) {
    sync.generations.push_back(make_generation(epoch, self, {}));
  }

  LeaderRecord leader{.holder = config_.name,
                      .epoch = epoch,
                      .counter = 1,
                      .phase = LeaderPhase::kPreparing,
                      .timeline = timeline,
                      .ttl = config().ttl,
                      .why = why,
                      .handover_to = {},
                      .final_position = {},
                      .request_id = "",
                      .flush_lsn = {}};
  leader.flush_lsn = located_->lsn;
  // Until it leads, who comes after it is measured by what the primary before had, too.
  if (!forced && !following) leader.flush_lsn = std::max(leader.flush_lsn, last.flush_lsn);
  HistoryRecord history{.epoch = epoch,
                        .leader = config_.name,
                        .parent_epoch = parent,
                        .timeline = timeline,
                        .fork = *located_,
                        .reason = why,
                        .trigger = forced ? "forced" : std::move(trigger),
                        .at = wall_,
                        .silent_ms = last.vacant() ? -1 : to_ms(contest_since_ - leader_seen_at_),
                        .gap_ms = to_ms(now_ - contest_since_),
                        .lost_bytes = following ? -1 : lost_with(*own, here.has_value()),
                        .following = following};
  store::Txn txn;
  txn.compares = {{keys_.leader(), view_->leader_revision},
                  {keys_.sync(), view_->sync_revision()},
                  {keys_.history(epoch), 0}};
  for (const NodeName& name : election.counted) {
    txn.compares.push_back({keys_.ballot(name), view_->ballots.at(name).revision});
  }
  txn.writes = {{keys_.leader(), encode(leader)},
                {keys_.sync(), encode(sync)},
                {keys_.history(epoch), encode(history)},
                {keys_.ballot(config_.name), std::nullopt}};
  if (const auto settled = settled_origin(); settled && here) {
    txn.writes.push_back({keys_.history(settled->epoch), encode(*settled)});
  }
  set_phase(Phase::kTakingOver, election.summary);
  held_for_ = following ? HeldFor::kFollowing : HeldFor::kPromotion;
  commit(TxnKind::kTakeOver, std::move(txn), std::move(leader));
}

// The last epoch's leader died before it had recorded how its timeline began: that is what this
// member has, which goes on from there. Nothing to record: nullopt.
std::optional<HistoryRecord> Agent::Impl::settled_origin() const {
  const auto last = view_->history.find(view_->leader->value.epoch);
  if (last == view_->history.end() || !last->second.lacks_origin()) return std::nullopt;
  if (last->second.timeline != located_->timeline || located_origin_.at == Lsn{}) {
    return std::nullopt;
  }
  HistoryRecord settled = last->second;
  settled.origin = located_origin_;
  return settled;
}

// The standbys that the new generation waits for from its first commit: those that are there (they
// have a ballot) and can follow without a rewind; mode "on" takes the best one. Else those that are
// likely to come. Nobody is waited for long: outside strict mode the leader goes on with fewer, or
// alone, when they do not come (SyncSet).
SyncSetting Agent::Impl::first_standbys(const Election& election, const Lineage& line) const {
  const auto own = located_on(line);
  std::vector<const MemberRecord*> chosen;
  const auto consider = [&](const NodeName& name) {
    const MemberRecord* m = view_->member(name);
    if (!m || name == config_.name || m->sync_name.empty() || !may_be_waited_for(*m)) return;
    if (std::ranges::find(chosen, m) == chosen.end()) chosen.push_back(m);
  };
  const bool quorum = config().sync_mode == SyncMode::kQuorum;
  const size_t count = quorum ? config().sync_count : 1;
  for (const NodeName& name : election.counted) {
    const auto there = place(line, view_->ballots.at(name).value);
    if (there && own && *there <= *own) consider(name);
  }
  const bool more = quorum && config().sync_strict && chosen.size() < count;
  const auto lost = view_->history.find(view_->leader->value.epoch);
  const bool stopped_cleanly = view_->leader->value.final_position.known();
  const NodeName former = lost == view_->history.end() ? NodeName() : lost->second.leader;
  if ((chosen.empty() || more) && view_->roster) {
    for (const NodeName& name : view_->roster->value.members) {
      if (name != former) consider(name);
    }
  }
  // The former leader has to start again first; after a crash it may have to be rewound.
  if (chosen.empty() && (stopped_cleanly || config().sync_strict)) consider(former);
  if (chosen.empty()) return {};
  std::ranges::stable_sort(chosen, std::greater{}, [&](const MemberRecord* m) {
    return std::pair(in_preferred_region(*m), m->priority);
  });
  if (!quorum) chosen.resize(1);
  SyncSetting out;
  for (const MemberRecord* m : chosen) out.names.push_back(m->sync_name);
  std::ranges::sort(out.names);
  out.count = std::min(count, out.names.size());
  return out;
}

// The record is ours (bootstrap, take-over) or again ours (resume), or was released by us.
void Agent::Impl::took_over(const PendingTxn& txn, Revision revision) {
  if (txn.kind == TxnKind::kBootstrap) {
    held_for_ = follows_another() ? HeldFor::kFollowing : HeldFor::kBootstrap;
  }
  if (txn.record.vacant()) {
    released_by_us_ = revision;
    note(LogLevel::kInfo, "vacated", txn.record.why);
    return;
  }
  held_ = Held{.record = txn.record,
               .revision = revision,
               .taken_at = revision,
               .deadline = fence_at(txn.sent_at, txn.record),
               .proved_at = txn.sent_at,
               .renewed_at = txn.sent_at,
               .begun_at = txn.sent_at};
  // The agent may have died between the promotion and the record of it.
  if (local_.led_epoch == txn.record.epoch) held_->origin = local_.led_origin;
  late_.clear();
  pledges_.clear();
  failsafe_ = records_in_doubt_ = false;
  stage_ = Stage::kStart;
  crash_.clear();
  promote_started_ = false;
  request_.reset();
  known_slots_.clear();
  sync_was_healthy_ = false;
  followed_in_force_.reset();
  if (!unsafe_.skip_fence && !leads_standbys() && now_ < held_->deadline) {
    out_.push_back(effect::ArmGuard{held_->deadline});
  }
  const char* what = txn.kind == TxnKind::kResume ? "resumed" : "elected";
  note(LogLevel::kInfo, what, txn.record.why,
       {{"epoch", std::to_string(txn.record.epoch.value)},
        {"timeline", std::to_string(txn.record.timeline.value)}});
  set_phase(held_for_ == HeldFor::kPromotion   ? Phase::kPromoting
            : held_for_ == HeldFor::kBootstrap ? Phase::kBootstrapping
            : held_for_ == HeldFor::kFollowing ? Phase::kStandbyLeading
                                               : Phase::kRestarting,
            txn.record.why);
}

void Agent::Impl::op_done(const op::StopReceiver&, const OpData& data) {
  if (!data.position.known()) {
    op_failed({ErrorCode::kInternal, "the end of WAL on disk is not known", ""});
    return;
  }
  located_ = data.position;
  located_at_ = now_;
  located_origin_ = data.origin;
}

}  // namespace bascule::control
