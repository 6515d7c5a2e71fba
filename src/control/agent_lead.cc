// Holding the record: renewing it, getting PostgreSQL writable (promotion, restart, bootstrap), and
// running the cluster: roster, slots, synchronous set. Every write of the leader is a renewal too,
// so each compares leader, epoch and counter.
#include <fmt/ranges.h>

#include "control/agent_impl.h"
#include "control/relays.h"

namespace bascule::control {
namespace {

constexpr std::chrono::seconds kSlotsAgain{10};
constexpr Millis kShownWithin{20};

// As synchronous_standby_names matches (pg_strcasecmp): a stranger of a standby's name in other
// case acknowledges for it.
bool same_to_postgresql(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return std::ranges::equal(a, b, {}, lower, lower);
}

}  // namespace

void Agent::Impl::lead() {
  // What was killed and does not die (it waits for a disk that hangs) acknowledges nothing any
  // more. The record is not held for it: others may take over when it has expired.
  if (phase_ == Phase::kStandingDown && now_ >= held_->deadline) return;
  renew(/*force=*/false);
  if (!held_ || phase_ == Phase::kStandingDown) return;
  if (leads_standbys()) return lead_following();
  if (stage_ == Stage::kRunning) return run_cluster();
  if (stage_ == Stage::kWritable) return finish_start();
  switch (held_for_) {
    case HeldFor::kPromotion:
      return promote();
    case HeldFor::kRestart:
      return restart_in_place();
    case HeldFor::kBootstrap:
      return start_bootstrap();
    case HeldFor::kFollowing:
      return;
  }
}

// ---- renewals ----------------------------------------------------------------------------------

// The guard kills at the same deadline; this is the orderly half of it.
void Agent::Impl::enforce_deadline() {
  if (!held_) return;
  if (now_ < held_->deadline) return wake_at(held_->deadline);
  if (unsafe_.skip_fence || phase_ == Phase::kStandingDown) return;
  const std::string why =
      fmt::format("could not renew the record for {} ms", to_ms(now_ - held_->renewed_at));
  const bool still_standby =
      held_for_ == HeldFor::kPromotion && stage_ == Stage::kStart && !promote_started_;
  if (still_standby || leads_standbys()) {
    return drop_record(why);  // still a standby: nothing to fence
  }
  note(LogLevel::kError, "fenced", why);
  stand_down(why, Release::kNo);
}

void Agent::Impl::renew(bool force) {
  if (!held_ || txn_pending(TxnKind::kLeader)) return;
  if (good_ || txn_pending(TxnKind::kSeed)) return;  // not into a store that is not what it was
  const MonoTime due = held_->renewed_at + ClusterConfig::renew_every(held_->record.ttl);
  if (!force && now_ < due) return wake_at(due);
  if (held_->unsettled && view_->leader_revision != held_->revision) {
    request_read();
    wake_at(now_ + 50ms);
    return;
  }
  LeaderRecord record = held_->record;
  record.ttl = config().ttl;
  if (leads_standbys() && pg_.timeline.value != 0) record.timeline = pg_.timeline;
  leader_commit(std::move(record), {});
}

// False: another one is under way; try again when it is answered.
bool Agent::Impl::leader_commit(LeaderRecord record, store::Txn extras,
                                std::function<void(TxnOutcome)> then) {
  if (txn_pending(TxnKind::kLeader)) return false;
  records_in_doubt_ = records_in_doubt_ || !extras.writes.empty();  // until a view settles it
  record.counter = held_->record.counter + 1;
  if (pg_.run == PgRun::kPrimary || leads_standbys())
    record.flush_lsn = std::max(record.flush_lsn, pg_.flush_lsn);
  extras.compares.push_back({keys_.leader(), held_->revision});
  extras.writes.push_back({keys_.leader(), encode(record)});
  commit(TxnKind::kLeader, std::move(extras), std::move(record));
  txns_.back().then = std::move(then);
  return true;
}

void Agent::Impl::leader_answer(const PendingTxn& txn, const store::TxnResult& result) {
  if (!held_) return;
  if (result.outcome == store::TxnOutcome::kCommitted) {
    held_->revision = result.revision;
    held_->record = txn.record;
    held_->unsettled = false;
    ++held_->renewals;
    extend(unsafe_.renew_after_deadline ? now_ : txn.sent_at, txn.record);
  } else {
    held_->unsettled = true;
    request_read();
    if (read_id_ != 0 && read_sent_ < now_) read_again_ = true;
  }
  if (txn.then) txn.then(result.outcome);
}

// `record` was written by a request sent at `renewed_at`. What comes after the deadline is too
// late.
void Agent::Impl::extend(MonoTime renewed_at, const LeaderRecord& record) {
  const bool late = now_ >= held_->deadline && !unsafe_.renew_after_deadline;
  if (record.vacant() || late || phase_ == Phase::kStandingDown) return;
  if (renewed_at <= held_->renewed_at) return;
  held_->renewed_at = renewed_at;
  const MonoTime deadline = fence_at(renewed_at, record);
  // Pledges may have been asked for later. Only a shorter ttl brings the deadline forward.
  const bool shorter = deadline - renewed_at < held_->deadline - held_->proved_at;
  if (deadline <= held_->deadline && !shorter) return;
  hold_until(deadline, renewed_at);
}

void Agent::Impl::hold_until(MonoTime deadline, MonoTime proved_at) {
  held_->deadline = deadline;
  held_->proved_at = proved_at;
  if (!unsafe_.skip_fence && !leads_standbys()) out_.push_back(effect::ArmGuard{deadline});
}

// A renewal that had been given up has succeeded after all: a store may be slow and steady.
void Agent::Impl::late_answer(const event::StoreCommitted& e) {
  const auto found = std::ranges::find_if(late_, [&](const PendingTxn& t) { return t.id == e.id; });
  if (found == late_.end()) return;
  const PendingTxn txn = std::move(*found);
  late_.erase(found);
  if (e.result.outcome != TxnOutcome::kCommitted) return;
  last_commit_ = std::max(last_commit_, e.result.revision);
  committed_at_ = now_;
  request_read();
  if (!held_ || txn.record.epoch != held_->record.epoch || txn.record.vacant()) return;
  extend(txn.sent_at, txn.record);
  if (e.result.revision <= held_->revision) return;
  // What was sent since compares an older revision, and can't be applied any more.
  held_->revision = e.result.revision;
  held_->record = txn.record;
  held_->unsettled = false;
}

// After an unknown outcome or a conflict: what is the record's revision now? Only a later
// compare-and-set on it settles anything.
void Agent::Impl::adopt_revision() {
  if (good_ || txn_pending(TxnKind::kLeader)) return;
  if (view_->revision < last_commit_ || !view_->leader) return;
  if (view_->leader_revision == held_->revision) return;
  const LeaderRecord& seen = view_->leader->value;
  if (seen.holder == config_.name && seen.epoch == held_->record.epoch) {
    held_->revision = view_->leader_revision;
    held_->record = seen;
    held_->unsettled = true;
    return;
  }
  if (view_->leader_revision < held_->revision) return;  // an old view, or a store that went back
  // It has been said, and PostgreSQL takes its time to die (a disk that hangs).
  if (phase_ == Phase::kStandingDown && !release_on_down_) return;
  const std::string why =
      fmt::format("the record is not ours any more: {} epoch {}",
                  seen.vacant() ? "vacant" : seen.holder.str(), seen.epoch.value);
  note(LogLevel::kError, "fenced", why);
  stand_down(why, Release::kNo);
}

// Nothing of ours is in doubt and the view shows our last write.
bool Agent::Impl::settled() const {
  return held_ && !good_ && !held_->unsettled && !txn_pending(TxnKind::kLeader) && view_fresh() &&
         view_->leader_revision == held_->revision;
}

// ---- becoming writable -------------------------------------------------------------------------

void Agent::Impl::promote() {
  if (op_running()) {
    const MonoTime limit = op_->since + config().promote_timeout;
    if (promote_started_ && now_ >= limit) {
      return stand_down("promotion took too long", Release::kYes);
    }
    return wake_at(limit);
  }
  if (promote_started_) {
    if (pg_.run != PgRun::kPrimary && persists_.empty()) {
      return stand_down("PostgreSQL was lost during the promotion", Release::kYes);
    }
    return;  // its end is being recorded
  }
  // Rule 7: one further renewal confirmed, well before the deadline. That shows that nobody else
  // has written meanwhile, so a view that shows the take-over shows the generations as they are.
  if (held_->renewals < 1) return renew(/*force=*/true);
  if (good_ || held_->unsettled || txn_pending(TxnKind::kLeader) ||
      view_->revision < held_->taken_at) {
    request_read();
    return wake_at(now_ + 20ms);
  }
  if (pg_.run != PgRun::kStandby || !located_) {
    return stand_down("the standby was lost before it could be promoted", Release::kYes);
  }
  const auto& generations = sync_record().generations;
  SyncSetting setting;
  if (!generations.empty() && generations.back().epoch == held_->record.epoch) {
    setting = setting_of(generations.back());
  }
  promote_started_ = true;
  note(LogLevel::kInfo, "promoting", fmt::format("to timeline {}", held_->record.timeline.value));
  run(op::Promote{held_->record.timeline, std::move(setting.names), slots(), setting.count});
}

void Agent::Impl::op_done(const op::Promote& o, const OpData& data) {
  if (!held_) return;
  held_->origin = data.origin;
  held_->promoted_at = now_;
  note(LogLevel::kInfo, "promoted", fmt::format("writable on timeline {}", o.timeline.value),
       {{"epoch", std::to_string(held_->record.epoch.value)}});
  pg_.run = PgRun::kPrimary;
  pg_.timeline = o.timeline;
  sync_set_.in_force_from_start({o.sync_standbys, o.sync_count}, SyncSet::Confirm::kNo, now_);
  promoted();
}

// Complete: from now on this directory is that of the epoch's leader.
void Agent::Impl::promoted() {
  local_.led_epoch = held_->record.epoch;
  local_.led_origin = held_->origin;
  local_.ballot_intent.reset();
  local_.bootstrapping = false;
  const Epoch epoch = held_->record.epoch;
  persist([this, epoch] {
    if (held_ && held_->record.epoch == epoch && phase_ != Phase::kStandingDown) {
      stage_ = Stage::kWritable;
    }
  });
}

void Agent::Impl::restart_in_place() {
  if (op_running()) return wake_at(now_ + 200ms);
  if (pg_.run == PgRun::kPrimary) {
    if (pg_.sampled_at < pg_ignored_until_)
      return wake_at(now_ + 50ms);  // its timeline is not known
    if (promoted_elsewhere(held_->record)) return stand_down(why_elsewhere(), Release::kYes);
    if (phase_ == Phase::kRestarting && sync_set_.setting().empty() && !pg_.sync_standbys.empty()) {
      sync_set_.found({pg_.sync_standbys, pg_.sync_count},
                      now_);  // adopted: it has run all the time
    }
    if (!sync_set_.caught_up()) {
      keep_sync();
      // Whoever is waited for may have been behind a relay, without a slot, or be somebody else by
      // now: removed, and added again with a new name.
      settled() ? keep_roster() : keep_slots();
      set_phase(Phase::kRestarting, "clients wait until the standby has what was recovered");
      return wake_at(now_ + 50ms);
    }
    stage_ = Stage::kWritable;
    return finish_start();
  }
  if (view_->paused && turn_ != TurnStage::kStart) {  // what was stopped on purpose is started
    return set_phase(Phase::kRestarting, "paused: PostgreSQL is not running, nothing is done");
  }
  if (!may_retry()) return;
  if (!settled()) return renew(/*force=*/held_->unsettled);
  if (!pg_down()) return wake_at(now_ + 100ms);
  const auto& generations = sync_record().generations;
  SyncSetting setting;
  if (!generations.empty() && !generations.back().voters.empty()) {
    const Generation& g = generations.back();
    setting = sync_set_.setting();
    const bool covered = std::ranges::includes(g.voters, setting.names) &&
                         g.voters.size() < g.quorum + setting.count;
    if (setting.empty() || !covered) setting = setting_of(g);
  }
  note(LogLevel::kInfo, "restarting", "in place: " + (crash_.empty() ? reason_ : crash_));
  run(op::StartPrimary{std::move(setting.names), setting.count});
}

void Agent::Impl::start_bootstrap() {
  if (op_running() || !persists_.empty()) return wake_at(now_ + 200ms);
  if (held_->renewals < 1) return renew(/*force=*/true);
  if (pg_.run == PgRun::kPrimary) return;
  // Complete remains of an own attempt that broke off are as good as new.
  if (pg_.data == DataDir::kReady && pg_.system_id != 0 && local_.bootstrapping && pg_down()) {
    if (!parameters_ && !config().parameters.empty()) {
      return run(op::Reload{config().parameters});
    }
    promote_started_ = true;
    run(op::StartPrimary{});
    return;
  }
  if (promote_started_) return stand_down("initdb was broken off", Release::kYes);
  promote_started_ = true;
  note(LogLevel::kInfo, "bootstrapping", "initdb");
  run(op::InitDb{});
}

void Agent::Impl::op_done(const op::InitDb&, const OpData& data) {
  pg_.data = DataDir::kReady;
  pg_.system_id = data.system_id;
}

void Agent::Impl::op_done(const op::StartPrimary& o, const OpData& data) {
  if (!held_) return;
  pg_.run = PgRun::kPrimary;
  pg_.flush_lsn = std::max(pg_.flush_lsn, data.position.lsn);  // what was recovered counts as lag
  sync_set_.in_force_from_start({o.sync_standbys, o.sync_count}, SyncSet::Confirm::kYes, now_);
  if (held_for_ == HeldFor::kBootstrap) {
    held_->created_on = data.position.timeline;
    return promoted();
  }
  crash_.clear();
}

// Writable: tell the proxies.
void Agent::Impl::finish_start() {
  if (pg_down() && !op_running()) {
    const std::string again = why_start_again();
    if (again.empty()) return stand_down("PostgreSQL is gone again", Release::kYes);
    stage_ = Stage::kStart;
    held_for_ = HeldFor::kRestart;
    return op_failed({ErrorCode::kUnavailable, "gone again: " + again, ""});
  }
  if (txn_pending(TxnKind::kLeader)) return;
  if (held_->unsettled) return renew(/*force=*/true);
  // While it started nothing inside was seen, and nobody joins a cluster without an identity.
  if (held_for_ == HeldFor::kBootstrap && pg_.system_id == 0) return wake_at(now_ + 50ms);
  LeaderRecord record = held_->record;
  record.phase = LeaderPhase::kRunning;
  record.handover_to = {};
  store::Txn extras;
  if (held_for_ == HeldFor::kBootstrap) {
    // What was restored from a backup goes on on its own timeline.
    if (held_->created_on.value > 0) record.timeline = held_->created_on;
    extras.writes.push_back({keys_.init(), encode(InitRecord{pg_.system_id, config_.name})});
  }
  if (const auto own = view_->history.find(record.epoch); own != view_->history.end()) {
    HistoryRecord history = own->second;
    if (held_for_ == HeldFor::kBootstrap) history.timeline = record.timeline;
    if (held_->origin.at != Lsn{}) history.origin = held_->origin;
    if (held_->promoted_at != MonoTime{}) {
      history.promote_ms = to_ms(held_->promoted_at - held_->begun_at);
      history.route_ms = to_ms(now_ - held_->promoted_at);
    }
    if (history != own->second) {
      extras.writes.push_back({keys_.history(record.epoch), encode(history)});
    }
  }
  if (held_for_ == HeldFor::kPromotion) {
    // What the primary before had is given up. A sample may have shown nothing meanwhile.
    record.flush_lsn = std::max(pg_.flush_lsn, held_->origin.at);
    end_request_by_take_over(record, extras);
  }
  leader_commit(std::move(record), std::move(extras), [this](TxnOutcome outcome) {
    if (outcome == TxnOutcome::kCommitted) {
      stage_ = Stage::kRunning;
      crash_.clear();  // also where the start was reported as failed, and it runs all the same
      promotions_failed_ = 0;
      note(LogLevel::kInfo, "routed", "the record says writable: proxies may route here",
           {{"epoch", std::to_string(held_->record.epoch.value)}});
      set_phase(Phase::kLeading, "");
      request_read();
    }
  });
}

// ---- running -----------------------------------------------------------------------------------

// The watch has a mere renewal read soon enough: asking for it as well doubled what an idle leader
// does. Until the answer is there a read could only show what was before.
void Agent::Impl::await_own_write() {
  wake_at(now_ + 100ms);
  if (txn_pending(TxnKind::kLeader)) return;
  const MonoTime shown_by = committed_at_ + kShownWithin;
  if (!records_in_doubt_ && now_ < shown_by) return wake_at(shown_by);
  request_read();
}

void Agent::Impl::run_cluster() {
  if (shutdown_ && !request_) return shut_down();
  if (!crash_.empty()) return apply_crash_policy();
  if (phase_ == Phase::kDraining) return drain();
  if (phase_ == Phase::kHandingOver) return hand_over();
  if (pg_.run == PgRun::kStandby) {
    return stand_down("PostgreSQL turned out to be in recovery", Release::kYes);
  }
  if (pg_down() && !op_running()) return crashed("found stopped");
  if (pg_.run == PgRun::kUnresponsive || writes_hang()) return hung();
  hung_since_ = {};
  reason_.clear();
  tend_full_disk();
  if (local_.led_epoch != held_->record.epoch) return;
  if (good_) return wake_at(now_ + 100ms);  // keep_seed()
  if (!settled()) return await_own_write();
  handle_request();
  if (phase_ != Phase::kLeading || !settled()) return;
  end_turn_as_leader();
  if (held_->record.phase != LeaderPhase::kRunning && pg_.run == PgRun::kPrimary) {
    // An operation that changed the record was given up (its answer was lost): writable it is.
    LeaderRecord record = held_->record;
    record.phase = LeaderPhase::kRunning;
    record.handover_to = {};
    record.request_id = "";
    leader_commit(std::move(record), {});
    return;
  }
  keep_roster();
  if (settled()) keep_sync();
  if (settled()) tend_tasks();
  if (settled()) keep_parameters();  // not while a turn of our own is being announced
}

std::vector<SyncCandidate> Agent::Impl::sync_candidates() const {
  std::vector<SyncCandidate> out;
  if (!view_->roster) return out;
  const std::vector<NodeName>& roster = view_->roster->value.members;
  for (const WalSender& s : pg_.senders) {
    if (!s.streaming) continue;
    for (const auto& [name, m] : view_->members) {
      if (m.sync_name != s.application_name || m.nofailover || name == config_.name) continue;
      if (std::ranges::find(roster, name) == roster.end()) continue;
      const auto copies = std::ranges::count_if(pg_.senders, [&](const WalSender& other) {
        return same_to_postgresql(other.application_name, s.application_name);
      });
      if (copies == 1) out.push_back({s.application_name, name, m.priority, s.flush_lsn});
    }
  }
  return out;
}

// Members that stream from this leader, directly or by way of others, may be elected from now on.
void Agent::Impl::keep_roster() {
  std::vector<NodeName> joining;
  const auto add = [&](const NodeName& name) {
    const auto has = [&](const auto& list) { return std::ranges::find(list, name) != list.end(); };
    if (view_->roster && has(view_->roster->value.members)) return;
    if (!has(joining)) joining.push_back(name);
  };
  add(config_.name);
  for (const auto& [name, m] : view_->members) {
    if (m.system_id != pg_.system_id || !belongs(m)) continue;
    const bool streams = std::ranges::any_of(pg_.senders, [&](const WalSender& s) {
      return s.streaming && s.application_name == m.sync_name;
    });
    if (streams || reaches_leader(*view_, m, held_->record, config_.name)) add(name);
  }
  if (!view_->roster || !joining.empty()) {
    RosterRecord roster = view_->roster ? view_->roster->value : RosterRecord{};
    roster.members.insert(roster.members.end(), joining.begin(), joining.end());
    std::ranges::sort(roster.members);
    store::Txn extras;
    extras.compares = {{keys_.roster(), view_->roster ? view_->roster->revision : 0}};
    extras.writes = {{keys_.roster(), encode(roster)}};
    leader_commit(held_->record, std::move(extras));
    return;
  }
  keep_slots();
}

void Agent::Impl::keep_slots() {
  if (op_running() || !may_retry()) return;
  // Who does not stream may want for a slot that somebody has dropped.
  const bool again =
      pg_.senders.size() + 1 < view_->members.size() && now_ >= slots_ensured_ + kSlotsAgain;
  const bool same = known_slots_ == slots() && known_permanent_ == config().slots;
  if (again || !same) run(op::EnsureSlots{slots(), stale_slots(), config().slots});
}

void Agent::Impl::op_done(const op::EnsureSlots& o, const OpData&) {
  known_slots_ = o.slots;
  slots_ensured_ = now_;
  known_permanent_ = o.permanent;
}

// A receiver with the name of a standby that is waited for would acknowledge in its place. Which of
// them is the member's cannot be told: all go, and the member's comes back at once.
bool Agent::Impl::end_duplicates() {
  for (const std::string& name : sync_set_.setting().names) {
    const auto copies = std::ranges::count_if(pg_.senders, [&](const WalSender& s) {
      return same_to_postgresql(s.application_name, name);
    });
    if (copies < 2) continue;
    note(LogLevel::kWarn, "duplicate standby",
         fmt::format("{} receivers call themselves {}: all are ended", copies, name));
    run(op::TerminateSenders{{name}});
    return true;
  }
  return false;
}

void Agent::Impl::keep_sync() {
  if (op_running() || pg_.run != PgRun::kPrimary || !settled() || !may_retry()) return;
  if (end_duplicates()) return;
  apply_sync_step(sync_set_.plan(sync_record(), held_->record.epoch, {config_.name, sync_name()},
                                 config(), now_));
  // What was due before has been planned with; more shows only in the next sample.
  if (sync_set_.next_change() > now_) wake_at(sync_set_.next_change());
}

void Agent::Impl::apply_sync_step(const SyncStep& step) {
  switch (step.kind) {
    case SyncStep::Kind::kNone:
      return;
    case SyncStep::Kind::kRecord: {
      store::Txn extras;
      extras.compares = {{keys_.sync(), view_->sync_revision()}};
      extras.writes = {{keys_.sync(), encode(step.record)}};
      note(LogLevel::kInfo, "synchronous set recorded", step.why,
           {{"record", encode(step.record)}});
      leader_commit(held_->record, std::move(extras));
      request_read();
      return;
    }
    case SyncStep::Kind::kApply:
      note(
          LogLevel::kInfo, "synchronous set", step.why,
          {{"standby", step.names.empty() ? "none" : fmt::format("{}", fmt::join(step.names, ","))},
           {"count", std::to_string(step.count)}});
      sync_set_.applying();
      run(op::SetSync{step.names, step.from_empty, step.count});
      return;
    case SyncStep::Kind::kTerminate:
      run(op::TerminateSenders{step.names});
      retry_at_ = now_ + 200ms;
      return;
  }
}

void Agent::Impl::op_done(const op::SetSync& o, const OpData& data) {
  sync_set_.applied({o.standbys, o.count}, data.position.lsn, now_);
}

// ---- standing down -----------------------------------------------------------------------------

// Kills PostgreSQL if it may be alive, then gives the record away (or lets it go).
void Agent::Impl::stand_down(std::string why, Release release) {
  if (held_for_ == HeldFor::kPromotion && stage_ == Stage::kStart) ++promotions_failed_;
  standing_down_ = std::move(why);
  release_on_down_ = release == Release::kYes;
  set_phase(Phase::kStandingDown, standing_down_);
  note(LogLevel::kWarn, "stepping down", standing_down_);
  const bool sure_dead = pg_down() && !op_running();
  op_.reset();
  if (!sure_dead && !kill_) run(op::Kill{});
}

void Agent::Impl::finish_standing_down() {
  if (!held_ || !release_on_down_) return drop_record(standing_down_);
  if (txn_pending(TxnKind::kLeader)) return;
  if (held_->unsettled) {
    if (!view_fresh() || view_->leader_revision != held_->revision || now_ >= held_->deadline) {
      return drop_record(standing_down_);
    }
  }
  LeaderRecord record = held_->record;
  record.phase = LeaderPhase::kVacant;
  record.holder = {};
  record.why = standing_down_;
  record.final_position = {};
  record.request_id = "";
  leader_commit(std::move(record), {}, [this](TxnOutcome outcome) {
    if (outcome == TxnOutcome::kCommitted) {
      released_by_us_ = last_commit_;
      note(LogLevel::kInfo, "vacated", standing_down_);
    }
    drop_record(standing_down_);
  });
}

void Agent::Impl::drop_record(std::string why) {
  held_.reset();
  stage_ = Stage::kNone;
  crash_.clear();
  promote_started_ = false;
  request_.reset();
  std::erase_if(txns_, [](const PendingTxn& t) { return t.kind == TxnKind::kLeader; });
  late_.clear();
  set_phase(pg_down() ? Phase::kStopped : Phase::kIsolated, std::move(why));
  out_.push_back(effect::DisarmGuard{});
  request_read();
  wake_at(now_ + 20ms);
}

}  // namespace bascule::control
