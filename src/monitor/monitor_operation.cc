// The steps of an operation. Each is in the store before it is acted on, so that another monitor
// goes on where one stopped:
//
//   draining -> closing -> catching up -> promoting -> none (the record is open)
//      planned  |   old primary fenced ^     |
//               |                            +--> closing (another candidate)
//               +--> none (given up: the old primary's record is open again, same epoch)
#include <fmt/format.h>

#include <algorithm>

#include "monitor/monitor_impl.h"

namespace bascule::monitor {
namespace {

constexpr int kFenceAttempts = 3;

bool named_by_request(const ClusterView& view, const FailoverOperation& op) {
  return !op.request_id.empty() && view.request && view.request->value.id == op.request_id &&
         !view.request->value.candidate.empty();
}

}  // namespace

void Monitor::Impl::advance() {
  switch (operation().step) {
    case FailoverStep::kNone:
      return;
    case FailoverStep::kDraining:
      return drain();
    case FailoverStep::kClosing:
      return close();
    case FailoverStep::kCatchingUp:
      return catch_up();
    case FailoverStep::kPromoting:
      return try_promotion();
  }
}

// ---- draining and closing
// ------------------------------------------------------------------------

// Everyone who could have a permit has said that he acts by the record as it is now.
bool Monitor::Impl::proxies_act_by_it() const {
  const MonoTime since = closed_since_.value_or(step_since_);
  if (view_begun_ < since) return false;
  return std::ranges::all_of(view_.monitor->proxies, [&](const auto& entry) {
    return entry.second.acts_by >= view_.leader_revision;
  });
}

void Monitor::Impl::drain() {
  const FailoverOperation& op = operation();
  const Endpoint* from = endpoint(op.from);
  if (from == nullptr || !from->up() || !from->ok()) {
    return give_up(op.from.str() + " stopped answering during the switchover");
  }
  const MonoTime limit = step_since_ + config_.drain_timeout;
  if (!proxies_act_by_it() && now_ < limit) return wake_at(limit);
  Change change;
  change.operation = op;
  change.operation->step = FailoverStep::kClosing;
  change.operation->fenced.push_back(op.from);  // before it is tried
  change.leader = *leader();
  change.leader->phase = LeaderPhase::kVacant;
  change.leader->holder = {};
  if (view_.request && view_.request->value.id == op.request_id) {
    change.request = view_.request->value;
    change.request->progress = "stopping";
  }
  write(std::move(change));
}

bool Monitor::Impl::closed() const {
  if (unsafe_.skip_permit_wait) return true;
  if (!closed_since_) return false;
  if (proxies_act_by_it()) return true;
  // A tenth for clocks that run at different speeds.
  return now_ >= *closed_since_ + leader()->ttl * 11 / 10;
}

bool Monitor::Impl::answers_again() const {
  const Endpoint* from = endpoint(operation().from);
  if (from == nullptr || !closed_since_ || !from->checked_since(*closed_since_)) return false;
  return from->answer == Answer::kRefused || from->writable();
}

std::string Monitor::Impl::obstacle() const {
  const FailoverOperation& op = operation();
  if (op.from.empty() || op.from == op.to || unsafe_.skip_second_look) return "";
  const Endpoint* from = endpoint(op.from);
  if (from == nullptr) return op.from.str() + " can't be looked at: it is not configured here";
  if (fenced_at_) return "";
  if (!from->checked_since(*closed_since_)) {
    return op.from.str() + " has not been looked at since the record was closed";
  }
  if (from->failures >= config_.failure_threshold) return "";
  if (from->standby()) return "";
  if (from->answer == Answer::kDown) return op.from.str() + " failed a check, not enough of them";
  return op.from.str() + " still answers and is not fenced";
}

void Monitor::Impl::fence_old_primary() {
  const FailoverOperation& op = operation();
  const Endpoint* from = endpoint(op.from);
  if (from == nullptr || op.from == op.to || fenced_at_ || action_) return;
  if (!from->ok() || from->standby() || fence_failures_ >= kFenceAttempts) return;
  if (now_ < next_action_[op.from]) return wake_at(next_action_[op.from]);
  if (!fenced_by_us(op.from)) {
    Change change;
    change.operation = op;
    change.operation->fenced.push_back(op.from);
    return write(std::move(change));
  }
  act(ActionKind::kFence, op.from);
}

void Monitor::Impl::close() {
  const FailoverOperation& op = operation();
  const bool automatic = op.trigger == FailoverTrigger::kAutomatic;
  const bool epoch_is_old = leader()->epoch == op.epoch;
  if (automatic && epoch_is_old && op.from != op.to && answers_again()) {
    return give_up(op.from.str() + " answers again");
  }
  // An epoch was given to a candidate that could not be promoted: this can't be given up any more.
  // The old primary has everything, and nobody else was routed to.
  if (automatic && !epoch_is_old && op.from != op.to && answers_again() && back_to_old_primary()) {
    return;
  }
  const Endpoint* from = endpoint(op.from);
  const Millis limit = from != nullptr ? from->config.failover_timeout : Millis{300000};
  const std::string why = closed_since_ ? obstacle() : "the record is not closed";
  if (epoch_is_old && now_ >= step_since_ + limit) {
    return give_up(fmt::format("not done within {} ms: {}", limit.count(),
                               why.empty() ? target_problem() : why));
  }
  wake_at(step_since_ + limit);
  if (!closed()) {
    if (closed_since_) wake_at(*closed_since_ + leader()->ttl * 11 / 10);
    return;
  }
  if ((!automatic || !epoch_is_old) && !why.empty()) {
    fence_old_primary();
    if (pending_ != 0) return;
  }
  const bool insists = op.force && (fence_failures_ > 0 || from == nullptr || !from->ok());
  if (!why.empty() && !insists) {
    const bool refuses = from != nullptr && from->answer == Answer::kRefused;
    if (op.trigger == FailoverTrigger::kManual && epoch_is_old && refuses) {
      return give_up(cant_be_fenced(op.from));
    }
    if (fence_failures_ < kFenceAttempts) return;
    if (!epoch_is_old) {
      if (back_to_old_primary()) return;
      return decline(fmt::format("nobody may take over: {}: {}", why, action_error_));
    }
    return give_up(fmt::format("{}: {}", why, action_error_));
  }
  const bool planned = op.trigger == FailoverTrigger::kSwitchover;
  if (planned && !fenced_at_) return give_up(op.from.str() + " went away during the switchover");
  if (!planned && !awaits_last_wal()) return begin_promotion();
  Change change;
  change.operation = op;
  change.operation->step = FailoverStep::kCatchingUp;
  change.operation->final_lsn = fenced_lsn_;
  write(std::move(change));
}

// On request: the old primary was alive enough to be fenced, and its last position is known. What
// accepts writes already has parted from it: nothing more arrives there.
bool Monitor::Impl::awaits_last_wal() const {
  const Endpoint* to = endpoint(operation().to);
  return operation().trigger == FailoverTrigger::kManual && fenced_at_ && fenced_lsn_.valid() &&
         (to == nullptr || !to->writable());
}

bool Monitor::Impl::has_last_wal(const Endpoint& to) const {
  const Lsn last = operation().final_lsn;
  return to.standby() && to.checked_since(step_since_) && last.valid() &&
         to.sample->replayed >= last;
}

void Monitor::Impl::catch_up() {
  const FailoverOperation& op = operation();
  const Endpoint* to = endpoint(op.to);
  // A request may go on without: a person insists, or an epoch is given away already and the old
  // primary doesn't come back.
  const bool planned = op.trigger == FailoverTrigger::kSwitchover;
  const bool goes_on = !planned && (op.force || leader()->epoch != op.epoch);
  if (to == nullptr || !to->up()) {
    const std::string why =
        fmt::format("{} went down while it caught up with {}", op.to.str(), op.from.str());
    return leader()->epoch == op.epoch ? give_up(why) : next_candidate(why);
  }
  if (has_last_wal(*to) || unsafe_.skip_catch_up || (!planned && to->writable())) {
    return begin_promotion();
  }
  const MonoTime limit = step_since_ + config_.catch_up_timeout;
  if (now_ < limit) return wake_at(limit);
  if (goes_on) return begin_promotion();
  give_up(fmt::format("{} has not replayed up to {} within {} ms", op.to.str(),
                      op.final_lsn.to_string(), config_.catch_up_timeout.count()));
}

// ---- promoting
// -----------------------------------------------------------------------------------

// Empty: the target may be promoted now. It is looked at again after the closing: what was true of
// it when it was chosen may have changed.
std::string Monitor::Impl::target_problem() const {
  const FailoverOperation& op = operation();
  const Endpoint* to = endpoint(op.to);
  if (to == nullptr) return op.to.str() + " is not configured here";
  if (to->up() && to->writable()) return "";  // promoted already, by whomever
  const bool all_is_there =
      op.step == FailoverStep::kCatchingUp &&
      (op.trigger == FailoverTrigger::kSwitchover || (to->sample && has_last_wal(*to)));
  const Lag lag = op.force || all_is_there ? Lag::kAccepted : Lag::kLimited;
  Choice wanted = choice(op.from);
  if (op.to == op.from) return op.to.str() + " does not accept writes";
  const Candidate judged = judge(*to, wanted, config_, lag);
  return judged.eligible ? "" : fmt::format("{} {}", op.to.str(), judged.why_not);
}

void Monitor::Impl::begin_promotion() {
  FailoverOperation op = operation();
  const Endpoint* to = endpoint(op.to);
  if (to != nullptr && closed_since_ && !to->checked_since(*closed_since_)) return;
  if (const std::string problem = target_problem(); !problem.empty()) {
    const bool planned = op.trigger == FailoverTrigger::kSwitchover;
    NodeName other;
    if (!named_by_request(view_, op) && !planned) other = choose(Lag::kLimited, op.failed);
    if (!other.empty() && other != op.to) {
      note(LogLevel::kWarn, "another candidate", problem, {{"to", other.str()}});
      Change change;
      change.operation = op;
      change.operation->to = other;
      return write(std::move(change));
    }
    // Once a new epoch is given away nothing is taken back: it stays closed until somebody may.
    if (leader()->epoch == op.epoch) return give_up(problem);
    return decline("nobody may take over: " + problem);
  }
  Change change;
  op.step = FailoverStep::kPromoting;
  LeaderRecord record = *leader();
  record.epoch = leader()->epoch.next();
  record.holder = op.to;
  record.phase = LeaderPhase::kPreparing;
  record.timeline = Timeline{leader()->timeline.value + 1};
  record.why = op.reason;
  HistoryRecord history;
  history.epoch = record.epoch;
  history.leader = op.to;
  history.parent_epoch = op.epoch;
  history.timeline = record.timeline;
  if (to->sample) history.fork = {leader()->timeline, to->sample->replayed};
  history.reason = op.reason;
  history.trigger = op.trigger == FailoverTrigger::kManual && op.force
                        ? "forced"
                        : std::string(to_string(op.trigger));
  history.at = wall_;
  if (view_.request && view_.request->value.id == op.request_id && !op.request_id.empty()) {
    change.request = view_.request->value;
    change.request->progress = "handed over";
  }
  note(LogLevel::kWarn, "promoting", op.reason,
       {{"endpoint", op.to.str()}, {"epoch", std::to_string(record.epoch.value)}});
  change.leader = std::move(record);
  change.history = std::move(history);
  change.operation = std::move(op);
  write(std::move(change));
}

void Monitor::Impl::try_promotion() {
  const FailoverOperation& op = operation();
  const Endpoint* to = endpoint(op.to);
  if (to != nullptr && to->checked_since(step_since_) && to->writable()) return open(*to);
  if (action_) return;
  const MonoTime limit = step_since_ + config_.promote_timeout;
  if (to == nullptr || now_ >= limit) {
    return next_candidate(fmt::format("{} was not promoted within {} ms: {}", op.to.str(),
                                      config_.promote_timeout.count(), action_error_));
  }
  wake_at(limit);
  if (now_ < next_action_[op.to]) return wake_at(next_action_[op.to]);
  act(ActionKind::kPromote, op.to);
}

void Monitor::Impl::open(const Endpoint& target) {
  FailoverOperation op = operation();
  Change change;
  LeaderRecord record = *leader();
  record.phase = LeaderPhase::kRunning;
  record.ttl = config_.permit;
  record.handover_to = {};
  record.request_id = "";
  record.timeline = target.sample->timeline.value != 0 ? target.sample->timeline : record.timeline;
  record.flush_lsn = target.sample->written;
  const auto took = std::max(Millis{0}, wall_ - op.started_at);
  if (const auto found = view_.history.find(record.epoch); found != view_.history.end()) {
    change.history = found->second;
    change.history->timeline = record.timeline;
    change.history->gap_ms = took.count();
  }
  if (view_.request && view_.request->value.id == op.request_id && !op.request_id.empty()) {
    change.request = view_.request->value;
    change.request->outcome = "done";
  }
  note(LogLevel::kInfo, "failover completed", op.reason,
       {{"from", op.from.str()},
        {"to", op.to.str()},
        {"epoch", std::to_string(record.epoch.value)},
        {"took_ms", std::to_string(took.count())}});
  FailoverOperation none;
  none.fenced = op.fenced;
  std::erase(none.fenced, op.to);
  change.leader = std::move(record);
  change.operation = std::move(none);
  write(std::move(change));
}

// The target can't be promoted. Its epoch was given away and never opened: another one is taken for
// another endpoint, or for the old primary if that accepts writes again.
void Monitor::Impl::next_candidate(const std::string& why) {
  FailoverOperation op = operation();
  op.failed.push_back(op.to);
  NodeName other = choose(op.force ? Lag::kAccepted : Lag::kLimited, op.failed);
  const Endpoint* from = endpoint(op.from);
  if (other.empty() && from != nullptr && from->up() && from->writable()) other = op.from;
  if (other.empty()) {
    decline(why + "; there is no other candidate: tried again");
    step_since_ = now_;
    action_error_.clear();
    return;
  }
  Change change;
  op.to = other;
  op.step = FailoverStep::kClosing;
  change.leader = *leader();
  change.leader->phase = LeaderPhase::kVacant;
  change.leader->holder = {};
  change.leader->handover_to = other;
  change.leader->why = why;
  change.operation = std::move(op);
  note(LogLevel::kWarn, "another candidate", why, {{"to", other.str()}});
  write(std::move(change));
}

// The old primary accepts writes: it gets an epoch of its own, like any other candidate.
bool Monitor::Impl::back_to_old_primary() {
  FailoverOperation op = operation();
  const Endpoint* from = endpoint(op.from);
  if (from == nullptr || !from->up() || !from->writable() || op.from == op.to) return false;
  Change change;
  note(LogLevel::kWarn, "another candidate", "the old primary answers again",
       {{"to", op.from.str()}});
  op.to = op.from;
  change.operation = std::move(op);
  write(std::move(change));
  return true;
}

// Nothing has been promoted: the old primary's record is opened again, under its epoch.
void Monitor::Impl::give_up(const std::string& why) {
  const FailoverOperation op = operation();
  Change change;
  LeaderRecord record = *leader();
  record.handover_to = {};
  record.request_id = "";
  if (op.from.empty()) {
    record.phase = LeaderPhase::kVacant;
    record.holder = {};
  } else {
    record.phase = LeaderPhase::kRunning;
    record.holder = op.from;
  }
  record.why = "failover given up: " + why;
  FailoverOperation none;
  none.fenced = op.fenced;
  if (view_.request && view_.request->value.id == op.request_id && !op.request_id.empty()) {
    change.request = view_.request->value;
    change.request->outcome = "failed: " + why;
  }
  note(LogLevel::kWarn, "failover given up", why,
       {{"from", op.from.str()}, {"to", op.to.str()}, {"step", std::string(to_string(op.step))}});
  change.leader = std::move(record);
  change.operation = std::move(none);
  write(std::move(change));
}

}  // namespace bascule::monitor
