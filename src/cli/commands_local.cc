// Commands about the cluster on this host: up, down, validate-config.
#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <system_error>

#include "cli/commands.h"
#include "cli/config.h"
#include "cli/config_schema.h"
#include "cli/exit_code.h"
#include "cli/role_configs.h"
#include "cli/signals.h"
#include "cli/user.h"

namespace bascule::cli {
namespace {

constexpr Millis kForegroundPoll{100};

void say(const std::string& line) {
  fmt::print("  {}\n", line);
  std::fflush(stdout);
}

void print_how_to_use(const LocalCluster& cluster) {
  std::string nodes;
  for (const LocalNode& node : cluster.nodes) {
    nodes += fmt::format("{}{} {}", nodes.empty() ? "" : ", ", node.name, node.address.port);
  }
  fmt::print(
      "\nReady. Clients connect to the proxy; it follows the primary:\n"
      "  write and read   {}\n"
      "  read replicas    the same with -p {}\n"
      "  API              http://{}/cluster   (each agent has one too: cluster.json)\n"
      "  nodes            {} (ports of PostgreSQL itself)\n"
      "  look             bascule status --dir {} --watch\n"
      "  stop             bascule down --dir {}   (--purge deletes it)\n",
      cluster.psql_line(), cluster.reader.port, cluster.api.to_string(), nodes, cluster.dir,
      cluster.dir);
}

Result<LocalCluster> make_or_load(const Platform& platform, const UpOptions& options) {
  if (!platform.disk.exists(Layout{options.cluster.dir}.cluster_file())) {
    auto cluster = create_cluster(platform, options.cluster);
    if (cluster) {
      say(fmt::format("made {} with {} nodes of PostgreSQL in {}", cluster->dir,
                      cluster->nodes.size(), cluster->bin_dir));
    }
    return cluster;
  }
  auto cluster = load_cluster(platform, options.cluster.dir);
  if (!cluster) return cluster;
  say(fmt::format("starting the existing cluster in {} (options that make a new one are ignored)",
                  cluster->dir));
  // What runs on from before has its ports; only a cluster of which nothing runs needs them free.
  if (processes_in(platform, cluster->dir).empty()) {
    if (auto s = check_ports(*cluster); !s) return std::unexpected(s.error());
  }
  return cluster;
}

Status become_for(const Platform& platform, const std::string& dir, const std::string& wanted) {
  auto user = choose_user(platform, wanted);
  const std::string file = Layout{dir}.cluster_file();
  if (running_as_root() && platform.disk.exists(file)) user = owner_of(file);
  if (!user) return std::unexpected(user.error());
  if (auto s = make_directory_for(*user, dir); !s) return s;
  if (running_as_root())
    say(fmt::format("started as root: everything runs as user {}", user->name));
  return become(platform, *user);
}

}  // namespace

int up_command(const Platform& platform, UpOptions options) {
  const auto wait = parse_duration(options.wait);
  if (!wait) return report(wait.error());
  const std::string dir =
      std::filesystem::absolute(options.cluster.dir).lexically_normal().string();
  options.cluster.dir = dir.ends_with('/') ? dir.substr(0, dir.size() - 1) : dir;
  if (auto s = become_for(platform, options.cluster.dir, options.user); !s) {
    return report(s.error());
  }
  options.cluster.user = platform.process.user();
  if (std::string& programs = options.cluster.bin_dir; !programs.empty()) {
    programs = std::filesystem::absolute(programs).lexically_normal().string();
  }
  auto cluster = make_or_load(platform, options);
  if (!cluster) return report(cluster.error());
  if (supervisor_runs(platform, *cluster)) {
    fmt::print("The cluster in {} is running already.\n", cluster->dir);
    print_how_to_use(*cluster);
    return kExitOk;
  }
  install_interrupt_flag();
  if (auto s = start_supervisor(platform, *cluster); !s) return report(s.error());
  if (auto s = wait_until_ready(platform, *cluster, *wait, say); !s) {
    // What takes long may come yet; what failed would fail again and again.
    const bool hopeless = s.error().code == ErrorCode::kInternal;
    if (options.foreground || interrupted() || hopeless)
      (void)stop_cluster(platform, *cluster, say);
    return report(s.error());
  }
  print_how_to_use(*cluster);
  if (!options.foreground) return kExitOk;
  fmt::print("\nCtrl-C stops it.\n");
  std::fflush(stdout);
  while (!interrupted()) platform.process.sleep(kForegroundPoll);
  if (auto s = stop_cluster(platform, *cluster, say); !s) return report(s.error());
  fmt::print("Stopped.\n");
  return kExitOk;
}

int down_command(const Platform& platform, const DownOptions& options) {
  std::string dir = options.dir;
  if (dir.empty()) dir = platform.environment("BASCULE_DIR").value_or("bascule-data");
  dir = std::filesystem::absolute(dir).lexically_normal().string();
  if (dir.ends_with('/')) dir.pop_back();
  const auto cluster = load_cluster(platform, dir);
  if (!cluster) return report(cluster.error());
  if (running_as_root()) {
    const auto owner = owner_of(cluster->layout().cluster_file());
    if (!owner) return report(owner.error());
    if (auto s = become(platform, *owner); !s) return report(s.error());
  }
  if (auto s = stop_cluster(platform, *cluster, say); !s) return report(s.error());
  fmt::print("Stopped: no process of the cluster in {} is left.\n", dir);
  if (!options.purge) return kExitOk;
  if (auto s = platform.disk.remove_contents(dir); !s) return report(s.error());
  std::error_code error;
  std::filesystem::remove(dir, error);
  fmt::print("Deleted {}{}.\n", dir, error ? " (the empty directory itself is root's)" : "");
  return kExitOk;
}

int config_schema_command() {
  fmt::print("{}\n", config_schema(config_keys()));
  return kExitOk;
}

int validate_config_command(const Platform& platform, const std::string& file) {
  const auto config = load_config(file);
  if (!config) {
    fmt::print(stderr, "{}\n", config.error().to_string());
    return kExitUsage;
  }
  if (auto s = control::validate(config->defaults); !s) {
    fmt::print(stderr, "{}: defaults: {}\n", file, s.error().to_string());
    return kExitUsage;
  }
  const auto note = [&](const std::string& text) { fmt::print("{}: note: {}\n", file, text); };
  const auto check_port = [&](const std::string& key, int port) {
    if (!port_is_free(port)) {
      note(fmt::format("{}: port {} is in use (as it should be if this daemon runs)", key, port));
    }
  };
  const auto check_file = [&](const std::string& key, const std::string& path) {
    if (!path.empty() && access(path.c_str(), R_OK) != 0) {
      note(fmt::format("{}: {} can't be read by this user", key, path));
    }
  };
  const auto check_dir = [&](const std::string& key, std::filesystem::path path) {
    while (!path.empty() && !platform.disk.exists(path.string())) path = path.parent_path();
    if (access(path.c_str(), W_OK | X_OK) != 0) {
      note(fmt::format("{}: {} can't be written by this user", key, path.string()));
    }
  };
  if (config->node) {
    check_port("node.port", config->node->port);
    check_dir("node.data_dir", config->node->data_dir);
    check_dir("node.run_dir", config->node->run_dir);
    check_file("node.superuser.password_file", config->node->superuser.password_file);
    check_file("node.replication.password_file", config->node->replication.password_file);
  }
  if (config->proxy) {
    check_port("proxy.writer", config->proxy->writer.port);
    if (config->proxy->reader) check_port("proxy.reader", config->proxy->reader->port);
    const AccessCheck access = check_access(config->proxy->access, platform.disk,
                                            platform.engines.tls(), platform.entropy);
    for (const std::string& text : access.notes) note(text);
    for (const std::string& text : access.errors) fmt::print(stderr, "{}: {}\n", file, text);
    if (!access.errors.empty()) return kExitUsage;
  }
  if (const auto text = weaker_than_early_takeover(*config); !text.empty()) note(text);
  if (config->api) {
    check_port("api.listen", config->api->listen.port);
    if (config->api->tls) {
      check_file("api.tls.cert", config->api->tls->cert_file);
      check_file("api.tls.key", config->api->tls->key_file);
      check_file("api.tls.client_ca", config->api->tls->client_ca_file);
    }
    for (const std::string& text : notes_about(*config->api)) note(text);
  }
  if (config->monitor) {
    const auto resolved = resolve_monitor(platform, config->cluster, *config->monitor);
    if (!resolved) {
      fmt::print(stderr, "{}: {}\n", file, resolved.error().to_string());
      return kExitUsage;
    }
    for (const auto& [name, access] : resolved->access) {
      note(fmt::format("monitor: watches {} at {}", name.str(), access.shown));
    }
  }
  if (const auto& etcd = config->store.etcd) {
    check_file("store.password_file", etcd->password_file);
    check_file("store.ca", etcd->ca_file);
    check_file("store.cert", etcd->cert_file);
    check_file("store.key", etcd->key_file);
  } else if (!config->standalone()) {
    check_dir("store", std::filesystem::path(config->store.path).parent_path());
  }
  fmt::print("{}: valid\n", file);
  return kExitOk;
}

}  // namespace bascule::cli
