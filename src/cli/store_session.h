// A cluster's store for a command that runs once: the same Store that the daemon uses, driven until
// an answer is there. One thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "cli/platform.h"
#include "cli/store_at.h"
#include "control/records.h"
#include "store/store.h"

namespace bascule::cli {

// Where a cluster is.
struct ClusterAt {
  std::string cluster;  // name
  StoreAt store;
  std::string dir;  // of `bascule up`; empty when found by a configuration file
};

class StoreSession {
 public:
  // Fails when there is no file at that place: a command never creates a store.
  static Result<std::unique_ptr<StoreSession>> open(const Platform& platform, const ClusterAt& at);
  const control::Keys& keys() const { return keys_; }
  Result<control::ClusterView> view();
  Result<store::Snapshot> read(const std::string& prefix);
  store::TxnResult commit(store::Txn txn);
  // Reads whenever something changed (and every second) until `done` returns true or `limit` has
  // passed; false: the time was up.
  bool follow(Millis limit, const std::function<bool(const control::ClusterView&)>& done);

 private:
  explicit StoreSession(std::string_view cluster) : keys_(cluster) {}
  store::Store& store() { return open_->store(); }

  control::Keys keys_;
  std::unique_ptr<env::Loop> loop_;
  std::unique_ptr<OpenStore> open_;
};

// From --dir, -c and $BASCULE_DIR, in this order, else ./bascule-data. As root it also becomes the
// user who owns the store, so that no file of root's is left among the cluster's.
Result<ClusterAt> find_cluster(const Platform& platform, const std::string& dir,
                               const std::string& config_file);

}  // namespace bascule::cli
