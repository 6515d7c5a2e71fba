#include "cli/monitor_role.h"

#include "base/log.h"

namespace bascule::cli {
namespace {

constexpr Millis kDrainedPoll{20};

}  // namespace

MonitorRole::MonitorRole(const Platform& platform, monitor::ShellConfig config, env::Loop& loop,
                         store::Store& store)
    // A thread for each endpoint's check, one for the action, one for notifications.
    : pool_(platform.make_pool(static_cast<int>(config.monitor.endpoints.size()) + 2)),
      shell_(std::make_unique<monitor::Shell>(
          std::move(config), monitor::ShellDeps{loop, *pool_, platform.process, store},
          [&platform] { return platform.clock.wall_now(); })) {}

MonitorRole::~MonitorRole() {
  shell_->stop();
  pool_.reset();  // its work uses the shell
}

ProxyAcks::ProxyAcks(env::Loop& loop, store::Store& store, control::Keys keys, std::string id,
                     proxy::Proxy& proxy)
    : loop_(loop), store_(store), keys_(keys.prefix), id_(std::move(id)), proxy_(proxy) {}

ProxyAcks::~ProxyAcks() {
  *alive_ = false;
  loop_.cancel(timer_);
}

void ProxyAcks::on_view(const control::ClusterView& view) {
  if (!view.monitor) return;
  const auto known = view.monitor->proxies.find(id_);
  if (known != view.monitor->proxies.end() && known->second.acts_by == view.leader_revision) return;
  wanted_ = view.leader_revision;
  must_be_drained_ = !view.leader || view.leader->value.phase != control::LeaderPhase::kRunning;
  tell();
}

void ProxyAcks::tell() {
  if (telling_) return;  // what comes of it is seen by the next view
  loop_.cancel(timer_);
  if (must_be_drained_ && !proxy_.drained()) {
    timer_ = loop_.call_after(kDrainedPoll, [this] { tell(); });
    return;
  }
  telling_ = true;
  store::Txn txn;
  txn.writes.push_back({keys_.proxy(id_), control::encode(control::ProxyAck{id_, wanted_})});
  store_.commit(std::move(txn), [this, alive = alive_](const store::TxnResult&) {
    if (*alive) telling_ = false;
  });
}

}  // namespace bascule::cli
