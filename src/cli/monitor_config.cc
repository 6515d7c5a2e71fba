#include "cli/monitor_config.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "cli/secrets.h"

namespace bascule::cli {
namespace {

constexpr Millis kHour{3'600'000};

void read_name(MapReader& reader, NodeName& out) {
  std::string text;
  reader.text("name", text, Need::kRequired);
  if (text.empty()) return;
  if (const auto name = NodeName::parse(text)) {
    out = *name;
  } else {
    reader.problem("name", name.error().to_string());
  }
}

void read_command(MapReader& reader, const std::string& key, std::vector<std::string>& out) {
  if (!reader.text_list(key, out)) return;
  if (out.empty() || !out.front().starts_with('/')) {
    reader.problem(key,
                   "expected a list: the absolute path of a program, then its arguments "
                   "(no shell)");
  }
}

MonitorEndpointSection read_endpoint(
    MapReader reader, const std::function<std::string(const std::string&)>& resolve) {
  MonitorEndpointSection out;
  read_name(reader, out.name);
  reader.text("url", out.url);
  if (reader.text("url_file", out.url_file)) out.url_file = resolve(out.url_file);
  if (out.url.empty() == out.url_file.empty()) {
    reader.problem("url", "expected either url or url_file");
  } else if (!out.url.empty()) {
    const auto parsed = monitor::parse_url(out.url, monitor::Ssl::kAsUrl);
    if (!parsed) reader.problem("url", parsed.error().to_string());
  }
  reader.text("region", out.region);
  reader.integer("priority", out.priority, {.min = 0, .max = 1000});
  reader.flag("nofailover", out.nofailover);
  reader.duration("health_interval", out.health_interval, {.min = 100ms, .max = kHour});
  reader.duration("failover_timeout", out.failover_timeout, {.min = 1s, .max = 24 * kHour});
  read_command(reader, "promote_command", out.promote_command);
  read_command(reader, "fence_command", out.fence_command);
  reader.finish();
  return out;
}

std::string host_name() {
  char host[256] = {};
  if (gethostname(host, sizeof host - 1) != 0 || host[0] == '\0') return "monitor";
  return host;
}

Result<std::string> url_of(const Platform& platform, const MonitorEndpointSection& e) {
  if (e.url_file.empty()) return e.url;
  return read_secret(platform.disk, e.url_file);
}

Result<monitor::Source> source_of(const Platform& platform, const MonitorSection& section,
                                  const MonitorEndpointSection& e) {
  const auto url = url_of(platform, e);
  if (!url) return std::unexpected(url.error());
  auto source = monitor::parse_url(*url, monitor::Ssl::kAsUrl);
  if (!source) {
    const std::string where = e.url_file.empty() ? "url" : e.url_file;
    return fail(
        ErrorCode::kInvalid,
        fmt::format("monitor.endpoints {}: {}: {}", e.name.str(), where, source.error().message),
        source.error().hint);
  }
  monitor::EndpointConfig& c = source->config;
  c.name = e.name;
  c.region = e.region;
  c.nofailover = e.nofailover;
  if (e.priority) c.priority = *e.priority;
  if (const auto every = e.health_interval ? e.health_interval : section.health_interval) {
    c.health_interval = *every;
  }
  if (const auto limit = e.failover_timeout ? e.failover_timeout : section.failover_timeout) {
    c.failover_timeout = *limit;
  }
  source->access.promote_command = e.promote_command;
  source->access.fence_command = e.fence_command;
  return source;
}

}  // namespace

void read_monitor(MapReader reader, Problems& problems,
                  const std::function<std::string(const std::string&)>& resolve,
                  MonitorSection& out) {
  monitor::MonitorConfig& s = out.settings;
  reader.text("name", out.name);
  reader.flag("environment", out.environment);
  reader.flag("automatic", s.automatic);
  reader.duration("health_interval", out.health_interval, {.min = 100ms, .max = kHour});
  reader.duration("failover_timeout", out.failover_timeout, {.min = 1s, .max = 24 * kHour});
  reader.integer("failure_threshold", s.failure_threshold, {.min = 1, .max = 100});
  reader.integer("recovery_threshold", s.recovery_threshold, {.min = 1, .max = 100});
  reader.duration("probe_timeout", s.probe_timeout, {.min = 50ms, .max = 60s});
  reader.duration("action_timeout", s.action_timeout, {.min = 1s, .max = kHour});
  reader.duration("lease_ttl", s.lease_ttl, {.min = 1s, .max = 10min});
  reader.duration("permit", s.permit, {.min = 1s, .max = 10min});
  reader.duration("drain_timeout", s.drain_timeout, {.min = 0ms, .max = kHour});
  reader.duration("catch_up_timeout", s.catch_up_timeout, {.min = 1s, .max = kHour});
  reader.duration("promote_timeout", s.promote_timeout, {.min = 1s, .max = kHour});
  reader.duration("cooldown", s.cooldown, {.min = 0ms, .max = 24 * kHour});
  reader.size("maximum_lag", s.maximum_lag_bytes, 0);
  reader.duration("maximum_lag_time", s.maximum_lag, {.min = 0ms, .max = 24 * kHour});
  reader.size("loss_tolerance", s.loss_tolerance_bytes, 0);
  read_command(reader, "notify_command", out.notify_command);
  const YAML::Node list = reader.raw("endpoints");
  if (list && !list.IsSequence()) {
    reader.problem("endpoints", "expected a list of {name, url, ...}");
  } else if (list) {
    for (const auto& item : list) {
      out.endpoints.push_back(
          read_endpoint(MapReader(problems, item, "monitor.endpoints"), resolve));
    }
  }
  reader.finish();
}

monitor::Environment database_environment(const Platform& platform) {
  monitor::Environment out;
  if (!platform.environment_names) return out;
  for (const std::string& name : platform.environment_names()) {
    const bool ours = name.starts_with("DB_") || name.starts_with("DATABASE_") ||
                      name == "FAILOVER_HEALTH_CHECK_INTERVAL";
    if (!ours) continue;
    if (auto value = platform.environment(name.c_str())) out[name] = std::move(*value);
  }
  return out;
}

Result<monitor::ShellConfig> resolve_monitor(const Platform& platform, const std::string& cluster,
                                             const MonitorSection& section) {
  monitor::ShellConfig out;
  out.monitor = section.settings;
  out.monitor.cluster = cluster;
  out.monitor.name = section.name.empty() ? host_name() : section.name;
  out.monitor.instance = platform.entropy.hex(8);
  out.notify_command = section.notify_command;
  std::vector<monitor::Source> sources;
  for (const MonitorEndpointSection& e : section.endpoints) {
    auto source = source_of(platform, section, e);
    if (!source) return std::unexpected(source.error());
    sources.push_back(std::move(*source));
  }
  if (section.environment) {
    auto more = monitor::sources_from_environment(database_environment(platform));
    if (!more) return std::unexpected(more.error());
    std::ranges::move(*more, std::back_inserter(sources));
  }
  for (monitor::Source& source : sources) {
    out.monitor.endpoints.push_back(source.config);
    out.access[source.config.name] = std::move(source.access);
  }
  if (auto s = monitor::validate(out); !s) return std::unexpected(s.error());
  return out;
}

}  // namespace bascule::cli
