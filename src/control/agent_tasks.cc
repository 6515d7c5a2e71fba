// The operators' tasks (task_records.h): as the leader giving turns, as a member taking one; and
// dynamic parameters of PostgreSQL.
#include "control/agent_impl.h"
#include "control/tasks.h"

namespace bascule::control {
namespace {

constexpr Millis kMemberStopLimit{15000};
constexpr Millis kReloadRetry{5000};

}  // namespace

// ---- the leader
// ----------------------------------------------------------------------------------

void Agent::Impl::tend_tasks() {
  const Versioned<TaskRecord>* task = due_task(*view_, wall_);
  if (task == nullptr || !settled()) return;
  if (task->value.kind == TaskKind::kRemove) return remove_member(*task);
  const auto running = std::ranges::find(task->value.steps, StepState::kRunning, &TaskStep::state);
  const std::string key =
      running == task->value.steps.end() ? "" : task->value.id + "/" + running->member.str();
  if (std::exchange(step_seen_, key) != key) step_since_ = now_;
  TaskSituation situation;
  situation.leader = config_.name;
  situation.wall = wall_;
  situation.running_for = now_ - step_since_;
  situation.own_task = local_.task;
  situation.own_result = local_.task_result;
  situation.own_turn_now = local_.task == task->value.id && turn_ != TurnStage::kNone;
  situation.flush_lsn = pg_.flush_lsn;
  TaskAdvance next = advance(task->value, *view_, situation);
  if (!next.record) return;
  if (next.restart_leader && (op_running() || request_)) return wake_at(now_ + 50ms);
  if (next.restart_leader && stops_writes(*next.record) && !checkpointed_for(next.record->id))
    return;
  store::Txn extras;
  extras.compares = {{keys_.task(next.record->id), task->revision}};
  extras.writes = {{keys_.task(next.record->id), encode(*next.record)}};
  if (next.request && !add_request(*next.record, *next.request, extras)) {
    next.record->outcome =
        fmt::format("failed: nobody of region {} streams and may lead", next.record->region);
    extras.writes = {{keys_.task(next.record->id), encode(*next.record)}};
  }
  if (!next.record->outcome.empty()) {
    note(LogLevel::kInfo, "task ended", next.record->outcome, {{"id", next.record->id}});
  }
  if (next.restart_leader) return begin_own_restart(*next.record, std::move(extras));
  leader_commit(held_->record, std::move(extras));
}

// The switchover that a task asks for; with the region, which is the preferred one from then on.
bool Agent::Impl::add_request(const TaskRecord& task, RequestRecord request,
                              store::Txn& extras) const {
  if (!task.region.empty()) {
    request.candidate = best_in_region(task.region);
    if (request.candidate.empty() || !view_->config) return false;
    ClusterConfig changed = view_->config->value;
    changed.primary_region = task.region;
    extras.compares.push_back({keys_.config(), view_->config->revision});
    extras.writes.push_back({keys_.config(), encode(changed)});
  }
  extras.compares.push_back({keys_.request(), view_->request ? view_->request->revision : 0});
  extras.writes.push_back({keys_.request(), encode(request)});
  return true;
}

NodeName Agent::Impl::best_in_region(const std::string& region) const {
  const SyncCandidate* best = nullptr;
  const auto candidates = sync_candidates();
  for (const SyncCandidate& c : candidates) {
    const MemberRecord* m = view_->member(c.member);
    if (region.empty() || !m || m->region != region) continue;
    if (!best || std::tuple(c.priority, c.flush_lsn) > std::tuple(best->priority, best->flush_lsn))
      best = &c;
  }
  return best ? best->member : NodeName();
}

bool Agent::Impl::stops_writes(const TaskRecord& task) const {
  return task.kind != TaskKind::kReload && !leads_standbys();
}

// As at a switchover the proxies hold, running transactions end, PostgreSQL stops cleanly; then it
// is started in place, as after a crash.
void Agent::Impl::begin_own_restart(const TaskRecord& task, store::Txn extras) {
  if (task.kind == TaskKind::kReload) {  // nothing stops
    const std::string id = task.id;
    leader_commit(held_->record, std::move(extras), [this, id](TxnOutcome outcome) {
      if (outcome == TxnOutcome::kCommitted) take_turn(id, TurnStage::kReload);
    });
    return;
  }
  if (leads_standbys()) {  // nobody writes: there is nothing to drain
    const std::string id = task.id;
    leader_commit(held_->record, std::move(extras), [this, id](TxnOutcome outcome) {
      if (outcome == TxnOutcome::kCommitted) take_turn(id, TurnStage::kStop);
    });
    return;
  }
  LeaderRecord record = held_->record;
  record.phase = LeaderPhase::kDraining;
  record.why = fmt::format("restart asked by {}", task.by);
  note(LogLevel::kInfo, "restart", record.why, {{"id", task.id}});
  quiet_samples_ = 0;
  verified_ = false;
  final_ = {};
  const std::string id = task.id;
  leader_commit(std::move(record), std::move(extras), [this, id](TxnOutcome outcome) {
    if (outcome != TxnOutcome::kCommitted) return;  // the record tells; see result_of()
    take_turn(id, TurnStage::kStop);
    drain_since_ = now_;
    quiet_samples_ = 0;
    set_phase(Phase::kDraining, "restart: waiting for running transactions");
    hold_samples();
  });
}

// The clean stop of one's own restart is done.
void Agent::Impl::start_again() {
  turn_ = TurnStage::kStart;
  stage_ = Stage::kStart;
  held_for_ = HeldFor::kRestart;
  LeaderRecord record = held_->record;
  record.phase = LeaderPhase::kPreparing;
  set_phase(Phase::kRestarting, record.why);
  held_->record = record;
  leader_commit(std::move(record), {});
}

// ---- a member's own turn
// -------------------------------------------------------------------------

void Agent::Impl::take_turn(const std::string& task, TurnStage stage) {
  turn_ = stage;
  local_.task = task;
  local_.task_result.clear();
  persist({});
}

void Agent::Impl::end_turn(std::string result) {
  turn_ = TurnStage::kNone;
  local_.task_result = std::move(result);
  note(LogLevel::kInfo, "turn ended", local_.task_result, {{"id", local_.task}});
  persist({});
}

// Writable: a restart in place is over, or one that was begun as a replica.
void Agent::Impl::end_turn_as_leader() {
  if (pg_.sampled_at < pg_ignored_until_) return;  // where its WAL is now, the others go by
  if (turn_ == TurnStage::kStop || turn_ == TurnStage::kStart) end_turn("done");
  if (turn_ == TurnStage::kCopy) end_turn("failed: it leads now");
}

// True: PostgreSQL is being stopped or replaced for it.
bool Agent::Impl::tend_own_turn(const LeaderRecord& leader) {
  const auto turn = turn_of(*view_, config_.name);
  const bool ours = turn && turn->task->kind != TaskKind::kRemove;  // that is the leader's work
  if (ours && turn->task->id != local_.task && turn->step->note.empty()) {
    note(LogLevel::kInfo, "turn", std::string(to_string(turn->task->kind)),
         {{"id", turn->task->id}, {"by", turn->task->by}});
    switch (turn->task->kind) {
      case TaskKind::kReload:
        take_turn(turn->task->id, TurnStage::kReload);
        break;
      case TaskKind::kReinit:
        take_turn(turn->task->id, TurnStage::kCopy);
        break;
      case TaskKind::kRemove:
        break;
      case TaskKind::kRestart:
      case TaskKind::kSwitchover:
        take_turn(turn->task->id, TurnStage::kStop);
        break;
    }
    return true;  // once it is on disk
  }
  switch (turn_) {
    case TurnStage::kNone:
    case TurnStage::kReload:
      return false;
    case TurnStage::kStop:
      if (pg_down()) {
        turn_ = TurnStage::kStart;
        return false;
      }
      set_phase(Phase::kStopped, "restart: stopping");
      run(op::CleanStop{kMemberStopLimit});
      return true;
    case TurnStage::kCopy:
      clone(leader, "reinitialisation was asked for");
      return true;
    case TurnStage::kStart:
      if (pg_.run == PgRun::kStandby && pg_.receiver_streaming) end_turn("done");
      return false;
  }
  return false;
}

// ---- dynamic parameters
// --------------------------------------------------------------------------

// When there is nothing better to do. After a restart of the agent once, whatever is on disk.
void Agent::Impl::keep_parameters() {
  const bool asked = turn_ == TurnStage::kReload;
  if (op_running() || kill_ || now_ < reload_retry_at_) return;
  const auto wanted = config().parameters;
  if (!asked && parameters_ == wanted) return;
  run(op::Reload{wanted});
}

void Agent::Impl::op_done(const op::Reload& o, const OpData& data) {
  const bool changed = parameters_ != o.parameters;
  parameters_ = o.parameters;
  parameters_problem_ = data.problem;
  if (!data.problem.empty()) {
    note(LogLevel::kError, "parameters refused", data.problem);
  } else if (changed) {
    note(LogLevel::kInfo, "parameters", "read by PostgreSQL",
         {{"count", std::to_string(o.parameters.size())}});
  }
  if (turn_ == TurnStage::kReload) {
    end_turn(data.problem.empty() ? "done" : "failed: " + data.problem);
  }
}

// Nothing that matters waits for it.
void Agent::Impl::reload_failed(const Error& error) {
  reload_retry_at_ = now_ + kReloadRetry;
  parameters_problem_ = error.to_string();
  if (turn_ == TurnStage::kReload) end_turn("failed: " + error.to_string());
}

}  // namespace bascule::control
