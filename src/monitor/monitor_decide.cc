// When an operation is begun, and why not. Only the holder of the lease comes here.
#include <fmt/format.h>

#include <algorithm>

#include "monitor/monitor_impl.h"

namespace bascule::monitor {
namespace {

bool is_open_request(const ClusterView& view) {
  return view.request && view.request->value.outcome.empty();
}

}  // namespace

void Monitor::Impl::decide() {
  if (leader() == nullptr) return bootstrap();
  if (!view_.monitor->operation) {
    return decline("this cluster is led by agents: a monitor does not interfere");
  }
  if (operation().under_way()) return advance();
  if (is_open_request(view_)) return begin_requested(view_.request->value);
  if (holder().empty()) return discover();
  assess();
  if (pending_ == 0 && !operation().under_way()) guard_strays();
  if (pending_ == 0 && !operation().under_way()) lift_own_fence();
}

// ---- the first primary
// ---------------------------------------------------------------------------

void Monitor::Impl::bootstrap() {
  if (view_.leader_unreadable) return decline("the leader record can't be read");
  if (view_.init) return decline("this cluster is led by agents: a monitor does not interfere");
  Change change;
  change.leader = LeaderRecord{};
  change.leader->ttl = config_.permit;
  change.leader->why = "looking for the primary";
  change.operation = FailoverOperation{};
  write(std::move(change));
}

// Nobody is recorded as the primary: whoever is the only one that accepts writes.
void Monitor::Impl::discover() {
  std::vector<const Endpoint*> writable;
  for (const auto& [name, e] : endpoints_) {
    if (e.verdict == Verdict::kUnknown && e.answer != Answer::kRefused) {
      return wake_at(e.next_probe);  // not all have been looked at
    }
    if (e.up() && e.writable() && !fenced_by_us(name)) writable.push_back(&e);
  }
  if (writable.empty()) return decline("no endpoint accepts writes: name one (failover)");
  if (writable.size() > 1) {
    std::string names;
    for (const Endpoint* e : writable) names += (names.empty() ? "" : ", ") + e->config.name.str();
    return decline(
        "several endpoints accept writes, and which one is meant must be said "
        "(failover --candidate NAME --force): " +
        names);
  }
  const Endpoint& found = *writable.front();
  if (leader()->epoch.value != 0) {
    return begin(FailoverTrigger::kExternal, found.config.name, "it alone accepts writes", nullptr);
  }
  Change change;
  change.unrequested = true;
  LeaderRecord record = *leader();
  record.holder = found.config.name;
  record.epoch = Epoch{1};
  record.phase = LeaderPhase::kRunning;
  record.timeline = found.sample->timeline;
  record.flush_lsn = found.sample->written;
  record.why = "found as the only endpoint that accepts writes";
  HistoryRecord history;
  history.epoch = record.epoch;
  history.leader = record.holder;
  history.timeline = record.timeline;
  history.reason = record.why;
  history.trigger = "bootstrap";
  history.at = wall_;
  change.leader = std::move(record);
  change.history = std::move(history);
  change.operation = operation();
  if (!view_.init) change.init = control::InitRecord{found.sample->system_id, found.config.name};
  note(LogLevel::kInfo, "primary found", change.leader->why,
       {{"endpoint", found.config.name.str()}});
  write(std::move(change));
}

// ---- on request
// ----------------------------------------------------------------------------------

void Monitor::Impl::refuse(const RequestRecord& request, const std::string& why) {
  Change change;
  change.request = request;
  change.request->outcome = "refused: " + why;
  note(LogLevel::kWarn, "request refused", why, {{"request", request.id}, {"by", request.by}});
  write(std::move(change));
}

void Monitor::Impl::begin_requested(const RequestRecord& request) {
  const bool planned = request.kind == control::RequestKind::kSwitchover;
  const Endpoint* primary = endpoint(holder());
  if (planned && (primary == nullptr || !primary->up() || !primary->writable())) {
    return refuse(request, "a switchover needs a primary that accepts writes; failover does not");
  }
  const Lag lag = request.force ? Lag::kAccepted : Lag::kLimited;
  NodeName to = request.candidate;
  if (to.empty()) {
    to = choose(lag, {});
    if (to.empty()) {
      return refuse(request, why_nobody(rank(endpoints_, choice(holder()), config_, lag)));
    }
  }
  if (to == holder()) return refuse(request, to.str() + " is the primary already");
  const Endpoint* target = endpoint(to);
  if (target == nullptr) return refuse(request, "there is no endpoint " + to.str());
  const bool accepts_writes = target->up() && target->writable();
  const Candidate judged = judge(*target, choice(holder()), config_, lag);
  if (!judged.eligible && !(accepts_writes && request.force && !planned)) {
    return refuse(request, fmt::format("{} {}", to.str(), judged.why_not));
  }
  // Before anything is closed: it would stay closed until the operation is given up.
  const bool lets_us_in = primary != nullptr && primary->answer != Answer::kRefused;
  if (!request.force && !holder().empty() && !lets_us_in) {
    return refuse(request, cant_be_fenced(holder()));
  }
  begin(planned ? FailoverTrigger::kSwitchover : FailoverTrigger::kManual, to,
        "asked for by " + request.by, &request);
}

std::string Monitor::Impl::cant_be_fenced(const NodeName& primary) const {
  const Endpoint* from = endpoint(primary);
  if (from == nullptr) {
    return primary.str() + " can't be fenced: it is not configured here; force goes on without";
  }
  return fmt::format(
      "{} lives but refuses the monitor ({}), and can't be fenced; force goes on "
      "without",
      primary.str(), from->error);
}

NodeName Monitor::Impl::choose(Lag lag, const std::vector<NodeName>& except) const {
  const NodeName primary = operation().under_way() ? operation().from : holder();
  for (const Candidate& c : rank(endpoints_, choice(primary), config_, lag)) {
    if (c.eligible && std::ranges::count(except, c.name) == 0) return c.name;
  }
  return {};
}

// ---- by itself
// -----------------------------------------------------------------------------------

std::optional<std::string> Monitor::Impl::trouble_of_primary(const Endpoint& primary) const {
  // Not its verdict: one that answers again, not often enough yet, has stopped failing.
  if (primary.failures >= config_.failure_threshold) {
    return fmt::format("{} has failed {} health checks in a row: {}", primary.config.name.str(),
                       primary.failures, primary.error);
  }
  if (primary.ok() && primary.in_recovery >= config_.failure_threshold) {
    return fmt::format("{} is in recovery: demoted from outside", primary.config.name.str());
  }
  return std::nullopt;
}

// Managed services fail over by themselves: then the new primary is a fact to follow.
const Endpoint* Monitor::Impl::promoted_from_outside(const Endpoint* primary) const {
  const Endpoint* found = nullptr;
  const uint64_t system_id = choice(holder()).system_id;
  for (const auto& [name, e] : endpoints_) {
    if (name == holder() || !e.up() || !e.writable() || fenced_by_us(name)) continue;
    if (e.sample->system_id != 0 && system_id != 0 && e.sample->system_id != system_id) continue;
    const bool demoted = primary != nullptr && primary->in_recovery >= config_.failure_threshold;
    const bool newer = e.sample->timeline.value != 0 && leader()->timeline.value != 0 &&
                       e.sample->timeline > leader()->timeline;
    const bool lost = primary != nullptr && primary->down() && newer;
    if (!demoted && !lost) continue;
    if (found != nullptr) return nullptr;  // two: a person must say
    found = &e;
  }
  return found;
}

// What other monitors see counts: one that is cut off from the primary must not act alone.
std::string Monitor::Impl::dissent(const NodeName& primary) const {
  const Millis fresh = config_.lease_ttl * 2;
  int agree = 1, reach = 0;
  std::string who;
  for (const auto& [name, seen] : view_.monitor->observers) {
    if (name == config_.name) continue;
    const auto at = observers_.find(name);
    if (at == observers_.end() || now_ - at->second.at > fresh) continue;
    if (std::ranges::count(seen.value.unreachable, primary) > 0) ++agree;
    if (std::ranges::count(seen.value.reachable, primary) > 0) ++reach, who = name;
  }
  if (agree > reach) return "";
  return fmt::format("monitor {} reaches it ({} monitors do, {} don't)", who, reach, agree);
}

// The best witness: a standby that heard from the primary after it had failed its first check.
std::string Monitor::Impl::still_streams_from_it(const Endpoint& primary) const {
  constexpr Millis kInFlight{200};
  if (!primary.failing_since) return "";
  for (const auto& [name, e] : endpoints_) {
    if (name == primary.config.name || !e.standby() || !e.sample->streaming) continue;
    if (!e.sample->receiver_silence) continue;
    if (e.begun - *e.sample->receiver_silence > *primary.failing_since + kInFlight) {
      return fmt::format("{} still streams from it", name.str());
    }
  }
  return "";
}

std::string Monitor::Impl::why_not_automatic(const Endpoint& primary) const {
  if (view_.paused) return "the cluster is paused";
  if (!config_.automatic) return "automatic failover is switched off";
  if (auto other = dissent(primary.config.name); !other.empty()) return other;
  if (primary.failures > 0) {
    if (auto witness = still_streams_from_it(primary); !witness.empty()) return witness;
  }
  const bool after_automatic =
      !view_.history.empty() && view_.history.rbegin()->second.trigger == "automatic";
  if (took_part_ && after_automatic && opened_at_ != MonoTime{} &&
      now_ < opened_at_ + config_.cooldown) {
    return fmt::format("the last automatic failover was less than {} ms ago (cooldown)",
                       config_.cooldown.count());
  }
  return "";
}

void Monitor::Impl::assess() {
  const Endpoint* primary = endpoint(holder());
  if (const Endpoint* other = promoted_from_outside(primary); other != nullptr && !view_.paused) {
    return begin(FailoverTrigger::kExternal, other->config.name,
                 "it was promoted from outside, and the primary of the record no longer serves",
                 nullptr);
  }
  if (primary == nullptr) {
    return decline(
        fmt::format("{} leads, and is not among this monitor's endpoints", holder().str()));
  }
  const auto trouble = trouble_of_primary(*primary);
  if (!trouble) return decline("");
  if (auto obstacle = why_not_automatic(*primary); !obstacle.empty()) {
    return decline(fmt::format("{}; no failover: {}", *trouble, obstacle));
  }
  const NodeName to = choose(Lag::kLimited, {});
  if (to.empty()) {
    return decline(
        fmt::format("{}; no failover: nobody may take over: {}", *trouble,
                    why_nobody(rank(endpoints_, choice(holder()), config_, Lag::kLimited))));
  }
  begin(FailoverTrigger::kAutomatic, to, *trouble, nullptr);
}

void Monitor::Impl::begin(FailoverTrigger trigger, const NodeName& to, const std::string& reason,
                          const RequestRecord* request) {
  const bool planned = trigger == FailoverTrigger::kSwitchover;
  Change change;
  FailoverOperation op;
  op.step = planned ? FailoverStep::kDraining : FailoverStep::kClosing;
  op.trigger = trigger;
  op.from = holder();
  op.to = to;
  op.reason = reason;
  op.epoch = leader()->epoch;
  op.started_at = wall_;
  op.fenced = operation().fenced;
  if (request != nullptr) {
    op.request_id = request->id;
    op.force = request->force;
    change.request = *request;
    change.request->progress = planned ? "draining" : "stopping";
  }
  change.unrequested = request == nullptr;
  LeaderRecord record = *leader();
  record.why = reason;
  record.request_id = op.request_id;
  if (planned) {
    record.phase = LeaderPhase::kDraining;
  } else {
    record.phase = LeaderPhase::kVacant;
    record.holder = {};
  }
  record.handover_to = to;
  note(LogLevel::kWarn, planned ? "switchover begun" : "failover begun", reason,
       {{"from", op.from.str()},
        {"to", to.str()},
        {"trigger", std::string(to_string(trigger))},
        {"epoch", std::to_string(op.epoch.value)}});
  declined_.clear();
  change.leader = std::move(record);
  change.operation = std::move(op);
  write(std::move(change));
}

// ---- databases that must not be written to
// -------------------------------------------------------

// An endpoint that accepts writes, isn't the primary and is of the same system has parted from it.
// One of another system may be meant to be written to (a target of logical replication).
void Monitor::Impl::guard_strays() {
  const Endpoint* primary = endpoint(holder());
  if (!routed() || action_ || primary == nullptr || !primary->up() || !primary->writable()) return;
  const uint64_t system_id = choice(holder()).system_id;
  for (const auto& [name, e] : endpoints_) {
    if (name == holder() || !e.up() || !e.writable()) continue;
    // Seen to accept writes at the same time: else it may be the one that was promoted from outside
    // while the primary was demoted, a moment ago.
    if (!primary->checked_since(*e.writable_since)) continue;
    if (system_id == 0 || e.sample->system_id != system_id) continue;
    if (now_ < next_action_[name]) {
      wake_at(next_action_[name]);
      continue;
    }
    if (fenced_by_us(name)) {
      note(LogLevel::kWarn, "fencing", "accepts writes and is not the primary",
           {{"endpoint", name.str()}});
      act(ActionKind::kFence, name);
      return;
    }
    Change change;
    change.operation = operation();
    change.operation->fenced.push_back(name);
    return write(std::move(change));
  }
}

// After an operation that was given up, its old primary leads again.
void Monitor::Impl::lift_own_fence() {
  if (!routed() || action_) return;
  for (const NodeName& name : operation().fenced) {
    const Endpoint* e = endpoint(name);
    const bool leads = name == holder();
    if (e != nullptr && leads && e->ok() && !e->sample->in_recovery && e->sample->read_only) {
      if (now_ < next_action_[name]) return wake_at(next_action_[name]);
      act(ActionKind::kUnfence, name);
      return;
    }
    const bool over = e == nullptr || (leads && e->writable()) || (!leads && e->standby());
    if (!over) continue;
    Change change;
    change.operation = operation();
    std::erase(change.operation->fenced, name);
    return write(std::move(change));
  }
}

}  // namespace bascule::monitor
