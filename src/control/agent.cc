// Events in, effects out: the bookkeeping around the decisions.
#include "control/agent.h"

#include "base/hash.h"
#include "control/agent_impl.h"

namespace bascule::control {
namespace {

constexpr Millis kReadTimeout{1000};
constexpr Millis kAnswerMin{300}, kAnswerMax{2000};
constexpr size_t kLateMax = 16;
constexpr Millis kPublishEvery{1000};
constexpr Millis kPublishesApart{100};
constexpr Millis kRetryMax{5000};
constexpr Millis kAskSourceEvery{2000};
constexpr Millis kHighWaterEvery{10000};
constexpr Millis kObservedGap{5000};
constexpr Millis kCopiesAvoided{300000};

}  // namespace

std::string slot_name(const NodeName& member) {
  std::string name = "bascule_" + member.str();
  std::ranges::replace(name, '-', '_');
  return name;
}

std::string_view to_string(Phase phase) {
  switch (phase) {
    case Phase::kStarting:
      return "starting";
    case Phase::kWaitingInit:
      return "waiting for bootstrap";
    case Phase::kBootstrapping:
      return "bootstrapping";
    case Phase::kIsolated:
      return "isolated";
    case Phase::kFollowing:
      return "following";
    case Phase::kStopped:
      return "stopped";
    case Phase::kRewinding:
      return "rewinding";
    case Phase::kCloning:
      return "cloning";
    case Phase::kBalloting:
      return "balloting";
    case Phase::kCandidate:
      return "candidate";
    case Phase::kTakingOver:
      return "taking over";
    case Phase::kPromoting:
      return "promoting";
    case Phase::kRestarting:
      return "restarting";
    case Phase::kLeading:
      return "leading";
    case Phase::kDraining:
      return "draining";
    case Phase::kHandingOver:
      return "handing over";
    case Phase::kStandbyLeading:
      return "standby leading";
    case Phase::kStandingDown:
      return "standing down";
    case Phase::kRefused:
      return "refused";
  }
  return "?";
}

Agent::Agent(AgentConfig config, LocalState persisted, MonoTime now, UnsafeMutations unsafe)
    : impl_(std::make_unique<Impl>(std::move(config), std::move(persisted), now, unsafe)) {}
Agent::~Agent() = default;
Agent::Agent(Agent&&) noexcept = default;
Agent& Agent::operator=(Agent&&) noexcept = default;

Effects Agent::start(MonoTime now) { return impl_->start(now); }
Effects Agent::step(Event event, MonoTime now) { return impl_->step(event, now); }
MonoTime Agent::next_wakeup() const { return impl_->wake_; }
void Agent::set_wall_time(WallTime wall) { impl_->wall_ = wall; }
Phase Agent::phase() const { return impl_->phase_; }
const std::string& Agent::reason() const { return impl_->reason_; }
Epoch Agent::leading_epoch() const { return impl_->held_ ? impl_->held_->record.epoch : Epoch{}; }
MonoTime Agent::deadline() const { return impl_->held_ ? impl_->held_->deadline : MonoTime{}; }
MonoTime Agent::proved_at() const { return impl_->held_ ? impl_->held_->proved_at : MonoTime{}; }
const ClusterView& Agent::cluster() const { return *impl_->view_; }
const LocalState& Agent::local() const { return impl_->local_; }

Agent::Impl::Impl(AgentConfig config, LocalState persisted, MonoTime now, UnsafeMutations unsafe)
    : config_(std::move(config)),
      local_(std::move(persisted)),
      unsafe_(unsafe),
      keys_(config_.cluster),
      now_(now),
      sync_set_(unsafe_) {
  if (local_.incarnation.empty()) local_.incarnation = config_.new_incarnation;
  if (!local_.task.empty() && local_.task_result.empty()) {
    local_.task_result = "failed: the agent was started again meanwhile";
  }
  revision_seen_ = local_.highest_revision;
  introduce(draft_);
}

Effects Agent::Impl::start(MonoTime now) {
  now_ = started_at_ = now;
  wake_ = now + 1s;
  persist({});
  sample_every(100ms);
  request_read();
  return std::exchange(out_, {});
}

Effects Agent::Impl::step(Event& event, MonoTime now) {
  now_ = std::max(now_, now);
  std::visit([this](auto& e) { on(e); }, event);
  decide();
  return std::exchange(out_, {});
}

void Agent::Impl::decide() {
  wake_ = now_ + 1s;
  if (exited_) return;
  expire_requests();
  if (have_view_) {
    if (!leads_standbys()) keep_failsafe();  // nothing is acknowledged that would have to be fenced
    keep_seed();
  }
  enforce_deadline();
  if (have_view_ && have_pg_ && !kill_) {
    if (phase_ != Phase::kStandingDown) held_ ? lead() : follow();
    if (phase_ == Phase::kStandingDown && !kill_) finish_standing_down();  // in the same turn
  }
  publish();
  if (now_ < retry_at_) wake_at(retry_at_);
}

// ---- store -------------------------------------------------------------------------------------

void Agent::Impl::request_read() {
  if (read_id_ != 0) {
    read_again_ = true;
    return;
  }
  if (now_ < read_retry_at_) return;
  read_id_ = next_id_++;
  read_sent_ = now_;
  out_.push_back(effect::ReadStore{read_id_});
}

void Agent::Impl::on(event::StoreRead& e) {
  if (e.id != read_id_) return;  // given up
  read_id_ = 0;
  if (!e.result) {
    read_retry_at_ = now_ + 200ms;
    if (!have_view_) reason_ = "the store does not answer: " + e.result.error().to_string();
    return;
  }
  if (have_view_ && doubt_.empty() && !doubt_about(**e.result).empty()) good_ = std::move(view_);
  view_ = *std::move(e.result);
  const MonoTime unchanged_at = have_view_ ? view_begun_ : MonoTime{};
  have_view_ = true;
  view_begun_ = read_sent_;
  if (view_->leader_revision != leader_seen_) {
    leader_seen_ = view_->leader_revision;
    leader_seen_at_ = now_;
    leader_written_after_ = unchanged_at;
  }
  const bool stops = view_->leader && view_->leader->value.phase == LeaderPhase::kStopping;
  if (!stops || stopping_since_ == MonoTime{}) stopping_since_ = stops ? now_ : MonoTime{};
  learn_store();
  if (doubt_.empty()) count_failovers();
  if (held_) adopt_revision();
  if (held_ && settled()) records_in_doubt_ = false;
  if (std::exchange(read_again_, false)) request_read();
}

// Remembers what was seen and refuses elections in a store that is not what it was.
void Agent::Impl::learn_store() {
  if (local_.store_identity.empty()) {
    local_.store_identity = view_->identity;
    persist({});
  }
  doubt_ = doubt_about(*view_);
  if (!doubt_.empty() && seeded_anew(*view_)) trust_store();
  if (!doubt_.empty()) {
    if (doubt_since_ == MonoTime{}) doubt_since_ = now_;
    if (view_->identity == local_.store_identity) rolled_back_ = doubt_;
    return;
  }
  doubt_since_ = {};
  revision_seen_ = view_->revision;
  local_.highest_revision = view_->revision;
  if (view_->seed) local_.seed = std::max(local_.seed, view_->seed->value.number);
  if (view_->leader && view_->leader->value.epoch > local_.highest_epoch) {
    local_.highest_epoch = view_->leader->value.epoch;
    persist({});
  }
}

RequestId Agent::Impl::commit(TxnKind kind, store::Txn txn, LeaderRecord record) {
  const RequestId id = next_id_++;
  PendingTxn pending;
  pending.id = id;
  pending.kind = kind;
  pending.sent_at = now_;
  pending.record = std::move(record);
  txns_.push_back(std::move(pending));
  out_.push_back(effect::CommitStore{id, std::move(txn)});
  return id;
}

bool Agent::Impl::txn_pending(TxnKind kind) const {
  return std::ranges::any_of(txns_, [&](const PendingTxn& t) { return t.kind == kind; });
}

void Agent::Impl::expire_requests() {
  const Millis ttl = held_ ? held_->record.ttl : config().ttl;
  const Millis soon = ClusterConfig::answer_within(ttl);
  const auto end_of = [&](const PendingTxn& t) {
    return t.sent_at +
           (t.kind == TxnKind::kLeader ? soon : std::clamp(ttl / 5, kAnswerMin, kAnswerMax));
  };
  for (;;) {
    const auto late =
        std::ranges::find_if(txns_, [&](const PendingTxn& t) { return now_ >= end_of(t); });
    if (late == txns_.end()) break;
    const RequestId id = late->id;
    if (late->kind == TxnKind::kLeader) {
      if (late_.size() == kLateMax) late_.erase(late_.begin());
      late_.push_back({id, late->kind, late->sent_at, late->record, {}});
    }
    on(event::StoreCommitted{id, {store::TxnOutcome::kUnknown, 0, "no answer in time"}});
  }
  for (const PendingTxn& t : txns_) wake_at(end_of(t));
  if (read_id_ != 0 && now_ >= read_sent_ + kReadTimeout) read_id_ = 0;
  if (read_id_ != 0) {
    wake_at(read_sent_ + kReadTimeout);
  } else if (!have_view_ || read_again_ || now_ >= view_begun_ + config().ttl / 4) {
    read_again_ = false;
    request_read();  // a watch is a hint, not a promise
    wake_at(now_ + 200ms);
  }
}

void Agent::Impl::on(const event::StoreCommitted& e) {
  const auto found = std::ranges::find_if(txns_, [&](const PendingTxn& t) { return t.id == e.id; });
  if (found == txns_.end()) return late_answer(e);  // given up: counted as unknown already
  const PendingTxn txn = std::move(*found);
  txns_.erase(found);
  const bool committed = e.result.outcome == store::TxnOutcome::kCommitted;
  if (committed && txn.kind != TxnKind::kSeed) {
    last_commit_ = std::max(last_commit_, e.result.revision);
    committed_at_ = now_;
  }
  switch (txn.kind) {
    case TxnKind::kLeader:
      leader_answer(txn, e.result);
      break;
    case TxnKind::kBootstrap:
    case TxnKind::kTakeOver:
    case TxnKind::kResume:
      if (committed) took_over(txn, e.result.revision);
      request_read();
      break;
    case TxnKind::kSeed:
      seed_answered(txn, e.result);
      break;
    case TxnKind::kBallot:
    case TxnKind::kDropBallot:
      request_read();
      break;
    case TxnKind::kPublish:
      if (!committed) published_ = false;
      break;
  }
}

// ---- PostgreSQL
// ----------------------------------------------------------------------------------

void Agent::Impl::run(Op op) {
  const OpId id = next_id_++;
  if (std::holds_alternative<op::Kill>(op)) {
    kill_ = id;
    replaced_data_ = op_ && replaces_data(op_->op);
    op_.reset();  // it ends in an error that nobody waits for
  } else {
    op_ = RunningOp{id, op, now_};
  }
  const bool keeps_receiver_stopped =
      std::holds_alternative<op::StopReceiver>(op) || std::holds_alternative<op::Promote>(op);
  if (!keeps_receiver_stopped) located_.reset();
  const bool writes =
      std::holds_alternative<op::StartPrimary>(op) || std::holds_alternative<op::Promote>(op);
  if (writes && held_ && !unsafe_.skip_fence) {
    out_.push_back(effect::ArmGuard{held_->deadline});  // the guard may be a new one
  }
  if (writes) final_ = {};  // of an earlier clean stop: more is written from now on
  out_.push_back(effect::StartOp{id, std::move(op)});
}

void Agent::Impl::on(event::Observed& e) {
  if (e.status.sampled_at < pg_ignored_until_) return;
  pg_ = std::move(e.status);
  have_pg_ = true;
  // What is replayed is whole records on disk; what is received may end within one.
  const Position replayed{pg_.timeline, pg_.replay_lsn};
  const bool given_up = op_ && replaces_data(op_->op);
  if (pg_.run == PgRun::kStandby && replayed.known() && !given_up &&
      (replayed.timeline > local_.high_water.timeline ||
       (replayed.timeline == local_.high_water.timeline && replayed.lsn > local_.high_water.lsn))) {
    local_.high_water = replayed;
  }
  // Seen without a gap: after a restart of the agent or a pause of the host nothing is known.
  const bool gap = observed_at_ == MonoTime{} || now_ - observed_at_ > kObservedGap;
  observed_at_ = now_;
  if (gap || pg_.receiver_streaming || pg_.run != PgRun::kStandby) not_streaming_since_ = now_;
  if (held_ && pg_.run == PgRun::kPrimary) {
    sync_set_.observe(pg_, voters(), config().sync_degrade_after, now_);
    sync_was_healthy_ = sync_set_.healthy(sync_record(), held_->record.epoch);
    if (phase_ == Phase::kDraining) {
      quiet_samples_ = pg_.running_transactions == 0 ? quiet_samples_ + 1 : 0;
    }
  }
}

void Agent::Impl::on(const event::PgExited& e) {
  pg_.run = PgRun::kStopped;
  pg_ignored_until_ = now_;
  located_.reset();
  note(LogLevel::kWarn, "detected", "PostgreSQL is gone: " + e.how);
  if (held_ && stage_ == Stage::kRunning && crash_.empty() && !leads_standbys()) crashed(e.how);
}

void Agent::Impl::on(const event::Retagged& e) {
  config_.priority = e.priority;
  config_.nofailover = e.nofailover;
  config_.tags = e.tags;
  introduce(draft_);
  relays_avoided_.clear();
}

void Agent::Impl::on(const event::GuardLost& e) {
  note(LogLevel::kError, "detected", "the guard is gone: " + e.how);
  if (held_ && stage_ == Stage::kRunning && crash_.empty() && !leads_standbys()) {
    crashed("the guard died");
  }
  if (!kill_) run(op::Kill{});
}

void Agent::Impl::on(const event::OpDone& e) {
  if (kill_ && e.id == *kill_) {
    kill_.reset();
    if (!e.result) {
      note(LogLevel::kError, "kill failed", e.result.error().to_string());
      run(op::Kill{});
      return;
    }
    pg_.run = PgRun::kStopped;
    pg_ignored_until_ = now_;
    if (std::exchange(replaced_data_, false)) {
      have_pg_ = false;  // the data directory may be half of something now: look first
      out_.push_back(effect::SetSampling{sampling_});
    }
    return;
  }
  if (!op_ || e.id != op_->id) return;
  const RunningOp finished = *std::exchange(op_, std::nullopt);
  pg_ignored_until_ = std::max(pg_ignored_until_, now_);  // earlier samples show what was before
  if (e.result) {
    op_failures_ = 0;
    std::visit([&](const auto& o) { op_done(o, *e.result); }, finished.op);
  } else {
    op_error(finished.op, e.result.error());
  }
  out_.push_back(effect::SetSampling{sampling_});  // look at once
}

void Agent::Impl::op_failed(const Error& error) {
  const Millis delay = std::min(kRetryMax, Millis(200) * (1 << std::min(op_failures_, 6)));
  ++op_failures_;
  retry_at_ = now_ + delay;
  reason_ = error.to_string();
}

void Agent::Impl::op_error(const Op& op, const Error& error) {
  note(LogLevel::kWarn, "operation failed", error.to_string(),
       {{"operation", std::string(op_name(op))}});
  if (std::holds_alternative<op::Reload>(op)) return reload_failed(error);
  if (!held_ && std::holds_alternative<op::VerifyReceived>(op)) {
    ask_source_at_ = now_ + kAskSourceEvery;  // a ballot need not wait for that
    return;
  }
  op_failed(error);
  if (const auto* set = std::get_if<op::SetSync>(&op)) {
    sync_set_.apply_failed({set->standbys, set->count});
  }
  if (std::holds_alternative<op::StartStandby>(op)) ++starts_failed_;
  if (!held_) {
    const bool stopping = shutdown_ || turn_ == TurnStage::kStop;
    if (stopping && std::holds_alternative<op::CleanStop>(op)) run(op::Kill{});
    const auto* copy = std::get_if<op::Clone>(&op);
    if (copy != nullptr && copy->from_replica) copies_avoided_until_ = now_ + kCopiesAvoided;
    // The incarnation is a new one already; a receiver that still runs has the old name.
    if (replaces_data(op)) {
      renamed_ = copy_failed_ = true;
      copied_from_ = {};
    }
    return;
  }
  if (leads_standbys()) {
    if (std::holds_alternative<op::CleanStop>(op)) run(op::Kill{});
  } else if (std::holds_alternative<op::Promote>(op)) {
    stand_down("promotion failed: " + error.message, Release::kYes);
  } else if (std::holds_alternative<op::StartPrimary>(op) && held_for_ == HeldFor::kRestart &&
             !why_start_again().empty()) {
    reason_ = why_start_again() + ": " + error.message;
  } else if (std::holds_alternative<op::InitDb>(op) ||
             std::holds_alternative<op::StartPrimary>(op)) {
    pg_.run = PgRun::kStarting;  // it may be under way all the same: killed before it is given up
    stand_down("start failed: " + error.message, Release::kYes);
  } else if (std::holds_alternative<op::CleanStop>(op) && phase_ == Phase::kHandingOver) {
    if (request_) finish_request(*request_, "failed: clean stop: " + error.message);
    sync_was_healthy_ = false;  // the old primary resumes
    run(op::Kill{});
    if (!shutdown_) crashed("the clean stop for a switchover failed");
  } else if (std::holds_alternative<op::VerifyReceived>(op) && phase_ == Phase::kHandingOver) {
    if (request_) finish_request(*request_, "failed: candidate: " + error.message);
    sync_was_healthy_ = false;
    crashed("the candidate did not get everything");
  }
}

void Agent::Impl::persist(std::function<void()> then) {
  const RequestId id = next_id_++;
  persisted_at_ = now_;
  persists_.emplace_back(id, std::move(then));
  out_.push_back(effect::Persist{id, local_});
}

void Agent::Impl::on(const event::PersistDone& e) {
  const auto it = std::ranges::find_if(persists_, [&](const auto& p) { return p.first == e.id; });
  if (it == persists_.end()) return;
  const auto then = std::move(it->second);
  persists_.erase(it);
  if (then) then();
}

// ---- small things ----------------------------------------------------------------------------

const ClusterConfig& Agent::Impl::config() const {
  return known().config ? known().config->value : config_.initial;
}

std::string Agent::Impl::sync_name() const { return config_.name.str() + "_" + local_.incarnation; }

bool Agent::Impl::is_sync_name(std::string_view name) const {
  const std::string_view own = config_.name.str();
  return name.size() == own.size() + 1 + local_.incarnation.size() && name.starts_with(own) &&
         name[own.size()] == '_' && name.ends_with(local_.incarnation);
}

// A new name as a voter: what it promised under the old one it may not have any more.
void Agent::Impl::new_incarnation() {
  // Over the old one and the revision: never repeats.
  const uint64_t hash =
      fnv1a(fmt::format("{}/{}/{}", local_.incarnation, config_.new_incarnation, view_->revision));
  local_.incarnation = fmt::format("{:08x}", static_cast<uint32_t>(hash ^ (hash >> 32)));
}

Upstream Agent::Impl::upstream_of(const NodeName& member) const {
  const MemberRecord* m = view_->member(member);
  return m ? Upstream{member, m->host, m->port} : Upstream{member, "", 0};
}

void Agent::Impl::set_phase(Phase phase, std::string reason) {
  phase_ = phase;
  reason_ = std::move(reason);
  switch (phase) {
    case Phase::kLeading:
    case Phase::kStandbyLeading:
      sample_every(100ms);
      break;
    case Phase::kFollowing:
      sample_every(leader_stops() ? 10ms : 250ms);  // writes wait
      break;
    case Phase::kDraining:
      sample_every(10ms);  // writes wait for it
      break;
    default:
      sample_every(25ms);
      break;
  }
}

void Agent::Impl::sample_every(Millis period) {
  if (sampling_ == period) return;
  sampling_ = period;
  out_.push_back(effect::SetSampling{period});
}

void Agent::Impl::note(LogLevel level, std::string what, std::string why,
                       std::vector<std::pair<std::string, std::string>> fields) {
  out_.push_back(effect::Note{level, std::move(what), std::move(why), std::move(fields)});
}

// What its own file says.
void Agent::Impl::introduce(MemberRecord& m) const {
  m.name = config_.name;
  m.host = config_.host;
  m.port = config_.port;
  m.api_url = config_.api_url;
  m.region = config_.region;
  m.priority = config_.priority;
  m.nofailover = config_.nofailover;
  m.tags = config_.tags;
}

// How it is; all but what is told once a second only.
void Agent::Impl::describe(MemberRecord& m) const {
  const bool primary = held_ && pg_.run == PgRun::kPrimary;
  m.role = primary                            ? "primary"
           : pg_.run != PgRun::kStandby       ? "none"
           : phase_ == Phase::kStandbyLeading ? "standby leader"
                                              : "replica";
  const bool follows = phase_ == Phase::kFollowing || phase_ == Phase::kStandbyLeading;
  m.state = follows && pg_.receiver_streaming ? "streaming" : to_string(phase_);
  m.epoch = view_->leader ? view_->leader->value.epoch : Epoch{};
  m.timeline = pg_.timeline;
  m.checkpoint_timeline = pg_.checkpoint_timeline;
  const bool streams = pg_.run == PgRun::kStandby && pg_.upstream;
  if (!streams) {
    m.upstream = NodeName();
  } else if (m.upstream != *pg_.upstream) {
    m.upstream = *pg_.upstream;
  }
  m.config_problem = parameters_problem_;
  m.task = local_.task;
  m.task_result = local_.task_result;
  if (!is_sync_name(m.sync_name)) m.sync_name = sync_name();
  m.system_id = pg_.system_id;
  m.pending_restart = pg_.pending_restart;
  if (m.slots != pg_.slots) m.slots = pg_.slots;
  m.disk_full = pg_.disk_full;
  m.restart_first = pg_.pending_restart && pg_.pending_lowers;
}

// Tells the others how this member is: positions every second, all else at once. Of what passes
// quickly, as phases do while the leader changes, only some: everybody reads each.
void Agent::Impl::publish() {
  if (!have_view_ || !have_pg_ || !doubt_.empty() || txn_pending(TxnKind::kPublish)) return;
  if (!name_is_ours_) return;  // the record may be another's
  if (removed_here()) return;
  // Reason and positions in the draft are the published ones, until they are due.
  describe(draft_);
  if (published_ && now_ < published_at_ + kPublishEvery) {
    wake_at(published_at_ + kPublishEvery);
    if (draft_ == published_record_) return;
    if (now_ < published_at_ + kPublishesApart) return wake_at(published_at_ + kPublishesApart);
  }
  draft_.reason = reason_;
  draft_.flush_lsn = pg_.flush_lsn;
  draft_.replay_lsn = pg_.replay_lsn;
  if (published_ && draft_ == published_record_) return;
  published_ = true;
  published_record_ = draft_;
  published_at_ = now_;
  MemberRecord m = draft_;
  m.written_at = wall_;
  if (local_.high_water.known() && now_ >= persisted_at_ + kHighWaterEvery) persist({});
  // A member that is removed at this moment does not come back by this.
  const auto removed = view_->removed.find(config_.name);
  const Revision known = removed == view_->removed.end() ? 0 : removed->second.revision;
  commit(TxnKind::kPublish,
         {{{keys_.removed(config_.name), known}}, {{keys_.member(config_.name), encode(m)}}});
}

}  // namespace bascule::control
