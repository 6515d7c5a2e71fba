// The part of `proxy` in bascule.yaml that says where statements go: the splitting port, the policy
// for reads, and the static list of servers of a proxy without a cluster.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "cli/units.h"
#include "cli/yaml_reader.h"
#include "env/disk.h"
#include "proxy/config.h"

namespace bascule::cli {

struct RoutingSection {
  std::optional<HostPort> split;
  proxy::RoutingPolicy policy;
  Millis catalog_refresh{60000};
  // Complete but for the password.
  proxy::MonitorConfig monitor;
  std::string monitor_password_file;

  // The proxy finds its servers out by itself: no cluster, no store.
  bool standalone() const { return !monitor.servers.empty(); }
};

using ResolveFile = std::function<std::string(const std::string&)>;
void read_routing(MapReader& proxy, Problems& problems, const ResolveFile& resolve,
                  RoutingSection& out);

// Into the proxy's own configuration. Reads the password file.
Status apply_routing(const RoutingSection& section, env::Disk& disk, proxy::ProxyConfig& out);

}  // namespace bascule::cli
