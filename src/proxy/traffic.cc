#include "proxy/traffic.h"

namespace bascule::proxy {

TrafficCounts& TrafficCounts::operator+=(const TrafficCounts& o) {
  assignments += o.assignments;
  transactions += o.transactions;
  queries += o.queries;
  received += o.received;
  sent += o.sent;
  transaction_time += o.transaction_time;
  query_time += o.query_time;
  wait_time += o.wait_time;
  client_parses += o.client_parses;
  server_parses += o.server_parses;
  binds += o.binds;
  logins += o.logins;
  return *this;
}

}  // namespace bascule::proxy
