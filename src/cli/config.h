// bascule.yaml: what one daemon runs. The sections present say which roles it has. Every key with
// its meaning and default: docs/configuration.md. Relative paths are relative to the file's folder.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "base/types.h"
#include "cli/access_section.h"
#include "cli/api_section.h"
#include "cli/databases_section.h"
#include "cli/durability_section.h"
#include "cli/monitor_config.h"
#include "cli/routing_section.h"
#include "cli/store_at.h"
#include "cli/units.h"
#include "cli/yaml_reader.h"
#include "control/records.h"
#include "node/config.h"

namespace bascule::cli {

// A role of PostgreSQL and the file that holds its password (one line, mode 0600). The superuser
// needs none: without one it gets in over the local socket only.
struct Credential {
  std::string user;
  std::string password_file;
};

// A login role for clients, created with its database when the cluster is bootstrapped.
struct ClientUserSection {
  std::string name;
  std::string password_file;  // a password or a SCRAM-SHA-256 verifier
  std::string database;       // owned by the user; empty: none
};

struct NodeSection {
  NodeName name;
  std::string data_dir;
  std::string run_dir;
  std::string host = "127.0.0.1";  // where members and proxies reach this PostgreSQL
  int port = 5432;
  int pg_version = 0;   // 0: newest installed
  std::string bin_dir;  // empty: /usr/lib/postgresql/<version>/bin
  std::string region;
  int priority = 100;
  bool nofailover = false;
  control::MemberTags tags;
  node::WatchdogConfig watchdog;
  node::HookConfig hooks;
  std::optional<node::CopyMethod> bootstrap;
  std::vector<node::CopyMethod> replica_methods;
  Credential superuser{"postgres", ""};
  Credential replication{"bascule_replication", ""};
  std::vector<ClientUserSection> client_users;
  std::map<std::string, std::string> parameters;  // of postgresql.conf
  std::vector<std::string> hba;  // lines of pg_hba.conf after ours; empty: SCRAM from everywhere
};

// What differs for a user, a database or both.
struct PoolSection {
  std::string user, database;
  std::optional<int> pool_mode, pool_size, reserve_pool_size, max_user_connections;
  std::optional<int> max_user_client_connections;
};

struct ProxySection {
  HostPort writer{"127.0.0.1", 6432};
  std::optional<HostPort> reader;
  int workers = 0;  // 0: min(cores, pool_size / 4), at least 1
  int engine = 0;   // auto, epoll, io_uring
  int clients_max = 10000;
  int pool_mode = 0;  // proxy::PoolMode
  std::vector<PoolSection> pools;
  std::vector<DatabaseSection> databases;
  std::vector<proxy::DurabilityRule> durability;
  int default_pool_size = 0, reserve_pool_size = 0, min_pool_size = 0;  // of one user and database
  Millis reserve_pool_timeout{5000};
  int max_db_connections = 0, max_user_connections = 0;
  int max_db_client_connections = 0, max_user_client_connections = 0;
  int server_prepared_max = 200;
  Millis server_lifetime{3600000};
  std::string server_reset_query = "DISCARD ALL";
  bool server_reset_query_always = false;
  std::string server_check_query;  // empty: none
  Millis server_check_delay{30000};
  Millis leave_timeout{0};
  std::string handover_socket;  // empty: nobody can take over
  std::vector<HostPort> peers;
  Millis query_timeout{0}, transaction_timeout{0}, idle_transaction_timeout{0};
  Millis client_idle_timeout{0};
  int pool_size = 100;  // server connections, all workers together
  Millis hold_timeout{30000};
  int held_max = 10000;
  Millis connect_timeout{3000};
  Millis login_timeout{10000};
  Millis server_idle_timeout{60000};
  int logins_per_address_max = -1;  // -1: half of clients_max; 0: no limit
  AccessSection access;
  RoutingSection routing;
};

struct DaemonConfig {
  std::string file;
  std::string cluster;
  StoreAt store;
  std::string user;      // started as root, run as this one; empty: see drop_privileges.h
  std::string pid_file;  // empty: none
  LogOptions log;
  std::optional<NodeSection> node;
  std::optional<MonitorSection> monitor;
  std::optional<ProxySection> proxy;
  std::optional<ApiSection> api;
  control::ClusterConfig defaults;  // the cluster's configuration at its bootstrap

  // A proxy with a list of servers, and nothing else: no cluster, no store.
  bool standalone() const { return proxy && proxy->routing.standalone(); }
};

// `file` is for messages and relative paths. All problems in one Error, one a line:
// `bascule.yaml:12: node.port: expected a whole number from 1 to 65535, found "x"`.
Result<DaemonConfig> parse_config(std::string_view yaml, const std::string& file);
Result<DaemonConfig> load_config(const std::string& file);
// Without a file: a monitor of the databases that the environment names (docs/monitor.md).
Result<DaemonConfig> config_from_environment(const Platform& platform);

// Every key that the readers ask for, once each, in their order: what they say is what is true.
std::vector<KeyFact> config_keys();

// Presets of timing: "fast" (ttl 2 s), "default" (5 s), "wide" (30 s).
void apply_timing(std::string_view preset, control::ClusterConfig& config);
extern const std::vector<std::string> kTimingPresets;
// The `defaults` section; also used on what `bascule config set` is given.
void read_cluster_config(MapReader& reader, control::ClusterConfig& config);
// One "key: value" a line, as in the file.
std::string render_cluster_config(const control::ClusterConfig& config);

}  // namespace bascule::cli
