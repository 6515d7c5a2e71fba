// The monitor in the daemon, and what a proxy owes to a cluster that a monitor leads.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "cli/platform.h"
#include "control/records.h"
#include "monitor/shell.h"
#include "proxy/proxy.h"
#include "store/store.h"

namespace bascule::cli {

class MonitorRole {
 public:
  MonitorRole(const Platform& platform, monitor::ShellConfig config, env::Loop& loop,
              store::Store& store);
  ~MonitorRole();
  monitor::Shell& shell() { return *shell_; }

 private:
  std::unique_ptr<env::BlockingPool> pool_;
  std::unique_ptr<monitor::Shell> shell_;
};

// Registers a proxy and says by which revision of the leader record it acts, so that a failover
// need not wait for its permit to run out. Loop thread only.
class ProxyAcks {
 public:
  ProxyAcks(env::Loop& loop, store::Store& store, control::Keys keys, std::string id,
            proxy::Proxy& proxy);
  ~ProxyAcks();
  // After the route table made from `view` was published.
  void on_view(const control::ClusterView& view);

 private:
  void tell();

  env::Loop& loop_;
  store::Store& store_;
  const control::MonitorKeys keys_;
  const std::string id_;
  proxy::Proxy& proxy_;
  control::Revision wanted_ = 0;
  bool must_be_drained_ = false;  // the record is closed or draining
  bool telling_ = false;
  env::TimerId timer_ = env::TimerId::kNone;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace bascule::cli
