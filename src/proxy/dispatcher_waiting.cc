// Clients that wait for a server: their queue, how long they may wait, and what they are told.
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "proxy/client_connection.h"
#include "proxy/dispatcher.h"
#include "proxy/worker.h"

namespace bascule::proxy {

void Dispatcher::enqueue(ClientConnection& client) {
  if (++next_ticket_ == 0) ++next_ticket_;
  ClientConnection::Hold& hold = client.hold();
  hold.ticket = next_ticket_;
  hold.since = worker_.turn_began();
  if (expiry_timer_ == env::TimerId::kNone) {
    expire_next_at(hold.since + worker_.config().hold_timeout);
  }
  client.pool().side(client.side()).waiting.push_back({client.self(), hold.ticket});
  worker_.shared().held.fetch_add(1);
  worker_.counters().held.add();
}

void Dispatcher::stop_waiting(ClientConnection& client) {
  ClientConnection::Hold& hold = client.hold();
  if (hold.ticket == 0) return;
  hold.ticket = 0;
  worker_.shared().held.fetch_sub(1);
  worker_.counters().held.sub();
}

std::string Dispatcher::why_waiting(Pool& pool, PortKind kind, std::string_view& sqlstate) {
  sqlstate = "57P03";
  const Pool::Side& side = pool.side(kind);
  const std::string& cluster = worker_.config().cluster;
  const Route* route = worker_.route();
  const bool here = !pool.elsewhere();
  if (here && (route == nullptr || (!route->table.primary && !gate_open(kind)))) {
    const std::string reason = route != nullptr ? route->table.reason : "nothing is known yet";
    return fmt::format("cluster \"{}\" has no primary{}{}", cluster, reason.empty() ? "" : ": ",
                       reason);
  }
  if (here && !permitted()) {
    return fmt::format("the primary {} of cluster \"{}\" is not known to be in office any more",
                       route->table.primary->name, cluster);
  }
  if (pool.halt != Halt::kNone) return fmt::format("database \"{}\" is paused", pool.database);
  if (!gate_open(pool, kind)) return fmt::format("cluster \"{}\" is switching over", cluster);
  if (side.full != nullptr) {
    sqlstate = "53300";
    return fmt::format("all {} server connections of {} are in use{}", side.full->max.load(),
                       side.full->what, holders(pool));
  }
  if (side.limited) {
    sqlstate = "53300";
    return fmt::format("all {} server connections of the proxy (pool_size) are in use{}",
                       worker_.shared().servers.max(), holders(pool));
  }
  if (side.failing) return "the server can't be reached: " + side.last_error;
  return "no server connection was ready";
}

// Who has the servers of a pool, as far as this worker knows.
std::string Dispatcher::holders(const Pool& pool) const {
  int held = 0;
  const ServerConnection* longest = nullptr;
  for (const Handle handle : servers_.handles()) {
    const ServerConnection* server = servers_.find(handle);
    if (server == nullptr || server->client() == nullptr || &server->pool() != &pool) continue;
    ++held;
    if (longest == nullptr || server->busy_since() < longest->busy_since()) longest = server;
  }
  if (longest == nullptr) return {};
  const std::chrono::duration<double> since = worker_.loop().now() - longest->busy_since();
  return fmt::format("; here \"{}\" has {} for \"{}\", one for {:.1f} s by {}", pool.user, held,
                     pool.database, since.count(), longest->client()->describe());
}

void Dispatcher::expire_next_at(MonoTime when) {
  expiry_timer_ = worker_.loop().call_at(when, [this] {
    expiry_timer_ = env::TimerId::kNone;
    expire_waiting();
  });
}

// One timer for all who wait: a time-out is rare, and a queue has its oldest in front.
void Dispatcher::expire_waiting() {
  worker_.loop().cancel(std::exchange(expiry_timer_, env::TimerId::kNone));
  const Nanos timeout = worker_.config().hold_timeout;
  const MonoTime now = worker_.loop().now();
  MonoTime next = MonoTime::max();
  std::vector<ClientConnection*> expired;
  for (auto& [key, pool] : pools_) {
    for (const Pool::Side& side : pool->sides) {
      for (const Waiter& waiter : side.waiting) {
        ClientConnection* client = waiting_client(waiter);
        if (client == nullptr) continue;
        const MonoTime until = client->hold().since + timeout;
        if (until > now) {
          next = std::min(next, until);
          break;
        }
        expired.push_back(client);
      }
    }
  }
  if (next != MonoTime::max()) expire_next_at(next);
  for (ClientConnection* client : expired) expire(*client);
}

void Dispatcher::expire(ClientConnection& client) {
  if (client.hold().ticket == 0) return;
  const Nanos waited = worker_.loop().now() - client.hold().since;
  std::string_view sqlstate;
  const std::string why = why_waiting(client.pool(), client.side(), sqlstate);
  stop_waiting(client);
  worker_.counters().hold_timeouts.add();
  client.give_up(sqlstate, fmt::format("waited {:.1f} s for a server, nothing was sent: {}",
                                       std::chrono::duration<double>(waited).count(), why));
}

// Null: it does not wait any more.
ClientConnection* Dispatcher::waiting_client(const Waiter& waiter) const {
  ClientConnection* client = worker_.client(waiter.client);
  return client != nullptr && client->hold().ticket == waiter.ticket ? client : nullptr;
}

MonoTime Dispatcher::waiting_since(const Pool::Side& side, int skip) const {
  for (const Waiter& waiter : side.waiting) {
    ClientConnection* client = waiting_client(waiter);
    if (client == nullptr) continue;
    if (skip-- == 0) return client->hold().since;
  }
  return MonoTime::max();
}

// The server that the waiting client with `skip` others before it wants; empty: any.
std::string_view Dispatcher::member_of_waiter(const Pool::Side& side, int skip) const {
  for (const Waiter& waiter : side.waiting) {
    ClientConnection* client = waiting_client(waiter);
    if (client == nullptr) continue;
    if (skip-- == 0) return client->member();
  }
  return {};
}

// Keeps this worker's place in the queue for the limit true to who waits. Not with every
// transaction: it is the lock of all workers, and their order need not be that fine.
void Dispatcher::update_claim() {
  claim_checked_ = worker_.turn_began();
  MonoTime oldest = MonoTime::max();
  for (const auto& [key, pool] : pools_) {
    for (const Pool::Side& side : pool->sides) {
      if (side.limited) oldest = std::min(oldest, waiting_since(side, side.connecting));
    }
  }
  claiming_ = oldest != MonoTime::max();
  if (claiming_ && oldest >= claimed_since_ && oldest - claimed_since_ < kClaimGrain) return;
  claimed_since_ = oldest;
  worker_.shared().servers.claim(worker_.index(), oldest);
}

}  // namespace bascule::proxy
