// What monitor.h promises, as checks of the truth.
#include <algorithm>

#include "sim/monitor_cluster.h"
#include "sim/monitor_model.h"

namespace bascule::sim {
namespace {

using control::FailoverStep;
using control::FailoverTrigger;
using control::LeaderPhase;

}  // namespace

void MonitorCluster::on_applied(const store::Txn& txn, Endpoint by) {
  const bool of_interest = std::ranges::any_of(txn.writes, [](const store::Write& w) {
    return w.key.ends_with("leader") || w.key.ends_with("operation") || w.key.ends_with("request");
  });
  if (!of_interest) return;
  const auto view = truth();
  const auto op_of = [](const control::ClusterView& v) {
    return v.monitor && v.monitor->operation ? v.monitor->operation->value
                                             : control::FailoverOperation{};
  };
  const auto op = op_of(view), was = op_of(before_);
  if (op.under_way() && !was.under_way()) {
    world_.trace("operation {} from {} to {} by m{}", to_string(op.trigger), op.from.str(),
                 op.to.str(), by - kFirstMonitor);
    world_.count(fmt::format("begun.{}", to_string(op.trigger)));
    if (op.trigger == FailoverTrigger::kAutomatic) check_automatic_begin(op, by);
  }
  if (before_.leader && view.leader) {
    const auto& old_record = before_.leader->value;
    const auto& record = view.leader->value;
    if (record.epoch < old_record.epoch) {
      world_.violation("epochs", "the epoch went back");
    }
    if (record.epoch == old_record.epoch && !record.holder.empty() && !old_record.holder.empty() &&
        record.holder != old_record.holder) {
      world_.violation("epochs", fmt::format("epoch {} has two holders", record.epoch.value));
    }
    if (record.phase == LeaderPhase::kPreparing && record.epoch != old_record.epoch) {
      fenced_old_ = answered_its_fence(before_, by) ? record.epoch.value : 0;
    }
    const bool opened =
        record.phase == LeaderPhase::kRunning && old_record.phase != LeaderPhase::kRunning;
    if (opened && record.why.empty()) world_.violation("reasons", "opened without a reason");
    if (opened && record.epoch.value > 1 && old_record.phase == LeaderPhase::kPreparing) {
      check_opened(view);
    }
  }
  before_ = view;
}

void MonitorCluster::check_automatic_begin(const control::FailoverOperation& op, Endpoint by) {
  if (plan_.blips_only) {
    world_.violation("stability", "a failover although every fault was a blip");
  }
  if (before_.paused) world_.violation("manual", "an automatic failover while paused");
  if (before_.request && before_.request->value.outcome.empty()) {
    world_.violation("manual", "an automatic failover before an operator's open request");
  }
  // Not by the monitor's word: by what its shell was told until it sent this. A check that passes
  // while the transaction is on its way to the store comes too late for the decision (the second
  // look, after the closing, is there for that).
  const int failed =
      monitors_[static_cast<size_t>(by - kFirstMonitor)]->decided_by[op.from.str().back() - '0'];
  if (failed < plan_.threshold) {
    const Database& from = *databases_[static_cast<size_t>(op.from.str().back() - '0')];
    if (!from.in_recovery) {
      world_.violation("threshold", fmt::format("a failover after {} failed checks of {}", failed,
                                                plan_.threshold));
    }
  }
}

// By what a monitor was told, not by what it records.
void MonitorCluster::note_fence(int index, const monitor::event::ActionDone& done) {
  const auto& [id, from] = monitors_[static_cast<size_t>(index)]->fencing;
  const auto view = truth();
  if (!done.result || id == 0 || id != done.id || !view.monitor || !view.monitor->lease) return;
  if (!view.monitor->operation || view.monitor->operation->value.from != from) return;
  fenced_ = {index, view.monitor->lease->value.term, view.monitor->operation->value.epoch.value,
             from};
}

// Whoever begins the promotion had learnt, in this operation and term, where the old primary's WAL
// ends. Of the operation's first candidate: the next ones are a matter of maximum_lag.
bool MonitorCluster::answered_its_fence(const control::ClusterView& view, Endpoint by) const {
  if (!view.monitor || !view.monitor->operation || !view.monitor->lease) return false;
  const auto& op = view.monitor->operation->value;
  return fenced_.monitor == by - kFirstMonitor && fenced_.from == op.from &&
         fenced_.epoch == op.epoch.value && view.leader->value.epoch == op.epoch &&
         fenced_.term == view.monitor->lease->value.term;
}

// The new primary is open: what has it got of what was acknowledged?
void MonitorCluster::check_opened(const control::ClusterView& view) {
  const auto& record = view.leader->value;
  const Database& db = *databases_[static_cast<size_t>(record.holder.str().back() - '0')];
  if (db.in_recovery) world_.violation("opened", "opened before it was promoted");
  const auto history = view.history.find(record.epoch);
  if (history == view.history.end()) return world_.violation("history", "an epoch without one");
  const std::set<uint64_t> has(db.log.begin(), db.log.end());
  uint64_t lost = 0;
  for (auto it = acknowledged_.begin(); it != acknowledged_.end();) {
    const bool gone = it->second < record.epoch.value && !has.contains(it->first);
    lost += gone ? 1 : 0;
    it = gone ? acknowledged_.erase(it) : std::next(it);  // counted once
  }
  world_.count("opened." + history->second.trigger);
  world_.count("lost." + history->second.trigger, lost);
  if (history->second.trigger == "manual" && fenced_old_ == record.epoch.value) {
    world_.count("opened.manual of a living primary");
  }
  if (lost == 0) return;
  if (history->second.trigger == "switchover") {
    world_.violation("durability", fmt::format("a switchover lost {} commits", lost));
  }
  if (history->second.trigger == "manual" && fenced_old_ == record.epoch.value) {
    world_.violation("durability",
                     fmt::format("a failover of a living primary lost {} commits", lost));
  }
  // What the limit allows, and what was written since the last check: two proxies, at most 50
  // statements a second each, for as long as checks were failing or not due.
  const auto checks = static_cast<uint64_t>(
      to_ms(plan_.interval * (plan_.threshold + 2) + Millis{3000}) / 20 * kProxies);
  if (history->second.trigger == "automatic" && lost > 40 + checks) {
    world_.violation("durability", fmt::format("an automatic failover lost {} commits", lost));
  }
}

// Whoever acts on a database has not been replaced.
void MonitorCluster::check_lease(int index) {
  const auto view = truth();
  const std::string instance =
      fmt::format("m{}-{}", index, monitors_[static_cast<size_t>(index)]->lives);
  if (view.monitor && view.monitor->lease && view.monitor->lease->value.instance == instance)
    return;
  world_.violation("lease", fmt::format("m{} acts, and another monitor holds the lease", index));
}

void MonitorCluster::check_promotion(int database) {
  const auto view = truth();
  const NodeName name = monitor_database_name(database);
  if (view.leader && view.leader->value.phase == LeaderPhase::kPreparing &&
      view.leader->value.holder == name) {
    return;
  }
  world_.violation("lease",
                   fmt::format("a promotion of {} that the record does not ask for", name.str()));
}

void MonitorCluster::check_fence(int database) {
  const auto view = truth();
  if (!view.leader || view.leader->value.holder != monitor_database_name(database)) return;
  world_.violation("fence", "the primary of the record is fenced");
}

void MonitorCluster::check_liveness() {
  const auto view = control::parse_cluster(keys_, *store_.snapshot());
  std::string state = "no record";
  if (view.leader) {
    state = fmt::format("{} epoch {} of {}: {}", control::to_string(view.leader->value.phase),
                        view.leader->value.epoch.value, view.leader->value.holder.str(),
                        view.leader->value.why);
  }
  if (view.monitor && view.monitor->health) state += "; " + view.monitor->health->reason;
  if (!view.leader || view.leader->value.phase != LeaderPhase::kRunning) {
    return world_.violation("liveness", "no primary is routed to: " + state);
  }
  const Database& db =
      *databases_[static_cast<size_t>(view.leader->value.holder.str().back() - '0')];
  if (db.in_recovery || db.read_only || !db.alive) {
    return world_.violation("liveness", "the primary does not accept writes: " + state);
  }
  for (int i = 0; i < kProxies; ++i) {
    const Proxy& p = *proxies_[static_cast<size_t>(i)];
    if (world_.local(kFirstProxy + i) >= p.permit_until) {
      return world_.violation("liveness", "a proxy has no permit: " + state);
    }
  }
  if (view.request && view.request->value.outcome.empty()) {
    return world_.violation("liveness", "a request without an outcome: " + state);
  }
  if (view.monitor && view.monitor->health &&
      view.monitor->health->state != control::MonitorState::kHealthy) {
    return world_.violation("liveness", "not healthy in the end: " + state);
  }
}

}  // namespace bascule::sim
