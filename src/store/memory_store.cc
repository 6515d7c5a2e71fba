#include "store/memory_store.h"

#include <utility>

#include "store/bounds.h"

namespace bascule::store {

MemoryStore::~MemoryStore() {
  *alive_ = false;
  for (const auto& [id, watcher] : watchers_) backend_.watchers_.erase(id);
}

void MemoryStore::read(std::string prefix, ReadCallback callback) {
  loop_.post(
      [this, alive = alive_, prefix = std::move(prefix), callback = std::move(callback)]() mutable {
        if (*alive) callback(read_now(prefix));
      });
}

Result<Snapshot> MemoryStore::read_now(const std::string& prefix) const {
  if (auto ok = check_prefix(prefix); !ok) return std::unexpected(ok.error());
  Snapshot snapshot{backend_.identity_, backend_.revision_, {}};
  const auto& values = backend_.values_;
  for (auto it = values.lower_bound(prefix); it != values.end() && it->first.starts_with(prefix);
       ++it) {
    snapshot.entries.push_back({it->first, it->second.bytes, it->second.revision});
  }
  return snapshot;
}

void MemoryStore::commit(Txn txn, TxnCallback callback) {
  loop_.post(
      [this, alive = alive_, txn = std::move(txn), callback = std::move(callback)]() mutable {
        if (*alive) callback(commit_now(std::move(txn)));
      });
}

TxnResult MemoryStore::commit_now(Txn txn) {
  if (auto ok = check_bounds(txn); !ok) {
    return {TxnOutcome::kUnknown, 0, "not applied: " + ok.error().to_string()};
  }
  for (const auto& compare : txn.compares) {
    const auto found = backend_.values_.find(compare.key);
    const Revision revision = found == backend_.values_.end() ? 0 : found->second.revision;
    if (revision != compare.revision) return {TxnOutcome::kConflict, 0, {}};
  }
  if (txn.writes.empty()) return {TxnOutcome::kCommitted, backend_.revision_, {}};
  const Revision revision = ++backend_.revision_;
  for (auto& write : txn.writes) {
    if (write.value) {
      backend_.values_[write.key] = {std::move(*write.value), revision};
    } else {
      backend_.values_.erase(write.key);
    }
    for (const auto& [id, store] : backend_.watchers_) store->notify(id, write.key);
  }
  return {TxnOutcome::kCommitted, revision, {}};
}

uint64_t MemoryStore::watch(std::string prefix, WatchCallback callback) {
  const uint64_t id = backend_.next_watch_++;
  watchers_.emplace(id, Watcher{std::move(prefix), std::move(callback)});
  backend_.watchers_.emplace(id, this);
  return id;
}

void MemoryStore::unwatch(uint64_t id) {
  watchers_.erase(id);
  backend_.watchers_.erase(id);
}

void MemoryStore::notify(uint64_t watch_id, const std::string& key) {
  auto& watcher = watchers_.at(watch_id);
  if (!key.starts_with(watcher.prefix) || std::exchange(watcher.scheduled, true)) return;
  loop_.post([this, alive = alive_, watch_id] {
    if (*alive) call_watcher(watch_id);
  });
}

void MemoryStore::call_watcher(uint64_t watch_id) {
  const auto found = watchers_.find(watch_id);
  if (found == watchers_.end()) return;
  found->second.scheduled = false;
  const auto callback = found->second.callback;  // it may unwatch itself
  callback();
}

}  // namespace bascule::store
