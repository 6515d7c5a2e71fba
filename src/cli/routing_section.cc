#include "cli/routing_section.h"

#include <fmt/format.h>

#include "cli/secrets.h"

namespace bascule::cli {
namespace {

constexpr int64_t kPortMax = 65535;
constexpr size_t kServersMax = 64;

void read_policy(MapReader reader, RoutingSection& out) {
  proxy::RoutingPolicy& policy = out.policy;
  reader.number("primary_share", policy.primary_share, {.min = 0, .max = 1});
  reader.text("region", policy.region);
  reader.text_list("tags", policy.tags);
  reader.size("lag_max", policy.lag_bytes_max, 0);
  Millis lag_time{to_ms(policy.lag_time_max)};
  reader.duration("lag_time_max", lag_time, {.min = 1ms, .max = 24h});
  policy.lag_time_max = lag_time;
  reader.duration("catalog_refresh", out.catalog_refresh, {.min = 1s, .max = 1h});
  reader.finish();
}

void read_servers(MapReader& proxy, Problems& problems, RoutingSection& out) {
  const YAML::Node list = proxy.raw("servers");
  if (!list) return;
  if (!list.IsSequence() || list.size() == 0 || list.size() > kServersMax) {
    proxy.problem("servers", fmt::format("expected a list of 1 to {} servers: {{name, host, port, "
                                         "role, region, weight, tags}}",
                                         kServersMax));
    return;
  }
  for (const auto& item : list) {
    MapReader entry(problems, item, "proxy.servers");
    proxy::ServerSpec spec;
    int port = 5432, role = 0;
    entry.text("host", spec.endpoint.host, Need::kRequired);
    entry.integer("port", port, {.min = 1, .max = kPortMax});
    spec.endpoint.port = static_cast<uint16_t>(port);
    spec.name = spec.endpoint.to_string();
    entry.text("name", spec.name);
    entry.choice("role", role, {"auto", "primary", "replica"});
    spec.role = static_cast<proxy::ServerRole>(role);
    entry.text("region", spec.region);
    entry.number("weight", spec.weight, {.min = 0, .max = 1000});
    entry.text_list("tags", spec.tags);
    entry.finish();
    out.monitor.servers.push_back(std::move(spec));
  }
}

}  // namespace

void read_routing(MapReader& proxy, Problems& problems, const ResolveFile& resolve,
                  RoutingSection& out) {
  HostPort address;
  if (proxy.address("split", address)) out.split = address;
  read_policy(proxy.map("routing"), out);
  read_servers(proxy, problems, out);
  MapReader check = proxy.map("server_check");
  Millis interval{to_ms(out.monitor.interval)}, timeout{to_ms(out.monitor.timeout)};
  check.text("user", out.monitor.user);
  if (check.text("password_file", out.monitor_password_file)) {
    out.monitor_password_file = resolve(out.monitor_password_file);
  }
  check.text("database", out.monitor.database);
  check.duration("interval", interval, {.min = 50ms, .max = 1min});
  check.duration("timeout", timeout, {.min = 50ms, .max = 1min});
  check.finish();
  out.monitor.interval = interval;
  out.monitor.timeout = timeout;
  if (!out.standalone()) return;
  if (const auto status = proxy::Monitor::validate(out.monitor); !status) {
    proxy.problem("servers", status.error().to_string());
  }
}

Status apply_routing(const RoutingSection& section, env::Disk& disk, proxy::ProxyConfig& out) {
  if (section.split) {
    out.listeners.push_back({{section.split->host, static_cast<uint16_t>(section.split->port)},
                             proxy::PortKind::kSplit});
  }
  out.routing = section.policy;
  out.catalog_refresh = section.catalog_refresh;
  out.catalog_expire = 5 * section.catalog_refresh;
  out.monitor = section.monitor;
  if (!section.monitor_password_file.empty()) {
    auto password = read_secret(disk, section.monitor_password_file);
    if (!password) return std::unexpected(password.error());
    out.monitor.password = std::move(*password);
  }
  return {};
}

}  // namespace bascule::cli
