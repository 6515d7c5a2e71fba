#include "proxy/console_snapshot.h"

#include <algorithm>
#include <iterator>

namespace bascule::proxy {

PoolView& PoolView::operator+=(const PoolView& o) {
  mode = o.mode;
  cl_active += o.cl_active;
  cl_waiting += o.cl_waiting;
  sv_active += o.sv_active;
  sv_active_cancel += o.sv_active_cancel;
  sv_being_canceled += o.sv_being_canceled;
  sv_idle += o.sv_idle;
  sv_tested += o.sv_tested;
  sv_login += o.sv_login;
  sv_closing += o.sv_closing;
  busy += o.busy;
  longest_wait = std::max(longest_wait, o.longest_wait);
  traffic += o.traffic;
  for (const auto& [reason, count] : o.pinned) pinned[reason] += count;
  return *this;
}

ConsoleSnapshot& ConsoleSnapshot::operator+=(ConsoleSnapshot&& o) {
  for (const auto& [key, pool] : o.pools) pools[key] += pool;
  for (const auto& [database, counts] : o.traffic) traffic[database] += counts;
  std::ranges::move(o.sockets, std::back_inserter(sockets));
  clients += o.clients;
  login_clients += o.login_clients;
  servers += o.servers;
  client_bytes += o.client_bytes;
  server_bytes += o.server_bytes;
  statements += o.statements;
  settings += o.settings;
  period = std::max(period, o.period);
  return *this;
}

}  // namespace bascule::proxy
