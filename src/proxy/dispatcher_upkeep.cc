// What the dispatcher does now and then: closes, opens and checks servers that nobody waits for,
// and takes over a changed configuration.
#include <algorithm>

#include "proxy/cancel_request.h"
#include "proxy/dispatcher.h"
#include "proxy/worker.h"

namespace bascule::proxy {

void Dispatcher::close_stale() {
  const MonoTime now = worker_.loop().now();
  const MonoTime limit = now - worker_.config().server_idle_timeout;
  for (const Handle handle : servers_.handles()) {
    ServerConnection* server = servers_.find(handle);
    if (server == nullptr || !server->idle() || server->being_canceled()) continue;
    const bool spare = !wanted_at_least(server->pool());
    if ((spare && server->idle_since() < limit) || server->expires() < now) remove(*server);
  }
  std::erase_if(pools_, [this](const auto& entry) {
    const Pool& pool = *entry.second;
    const bool unused = pool.clients == 0 && pool.servers == 0 &&
                        pool.sides[0].retry == env::TimerId::kNone &&
                        pool.sides[1].retry == env::TimerId::kNone;
    if (unused) retire(pool);
    return unused;
  });
  check_idle();
  for (auto& [key, pool] : pools_) keep_minimum(*pool);
}

// No more servers of this kind are open, at all workers together, than are to stay open.
bool Dispatcher::wanted_at_least(const Pool& pool) const {
  const int min = min_pool_size(worker_.config(), pool.rule.get());
  return min > 0 && pool.clients > 0 && !pool.caps.empty() && pool.caps.front()->used.load() <= min;
}

void Dispatcher::keep_minimum(Pool& pool) {
  const int min = min_pool_size(worker_.config(), pool.rule.get());
  if (min == 0 || pool.clients == 0 || pool.caps.empty() || pool.halt != Halt::kNone) return;
  const PortKind kind = pool.opened_for;
  Pool::Side& side = pool.side(kind);
  if (side.failing || side.retry != env::TimerId::kNone || !gate_open(pool, kind)) return;
  while (side.connecting < kConnectBurst && pool.caps.front()->used.load() < min) {
    auto target = choose(pool, kind, {});
    if (!target || Caps::take(pool.caps, Caps::Reserve::kKeep, worker_.index()) != nullptr) return;
    if (!worker_.shared().servers.try_acquire()) {
      Caps::give(pool.caps);
      return;
    }
    open(pool, kind, std::move(*target));
  }
}

void Dispatcher::check_idle() {
  const ProxyConfig& config = worker_.config();
  // With 0 each client has its server checked: here it would be for nobody.
  if (config.server_check_query.empty() || config.server_check_delay == 0ms) return;
  for (const Handle handle : servers_.handles()) {
    ServerConnection* server = servers_.find(handle);
    if (server == nullptr || !server->idle() || server->being_canceled()) continue;
    if (!due_for_check(*server)) continue;
    take_from_idle(*server);
    server->check(config.server_check_query);
  }
}

bool Dispatcher::due_for_check(const ServerConnection& server) const {
  const ProxyConfig& config = worker_.config();
  if (config.server_check_query.empty()) return false;
  const MonoTime since = std::max(server.idle_since(), server.checked());
  // What has just been opened, checked or given back goes to who waits for it.
  return since < worker_.turn_began() && worker_.loop().now() - since >= config.server_check_delay;
}

bool Dispatcher::being_checked(const Pool& pool) const {
  if (worker_.config().server_check_query.empty()) return false;
  return std::ranges::any_of(servers_.handles(), [&](const Handle handle) {
    const ServerConnection* server = servers_.find(handle);
    return server != nullptr && &server->pool() == &pool && server->testing();
  });
}

// It is as idle as it was before the check.
void Dispatcher::on_checked(ServerConnection& server) { place_idle(server, worker_.loop().now()); }

void Dispatcher::on_config() {
  const ProxyConfig& config = worker_.config();
  const MonoTime past = worker_.loop().now() - 1ns;
  for (auto& [key, pool] : pools_) {
    const DatabaseRule none;
    const DatabaseRule* found = find_database(config.databases, pool->database);
    const DatabaseRule& now = found != nullptr ? *found : none;
    const DatabaseRule& before = pool->rule ? *pool->rule : none;
    // Another user: clients that come from now on are in another pool.
    if (now.user == before.user && now != before) {
      const bool elsewhere = leads_elsewhere(now, before);
      pool->rule = found != nullptr ? std::make_shared<const DatabaseRule>(now) : nullptr;
      for (const Handle handle : servers_.handles()) {
        ServerConnection* server = servers_.find(handle);
        if (elsewhere && server != nullptr && &server->pool() == pool.get()) {
          server->set_expires(past);
        }
      }
    }
    pool->caps = worker_.shared().caps.of(config, pool->user, pool->database);
  }
  close_stale();
  expire_waiting();
  pump_all();
}

// What was used a moment ago will be needed here in the next.
void Dispatcher::make_room() { evict_idle(nullptr, worker_.loop().now() - kRested); }

// Not at every statement that waits: asking wakes all workers. Again for as long as somebody waits.
void Dispatcher::ask_for_room() {
  if (room_timer_ != env::TimerId::kNone) return;
  worker_.crew().make_room(worker_.index());
  room_timer_ = worker_.loop().call_after(kRested, [this] {
    room_timer_ = env::TimerId::kNone;
    pump_all();
  });
}

}  // namespace bascule::proxy
