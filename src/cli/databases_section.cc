#include "cli/databases_section.h"

#include <fmt/format.h>

#include <charconv>
#include <map>
#include <optional>
#include <utility>

#include "cli/secrets.h"

namespace bascule::cli {
namespace {

constexpr int kSizeMax = 10'000;
constexpr size_t kHostsMax = 32;

// "10.0.0.1" or "10.0.0.1:5433" or "[::1]:5433" or a directory; without a port, `port`.
std::optional<env::Endpoint> endpoint_of(const std::string& text, uint16_t port) {
  env::Endpoint out{text, port};
  if (text.empty()) return std::nullopt;
  if (text.front() == '/') return out;
  const size_t bracket = text.rfind(']'), colon = text.rfind(':');
  const bool v6 = text.find(':') != colon && bracket == std::string::npos;
  if (colon != std::string::npos && !v6 && (bracket == std::string::npos || colon > bracket)) {
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + colon + 1, end, out.port);
    if (error != std::errc() || stop != end || out.port == 0) return std::nullopt;
    out.host = text.substr(0, colon);
  }
  if (out.host.starts_with('[') && out.host.ends_with(']')) {
    out.host = out.host.substr(1, out.host.size() - 2);
  }
  if (out.host.empty()) return std::nullopt;
  return out;
}

void read_hosts(MapReader& reader, proxy::DatabaseRule& rule) {
  std::string host;
  std::vector<std::string> hosts;
  int port = 5432;
  reader.integer("port", port, {.min = 1, .max = 65535});
  if (reader.text("host", host)) hosts.push_back(host);
  reader.text_list("hosts", hosts);
  if (hosts.size() > kHostsMax) {
    return reader.problem("hosts", fmt::format("expected at most {}", kHostsMax));
  }
  for (const std::string& text : hosts) {
    if (const auto endpoint = endpoint_of(text, static_cast<uint16_t>(port))) {
      rule.hosts.push_back(*endpoint);
    } else {
      reader.problem(host.empty() ? "hosts" : "host",
                     fmt::format("expected an address, a name or a directory, with a port if it "
                                 "differs; found \"{}\"",
                                 text));
    }
  }
  if (hosts.empty() && reader.has("port")) {
    reader.problem("port", "it goes with host or hosts: without them it is the cluster's database");
  }
  int balance = static_cast<int>(rule.balance);
  reader.choice("load_balance_hosts", balance, {"round-robin", "disable"});
  rule.balance = static_cast<proxy::DatabaseRule::Balance>(balance);
}

DatabaseSection read_database(MapReader reader,
                              const std::function<std::string(const std::string&)>& resolve) {
  DatabaseSection out;
  proxy::DatabaseRule& rule = out.rule;
  reader.text("name", rule.name, Need::kRequired);
  if (rule.name == "pgbouncer" || rule.name == "bascule") {
    reader.problem("name", "that is the name of the console");
  }
  read_hosts(reader, rule);
  reader.text("dbname", rule.dbname);
  reader.text("user", rule.user);
  if (reader.text("password_file", out.password_file)) {
    out.password_file = resolve(out.password_file);
    if (rule.user.empty()) reader.problem("password_file", "it is that of user, which is missing");
  }
  std::optional<int> mode;
  if (reader.choice("pool_mode", mode, {"session", "transaction", "statement"})) {
    rule.mode = static_cast<proxy::PoolMode>(*mode);
  }
  const IntRange size{.min = 0, .max = kSizeMax};
  reader.integer("pool_size", rule.pool_size, size);
  reader.integer("min_pool_size", rule.min_pool_size, size);
  reader.integer("reserve_pool_size", rule.reserve_pool_size, size);
  reader.integer("max_db_connections", rule.max_connections, size);
  reader.integer("max_db_client_connections", rule.max_clients, {.min = 0, .max = 1'000'000});
  std::optional<Millis> lifetime;
  reader.duration("server_lifetime", lifetime, {.min = 0ms, .max = 24h});
  if (lifetime) rule.server_lifetime = *lifetime;
  reader.text("connect_query", rule.connect_query);
  std::map<std::string, std::string> settings;
  reader.text_map("settings", settings);
  rule.settings.assign(settings.begin(), settings.end());
  reader.finish();
  return out;
}

}  // namespace

void read_databases(MapReader& proxy, Problems& problems,
                    const std::function<std::string(const std::string&)>& resolve,
                    std::vector<DatabaseSection>& out) {
  const YAML::Node list = proxy.raw("databases");
  if (!list) return;
  if (!list.IsSequence()) {
    return proxy.problem("databases", "expected a list of {name, hosts, dbname, user, ...}");
  }
  for (const auto& item : list) {
    DatabaseSection section = read_database(MapReader(problems, item, "proxy.databases"), resolve);
    for (const DatabaseSection& other : out) {
      if (other.rule.name != section.rule.name) continue;
      problems.add(item, "proxy.databases", section.rule.name + " is there twice");
    }
    out.push_back(std::move(section));
  }
}

Result<std::vector<proxy::DatabaseRule>> load_databases(
    const std::vector<DatabaseSection>& sections, env::Disk& disk) {
  std::vector<proxy::DatabaseRule> out;
  for (const DatabaseSection& section : sections) {
    out.push_back(section.rule);
    if (section.password_file.empty()) continue;
    auto secret = read_secret(disk, section.password_file);
    if (!secret) return std::unexpected(secret.error());
    out.back().secret = std::move(*secret);
  }
  return out;
}

}  // namespace bascule::cli
