// The store was wiped, or restored from a backup, under a leader that lives: it fills the store
// again from what it saw last. ADR 0026 says why nobody else can have led meanwhile.
#include "control/agent_impl.h"

namespace bascule::control {
namespace {

constexpr size_t kHistoryKept =
    60;  // in one transaction; older epochs are nobody's parent any more
constexpr size_t kTasksKept = 20, kRemovedKept = 16;  // likewise
constexpr Millis kSeedAgain{200};

}  // namespace

// Empty: the store is what it was, as far as this member can tell.
std::string Agent::Impl::doubt_about(const ClusterView& view) const {
  if (!local_.store_identity.empty() && view.identity != local_.store_identity) {
    return fmt::format("the store is not the one known here ({} instead of {})", view.identity,
                       local_.store_identity);
  }
  if (!rolled_back_.empty()) return rolled_back_;
  if (view.revision < revision_seen_) {
    return fmt::format("the store went back from revision {} to {}", revision_seen_, view.revision);
  }
  if (view.revision < last_commit_ && committed_at_ < read_sent_) {
    return fmt::format("the store has lost a write of this member ({} after {})", view.revision,
                       last_commit_);
  }
  if (view.leader && view.leader->value.epoch < local_.highest_epoch) {
    return fmt::format("the store went back from epoch {} to {}", local_.highest_epoch.value,
                       view.leader->value.epoch.value);
  }
  return {};
}

// A later seed than any known here, by a leader of an epoch that is not over as far as known here.
bool Agent::Impl::seeded_anew(const ClusterView& view) const {
  return view.seed && view.seed->value.number > local_.seed &&
         view.seed->value.epoch >= local_.highest_epoch && view.leader;
}

void Agent::Impl::trust_store() {
  local_.store_identity = view_->identity;
  local_.seed = view_->seed ? view_->seed->value.number : local_.seed;
  local_.highest_revision = revision_seen_ = view_->revision;
  last_commit_ = 0;
  rolled_back_.clear();
  doubt_.clear();
  good_.reset();
  published_ = false;
  note(LogLevel::kInfo, "store trusted", "it was filled again by the leader");
  persist({});
}

// With the pledges of so many that nobody can have taken over, asked for after the doubt began.
void Agent::Impl::keep_seed() {
  if (good_ && now_ >= view_begun_ + kSeedAgain) request_read();
  if (!held_ || !good_ || stage_ != Stage::kRunning || phase_ != Phase::kLeading ||
      records_in_doubt_ || txn_pending(TxnKind::kSeed) || txn_pending(TxnKind::kLeader) ||
      now_ >= held_->deadline) {
    return;
  }
  if (now_ < seed_again_) return wake_at(seed_again_);
  const auto since = bound_since();
  if (!since || *since < doubt_since_) return;
  const bool other = view_->identity != local_.store_identity;
  const bool taken = other ? view_->leader_revision != 0 || view_->init.has_value()
                           : view_->leader && view_->leader->value.epoch > held_->record.epoch;
  if (taken) {
    reason_ = "the store holds another cluster: " + doubt_;
    return;
  }
  seed_again_ = now_ + kSeedAgain;
  LeaderRecord record = held_->record;
  ++record.counter;
  note(LogLevel::kWarn, "seeding", doubt_);
  commit(TxnKind::kSeed, seed_txn(record), record);
}

store::Txn Agent::Impl::seed_txn(const LeaderRecord& record) const {
  const uint64_t number = std::max(local_.seed, view_->seed ? view_->seed->value.number : 0) + 1;
  const auto revision = [](const auto& slot) { return slot ? slot->revision : 0; };
  store::Txn txn;
  txn.compares = {{keys_.leader(), view_->leader_revision},
                  {keys_.init(), revision(view_->init)},
                  {keys_.sync(), revision(view_->sync)},
                  {keys_.roster(), revision(view_->roster)},
                  {keys_.seed(), revision(view_->seed)}};
  txn.writes = {{keys_.leader(), encode(record)},
                {keys_.sync(), encode(sync_of(*good_))},
                {keys_.seed(), encode(SeedRecord{number, config_.name, record.epoch})}};
  if (good_->init) txn.writes.push_back({keys_.init(), encode(good_->init->value)});
  if (good_->config) txn.writes.push_back({keys_.config(), encode(good_->config->value)});
  if (good_->roster) txn.writes.push_back({keys_.roster(), encode(good_->roster->value)});
  if (good_->paused != view_->paused) {
    txn.writes.push_back(
        {keys_.pause(), good_->paused ? std::optional<std::string>("{}") : std::nullopt});
  }
  if (good_->request) {
    txn.writes.push_back({keys_.request(), encode(good_->request->value)});
  } else if (view_->request) {
    txn.writes.push_back({keys_.request(), std::nullopt});
  }
  for (const auto& [name, ballot] : view_->ballots) {
    txn.writes.push_back({keys_.ballot(name), std::nullopt});
  }
  seed_tasks(txn);
  seed_removed(txn);
  size_t kept = 0;
  for (auto it = good_->history.rbegin(); it != good_->history.rend() && kept < kHistoryKept;
       ++it, ++kept) {
    txn.writes.push_back({keys_.history(it->first), encode(it->second)});
  }
  return txn;
}

// Open ones go on from where they stood. What a backup shows as open may have ended since, or never
// have been known here: it is not carried out again.
void Agent::Impl::seed_tasks(store::Txn& txn) const {
  size_t kept = 0;
  for (const auto& [id, task] : good_->tasks) {
    const bool open = task.value.outcome.empty();
    if ((open || view_->tasks.contains(id)) && kept++ < kTasksKept) {
      txn.writes.push_back({keys_.task(id), encode(task.value)});
    }
  }
  for (const auto& [id, task] : view_->tasks) {
    if (good_->tasks.contains(id) || !task.value.outcome.empty() || kept++ >= kTasksKept) continue;
    TaskRecord unknown = task.value;
    unknown.outcome = "cancelled: the store was filled again by the leader; ask again";
    txn.writes.push_back({keys_.task(id), encode(unknown)});
  }
}

// Members that were taken out stay out.
void Agent::Impl::seed_removed(store::Txn& txn) const {
  size_t kept = 0;
  for (const auto& [name, removed] : good_->removed) {
    if (kept++ < kRemovedKept) {
      txn.writes.push_back({keys_.removed(name), encode(removed.value)});
    }
  }
}

void Agent::Impl::seed_answered(const PendingTxn& txn, const store::TxnResult& result) {
  if (read_id_ != 0) read_id_ = 0;  // begun before: it may show what was
  request_read();
  if (!held_ || result.outcome != TxnOutcome::kCommitted) return;
  held_->revision = result.revision;
  held_->record = txn.record;
  held_->unsettled = false;
  extend(txn.sent_at, txn.record);
}

}  // namespace bascule::control
