// From what the store shows to where the proxy sends clients. Pure: give it every read, in order,
// with the time at which the read was begun.
//
//   leader record    route
//   running          writer open, to its holder, under its epoch
//   draining         writer draining: running transactions end, new ones wait
//   preparing, stopping, vacant, absent, unreadable   no primary: statements wait
//
// Replicas: members that stream, on the leader's timeline. Their records are some renewals old: lag
// in bytes and time is what was true then.
//
// The permit. The holder of the record must be unable to acknowledge anything `fence_after` after
// it sent its last successful renewal; another may take over `ttl` after that renewal was committed
// (at C). The proxy believes answers of the holder until `permit_until`, which therefore has to lie
// before C + ttl. A read that shows a changed record and was begun at R proves C <= R only (it may
// show an old change, when this process was stopped for a while), the last read before it, begun
// at P, proves C >= P. With P + ttl/5 + fence_after <= C + 0.8 ttl the permit is
//     min(R, P + ttl/5) + fence_after,
// and it is only moved by a read that shows a change. Without an earlier read there is none yet.
//
// Where a monitor leads (databases without an agent) nobody renews the record: see
// monitor/proxy_permit.h.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "base/time.h"
#include "control/records.h"
#include "proxy/lag_clock.h"
#include "proxy/route_table.h"

namespace bascule::cli {

// Everything but the permit. `reason` is for the clients that wait.
proxy::RouteTable make_route_table(const control::ClusterView& view);

class RouteTracker {
 public:
  // `proxy_id`: under which this proxy is registered in clusters that a monitor leads.
  explicit RouteTracker(std::string proxy_id = {}) : proxy_id_(std::move(proxy_id)) {}

  struct Change {
    std::optional<proxy::RouteTable> publish;  // a new table, with its permit
    std::optional<MonoTime> extend;            // else: the permit of the same epoch moves on
    Epoch epoch;
  };
  Change on_read(const control::ClusterView& view, MonoTime begun);
  // The holder itself has said that it acknowledges nothing after `until` (leader_lease.h).
  Change on_lease(Epoch epoch, MonoTime until);

 private:
  void measure_lag(const control::ClusterView& view, MonoTime begun, proxy::RouteTable& table);
  bool move_permit(const control::ClusterView& view, MonoTime begun, bool new_epoch);
  bool move_monitors_permit(const control::ClusterView& view, MonoTime begun);

  const std::string proxy_id_;
  std::optional<proxy::RouteTable> table_;
  std::optional<MonoTime> last_read_;  // begin of the read before
  control::Revision leader_revision_ = 0;
  MonoTime permit_until_{};
  Epoch lag_epoch_;
  proxy::LagClock lag_clock_;
};

}  // namespace bascule::cli
