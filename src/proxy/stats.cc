#include "proxy/stats.h"

#include <algorithm>

namespace bascule::proxy {

WorkerStats WorkerCounters::read() const {
  WorkerStats s;
  // First: whoever sees this version sees the transactions that were let in before it.
  s.route_version = route_version.get();
  s.active_transactions = active_transactions.get();
  s.clients = clients.get();
  s.held = held.get();
  s.servers = servers.get();
  s.servers_idle = servers_idle.get();
  s.clients_total = clients_total.get();
  s.logins_failed = logins_failed.get();
  s.servers_total = servers_total.get();
  s.servers_lost = servers_lost.get();
  s.transactions = transactions.get();
  s.moved = moved.get();
  s.retried = retried.get();
  s.errors_outage = errors_outage.get();
  s.hold_timeouts = hold_timeouts.get();
  s.clients_dropped = clients_dropped.get();
  s.cancels = cancels.get();
  s.unreplicated = unreplicated.get();
  s.split_replica = split_replica.get();
  s.split_primary = split_primary.get();
  for (size_t i = 0; i < pinned.size(); ++i) s.pinned[i] = pinned[i].get();
  return s;
}

WorkerStats operator+(const WorkerStats& a, const WorkerStats& b) {
  WorkerStats s;
  s.clients = a.clients + b.clients;
  s.held = a.held + b.held;
  s.active_transactions = a.active_transactions + b.active_transactions;
  s.servers = a.servers + b.servers;
  s.servers_idle = a.servers_idle + b.servers_idle;
  s.clients_total = a.clients_total + b.clients_total;
  s.logins_failed = a.logins_failed + b.logins_failed;
  s.servers_total = a.servers_total + b.servers_total;
  s.servers_lost = a.servers_lost + b.servers_lost;
  s.transactions = a.transactions + b.transactions;
  s.moved = a.moved + b.moved;
  s.retried = a.retried + b.retried;
  s.errors_outage = a.errors_outage + b.errors_outage;
  s.hold_timeouts = a.hold_timeouts + b.hold_timeouts;
  s.clients_dropped = a.clients_dropped + b.clients_dropped;
  s.cancels = a.cancels + b.cancels;
  s.unreplicated = a.unreplicated + b.unreplicated;
  s.split_replica = a.split_replica + b.split_replica;
  s.split_primary = a.split_primary + b.split_primary;
  for (size_t i = 0; i < s.pinned.size(); ++i) s.pinned[i] = a.pinned[i] + b.pinned[i];
  s.route_version = std::min(a.route_version, b.route_version);
  s.loop.turns = a.loop.turns + b.loop.turns;
  s.loop.events = a.loop.events + b.loop.events;
  s.loop.posted = a.loop.posted + b.loop.posted;
  s.loop.timers_fired = a.loop.timers_fired + b.loop.timers_fired;
  s.loop.busy = a.loop.busy + b.loop.busy;
  s.loop.longest_turn = std::max(a.loop.longest_turn, b.loop.longest_turn);
  return s;
}

}  // namespace bascule::proxy
