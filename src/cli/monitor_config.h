// The `monitor` section of bascule.yaml and the environment variables that stand for it: from
// there to what monitor/ is given. URLs hold passwords: they are in no message.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/platform.h"
#include "cli/yaml_reader.h"
#include "monitor/shell.h"

namespace bascule::cli {

struct MonitorEndpointSection {
  NodeName name;
  std::string url;
  std::string url_file;  // instead of url: one line
  std::string region;
  std::optional<int> priority;
  bool nofailover = false;
  std::optional<Millis> health_interval, failover_timeout;
  std::vector<std::string> promote_command, fence_command;
  bool operator==(const MonitorEndpointSection&) const = default;
};

struct MonitorSection {
  std::string name;                                         // empty: the host's
  bool environment = true;                                  // endpoints of the environment too
  monitor::MonitorConfig settings;                          // without endpoints
  std::optional<Millis> health_interval, failover_timeout;  // of endpoints that have none
  std::vector<std::string> notify_command;
  std::vector<MonitorEndpointSection> endpoints;
};

void read_monitor(MapReader reader, Problems& problems,
                  const std::function<std::string(const std::string&)>& resolve,
                  MonitorSection& out);

// Every variable of the process that the requirements name for databases.
monitor::Environment database_environment(const Platform& platform);

// Reads the files of URLs. Endpoints of the file come first; one of the environment with the same
// name is an error.
Result<monitor::ShellConfig> resolve_monitor(const Platform& platform, const std::string& cluster,
                                             const MonitorSection& section);

}  // namespace bascule::cli
