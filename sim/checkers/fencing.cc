// Renewal and fencing: a primary writes only under an armed guard; the guard's deadline is never
// later than the send time of the last renewal that succeeded plus fence_after; PostgreSQL becomes
// a primary only while that deadline is ahead. In failsafe: never later than enough members are
// bound to it by pledges.
#include <algorithm>
#include <map>
#include <optional>
#include <unordered_map>

#include "sim/checkers/checker.h"

namespace bascule::sim {
namespace {

class Fencing : public Checker {
 public:
  using Checker::Checker;

  void agent_started(Member& m) override { state(m) = State{}; }

  void commit_sent(Member& m, const store::Txn& txn, control::RequestId id,
                   MonoTime sent) override {
    const auto writes_record = [&](const store::Write& w) { return w.key == leader_key_; };
    if (std::ranges::any_of(txn.writes, writes_record)) state(m).sent[id] = sent;
  }

  void store_applied(const store::Txn& txn, store::Revision revision, Endpoint) override {
    for (const store::Write& w : txn.writes) {
      if (w.key != leader_key_) continue;
      const auto& leader = truth_.view().leader;
      if (!leader || leader->value.vacant()) continue;
      records_[revision] =
          Renewal{leader->value.holder, control::ClusterConfig::fence_after(leader->value.ttl)};
    }
  }

  void commit_answered(Member& m, control::RequestId id, const store::TxnResult& r) override {
    State& s = state(m);
    const auto it = s.sent.find(id);
    if (it == s.sent.end()) return;
    const MonoTime sent = it->second;
    s.sent.erase(it);
    world().trace("{} its write of the record, sent {} ms ago: {}", m.name().str(),
                  to_ms(world().local(m.host()) - sent), static_cast<int>(r.outcome));
    const auto record = records_.find(r.revision);
    if (r.outcome != store::TxnOutcome::kCommitted || record == records_.end() ||
        record->second.holder != m.name()) {
      return;
    }
    const MonoTime limit = sent + record->second.fence_after;
    if (!s.limit || limit > *s.limit) {
      s.limit = limit;
      s.clock_stood = false;
    }
  }

  void guard_armed(Member& m, MonoTime deadline) override {
    State& s = state(m);
    s.unarmed_since = SimTime{-1};
    if (!s.limit) {
      world().violation(
          "fencing", fmt::format("{} arms the guard without a successful renewal", m.name().str()));
    } else if (deadline > *s.limit && truth_.bound_until(m, deadline)) {
      world().count("failsafe.extended");
    } else if (deadline > *s.limit && s.clock_stood && is_over(m)) {
      world().count("exception.pledged_before_a_pause");
    } else if (deadline > *s.limit && holds_an_older_backup(m)) {
      world().count("exception.rolled_back_store");
    } else if (deadline > *s.limit) {
      world().violation("fencing",
                        fmt::format("{} arms the guard {} ms beyond its last renewal's limit",
                                    m.name().str(), to_ms(deadline - *s.limit)));
    }
  }

  void operation_begun(Member& m, const control::Op& op) override {
    if (!std::holds_alternative<control::op::Promote>(op) &&
        !std::holds_alternative<control::op::StartPrimary>(op)) {
      return;
    }
    const auto deadline = m.guard_deadline();
    if (!deadline || *deadline <= world().local(m.host())) {
      // An agent that has been woken late may order it; the guard must have fenced by then.
      if (!deadline && m.guard_alive()) {
        world().violation("fencing", fmt::format("{} {} without an armed guard", m.name().str(),
                                                 control::op_name(op)));
      }
    }
  }

  void commit_inserted(Endpoint host, const WalRecord& r) override {
    Member& m = member(host);
    if (!m.guard_alive() || !m.pg().accepts_writes()) return;
    const auto deadline = m.guard_deadline();
    if (!deadline) {
      // Between the deadline and the end of the killing the guard has no deadline any more.
      State& s = state(m);
      if (s.unarmed_since < SimTime{0}) s.unarmed_since = world().now();
      if (world().now() - s.unarmed_since > millis(60)) {
        world().violation("fencing", fmt::format("{} accepts commit {} without an armed guard",
                                                 m.name().str(), r.commit));
      }
      return;
    }
    state(m).unarmed_since = SimTime{-1};
  }

  // The guard was frozen too, in the middle of killing: its time goes on only now.
  void host_thawed(Endpoint host, World::FrozenClock clock) override {
    State& s = states_[static_cast<size_t>(host)];
    s.unarmed_since = SimTime{-1};
    if (clock == World::FrozenClock::kStops) s.clock_stood = true;
  }

 private:
  // A paused guest whose clock stood still takes pledges of before the pause for good when it
  // resumes, though whoever gave them has another leader by now. It can't know; what it
  // acknowledges is one_writer's.
  bool is_over(Member& m) const {
    const auto& leader = truth_.view().leader;
    return leader && m.agent()->leading_epoch() < leader->value.epoch;
  }

  // The store does not say any more whose ballots it takes to replace this leader.
  bool holds_an_older_backup(Member& m) const {
    if (!truth_.was_rolled_back) return false;
    const auto& leader = truth_.view().leader;
    return m.agent()->local().highest_revision > truth_.store.revision() || !leader ||
           leader->value.epoch != m.agent()->leading_epoch();
  }

  struct Renewal {
    NodeName holder;
    Nanos fence_after;
  };
  struct State {
    std::map<control::RequestId, MonoTime> sent;
    std::optional<MonoTime> limit;
    SimTime unarmed_since{-1};
    bool clock_stood = false;  // in a pause, since `limit` was set
  };
  State& state(Member& m) { return states_[static_cast<size_t>(m.host())]; }
  const std::string leader_key_ = truth_.keys.leader();
  std::array<State, kHostsMax> states_;
  std::unordered_map<store::Revision, Renewal> records_;  // by the revision that wrote it
};

}  // namespace

std::unique_ptr<Checker> make_fencing(Truth& truth) { return std::make_unique<Fencing>(truth); }

}  // namespace bascule::sim
