// A worker as the console sees it.
#include <utility>

#include "proxy/console.h"
#include "proxy/worker.h"

namespace bascule::proxy {

void Worker::set_controls(std::shared_ptr<const Controls> controls) {
  controls_ = std::move(controls);
  dispatcher_.on_controls();
  if (!controls_->leaving || std::exchange(leaving_, true)) return;
  net().close_listeners();
  shared_.accepting.fetch_sub(1);
  leaving_since_ = loop().now();
  if (index_ == 0) watch_leaving();
}

// Asked to end once nobody is left.
void Worker::watch_leaving() {
  const bool servers = controls_->all == Halt::kPaused;
  const bool over =
      servers ? shared_.servers.used() == 0 : shared_.clients.load() <= shared_.consoles.load();
  if (over && shared_.accepting.load() == 0) return config().process.shut_down();
  const Nanos timeout = config().leave_timeout;
  if (timeout > 0s && loop().now() - leaving_since_ >= timeout) {
    for (int i = 0; i < crew_.size(); ++i) {
      crew_.post(i, [](Worker& worker) { worker.kill({}); });
    }
  }
  loop().call_after(kLeavingInterval, [this] { watch_leaving(); });
}

ConsoleSnapshot Worker::snapshot(Sockets sockets) const {
  ConsoleSnapshot out;
  const bool each = sockets == Sockets::kYes;
  for (const Handle handle : clients_.handles()) {
    const ClientConnection* client = clients_.find(handle);
    client->count(out);
    if (each) client->show(out.sockets.emplace_back());
  }
  dispatcher_.show(out, each ? Dispatcher::Sockets::kYes : Dispatcher::Sockets::kNo);
  out.period = engine_->loop().now() - period_before_;
  out.client_bytes = sizeof(ClientConnection);
  out.server_bytes = sizeof(ServerConnection);
  out.statements = workspace_.statements.size();
  return out;
}

void Worker::count_pinned() {
  std::array<uint64_t, WorkerStats::kPins> pinned{};
  for (const Handle handle : clients_.handles()) {
    const ClientConnection* client = clients_.find(handle);
    if (client == nullptr) continue;
    const auto pin = static_cast<size_t>(client->pinned_by());
    if (pin < pinned.size()) ++pinned[pin];
  }
  for (size_t i = 0; i < pinned.size(); ++i) counters_.pinned[i].set(pinned[i]);
}

void Worker::next_period() {
  dispatcher_.next_period();
  period_before_ = std::exchange(period_began_, loop().now());
  loop().call_after(config().stats_period, [this] { next_period(); });
}

void Worker::kill(const std::string& database) {
  for (const Handle handle : clients_.handles()) {
    ClientConnection* client = clients_.find(handle);
    if (client == nullptr || client->known_pool() == nullptr) continue;
    if (!database.empty() && client->known_pool()->database != database) continue;
    client->time_out("57P01", "terminating connection due to administrator command");
  }
}

bool Worker::kill_client(uint64_t id) {
  const auto index = static_cast<uint32_t>(id & ((1u << kClientBits) - 1));
  const auto generation = static_cast<uint32_t>((id >> 31) + 1);
  if (index == 0) return false;
  ClientConnection* client = clients_.find({index - 1, generation});
  if (client == nullptr || client->known_pool() == nullptr) return false;
  client->time_out("57P01", "terminating connection due to administrator command");
  return true;
}

uint64_t Worker::socket_id(Handle handle) const {
  return uint64_t{handle.generation - 1} << 31 | static_cast<uint64_t>(index_) << kClientBits |
         (handle.index + 1);
}

}  // namespace bascule::proxy
