#include "monitor/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace bascule::monitor {

const EndpointConfig* MonitorConfig::endpoint(const NodeName& endpoint_name) const {
  const auto found = std::ranges::find(endpoints, endpoint_name, &EndpointConfig::name);
  return found == endpoints.end() ? nullptr : &*found;
}

Status validate(const MonitorConfig& c) {
  const auto refuse = [](std::string what, std::string hint) {
    return fail(ErrorCode::kInvalid, "monitor: " + std::move(what), std::move(hint));
  };
  if (c.endpoints.empty()) {
    return refuse("no endpoints", "List them, or set DATABASE_URL or DB_<REGION>_URL");
  }
  if (c.endpoints.size() > kEndpointsMax) {
    return refuse(fmt::format("{} endpoints", c.endpoints.size()),
                  fmt::format("At most {}", kEndpointsMax));
  }
  std::set<NodeName> names;
  std::set<std::pair<std::string, int>> places;
  for (const EndpointConfig& e : c.endpoints) {
    if (!names.insert(e.name).second) {
      return refuse(fmt::format("two endpoints are named {}", e.name.str()), "");
    }
    if (!places.insert({e.host, e.port}).second) {
      return refuse(fmt::format("{}: {}:{} is another endpoint too", e.name.str(), e.host, e.port),
                    "One database counted twice could be made its own replacement");
    }
    if (e.health_interval < 100ms || e.health_interval > 1h) {
      return refuse(fmt::format("{}: the health interval is out of range", e.name.str()),
                    "Choose 100 ms to 1 h");
    }
  }
  if (c.failure_threshold < 1 || c.failure_threshold > 100 || c.recovery_threshold < 1 ||
      c.recovery_threshold > 100) {
    return refuse("a threshold is out of range", "Choose 1 to 100");
  }
  if (c.lease_ttl < 1s || c.lease_ttl > 10min) {
    return refuse("lease_ttl is out of range", "Choose 1 s to 10 min");
  }
  // Proxies read the record five times a second at best, and a store has its slow moments.
  if (c.permit < 1s || c.permit > 10min) {
    return refuse("permit is out of range", "Choose 1 s to 10 min");
  }
  return {};
}

}  // namespace bascule::monitor
