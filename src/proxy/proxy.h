// The PostgreSQL proxy: session pooling and failover that the client's session survives.
//
//   Proxy proxy(config, factory);
//   if (auto s = proxy.start(); !s) ...
//   proxy.publish(table);           // whenever the cluster changes
//   proxy.extend_permit(epoch, t);  // whenever the leader's record was seen renewed
//
// All functions may be called from any thread, except start(), stop() and the destructor.
#pragma once

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "env/net.h"
#include "proxy/config.h"
#include "proxy/route_table.h"
#include "proxy/stats.h"

namespace bascule::proxy {

class Proxy {
 public:
  // `factory` must outlive the proxy.
  Proxy(ProxyConfig config, env::EngineFactory& factory);
  ~Proxy();  // stops
  Proxy(const Proxy&) = delete;
  Proxy& operator=(const Proxy&) = delete;

  // Checks the users, listens on every endpoint, starts the workers. Until the first publish()
  // there is no primary: clients can connect, statements wait.
  Status start();
  // Closes all connections and ends the workers' threads.
  void stop();

  // A table with an older epoch than the current one's is refused (kConflict).
  Status publish(RouteTable table);
  // Replaces users, rules and certificates; who is connected stays. Blocking: reads certificates.
  // An error changes nothing.
  Status reload(AccessConfig access);
  // Besides, limits, time-outs, pools and databases; workers, ports, routing and `monitor` stay as
  // they are until the next start.
  Status reload(ProxyConfig config);
  // See ServerPasswords::set(). Before start() too.
  void set_server_password(const std::string& user, Result<std::string> password);
  // Nobody new is let in; when the last client has left, after leave_timeout at the latest,
  // ProcessHooks::shut_down is called.
  void leave();
  // Replaces the connections to the servers of this region (empty: to all), each as soon as its
  // client gives it back; clients stay.
  void reconnect(const std::string& region);
  // A cancel request that came in elsewhere. `done`, once, on any thread: it has been delivered, or
  // is for nobody here.
  void cancel(uint32_t pid, const std::string& secret, env::Callback done);
  // Ignored if `epoch` is not the current table's.
  void extend_permit(Epoch epoch, MonoTime until);

  ProxyStats stats() const;
  // Every worker acts by the last published table, and no transaction runs on the writer port. With
  // a draining table published: nobody writes through this proxy until the next publish().
  bool drained() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace bascule::proxy
