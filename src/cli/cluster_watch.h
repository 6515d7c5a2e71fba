// Reads the cluster's records whenever the store says that something changed, and 0.15 ttl after
// the last time at the latest. Runs on one loop's thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "control/records.h"
#include "env/loop.h"
#include "store/store.h"

namespace bascule::cli {

class ClusterWatch {
 public:
  // `begun` is when the read was begun. Called for successful reads only, in order.
  using Callback = std::function<void(const control::ClusterView& view, MonoTime begun)>;

  ClusterWatch(env::Loop& loop, store::Store& store, control::Keys keys, Callback callback);
  ~ClusterWatch();
  ClusterWatch(const ClusterWatch&) = delete;
  ClusterWatch& operator=(const ClusterWatch&) = delete;

  void start();

 private:
  void read();
  void on_read(Result<store::Snapshot> result, MonoTime begun);

  env::Loop& loop_;
  store::Store& store_;
  const std::string prefix_;
  control::ClusterParser parser_;
  Callback callback_;
  // Tells a read that comes back whether this object is still there. Loop thread only.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  uint64_t watch_ = 0;
  env::TimerId timer_ = env::TimerId::kNone;
  Millis every_{200};  // by ttl once that is known
  bool reading_ = false;
  bool again_ = false;
  bool failing_ = false;
};

}  // namespace bascule::cli
