// What is told: members for routes and status, health for the API, observations for the monitor
// that acts.
#include <fmt/format.h>

#include <algorithm>

#include "monitor/monitor_impl.h"
#include "monitor/states.h"

namespace bascule::monitor {
namespace {

int64_t lag_bytes_of(const Sample& sample, Lsn written) {
  if (!written.valid() || !sample.received.valid()) return -1;
  return written > sample.received ? static_cast<int64_t>(written.value - sample.received.value)
                                   : 0;
}

}  // namespace

control::MemberRecord Monitor::Impl::member_record(const Endpoint& e) const {
  control::MemberRecord m;
  const bool primary = e.config.name == holder();
  m.name = e.config.name;
  m.host = e.config.host;
  m.port = e.config.port;
  m.region = e.config.region;
  m.priority = e.config.priority;
  m.nofailover = e.config.nofailover;
  m.written_at = wall_;
  if (e.sample) {
    m.system_id = e.sample->system_id;
    m.timeline = e.sample->timeline;
    m.flush_lsn = e.sample->in_recovery ? e.sample->received : e.sample->written;
    m.replay_lsn = e.sample->replayed;
  }
  const bool replica = e.sample && e.sample->in_recovery;
  m.role = primary ? "primary" : replica ? "replica" : "none";
  if (leader() != nullptr && replica && m.timeline.value == 0) m.timeline = leader()->timeline;
  const Lsn written = choice(holder()).written_by(e.begun);
  if (e.verdict == Verdict::kUnknown) {
    m.state = "unknown";
  } else if (e.down()) {
    m.state = "unreachable";
    m.reason = e.error;
  } else if (primary) {
    m.state = "running";
    m.epoch = leader()->epoch;
    if (e.answer == Answer::kRefused) m.reason = e.error;
    if (e.ok() && e.sample->in_recovery) m.reason = "is in recovery";
    if (e.ok() && e.sample->read_only) m.reason = "is read-only by default";
  } else if (e.answer == Answer::kRefused) {
    m.state = "refusing";
    m.reason = e.error;
  } else if (!replica) {
    m.state = e.sample && e.sample->read_only ? "fenced" : "diverged";
    m.reason = "is not a standby: to be rebuilt as one";
  } else if (!e.sample->streaming) {
    m.state = "disconnected";
    m.reason = "receives nothing from a primary";
  } else if (lag_bytes_of(*e.sample, written) > static_cast<int64_t>(config_.maximum_lag_bytes)) {
    m.state = "lagging";
    m.reason = fmt::format("{} bytes behind", lag_bytes_of(*e.sample, written));
  } else {
    m.state = "streaming";
  }
  return m;
}

control::EndpointHealth Monitor::Impl::endpoint_health(const Endpoint& e) const {
  control::EndpointHealth h;
  h.name = e.config.name;
  const control::MemberRecord member = member_record(e);
  h.healthy =
      member.state == "running" ? e.up() && member.reason.empty() : member.state == "streaming";
  h.writable = e.writable();
  h.fenced = member.state == "fenced";
  const NodeName primary = operation().under_way() ? operation().from : holder();
  const Candidate judged = judge(e, choice(primary), config_, Lag::kLimited);
  h.eligible = judged.eligible;
  h.why = e.config.name == primary ? member.reason : judged.why_not;
  h.failures = static_cast<uint64_t>(e.failures);
  h.failures_total = e.failures_total;
  h.response_ms = e.took.count();
  if (e.sample && e.sample->in_recovery) {
    h.lag_bytes = lag_bytes_of(*e.sample, choice(primary).written_by(e.begun));
    if (e.sample->lag) h.lag_ms = h.lag_bytes == 0 ? 0 : e.sample->lag->count();
  }
  h.last_check = e.checked_at;
  h.down_since = e.down_since;
  if (e.sample) h.version = e.sample->version;
  return h;
}

void Monitor::Impl::refresh_health() {
  Facts facts;
  std::string missing;
  facts.knows_cluster =
      have_view_ && leader() != nullptr && view_.monitor && leader()->epoch.value > 0;
  facts.under_way = operation().under_way();
  facts.all_healthy = true;
  health_.endpoints.clear();
  for (auto& [name, e] : endpoints_) {
    facts.any_answers |= e.up() || e.answer == Answer::kRefused;
    health_.endpoints.push_back(endpoint_health(e));
    const auto& h = health_.endpoints.back();
    if (name == holder()) facts.primary_healthy = h.healthy;
    bool& lost = was_lost_[name];
    if (h.healthy && std::exchange(lost, false)) ++recoveries_;
    if (h.healthy) continue;
    facts.all_healthy = false;
    if (name != holder()) lost |= leader() != nullptr && leader()->epoch.value > 1;
    facts.returning |= lost && e.up() && name != holder();
    missing += fmt::format("{}{} ({})", missing.empty() ? "" : ", ", name.str(),
                           h.why.empty() ? member_record(e).state : h.why);
  }
  facts.just_failed_over =
      took_part_ && opened_at_ != MonoTime{} && now_ < opened_at_ + config_.complete_for;
  health_.state = state_of(facts);
  health_.recoveries = recoveries_;
  health_.failovers = static_cast<uint64_t>(std::ranges::count_if(
      view_.history, [](const auto& h) { return h.second.parent_epoch.value != 0; }));
  if (facts.under_way) {
    const FailoverOperation& op = operation();
    health_.reason = fmt::format("{} from {} to {}, {}: {}", to_string(op.trigger), op.from.str(),
                                 op.to.str(), to_string(op.step), op.reason);
  } else if (!declined_.empty()) {
    health_.reason = declined_;
  } else if (facts.primary_healthy) {
    health_.reason = fmt::format("{} is primary", holder().str());
    if (!missing.empty()) health_.reason += "; not in order: " + missing;
  } else {
    health_.reason =
        missing.empty() ? "no endpoint has been checked yet" : "not in order: " + missing;
  }
}

void Monitor::Impl::publish(store::Txn& txn) {
  const auto put = [&](const std::string& key, std::string value) {
    std::string& last = published_[key];
    if (last == value) return;
    last = value;
    txn.writes.push_back({key, std::move(value)});
  };
  put(monitor_keys_.health(), control::encode(health_));
  for (const auto& [name, e] : endpoints_) {
    control::MemberRecord member = member_record(e);
    // When it was written is for people: that alone is no news.
    const auto before = view_.members.find(name);
    if (before != view_.members.end()) {
      member.written_at = before->second.written_at;
      if (member == before->second) continue;
      member.written_at = wall_;
    }
    view_.members[name] = member;
    put(keys_.member(name), control::encode(member));
  }
  for (const auto& [name, member] : view_.members) {
    if (endpoint(name) == nullptr && txn.writes.size() < store::kTxnItemsMax / 2) {
      txn.writes.push_back({keys_.member(name), std::nullopt});
    }
  }
  // Dead proxies: whatever permit they had has run out by then. One that lives on registers again
  // before it acts by anything.
  if (operation().step == FailoverStep::kPromoting && closed_since_ &&
      now_ >= *closed_since_ + leader()->ttl * 2) {
    for (const auto& [id, ack] : view_.monitor->proxies) {
      if (ack.acts_by < view_.leader_revision && txn.writes.size() < store::kTxnItemsMax / 2) {
        txn.writes.push_back({monitor_keys_.proxy(id), std::nullopt});
      }
    }
  }
}

void Monitor::Impl::observe() {
  if (now_ < next_observation_) return wake_at(next_observation_);
  next_observation_ = now_ + config_.lease_ttl / 2;
  control::ObserverRecord record;
  record.monitor = config_.name;
  record.counter = ++observer_counter_;
  for (const auto& [name, e] : endpoints_) {
    if (e.down()) record.unreachable.push_back(name);
    if (e.up() && e.failures == 0) record.reachable.push_back(name);
  }
  store::Txn txn;
  txn.writes.push_back({monitor_keys_.observer(config_.name), control::encode(record)});
  commit(std::move(txn), [](store::Revision) {});
}

}  // namespace bascule::monitor
