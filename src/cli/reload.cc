#include "cli/reload.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/log.h"

namespace bascule::cli {
namespace {

class Differences {
 public:
  template <typename T>
  void compare(const char* key, const T& running, const T& wanted) {
    if (!(running == wanted)) list.emplace_back(key);
  }
  std::vector<std::string> list;
};

void compare_nodes(const NodeSection& a, const NodeSection& b, Differences& out) {
  const auto credential = [&](const char* key, const Credential& x, const Credential& y) {
    out.compare(key, std::pair(x.user, x.password_file), std::pair(y.user, y.password_file));
  };
  out.compare("node.name", a.name, b.name);
  out.compare("node.data_dir", a.data_dir, b.data_dir);
  out.compare("node.run_dir", a.run_dir, b.run_dir);
  out.compare("node.host", a.host, b.host);
  out.compare("node.port", a.port, b.port);
  out.compare("node.region", a.region, b.region);
  out.compare("node.watchdog", a.watchdog, b.watchdog);
  out.compare("node.replica_methods", a.replica_methods, b.replica_methods);
  out.compare("node.postgresql.version", a.pg_version, b.pg_version);
  out.compare("node.postgresql.bin_dir", a.bin_dir, b.bin_dir);
  out.compare("node.postgresql.parameters", a.parameters, b.parameters);
  out.compare("node.postgresql.hba", a.hba, b.hba);
  credential("node.superuser", a.superuser, b.superuser);
  credential("node.replication", a.replication, b.replication);
}

// Names only: an endpoint's URL may hold a password.
void compare_monitors(const MonitorSection& a, const MonitorSection& b, Differences& out) {
  out.compare("monitor.name", a.name, b.name);
  out.compare("monitor.environment", a.environment, b.environment);
  out.compare("monitor.health_interval", a.health_interval, b.health_interval);
  out.compare("monitor.failover_timeout", a.failover_timeout, b.failover_timeout);
  out.compare("monitor.notify_command", a.notify_command, b.notify_command);
  out.compare("monitor.endpoints", a.endpoints, b.endpoints);
  const monitor::MonitorConfig &x = a.settings, &y = b.settings;
  out.compare("monitor.automatic", x.automatic, y.automatic);
  out.compare("monitor.failure_threshold", x.failure_threshold, y.failure_threshold);
  out.compare("monitor.recovery_threshold", x.recovery_threshold, y.recovery_threshold);
  out.compare("monitor.probe_timeout", x.probe_timeout, y.probe_timeout);
  out.compare("monitor.action_timeout", x.action_timeout, y.action_timeout);
  out.compare("monitor.lease_ttl", x.lease_ttl, y.lease_ttl);
  out.compare("monitor.permit", x.permit, y.permit);
  out.compare("monitor.drain_timeout", x.drain_timeout, y.drain_timeout);
  out.compare("monitor.catch_up_timeout", x.catch_up_timeout, y.catch_up_timeout);
  out.compare("monitor.promote_timeout", x.promote_timeout, y.promote_timeout);
  out.compare("monitor.cooldown", x.cooldown, y.cooldown);
  out.compare("monitor.maximum_lag", x.maximum_lag_bytes, y.maximum_lag_bytes);
  out.compare("monitor.maximum_lag_time", x.maximum_lag, y.maximum_lag);
  out.compare("monitor.loss_tolerance", x.loss_tolerance_bytes, y.loss_tolerance_bytes);
}

void compare_apis(const ApiSection& a, const ApiSection& b, Differences& out) {
  const auto tls = [](const ApiSection& s) {
    return s.tls ? std::tuple(s.tls->cert_file, s.tls->key_file, s.tls->client_ca_file)
                 : std::tuple<std::string, std::string, std::string>();
  };
  out.compare("api.listen", a.listen.to_string(), b.listen.to_string());
  out.compare("api.tls", tls(a), tls(b));
  out.compare("api.anonymous", a.anonymous, b.anonymous);
  out.compare("api.requests_per_second", a.requests_per_second, b.requests_per_second);
  out.compare("api.allow", a.allow, b.allow);
  out.compare("api.audit_file", a.audit_file, b.audit_file);
}

}  // namespace

std::vector<std::string> changes_that_need_a_restart(const DaemonConfig& running,
                                                     const DaemonConfig& wanted) {
  Differences out;
  out.compare("cluster.name", running.cluster, wanted.cluster);
  out.compare("store", render_store(running.store), render_store(wanted.store));
  out.compare("user", running.user, wanted.user);
  out.compare("pid_file", running.pid_file, wanted.pid_file);
  out.compare("log.file", running.log.file, wanted.log.file);
  out.compare("log.format", running.log.format, wanted.log.format);
  out.compare("node", running.node.has_value(), wanted.node.has_value());
  out.compare("monitor", running.monitor.has_value(), wanted.monitor.has_value());
  out.compare("proxy", running.proxy.has_value(), wanted.proxy.has_value());
  out.compare("api", running.api.has_value(), wanted.api.has_value());
  if (running.node && wanted.node) compare_nodes(*running.node, *wanted.node, out);
  if (running.monitor && wanted.monitor) compare_monitors(*running.monitor, *wanted.monitor, out);
  if (running.api && wanted.api) compare_apis(*running.api, *wanted.api, out);
  return out.list;
}

void tell_of_reload(const std::string& who, const DaemonConfig& running,
                    const DaemonConfig& wanted) {
  log(LogLevel::kInfo, who, "reloaded", {{"file", wanted.file}});
  const auto fixed = changes_that_need_a_restart(running, wanted);
  if (fixed.empty()) return;
  log(LogLevel::kWarn, who, "restart this daemon for what else has changed",
      {{"keys", fmt::format("{}", fmt::join(fixed, ", "))}});
}

}  // namespace bascule::cli
