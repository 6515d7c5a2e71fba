// The store's content as records, decoded once for all members, proxies and checkers: they look at
// the same snapshots, and decoding was a third of a run's time.
#pragma once

#include <list>
#include <utility>

#include "control/records.h"
#include "sim/store_model.h"

namespace bascule::sim {

class Decoded {
 public:
  Decoded(const StoreModel& store, const control::Keys& keys) : store_(store), parser_(keys) {}
  control::SharedView of(const SnapshotPtr& snapshot);
  // Valid until the next call.
  const control::ClusterView& now() { return *of(store_.snapshot()); }

 private:
  static constexpr size_t kRecent = 8;
  const StoreModel& store_;
  control::ClusterParser parser_;
  std::list<std::pair<SnapshotPtr, control::SharedView>> recent_;  // the newest first
};

}  // namespace bascule::sim
