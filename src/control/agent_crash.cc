// A leader's PostgreSQL hangs or is gone: is it started again here, or does somebody else lead?
#include "control/agent_impl.h"

namespace bascule::control {
namespace {

constexpr int kCrashesMax = 3;  // within kCrashWindow: then somebody else shall try
constexpr std::chrono::seconds kCrashWindow{60};

}  // namespace

// A flush of WAL hangs (the write probe). Only where somebody else can go on: on the same disk a
// restart would hang, too. In asynchronous mode what hangs has not been acknowledged either.
bool Agent::Impl::writes_hang() const {
  const bool other = sync_was_healthy_ || (!config().synchronous() && !sync_candidates().empty());
  return other && pg_.write_waits >= std::min(config().ttl / 2, Millis(2000));
}

// Its clients wait as they would for a host that is lost: for as long (stopped, or on a disk that
// hangs). Load and used-up connections are no reason: they don't keep the probe waiting for ttl.
void Agent::Impl::hung() {
  const bool answers = pg_.run != PgRun::kUnresponsive;
  reason_ = answers ? "storage does not take writes" : "PostgreSQL does not answer the probe";
  if (hung_since_ == MonoTime{}) hung_since_ = now_ - (answers ? pg_.write_waits : Nanos{0});
  const MonoTime limit = hung_since_ + config().ttl;
  if (view_->paused || now_ < limit) return wake_at(view_->paused ? now_ + 1s : limit);
  hung_since_ = {};
  note(LogLevel::kWarn, "detected", reason_ + " for ttl: PostgreSQL is killed");
  crashed(answers ? "its storage did not take writes" : "it did not answer");
  restart_helps_ = !answers;
  op_.reset();
  run(op::Kill{});
}

void Agent::Impl::crashed(std::string how) {
  crash_ = std::move(how);
  restart_helps_ = true;
  if (crashes_ == 0 || now_ - first_crash_ > kCrashWindow) {
    crashes_ = 0;
    first_crash_ = now_;
  }
  ++crashes_;
}

void Agent::Impl::apply_crash_policy() {
  if (view_->paused) {
    reason_ = "paused: PostgreSQL is gone (" + crash_ + "), nothing is done";
    if (held_->record.phase != LeaderPhase::kPreparing && !txn_pending(TxnKind::kLeader)) {
      LeaderRecord record = held_->record;
      record.phase = LeaderPhase::kPreparing;
      record.why = reason_;
      leader_commit(std::move(record), {});
    }
    return;
  }
  const ClusterConfig c = config();
  // On a disk that is full or hangs the next start ends as this one did.
  const std::string again = why_start_again();
  const bool full = pg_.disk_full != DiskFull::kNo && again.empty();
  const bool loop = crashes_ >= kCrashesMax || full || !restart_helps_;
  const bool wanted = c.on_crash == OnCrash::kFailover || loop ||
                      (c.on_crash == OnCrash::kRestartThenFailover && crashes_ > 1);
  const bool safe = sync_was_healthy_ || (c.sync_mode == SyncMode::kOff && loop);
  const bool held = failovers_held_until().has_value();
  if (wanted && safe && !held && again.empty()) {
    return stand_down("PostgreSQL is gone (" + crash_ + (full ? "; " + why_disk_full() : "") + ")",
                      Release::kYes);
  }
  note(LogLevel::kInfo, "restart in place",
       !again.empty() ? again
       : held         ? why_held()
       : wanted       ? "no synchronous standby was healthy: nobody else is safe"
                      : "on_crash: restart");
  if (request_) finish_request(*request_, "failed: " + crash_);
  stage_ = Stage::kStart;
  held_for_ = HeldFor::kRestart;
  LeaderRecord record = held_->record;
  record.phase = LeaderPhase::kPreparing;
  record.why = "restarting after: " + crash_;
  record.handover_to = {};
  set_phase(Phase::kRestarting, record.why);
  held_->record = record;
  leader_commit(std::move(record), {});
}

}  // namespace bascule::control
