// Planned switchover, the operator's failover request, and the orderly end of an agent.
#include "control/agent_impl.h"

namespace bascule::control {
namespace {

constexpr Millis kProxiesHold{40};  // time for proxies to see that they must hold
constexpr Millis kCleanStopLimit{15000};
constexpr Millis kVerifyLimit{3000};
constexpr Millis kStopsWithin{5000};    // then it may go on, and waits for its standbys
constexpr Millis kSuccessorAlone{500};  // of a planned hand-over: nobody else does anything

}  // namespace

// What is seen before the proxies hold counts as busy.
void Agent::Impl::hold_samples() { pg_ignored_until_ = now_ + kProxiesHold; }

void Agent::Impl::handle_request() {
  if (!view_->request || !view_->request->value.outcome.empty()) return;
  const RequestRecord& request = view_->request->value;
  const LeaderRecord& mine = held_->record;
  if (mine.phase == LeaderPhase::kDraining && mine.request_id == request.id &&
      !mine.handover_to.empty() && pg_.run == PgRun::kPrimary) {
    // Begun by us, and the answer was lost.
    request_ = request;
    candidate_ = mine.handover_to;
    return begin_drain();
  }
  if (!request.progress.empty()) {
    // Begun by a leader that is gone, and the hand-over came back to us or never happened.
    return finish_request(request, fmt::format("failed: {} leads", config_.name.str()));
  }
  if (view_->paused) return finish_request(request, "refused: the cluster is paused");
  if (op_running()) return wake_at(now_ + 50ms);
  std::string refusal;
  candidate_ = choose_candidate(request, refusal);
  if (candidate_.empty()) return finish_request(request, refusal);
  if (!checkpointed_for(request.id)) return;
  begin_switchover(request);
}

// Before the proxies hold, so that what the shutdown itself has left to write is little.
bool Agent::Impl::checkpointed_for(const std::string& request) {
  if (checkpointed_for_ == request) return true;
  checkpointed_for_ = request;
  note(LogLevel::kInfo, "checkpoint", "before writes stop", {{"id", request}});
  run(op::Checkpoint{});
  return false;
}

// Of those that stream and may lead, and that `fits` lets pass: one that is waited for first.
NodeName Agent::Impl::best_candidate(const std::function<bool(const NodeName&)>& fits) const {
  const auto& waited_for = sync_set_.setting().names;
  const auto key = [&](const SyncCandidate& c) {
    const bool waited = std::ranges::find(waited_for, c.sync_name) != waited_for.end();
    return std::tuple(waited, c.priority, c.flush_lsn);
  };
  const auto candidates = sync_candidates();
  const SyncCandidate* best = nullptr;
  for (const SyncCandidate& c : candidates) {
    if (fits(c.member) && (!best || key(c) > key(*best))) best = &c;
  }
  return best ? best->member : NodeName();
}

NodeName Agent::Impl::choose_candidate(const RequestRecord& request, std::string& refusal) const {
  if (request.candidate == config_.name) {
    refusal = fmt::format("refused: {} leads already", config_.name.str());
    return {};
  }
  NodeName best = best_candidate([&](const NodeName& member) {
    return request.candidate.empty() || member == request.candidate;
  });
  if (!best.empty()) return best;
  refusal = request.candidate.empty() ? "refused: no electable replica streams"
                                      : fmt::format("refused: {} does not stream, or may not lead",
                                                    request.candidate.str());
  return {};
}

void Agent::Impl::begin_switchover(const RequestRecord& request) {
  request_ = request;
  LeaderRecord record = held_->record;
  record.handover_to = candidate_;
  record.request_id = request.id;
  record.phase = LeaderPhase::kDraining;
  record.why = fmt::format("switchover to {} asked by {}", candidate_.str(), request.by);
  request_->progress = "draining";
  store::Txn extras;
  extras.compares = {{keys_.request(), view_->request->revision}};
  extras.writes = {{keys_.request(), encode(*request_)}};
  note(LogLevel::kInfo, "switchover", record.why);
  leader_commit(std::move(record), std::move(extras), [this](TxnOutcome outcome) {
    if (outcome != TxnOutcome::kCommitted) {
      request_.reset();  // looked at again with the next view
      return;
    }
    begin_drain();
  });
}

void Agent::Impl::begin_drain() {
  drain_since_ = now_;
  quiet_samples_ = 0;
  verified_ = false;
  final_ = {};
  set_phase(Phase::kDraining, "waiting for running transactions");
  hold_samples();
}

// Running transactions end, or their time does.
void Agent::Impl::drain() {
  if (pg_down()) return crashed("found stopped");
  const MonoTime limit = drain_since_ + config().drain_timeout;
  wake_at(limit);
  if (now_ < drain_since_ + kProxiesHold) wake_at(drain_since_ + kProxiesHold);
  if (op_running() || (!request_ && turn_ != TurnStage::kStop)) return;
  const bool quiet = quiet_samples_ >= 1 && now_ >= drain_since_ + kProxiesHold;
  if (!quiet && now_ < limit) return;
  if (!settled()) {
    request_read();
    return wake_at(now_ + 10ms);
  }
  note(LogLevel::kInfo, "drained", quiet ? "no transaction runs" : "drain_timeout is over",
       {{"ms", std::to_string(to_ms(now_ - drain_since_))}});
  set_phase(Phase::kHandingOver, "stopping cleanly");
  LeaderRecord record = held_->record;
  record.phase = LeaderPhase::kStopping;
  leader_commit(std::move(record), {});
  run(op::CleanStop{kCleanStopLimit});
}

void Agent::Impl::op_done(const op::Checkpoint&, const OpData&) {
  // A courtesy: the next look at the request, or at the task, goes on.
}

void Agent::Impl::op_done(const op::CleanStop&, const OpData& data) {
  pg_.run = PgRun::kStopped;
  final_ = data.position;
  if (leads_standbys()) return;  // what it has comes from elsewhere: nothing is final about it
  if (held_ && request_) {
    note(LogLevel::kInfo, "fenced", "shut down cleanly at " + final_.to_string());
    run(op::VerifyReceived{upstream_of(candidate_), final_, kVerifyLimit});
  } else if (held_ && turn_ == TurnStage::kStop && !shutdown_) {
    start_again();
  }
}

void Agent::Impl::op_done(const op::VerifyReceived& o, const OpData&) {
  source_answered_ = {o.candidate.member, now_};
  verified_ = held_.has_value();
}

void Agent::Impl::hand_over() {
  if (op_running() || !verified_ || txn_pending(TxnKind::kLeader)) return;
  if (!settled()) {
    request_read();
    return wake_at(now_ + 10ms);
  }
  LeaderRecord record = held_->record;
  record.phase = LeaderPhase::kVacant;
  record.holder = {};
  record.handover_to = candidate_;
  record.final_position = final_;
  store::Txn extras;
  if (request_ && view_->request && view_->request->value.id == request_->id) {
    request_->progress = "handed over";
    extras.compares = {{keys_.request(), view_->request->revision}};
    extras.writes = {{keys_.request(), encode(*request_)}};
  }
  leader_commit(std::move(record), std::move(extras), [this](TxnOutcome outcome) {
    if (outcome == TxnOutcome::kCommitted) {
      released_by_us_ = last_commit_;
      note(LogLevel::kInfo, "vacated",
           fmt::format("handed over to {} at {}", candidate_.str(), final_.to_string()));
      drop_record("handed over to " + candidate_.str());
    }
  });
}

// ---- the others' part --------------------------------------------------------------------------

bool Agent::Impl::leader_stops() const {
  return stopping_since_ != MonoTime{} && now_ < stopping_since_ + kStopsWithin;
}

// The leader has stopped, and its agent goes about proving that it may hand over. Where the WAL
// ends here is found out meanwhile: the ballot, or the way to the successor, does not wait for it.
bool Agent::Impl::locates_early(const LeaderRecord& leader) {
  if (!leader_stops()) return false;
  const bool ended = cut_off_from(leader) && pg_.sampled_at > stopping_since_;
  if (!located_ && !ended) return false;
  wake_at(stopping_since_ + kStopsWithin);
  if (!located_) locate("the leader has stopped: where does the WAL end here?");
  return true;
}

// After a planned hand-over nobody needs the ballot of who handed over, and mostly nobody's but the
// successor's: what others do would only take processor and disk from one on the same machine.
bool Agent::Impl::leaves_it_to_successor() {
  const LeaderRecord& last = view_->leader->value;
  const MonoTime until = contest_since_ + kSuccessorAlone;
  const bool planned = last.vacant() && !last.handover_to.empty();
  if (!planned || last.handover_to == config_.name || now_ >= until) return false;
  const bool stopped_here = pg_down() && released_by_us_ == view_->leader_revision;
  const MemberRecord* successor = view_->member(last.handover_to);
  const auto has_all = [&](const Generation& g) {
    return g.quorum == 1 && std::ranges::find(g.voters, successor->sync_name) != g.voters.end();
  };
  const auto& generations = sync_record().generations;
  const bool elects_itself = last.final_position.known() && successor != nullptr &&
                             std::ranges::all_of(generations, has_all);
  if (!stopped_here && !elects_itself) return false;
  wake_at(until);
  const std::string why = fmt::format("{} takes over as planned", last.handover_to.str());
  if (pg_.run == PgRun::kStandby && !located_) {
    locate(why);  // the way to it begins with that
  } else {
    set_phase(pg_down() ? Phase::kStopped : Phase::kIsolated, why);
  }
  return true;
}

void Agent::Impl::finish_request(const RequestRecord& request, std::string outcome) {
  note(LogLevel::kInfo, "request ended", outcome, {{"id", request.id}});
  request_.reset();
  if (!view_->request || view_->request->value.id != request.id || txn_pending(TxnKind::kLeader)) {
    return;  // handle_request() sees it again and ends it
  }
  RequestRecord ended = view_->request->value;
  ended.outcome = std::move(outcome);
  LeaderRecord record = held_->record;
  record.request_id = "";
  store::Txn extras;
  extras.compares = {{keys_.request(), view_->request->revision}};
  extras.writes = {{keys_.request(), encode(ended)}};
  leader_commit(std::move(record), std::move(extras));
}

// A failover that was asked for while nobody led has no progress: it was this take-over.
void Agent::Impl::end_request_by_take_over(LeaderRecord& record, store::Txn& extras) const {
  if (!view_->request || !view_->request->value.outcome.empty()) return;
  RequestRecord request = view_->request->value;
  if (request.progress.empty() && request.kind != RequestKind::kFailover) return;
  const bool wanted = request.candidate.empty() || request.candidate == config_.name;
  request.outcome = wanted ? "done"
                           : fmt::format("failed: {} leads instead of {}", config_.name.str(),
                                         request.candidate.str());
  extras.compares.push_back({keys_.request(), view_->request->revision});
  extras.writes.push_back({keys_.request(), encode(request)});
  record.request_id = "";
}

// SIGTERM: PostgreSQL is stopped cleanly; a leader leaves its final position, so that whoever has
// everything may take over at once.
void Agent::Impl::shut_down() {
  if (op_running() || kill_) return;
  if (!pg_down()) {
    set_phase(Phase::kHandingOver, "shutting down");
    final_ = {};
    run(op::CleanStop{kCleanStopLimit});
    return;
  }
  if (held_) {
    if (txn_pending(TxnKind::kLeader)) return;
    LeaderRecord record = held_->record;
    record.phase = LeaderPhase::kVacant;
    record.holder = {};
    record.handover_to = {};
    record.final_position = leads_standbys() ? Position{} : final_;
    record.why = fmt::format("{} was shut down", config_.name.str());
    leader_commit(std::move(record), {}, [this](TxnOutcome) {
      drop_record("shut down");
      shut_down();
    });
    return;
  }
  note(LogLevel::kInfo, "stopped", "orderly shutdown");
  out_.push_back(effect::DisarmGuard{});
  out_.push_back(effect::Exit{});
  exited_ = true;
}

}  // namespace bascule::control
