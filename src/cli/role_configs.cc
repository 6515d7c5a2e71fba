#include "cli/role_configs.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "cli/secrets.h"

namespace bascule::cli {
namespace {

void set_pools(const ProxySection& section, proxy::ProxyConfig& out) {
  out.pool_mode = static_cast<proxy::PoolMode>(section.pool_mode);
  out.default_pool_size = section.default_pool_size;
  out.reserve_pool_size = section.reserve_pool_size;
  out.reserve_pool_timeout = section.reserve_pool_timeout;
  out.min_pool_size = section.min_pool_size;
  out.server_reset_query = section.server_reset_query;
  if (section.server_reset_query_always) out.server_reset = proxy::ProxyConfig::Reset::kAlways;
  out.server_check_query = section.server_check_query;
  out.server_check_delay = section.server_check_delay;
  out.leave_timeout = section.leave_timeout;
  out.max_db_connections = section.max_db_connections;
  out.max_user_connections = section.max_user_connections;
  out.max_db_client_connections = section.max_db_client_connections;
  out.max_user_client_connections = section.max_user_client_connections;
  out.server_prepared_max = static_cast<size_t>(section.server_prepared_max);
  out.server_lifetime = section.server_lifetime;
  out.query_timeout = section.query_timeout;
  out.transaction_timeout = section.transaction_timeout;
  out.idle_transaction_timeout = section.idle_transaction_timeout;
  out.client_idle_timeout = section.client_idle_timeout;
  for (const PoolSection& pool : section.pools) {
    proxy::PoolRule rule;
    rule.user = pool.user;
    rule.database = pool.database;
    rule.pool_size = pool.pool_size;
    rule.reserve_pool_size = pool.reserve_pool_size;
    rule.max_connections = pool.max_user_connections;
    rule.max_clients = pool.max_user_client_connections;
    if (pool.pool_mode) rule.mode = static_cast<proxy::PoolMode>(*pool.pool_mode);
    out.pools.push_back(std::move(rule));
  }
}

}  // namespace

Result<node::NodeConfig> node_config(const DaemonConfig& config, env::Disk& disk) {
  const NodeSection& section = *config.node;
  node::NodeConfig out;
  out.agent.cluster = config.cluster;
  out.agent.name = section.name;
  out.agent.host = section.host;
  out.agent.port = section.port;
  if (config.api) out.agent.api_url = config.api->url();
  out.agent.region = section.region;
  out.agent.priority = section.priority;
  out.agent.nofailover = section.nofailover;
  out.agent.tags = section.tags;
  out.watchdog = section.watchdog;
  out.hooks = section.hooks;
  out.bootstrap = section.bootstrap;
  out.replica_methods = section.replica_methods;
  out.agent.initial = config.defaults;
  out.data_dir = section.data_dir;
  out.run_dir = section.run_dir;
  out.bin_dir = section.bin_dir;
  if (out.bin_dir.empty() && section.pg_version != 0) {
    out.bin_dir = fmt::format("/usr/lib/postgresql/{}/bin", section.pg_version);
  }
  out.hba = section.hba;
  out.parameters = section.parameters;
  out.superuser = section.superuser.user;
  out.replication_user = section.replication.user;
  const auto secret = [&](const std::string& file, std::string& to) -> Status {
    if (file.empty()) return {};
    auto text = read_secret(disk, file);
    if (!text) return std::unexpected(text.error());
    to = std::move(*text);
    return {};
  };
  if (auto s = secret(section.superuser.password_file, out.superuser_password); !s) {
    return std::unexpected(s.error());
  }
  if (auto s = secret(section.replication.password_file, out.replication_password); !s) {
    return std::unexpected(s.error());
  }
  for (const ClientUserSection& entry : section.client_users) {
    node::ClientUser client{entry.name, "", entry.database};
    if (auto s = secret(entry.password_file, client.password); !s) {
      return std::unexpected(s.error());
    }
    out.client_users.push_back(std::move(client));
  }
  return out;
}

Result<proxy::ProxyConfig> proxy_config(const DaemonConfig& config, const Platform& platform) {
  const ProxySection& section = *config.proxy;
  proxy::ProxyConfig out;
  out.cluster = config.cluster;
  const auto listen = [&](const HostPort& at, proxy::PortKind kind) {
    out.listeners.push_back({{at.host, static_cast<uint16_t>(at.port)}, kind});
  };
  listen(section.writer, proxy::PortKind::kWriter);
  if (section.reader) listen(*section.reader, proxy::PortKind::kReader);
  if (auto s = apply_routing(section.routing, platform.disk, out); !s) {
    return std::unexpected(s.error());
  }
  for (const HostPort& peer : section.peers) {
    out.peers.push_back({peer.host, static_cast<uint16_t>(peer.port)});
  }
  out.engine = static_cast<env::EngineKind>(section.engine);
  out.workers = section.workers > 0 ? section.workers
                                    : std::max(1, std::min(platform.cores, section.pool_size / 4));
  out.pool_size = section.pool_size;
  set_pools(section, out);
  auto databases = load_databases(section.databases, platform.disk);
  if (!databases) return std::unexpected(databases.error());
  out.databases = std::move(*databases);
  out.durability = section.durability;
  out.clients_max = section.clients_max;
  out.hold_count_max = section.held_max;
  out.hold_timeout = section.hold_timeout;
  out.auth_timeout = section.login_timeout;
  out.connect_timeout = section.connect_timeout;
  out.server_idle_timeout = section.server_idle_timeout;
  out.logins_per_address_max = section.logins_per_address_max >= 0 ? section.logins_per_address_max
                                                                   : section.clients_max / 2;
  if (!section.access.socket_dir.empty()) {
    out.listeners.push_back(
        {{section.access.socket_dir, static_cast<uint16_t>(section.writer.port)},
         proxy::PortKind::kWriter});
  }
  auto access = load_access(section.access, platform.disk);
  if (!access) return std::unexpected(access.error());
  out.access = std::move(*access);
  return out;
}

std::string proxy_events_file(const DaemonConfig& config) {
  const bool store_file = !config.standalone() && !config.store.etcd && !config.store.path.empty();
  const std::string& near = !config.pid_file.empty() ? config.pid_file
                            : store_file             ? config.store.path
                                                     : config.file;
  std::error_code error;  // no working directory: as it is given
  const auto absolute = std::filesystem::absolute(near, error);
  return ((error ? std::filesystem::path(near) : absolute).parent_path() / "events.jsonl").string();
}

std::string weaker_than_early_takeover(const DaemonConfig& config) {
  const control::ClusterConfig& cluster = config.defaults;
  if (!config.proxy || !cluster.early_takeover || !cluster.synchronous()) return "";
  const auto weak = std::ranges::count_if(config.proxy->durability, [](const auto& rule) {
    return proxy::is_weak(rule.synchronous_commit);
  });
  if (weak == 0) return "";
  return fmt::format(
      "defaults.early_takeover: commits that {} of proxy.durability {} weaker than \"on\" may be "
      "lost also while their primary is alive: it is replaced before ttl",
      weak == 1 ? "a rule" : fmt::format("{} rules", weak), weak == 1 ? "makes" : "make");
}

}  // namespace bascule::cli
