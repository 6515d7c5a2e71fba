// Bounds on what is done without an operator: failovers within a window, and what a full disk of
// the primary leads to.
#include "control/agent_impl.h"

namespace bascule::control {
namespace {

constexpr Millis kDiskFullAgain{30000};

bool automatic(const HistoryRecord& h) {
  return h.trigger == "expired" || h.trigger == "vacant" || h.trigger == "early";
}

}  // namespace

// ---- failovers ---------------------------------------------------------------------------------

// By this process's own clock and of what it has seen: who has just started knows of none. A brake,
// not a matter of safety.
void Agent::Impl::count_failovers() {
  if (view_->history.empty()) return;
  const Epoch newest = view_->history.rbegin()->first;
  const Epoch counted = std::exchange(counted_epoch_, newest).value_or(newest);
  for (auto it = view_->history.upper_bound(counted); it != view_->history.end(); ++it) {
    if (automatic(it->second)) failovers_.push_back(now_);
  }
  const Millis window = config().failover_window;
  std::erase_if(failovers_, [&](MonoTime at) { return now_ - at >= window; });
}

// When the next automatic failover may follow; nullopt: at once.
std::optional<MonoTime> Agent::Impl::failovers_held_until() const {
  const ClusterConfig c = config();
  if (c.failover_limit == 0 || failovers_.size() < c.failover_limit) return std::nullopt;
  const RequestRecord* request = view_->request ? &view_->request->value : nullptr;
  if (request && request->kind == RequestKind::kFailover && request->outcome.empty()) {
    return std::nullopt;
  }
  const MonoTime until = failovers_[failovers_.size() - c.failover_limit] + c.failover_window;
  return now_ < until ? std::optional(until) : std::nullopt;
}

std::string Agent::Impl::why_held() const {
  return fmt::format("{} automatic failovers within {} s are the limit", config().failover_limit,
                     config().failover_window.count() / 1000);
}

// ---- a full disk -------------------------------------------------------------------------------

bool Agent::Impl::stays_on_full_disk() const {
  return pg_.disk_full != DiskFull::kNo && config().on_disk_full == OnDiskFull::kStay;
}

// Who could lead instead and has room.
NodeName Agent::Impl::candidate_with_room() const {
  return best_candidate(
      [&](const NodeName& member) { return view_->member(member)->disk_full == DiskFull::kNo; });
}

// By what they say of themselves: at the loss of PostgreSQL nobody streams any more.
bool Agent::Impl::others_have_room() const {
  const auto& roster = view_->roster ? view_->roster->value.members : std::vector<NodeName>{};
  return std::ranges::any_of(roster, [&](const NodeName& name) {
    const MemberRecord* m = view_->member(name);
    return name != config_.name && m && m->role == "replica" && !m->nofailover &&
           m->disk_full == DiskFull::kNo && m->epoch == view_->leader->value.epoch;
  });
}

// Forced to lead and alone with all acknowledged commits: once it has given the record away nobody
// may be elected, itself included.
bool Agent::Impl::is_only_one_by_force() const {
  const SyncRecord sync = sync_record();
  return config_.nofailover && !sync.generations.empty() && sync.generations.back().quorum == 0;
}

// PostgreSQL is started again and again here, for there is nobody better, or because the policy
// says so. Empty: somebody else shall try.
std::string Agent::Impl::why_start_again() const {
  const bool full = pg_.disk_full != DiskFull::kNo;
  if (full && (stays_on_full_disk() || !others_have_room())) return why_disk_full();
  if (is_only_one_by_force()) return "tagged nofailover, and nobody else has all commits";
  return "";
}

// As long as PostgreSQL runs it is handed over as an operator would: nothing is lost, and what
// becomes of the request is shown.
void Agent::Impl::tend_full_disk() {
  if (pg_.disk_full == DiskFull::kNo) {
    disk_full_since_ = {};
    return;
  }
  if (std::exchange(disk_full_seen_, pg_.disk_full) != pg_.disk_full ||
      disk_full_since_ == MonoTime{}) {
    disk_full_since_ = now_;
    note(LogLevel::kError, "disk full", why_disk_full());
  }
  reason_ = why_disk_full();
  if (stays_on_full_disk()) {
    reason_ += "; on_disk_full: stay";
    return;
  }
  const NodeName candidate = candidate_with_room();
  if (candidate.empty()) {
    reason_ += "; no other member that has room could lead";
    return;
  }
  const bool asked = view_->request && view_->request->value.outcome.empty();
  const MonoTime due = std::max(disk_full_since_ + config().ttl, disk_full_again_);
  if (now_ < due) wake_at(due);
  const bool busy = phase_ != Phase::kLeading || asked || op_running() || !settled();
  if (view_->paused || busy || now_ < due || failovers_held_until()) return;
  disk_full_again_ = now_ + kDiskFullAgain;
  RequestRecord request;
  request.id = fmt::format("disk-full-{}-{}", held_->record.epoch.value, held_->record.counter);
  request.candidate = candidate;
  request.by = "on_disk_full";
  store::Txn extras;
  extras.compares = {{keys_.request(), view_->request ? view_->request->revision : 0}};
  extras.writes = {{keys_.request(), encode(request)}};
  leader_commit(held_->record, std::move(extras));
}

std::string Agent::Impl::why_disk_full() const {
  return pg_.disk_full == DiskFull::kWal ? "its disk has no room for another segment of WAL"
                                         : "its disk has no room for data";
}

}  // namespace bascule::control
