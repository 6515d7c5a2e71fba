// Store in memory, for the unit tests of other modules: MemoryStore objects on one MemoryBackend
// see one another as processes that share a store do. One thread; answers come through loop.post().
#pragma once

#include <map>
#include <memory>
#include <string>

#include "env/loop.h"
#include "store/store.h"

namespace bascule::store {

class MemoryStore;

class MemoryBackend {
 public:
  explicit MemoryBackend(std::string identity) : identity_(std::move(identity)) {}

 private:
  friend class MemoryStore;
  struct Value {
    std::string bytes;
    Revision revision = 0;
  };

  std::string identity_;
  Revision revision_ = 0;
  std::map<std::string, Value> values_;
  std::map<uint64_t, MemoryStore*> watchers_;  // by watch id
  uint64_t next_watch_ = 1;
};

// The backend must outlive it.
class MemoryStore final : public Store {
 public:
  MemoryStore(MemoryBackend& backend, env::Loop& loop) : backend_(backend), loop_(loop) {}
  ~MemoryStore() override;
  MemoryStore(const MemoryStore&) = delete;
  MemoryStore& operator=(const MemoryStore&) = delete;

  void read(std::string prefix, ReadCallback callback) override;
  void commit(Txn txn, TxnCallback callback) override;
  uint64_t watch(std::string prefix, WatchCallback callback) override;
  void unwatch(uint64_t id) override;

 private:
  struct Watcher {
    std::string prefix;
    WatchCallback callback;
    bool scheduled = false;
  };

  Result<Snapshot> read_now(const std::string& prefix) const;
  TxnResult commit_now(Txn txn);
  void notify(uint64_t watch_id, const std::string& key);
  void call_watcher(uint64_t watch_id);

  MemoryBackend& backend_;
  env::Loop& loop_;
  std::map<uint64_t, Watcher> watchers_;
  // Answers that come after the end of this object are dropped. Loop thread only.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace bascule::store
