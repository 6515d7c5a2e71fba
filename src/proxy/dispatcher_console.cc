// What the console orders the dispatcher to do, and what it shows of it.
#include <algorithm>

#include "proxy/cancel_request.h"
#include "proxy/client_connection.h"
#include "proxy/console_snapshot.h"
#include "proxy/dispatcher.h"
#include "proxy/worker.h"

namespace bascule::proxy {

void Dispatcher::on_controls() {
  bool resumed = false;
  for (auto& [key, pool] : pools_) {
    const Halt before = pool->halt;
    pool->halt = worker_.controls().of(pool->database);
    if (pool->halt == Halt::kPaused && before != Halt::kPaused) leave_servers(*pool);
    resumed |= pool->halt == Halt::kNone && before != Halt::kNone;
  }
  if (resumed) pump_all();
}

// Idle ones at once; the others when their transaction, or a session that can't be moved, has
// ended.
void Dispatcher::leave_servers(Pool& pool) {
  for (const Handle handle : servers_.handles()) {
    ServerConnection* server = servers_.find(handle);
    if (server == nullptr || &server->pool() != &pool) continue;
    if (server->client() != nullptr) {
      server->client()->move_if_idle();
    } else if (server->idle() && !server->being_canceled()) {
      remove(*server);
    }
  }
}

void Dispatcher::reconnect(const std::string& database) {
  reconnect_where([&](const ServerConnection& server) {
    return database.empty() || server.pool().database == database;
  });
}

void Dispatcher::reconnect_region(const std::string& region) {
  const Route* route = worker_.route();
  const auto is_there = [&](const std::string& name) {
    if (route == nullptr) return false;
    const RouteTable& table = route->table;
    const auto fits = [&](const RouteMember& m) { return m.name == name && m.region == region; };
    return (table.primary && fits(*table.primary)) || std::ranges::any_of(table.replicas, fits);
  };
  reconnect_where([&](const ServerConnection& server) {
    return region.empty() || (!server.target().elsewhere && is_there(server.target().name));
  });
}

// A connection that somebody uses goes when it comes back.
template <class Predicate>
void Dispatcher::reconnect_where(Predicate wanted) {
  const MonoTime now = worker_.loop().now();
  for (const Handle handle : servers_.handles()) {
    ServerConnection* server = servers_.find(handle);
    if (server == nullptr || !wanted(*server)) continue;
    server->set_expires(now - 1ns);
    if (server->client() == nullptr && server->idle() && !server->being_canceled()) {
      remove(*server);
    }
  }
}

void Dispatcher::show(ConsoleSnapshot& out, Sockets sockets) const {
  const MonoTime now = worker_.loop().now();
  for (const auto& [key, pool] : pools_) {
    PoolView& view = out.pools[{pool->database, pool->user}];
    view.mode = pool->mode;
    view.traffic += pool->traffic;
    out.traffic[pool->database] += pool->traffic;
  }
  for (const auto& [database, traffic] : retired_) out.traffic[database] += traffic;
  for (const Handle handle : servers_.handles()) {
    const ServerConnection* server = servers_.find(handle);
    if (server == nullptr) continue;
    ++out.servers;
    const Pool& pool = server->pool();
    PoolView& view = out.pools[{pool.database, pool.user}];
    int& count = !server->ready()              ? view.sv_login
                 : server->client() != nullptr ? view.sv_active
                 : server->testing()           ? view.sv_tested
                 : server->being_canceled()    ? view.sv_being_canceled
                                               : view.sv_idle;
    ++count;
    if (server->being_canceled()) ++view.sv_active_cancel;
    if (server->expires() <= now || pool.halt == Halt::kPaused) ++view.sv_closing;
    if (sockets == Sockets::kNo) continue;
    server->show(out.sockets.emplace_back());
  }
}

void Dispatcher::next_period() {
  for (auto& [key, pool] : pools_) pool->traffic.next_period();
  for (auto& [database, traffic] : retired_) traffic.next_period();
}

// Its counts stay: they must not go back. Names are the clients' to choose.
void Dispatcher::retire(const Pool& pool) {
  const bool known = retired_.contains(pool.database) || retired_.size() < kRetiredMax;
  retired_[known ? pool.database : "(others)"] += pool.traffic;
}

}  // namespace bascule::proxy
