// A standby cluster: the whole cluster follows another one. Its leader holds the record like any
// other, but streams from the followed primary instead of writing; the other members cascade from
// it. Nothing is acknowledged here, so nothing is fenced: no guard, no synchronous set, no pledges.
// Whether an epoch follows or writes stands in its history record and never changes. Taking
// `standby_cluster` out of the configuration ends the epoch: the record turns vacant, and the
// ordinary election (receivers stopped, ballots) promotes a member.
#include "control/agent_impl.h"

namespace bascule::control {
namespace {

constexpr Millis kStopLimit{15000};
constexpr int kStartsMax = 3;  // in a row: then somebody else shall try

}  // namespace

bool Agent::Impl::following_epoch(Epoch epoch) const {
  const auto found = view_->history.find(epoch);
  return found != view_->history.end() && found->second.following;
}

Upstream Agent::Impl::followed() const {
  const StandbyCluster s = config().standby_cluster.value_or(StandbyCluster{});
  return {followed_cluster(), s.host, s.port, s.primary_slot_name, s.restore_command};
}

void Agent::Impl::lead_following() {
  if (shutdown_) return shut_down();
  if (op_running() || !persists_.empty() || kill_) return;
  if (!may_retry()) return;
  switch (pg_.run) {
    case PgRun::kPrimary:
      return stand_down("PostgreSQL is a primary, but this cluster follows another one",
                        Release::kYes);
    case PgRun::kStopped:
      return start_following();
    case PgRun::kStarting:
      return;
    case PgRun::kUnresponsive:
      if (hung_since_ == MonoTime{}) hung_since_ = now_;
      if (view_->paused || now_ < hung_since_ + config().ttl) return wake_at(now_ + 200ms);
      hung_since_ = {};
      return stand_down("PostgreSQL does not answer the probe", Release::kYes);
    case PgRun::kStandby:
      break;
  }
  hung_since_ = {};
  starts_failed_ = 0;
  if (turn_ == TurnStage::kStop) {
    note(LogLevel::kInfo, "restart", "asked for by a task", {{"id", local_.task}});
    return run(op::CleanStop{kStopLimit});
  }
  if (!follows_another()) return stop_following();
  if (followed_in_force_ != followed()) return join_followed();
  if (stage_ != Stage::kRunning) return announce_following();
  run_standby_cluster();
}

// Not running: the first copy, a restart, or after a crash.
void Agent::Impl::start_following() {
  if (turn_ == TurnStage::kStop) turn_ = TurnStage::kStart;
  if (view_->paused && turn_ != TurnStage::kStart && stage_ == Stage::kRunning) {
    reason_ = "paused: PostgreSQL is not running, nothing is done";
    return;
  }
  if (!follows_another()) return stop_following();
  const bool no_data = pg_.data == DataDir::kEmpty || pg_.data == DataDir::kHalfCloned;
  if (no_data && local_.bootstrapping) {
    set_phase(Phase::kCloning, "copying the cluster that is followed");
    return run(op::Clone{followed(), /*from_replica=*/true});
  }
  if (pg_.data != DataDir::kReady || starts_failed_ >= kStartsMax) {
    starts_failed_ = 0;
    return stand_down("PostgreSQL can't be started here", Release::kYes);
  }
  out_.push_back(effect::DisarmGuard{});
  run(op::StartStandby{followed()});
}

// The ballot is gone with the take-over; only then may the receiver run again.
void Agent::Impl::join_followed() {
  if (local_.led_epoch != held_->record.epoch || local_.ballot_intent) {
    local_.led_epoch = held_->record.epoch;
    local_.ballot_intent.reset();
    return persist({});
  }
  run(op::SetUpstream{followed()});
}

void Agent::Impl::announce_following() {
  if (local_.led_epoch != held_->record.epoch) return join_followed();
  if (txn_pending(TxnKind::kLeader)) return;
  if (held_->unsettled) return renew(/*force=*/true);
  LeaderRecord record = held_->record;
  record.phase = LeaderPhase::kFollowing;
  record.timeline = pg_.timeline;
  record.handover_to = {};
  store::Txn extras;
  if (!view_->init || view_->init->value.system_id == 0) {
    if (pg_.system_id == 0) return wake_at(now_ + 50ms);
    extras.writes.push_back({keys_.init(), encode(InitRecord{pg_.system_id, config_.name})});
  }
  end_request_by_take_over(record, extras);
  leader_commit(std::move(record), std::move(extras), [this](TxnOutcome outcome) {
    if (outcome != TxnOutcome::kCommitted) return;
    stage_ = Stage::kRunning;
    if (std::exchange(local_.bootstrapping, false)) persist({});
    note(LogLevel::kInfo, "following",
         fmt::format("standby leader: streams from {}:{}", followed().host, followed().port));
    set_phase(Phase::kStandbyLeading, "");
    request_read();
  });
}

void Agent::Impl::run_standby_cluster() {
  const Upstream from = followed();
  set_phase(Phase::kStandbyLeading,
            pg_.receiver_streaming
                ? ""
                : fmt::format("does not stream from {}:{}", from.host, from.port));
  if (turn_ != TurnStage::kNone && turn_ != TurnStage::kReload) end_turn("done");
  if (!settled()) {
    request_read();
    return wake_at(now_ + 100ms);
  }
  if (held_->record.phase != LeaderPhase::kFollowing) return announce_following();
  switch_standby_leader();
  if (!settled()) return;
  keep_roster();
  if (settled()) tend_tasks();
  if (settled()) keep_parameters();
}

// To another member that streams from here, as the operator has asked.
void Agent::Impl::switch_standby_leader() {
  if (!view_->request || !view_->request->value.outcome.empty()) return;
  RequestRecord request = view_->request->value;
  if (view_->paused) return finish_request(request, "refused: the cluster is paused");
  if (!request.progress.empty()) {
    return finish_request(request, fmt::format("failed: {} leads", config_.name.str()));
  }
  std::string refusal;
  candidate_ = choose_candidate(request, refusal);
  if (candidate_.empty()) return finish_request(request, refusal);
  request.progress = "handed over";
  LeaderRecord record = held_->record;
  record.handover_to = candidate_;
  store::Txn extras;
  extras.compares = {{keys_.request(), view_->request->revision}};
  extras.writes = {{keys_.request(), encode(request)}};
  vacate_following(std::move(record), std::move(extras),
                   fmt::format("switchover to {} asked by {}", candidate_.str(), request.by));
}

// The key is gone: this member goes first, as it has the most.
void Agent::Impl::stop_following() {
  if (view_->paused) {
    reason_ = "paused: it goes on following until the cluster is resumed";
    return;
  }
  if (!settled()) {
    request_read();
    return wake_at(now_ + 50ms);
  }
  LeaderRecord record = held_->record;
  record.handover_to = config_.name;
  vacate_following(std::move(record), {}, "the cluster follows nobody any more");
}

void Agent::Impl::vacate_following(LeaderRecord record, store::Txn extras, std::string why) {
  const bool to_another = record.handover_to != config_.name;
  record.phase = LeaderPhase::kVacant;
  record.holder = {};
  record.final_position = {};
  record.why = why;
  leader_commit(std::move(record), std::move(extras), [this, why, to_another](TxnOutcome outcome) {
    if (outcome != TxnOutcome::kCommitted) return;
    if (to_another) released_by_us_ = last_commit_;
    note(LogLevel::kInfo, "vacated", why);
    drop_record(why);
  });
}

}  // namespace bascule::control
