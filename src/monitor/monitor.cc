// Events in, effects out: probes, the store, the lease.
#include "monitor/monitor.h"

#include <fmt/format.h>

#include <algorithm>

#include "monitor/monitor_impl.h"

namespace bascule::monitor {
namespace {

constexpr Millis kProbeGrace{500};  // an answer may be a little late
constexpr Millis kFastProbe{500};   // while an operation is under way
constexpr Millis kRetryRead{250};

Millis fence_after(Millis ttl) { return ttl * 6 / 10; }

}  // namespace

Monitor::Impl::Impl(MonitorConfig config, MonoTime now, UnsafeMutations unsafe)
    : config_(std::move(config)),
      unsafe_(unsafe),
      keys_(config_.cluster),
      monitor_keys_(keys_.prefix),
      now_(now) {
  if (unsafe_.ignore_threshold) config_.failure_threshold = 1;
  if (unsafe_.ignore_lag) config_.maximum_lag_bytes = UINT64_MAX;
  for (const EndpointConfig& e : config_.endpoints) {
    Endpoint& endpoint = endpoints_[e.name];
    endpoint.config = e;
    endpoint.next_probe = now;
  }
  next_read_ = now;
  next_observation_ = now;
  health_.monitor = config_.name;
}

Effects Monitor::Impl::start(MonoTime now) { return step(event::Tick{}, now); }

Effects Monitor::Impl::step(const Event& event, MonoTime now) {
  const auto away = std::chrono::duration_cast<Millis>(now - now_);
  now_ = std::max(now_, now);
  wake_ = now_ + config_.lease_ttl / 5;
  effects_.clear();
  // Longer than it may act without the lease: others may have acted meanwhile.
  if (away > fence_after(config_.lease_ttl) && !unsafe_.act_without_lease) resume(away);
  std::visit([this](const auto& e) { on(e); }, event);
  think();
  return std::move(effects_);
}

// This process was not run (it asks to be woken every lease_ttl / 5). What it had seen says nothing
// about the time since: rows of checks begin anew, a check that was under way has not failed, and
// the primary may have written a lot. It stays comparable only if its record was closed all along.
void Monitor::Impl::resume(Millis away) {
  note(LogLevel::kWarn, "was not run",
       fmt::format("for {} ms: looks at everything again", away.count()));
  resumed_at_ = now_;
  have_view_ = false;
  next_read_ = now_;
  for (auto& [name, e] : endpoints_) {
    e.begin_anew();
    e.next_probe = now_;
  }
  away_ = away;
  if (!closed_since_) written_.clear();
}

// After resume(): the store was, and every endpoint has answered or failed a check since.
bool Monitor::Impl::looked_again() {
  if (!resumed_at_) return true;
  for (const auto& [name, e] : endpoints_) {
    if (!e.checked_since(*resumed_at_)) return false;
  }
  resumed_at_.reset();
  return true;
}

void Monitor::Impl::think() {
  time_out_probes();
  schedule_probes();
  read_if_due();
  if (pending_ != 0 || !have_view_) return;
  if (view_.monitor && view_.monitor->unreadable) {
    return decline("the records of the monitors can't be read: nobody acts on a guess");
  }
  const bool looked = looked_again();
  elect();
  if (pending_ == 0 && looked && leading()) decide();
  if (pending_ == 0) renew_if_due();
  if (pending_ == 0 && !mine_) observe();
  refresh_health();
}

bool Monitor::Impl::leading() const {
  return mine_ && (now_ < lead_until_ || unsafe_.act_without_lease);
}

// ---- probes
// --------------------------------------------------------------------------------------

Millis Monitor::Impl::interval_of(const Endpoint& e) const {
  return operation().under_way() ? std::min(kFastProbe, e.config.health_interval)
                                 : e.config.health_interval;
}

void Monitor::Impl::schedule_probes() {
  for (auto& [name, e] : endpoints_) {
    if (e.probe_id != 0) {
      wake_at(e.probe_deadline + kProbeGrace);
      continue;
    }
    // An operation begins: what was planned for later is wanted sooner.
    e.next_probe = std::min(e.next_probe, e.probe_begun + interval_of(e));
    if (now_ >= e.next_probe) {
      e.probe_id = next_id_++;
      e.probe_begun = now_;
      e.probe_deadline = now_ + config_.probe_timeout;
      e.next_probe = now_ + interval_of(e);
      effects_.push_back(effect::Probe{e.probe_id, name, e.probe_deadline});
      wake_at(e.probe_deadline + kProbeGrace);
    } else {
      wake_at(e.next_probe);
    }
  }
}

// A resolver that hangs has no deadline of its own: the check counts as failed all the same.
void Monitor::Impl::time_out_probes() {
  for (auto& [name, e] : endpoints_) {
    if (e.probe_id == 0 || now_ < e.probe_deadline + kProbeGrace) continue;
    on(event::Probed{
        e.probe_id, name, Answer::kDown, {}, "no answer in time", config_.probe_timeout});
  }
}

void Monitor::Impl::on(const event::Probed& e) {
  Endpoint* endpoint = this->endpoint(e.endpoint);
  if (endpoint == nullptr || e.id != endpoint->probe_id) return;
  endpoint->probe_id = 0;
  const auto change = endpoint->on_check(e, endpoint->probe_begun, now_, wall_, config_);
  if (endpoint->answer == Answer::kDown) ++health_.check_failures;
  if (change.changed()) {
    next_renew_ = next_observation_ = now_;  // others want to know now
    const bool down = change.after == Verdict::kDown;
    note(down ? LogLevel::kWarn : LogLevel::kInfo, down ? "endpoint down" : "endpoint up",
         down ? fmt::format("{} health checks in a row failed: {}", endpoint->failures,
                            endpoint->error)
              : "it answers",
         {{"endpoint", e.endpoint.str()}});
    if (down) was_lost_[e.endpoint] = true;
  }
  if (endpoint->ok() && e.endpoint == holder()) note_position(*endpoint);
}

void Monitor::Impl::note_position(const Endpoint& primary) {
  constexpr size_t kKept = 32;
  const Sample& sample = *primary.sample;
  // Demoted before this monitor saw it: where it has got to is better than nothing.
  if (sample.in_recovery && (!written_.empty() || !sample.received.valid())) return;
  written_.emplace_back(primary.begun, sample.in_recovery ? sample.received : sample.written);
  if (written_.size() > kKept) written_.pop_front();
}

void Monitor::Impl::on(const event::CheckNow&) {
  for (auto& [name, e] : endpoints_) e.next_probe = now_, e.probe_begun = {};
}

// ---- store
// ---------------------------------------------------------------------------------------

void Monitor::Impl::read_if_due() {
  if (reading_) return;
  if (now_ < next_read_) return wake_at(next_read_);
  reading_ = true;
  next_read_ = now_ + config_.lease_ttl / 5;
  effects_.push_back(effect::ReadStore{});
}

void Monitor::Impl::on(const event::StoreRead& e) {
  reading_ = false;
  if (!e.view) {
    next_read_ = now_ + kRetryRead;
    return;
  }
  // What we have written since is newer than what this read may show.
  if (pending_ != 0 || e.begun < committed_at_ || (resumed_at_ && e.begun < *resumed_at_)) {
    next_read_ = now_;
    return;
  }
  view_ = *e.view;
  view_begun_ = e.begun;
  have_view_ = true;
  const store::Revision lease = view_.monitor ? view_.monitor->lease_revision : 0;
  if (lease != lease_seen_ || lease_seen_at_ == MonoTime{}) {
    lease_seen_ = lease;
    lease_seen_at_ = now_;
  }
  const bool was_mine = mine_;
  mine_ = view_.monitor && view_.monitor->lease &&
          view_.monitor->lease->value.holder == config_.name &&
          view_.monitor->lease->value.instance == config_.instance;
  if (was_mine && !mine_) {
    lead_until_ = {};
    action_.reset();
    note(LogLevel::kWarn, "lease lost", "another monitor acts now",
         {{"holder", view_.monitor && view_.monitor->lease ? view_.monitor->lease->value.holder
                                                           : std::string("nobody")}});
  }
  if (view_.monitor) {
    for (const auto& [name, observer] : view_.monitor->observers) {
      ObserverSeen& seen = observers_[name];
      if (seen.revision != observer.revision) seen = {observer.revision, now_};
    }
  }
  if (view_.leader_revision != record_seen_) {
    // Another one wrote it: what it was in between is not known.
    closed_since_.reset();
    if (resumed_at_) written_.clear();
  }
  note_record();
}

void Monitor::Impl::on(const event::StoreCommitted& e) {
  if (e.id != pending_) return;
  pending_ = 0;
  committed_at_ = now_;
  next_read_ = now_;
  auto applied = std::move(pending_applied_);
  pending_applied_ = nullptr;
  if (e.result.outcome != store::TxnOutcome::kCommitted) {
    // Conflict: somebody else wrote. Unknown: settled by the next transaction, whose compares hold
    // only if this one neither was nor will be applied. Either way: look first.
    have_view_ = false;
    published_.clear();
    return;
  }
  applied(e.result.revision);
}

void Monitor::Impl::commit(store::Txn txn, std::function<void(store::Revision)> applied) {
  pending_ = next_id_++;
  pending_sent_ = now_;
  pending_applied_ = std::move(applied);
  effects_.push_back(effect::CommitStore{pending_, std::move(txn)});
}

void Monitor::Impl::elect() {
  if (mine_) return;
  MonitorLease lease;
  if (lease_seen_ != 0) {
    if (!view_.monitor || !view_.monitor->lease) return;
    lease = view_.monitor->lease->value;
    const MonoTime expires = lease_seen_at_ + lease.ttl;
    // By a read that was begun after it: one from before may not show a late renewal.
    if (now_ < expires) return wake_at(expires);
    if (view_begun_ < expires) {
      next_read_ = std::min(next_read_, now_);
      return read_if_due();
    }
  }
  const std::string before = lease.holder;
  lease = {config_.name, config_.instance, lease.term + 1, 0, config_.lease_ttl};
  store::Txn txn;
  txn.compares.push_back({monitor_keys_.lease(), lease_seen_});
  txn.writes.push_back({monitor_keys_.lease(), encode(lease)});
  commit(std::move(txn), [this, lease, before, sent = now_](store::Revision revision) {
    mine_ = true;
    lease_seen_ = revision;
    lease_seen_at_ = now_;
    lead_until_ = sent + fence_after(config_.lease_ttl);
    next_renew_ = now_;
    published_.clear();
    action_.reset();
    fenced_at_.reset();  // an operation of another monitor is looked at afresh
    fence_failures_ = 0;
    step_since_ = now_;
    if (!view_.monitor) view_.monitor.emplace();
    view_.monitor->lease = {lease, revision};
    view_.monitor->lease_revision = revision;
    note(LogLevel::kInfo, "lease taken",
         before.empty() ? "there was no monitor" : before + " has not renewed it",
         {{"term", std::to_string(lease.term)}});
  });
}

void Monitor::Impl::renew_if_due() {
  if (!mine_) return;
  if (now_ < next_renew_) return wake_at(next_renew_);
  write({});
}

void Monitor::Impl::write(Change change) {
  store::Txn txn;
  MonitorLease lease = view_.monitor->lease->value;
  ++lease.counter;
  lease.ttl = config_.lease_ttl;
  txn.compares.push_back({monitor_keys_.lease(), lease_seen_});
  txn.writes.push_back({monitor_keys_.lease(), encode(lease)});
  if (change.leader || change.operation) {
    txn.compares.push_back({keys_.leader(), view_.leader_revision});
    const auto& operation = view_.monitor->operation;
    txn.compares.push_back({monitor_keys_.operation(), operation ? operation->revision : 0});
  }
  if (change.request || change.unrequested) {
    txn.compares.push_back({keys_.request(), view_.request ? view_.request->revision : 0});
  }
  if (change.unrequested) txn.compares.push_back({keys_.pause(), 0});
  if (change.init) txn.compares.push_back({keys_.init(), 0});
  if (change.leader) {
    ++change.leader->counter;
    txn.writes.push_back({keys_.leader(), control::encode(*change.leader)});
  }
  if (change.operation) {
    txn.writes.push_back({monitor_keys_.operation(), encode(*change.operation)});
  }
  if (change.history) {
    txn.writes.push_back({keys_.history(change.history->epoch), control::encode(*change.history)});
  }
  if (change.request) txn.writes.push_back({keys_.request(), control::encode(*change.request)});
  if (change.init) txn.writes.push_back({keys_.init(), control::encode(*change.init)});
  next_renew_ = now_ + config_.lease_ttl / 5;
  refresh_health();
  publish(txn);
  commit(std::move(txn),
         [this, lease, change = std::move(change), sent = now_](store::Revision revision) {
           lease_seen_ = revision;
           lease_seen_at_ = now_;
           lead_until_ = std::max(lead_until_, sent + fence_after(config_.lease_ttl));
           view_.monitor->lease = {lease, revision};
           view_.monitor->lease_revision = revision;
           apply(change, revision);
         });
}

void Monitor::Impl::apply(const Change& change, store::Revision revision) {
  if (change.leader) {
    view_.leader = {*change.leader, revision};
    view_.leader_revision = revision;
  }
  if (change.operation) view_.monitor->operation = {*change.operation, revision};
  if (change.history) view_.history[change.history->epoch] = *change.history;
  if (change.request) view_.request = {*change.request, revision};
  if (change.init) view_.init = {*change.init, revision};
  if (change.operation && !change.operation->under_way()) next_renew_ = now_;  // tell the outcome
  note_record();
}

bool Monitor::Impl::routed() const {
  return leader() != nullptr &&
         (leader()->phase == LeaderPhase::kRunning || leader()->phase == LeaderPhase::kDraining);
}

void Monitor::Impl::note_record() {
  record_seen_ = view_.leader_revision;
  if (routed() || leader() == nullptr) {
    closed_since_.reset();
  } else if (!closed_since_) {
    closed_since_ = now_;
  }
  const FailoverOperation& op = operation();
  if (op.step != step_seen_) {
    if (step_seen_ == FailoverStep::kNone) {
      fenced_at_.reset();
      fence_failures_ = 0;
      action_error_.clear();
      next_action_.clear();
    }
    step_seen_ = op.step;
    step_since_ = now_;
  }
  if (leader() == nullptr) return;
  if (leader()->epoch != epoch_seen_) {
    took_part_ = epoch_seen_.value != 0;
    opened_at_ = {};
    epoch_seen_ = leader()->epoch;
    written_.clear();  // positions of two timelines are not compared
  }
  if (took_part_ && routed() && opened_at_ == MonoTime{}) {
    opened_at_ = now_;
    if (!resumed_at_ && written_.empty()) written_.emplace_back(now_, leader()->flush_lsn);
  }
  // Checked before it was known to be the primary.
  const Endpoint* primary = endpoint(holder());
  if (!written_.empty() || primary == nullptr || !primary->ok()) return;
  if (!resumed_at_ || primary->checked_since(*resumed_at_)) note_position(*primary);
}

// ---- actions
// -------------------------------------------------------------------------------------

uint64_t Monitor::Impl::act(ActionKind kind, const NodeName& name) {
  const uint64_t id = next_id_++;
  action_ = Action{id, kind, name, now_};
  effects_.push_back(effect::Act{id, kind, name,
                                 unsafe_.act_without_lease ? MonoTime::max() : lead_until_,
                                 now_ + config_.action_timeout});
  return id;
}

void Monitor::Impl::on(const event::ActionDone& e) {
  if (!action_ || action_->id != e.id) return;
  const Action done = *action_;
  action_.reset();
  Endpoint* target = endpoint(done.endpoint);
  if (target != nullptr)
    target->next_probe = now_, target->probe_begun = {};  // see what came of it
  const bool fence = done.kind == ActionKind::kFence;
  if (e.result) {
    action_error_.clear();
    next_action_[done.endpoint] = now_ + (fence ? 5s : 1s);
    if (fence && operation().under_way() && done.endpoint == operation().from) {
      fenced_at_ = done.begun;
      fenced_lsn_ = e.result->lsn;
    }
    note(LogLevel::kInfo, std::string(to_string(done.kind)) + " done", "",
         {{"endpoint", done.endpoint.str()}});
    return;
  }
  action_error_ = e.result.error().to_string();
  const bool stray = fence && !operation().under_way();
  next_action_[done.endpoint] = now_ + (stray ? 30s : 1s);
  if (fence) ++fence_failures_;
  note(LogLevel::kWarn, std::string(to_string(done.kind)) + " failed", action_error_,
       {{"endpoint", done.endpoint.str()}});
}

// ---- small things
// --------------------------------------------------------------------------------

void Monitor::Impl::note(LogLevel level, std::string what, std::string why,
                         std::vector<std::pair<std::string, std::string>> fields) {
  effects_.push_back(effect::Note{level, std::move(what), std::move(why), std::move(fields)});
}

void Monitor::Impl::decline(std::string why) {
  if (why == declined_) return;
  declined_ = why;
  if (!why.empty()) note(LogLevel::kWarn, "not acting", std::move(why));
}

const FailoverOperation& Monitor::Impl::operation() const {
  static const FailoverOperation kNone;
  return view_.monitor && view_.monitor->operation ? view_.monitor->operation->value : kNone;
}

Endpoint* Monitor::Impl::endpoint(const NodeName& name) {
  const auto found = endpoints_.find(name);
  return found == endpoints_.end() ? nullptr : &found->second;
}
const Endpoint* Monitor::Impl::endpoint(const NodeName& name) const {
  const auto found = endpoints_.find(name);
  return found == endpoints_.end() ? nullptr : &found->second;
}

bool Monitor::Impl::fenced_by_us(const NodeName& name) const {
  return std::ranges::count(operation().fenced, name) > 0;
}

Choice Monitor::Impl::choice(const NodeName& primary) const {
  Choice out;
  out.primary = primary;
  if (const Endpoint* e = endpoint(primary)) {
    out.region = e->config.region;
    if (e->sample) out.system_id = e->sample->system_id;
  }
  if (view_.init && view_.init->value.system_id != 0) out.system_id = view_.init->value.system_id;
  if (leader() != nullptr) out.timeline = leader()->timeline;
  // Of the last primary that was opened: an epoch that was only given away has no WAL.
  if (const auto& op = operation(); op.under_way()) {
    const auto last = view_.history.find(op.epoch);
    if (last != view_.history.end()) out.timeline = last->second.timeline;
  }
  out.written = written_;
  // In an operation it was judged at the beginning, and the record is closed since.
  if (written_.empty() && endpoint(primary) != nullptr && !operation().under_way()) {
    out.unknown = fmt::format(
        "how far {} had got is not known: this monitor has not seen it since {}", primary.str(),
        away_ == Millis{0} ? "it was started"
                           : fmt::format("it was not run for {} ms", away_.count()));
  }
  return out;
}

// ---- Monitor
// -------------------------------------------------------------------------------------

Monitor::Monitor(MonitorConfig config, MonoTime now, UnsafeMutations unsafe)
    : impl_(std::make_unique<Impl>(std::move(config), now, unsafe)) {}
Monitor::~Monitor() = default;
Monitor::Monitor(Monitor&&) noexcept = default;
Monitor& Monitor::operator=(Monitor&&) noexcept = default;

Effects Monitor::start(MonoTime now) { return impl_->start(now); }
Effects Monitor::step(const Event& event, MonoTime now) { return impl_->step(event, now); }
MonoTime Monitor::next_wakeup() const { return impl_->wake_; }
void Monitor::set_wall_time(WallTime wall) { impl_->wall_ = wall; }
bool Monitor::leading(MonoTime now) const { return impl_->leading_at(now); }
MonitorState Monitor::state() const { return impl_->health_.state; }
const std::string& Monitor::reason() const { return impl_->health_.reason; }
const ClusterView& Monitor::cluster() const { return impl_->view_; }

}  // namespace bascule::monitor
