#include "cli/local_cluster.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <set>

#include "cli/config.h"
#include "cli/secrets.h"
#include "pgwire/scram.h"

namespace bascule::cli {
namespace {

constexpr std::string_view kLoopback = "127.0.0.1";
constexpr size_t kPasswordBytes = 16;
constexpr size_t kSaltBytes = 16;
constexpr size_t kFileBytesMax = 1 << 20;
// sockaddr_un.sun_path, less its terminator (`man 7 unix`).
constexpr size_t kSocketPathMax = 107;

HostPort local(int port) { return {std::string(kLoopback), port}; }

std::vector<int> ports_of(const LocalCluster& cluster) {
  std::vector<int> ports;
  for (const LocalNode& node : cluster.nodes) {
    ports.insert(ports.end(), {node.address.port, node.api.port});
  }
  for (const LocalEtcd& member : cluster.etcd) {
    ports.insert(ports.end(), {member.client.port, member.peer.port});
  }
  for (const HostPort& at : {cluster.writer, cluster.reader, cluster.api}) ports.push_back(at.port);
  return ports;
}

void assign_ports(LocalCluster& cluster, const NewCluster& wanted, int base) {
  const int nodes = static_cast<int>(cluster.nodes.size());
  const int after = base + 1 + nodes;
  for (int i = 0; i < nodes; ++i) {
    LocalNode& node = cluster.nodes[static_cast<size_t>(i)];
    node.address = local(base + 1 + i);
    node.api = local(after + 2 + i);
  }
  int next = after + 2 + nodes;
  for (LocalEtcd& member : cluster.etcd) {
    member.client = local(next++);
    member.peer = local(next++);
  }
  const int proxy = wanted.proxy_port != 0 ? wanted.proxy_port : after;
  cluster.writer = local(proxy);
  cluster.reader = local(proxy + 1);
  cluster.api = local(wanted.api_port != 0 ? wanted.api_port : base);
}

Status choose_ports(LocalCluster& cluster, const NewCluster& wanted) {
  constexpr int kStep = 32;  // nine nodes need 21, five members of etcd 10
  constexpr int kTries = 100;
  if (wanted.base_port != 0) {
    assign_ports(cluster, wanted, wanted.base_port);
    return check_ports(cluster);
  }
  Status status;
  for (int i = 0; i < kTries; ++i) {
    assign_ports(cluster, wanted, kBasePort + i * kStep);
    status = check_ports(cluster);
    if (status) return status;
    // Ports that the user named don't get free by trying others.
    for (const int port : {wanted.proxy_port, wanted.api_port}) {
      if (port != 0 && !port_is_free(port)) return status;
    }
  }
  return status;
}

Result<std::string> find_bin_dir(env::Disk& disk, const NewCluster& wanted) {
  constexpr int kNewest = 18;
  constexpr int kOldest = 13;
  const int version = wanted.pg_version;
  if (!wanted.bin_dir.empty()) {
    if (disk.exists(wanted.bin_dir + "/postgres")) return wanted.bin_dir;
    return fail(ErrorCode::kNotFound, wanted.bin_dir + ": there is no postgres in it");
  }
  for (int v = kNewest; v >= kOldest; --v) {
    if (version != 0 && v != version) continue;
    const std::string dir = fmt::format("/usr/lib/postgresql/{}/bin", v);
    if (disk.exists(dir + "/postgres")) return dir;
  }
  return fail(ErrorCode::kNotFound,
              version != 0 ? fmt::format("PostgreSQL {} is not in /usr/lib/postgresql/{}/bin",
                                         version, version)
                           : "there is no PostgreSQL server in /usr/lib/postgresql",
              "Install it, e.g. apt-get install postgresql-15");
}

Result<std::string> find_etcd(env::Disk& disk) {
  for (const char* path : {"/usr/bin/etcd", "/usr/local/bin/etcd"}) {
    if (disk.exists(path)) return path;
  }
  return fail(ErrorCode::kNotFound, "there is no etcd in /usr/bin or /usr/local/bin",
              "Install it, e.g. apt-get install etcd-server");
}

std::string indent(const std::string& text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    out += "  " + text.substr(at, end - at) + "\n";
    at = end + 1;
  }
  return out;
}

std::string common_config(const LocalCluster& cluster, const std::string& process) {
  const Layout at = cluster.layout();
  return fmt::format(
      "# Written by `bascule up`. Every key: docs/configuration.md\n"
      "cluster:\n  name: {}\n{}user: {}\npid_file: \"{}\"\n",
      cluster.cluster, render_store(cluster.store()), cluster.user, at.pid_file(process));
}

std::string node_config(const LocalCluster& cluster, const LocalNode& node,
                        const control::ClusterConfig& defaults) {
  const Layout at = cluster.layout();
  std::string out = common_config(cluster, node.name);
  out += fmt::format(
      "node:\n"
      "  name: {}\n  data_dir: \"{}\"\n  run_dir: \"{}\"\n  host: {}\n  port: {}\n"
      "  watchdog:\n    mode: off  # one device can't serve several members of a host\n"
      "  postgresql:\n    bin_dir: \"{}\"\n"
      "  superuser:\n    user: {}\n"
      "  replication:\n    password_file: \"{}\"\n"
      "  client_users:\n    - name: {}\n      password_file: \"{}\"\n      database: {}\n"
      "api:\n  listen: {}\n",
      node.name, at.data(node.name), at.run(node.name), node.address.host, node.address.port,
      cluster.bin_dir, cluster.superuser, at.secret("replication"), cluster.app_user,
      at.secret("app.scram"), cluster.database, node.api.to_string());
  return out +
         "# The cluster's configuration when it is made; later: `bascule config`.\ndefaults:\n" +
         indent(render_cluster_config(defaults));
}

std::string proxy_config(const LocalCluster& cluster) {
  return common_config(cluster, std::string(kProxyProcess)) +
         fmt::format(
             "proxy:\n  writer: {}\n  reader: {}\n  pool_size: 100\n  userlist_file: \"{}\"\n"
             "api:\n  listen: {}\n",
             cluster.writer.to_string(), cluster.reader.to_string(),
             cluster.layout().secret("users"), cluster.api.to_string());
}

Status write_secrets(const Platform& platform, const LocalCluster& cluster) {
  const Layout at = cluster.layout();
  const std::string app = platform.entropy.hex(kPasswordBytes);
  std::string salt(kSaltBytes, '\0');
  platform.entropy.fill({reinterpret_cast<uint8_t*>(salt.data()), salt.size()});
  const auto verifier = pgwire::make_verifier(app, salt);
  if (!verifier) return std::unexpected(verifier.error());
  const std::string pgpass = fmt::format("*:*:*:{}:{}\n", cluster.app_user, app);
  const std::pair<const char*, std::string> files[] = {
      {"app", app + "\n"},
      {"app.scram", verifier->to_string() + "\n"},
      {"replication", platform.entropy.hex(kPasswordBytes) + "\n"},
      {"users", render_userlist({{cluster.app_user, verifier->to_string()}})},
      {"pgpass", pgpass}};
  for (const auto& [name, content] : files) {
    if (auto s = platform.disk.write(at.secret(name), content, env::Durability::kFsync, 0600); !s) {
      return s;
    }
  }
  return {};
}

// What the cluster begins with beyond what was asked for.
control::ClusterConfig with_parameters(control::ClusterConfig config) {
  config.parameters.try_emplace("max_connections", "200");
  return config;
}

// Everything comes from there, passwords and users too. It is followed wherever it is led.
Status follow(const Platform& platform, const std::string& dir, const LocalCluster& cluster,
              control::ClusterConfig& defaults) {
  const auto other = load_cluster(platform, dir);
  if (!other) return std::unexpected(other.error());
  for (const char* name : {"replication", "app", "app.scram", "users", "pgpass"}) {
    const auto secret = platform.disk.read(other->layout().secret(name), kFileBytesMax);
    if (!secret) return std::unexpected(secret.error());
    auto s =
        platform.disk.write(cluster.layout().secret(name), *secret, env::Durability::kFsync, 0600);
    if (!s) return s;
  }
  auto& to = defaults.standby_cluster.emplace();
  for (const LocalNode& node : other->nodes) {
    to.host += (to.host.empty() ? "" : ",") + node.address.to_string();
  }
  return {};
}

Status write_files(const Platform& platform, const LocalCluster& cluster,
                   const std::string& standby_of, control::ClusterConfig defaults) {
  const Layout at = cluster.layout();
  for (const std::string& process : cluster.processes()) {
    if (auto s = platform.disk.make_directory(at.home(process)); !s) return s;
  }
  for (const LocalEtcd& member : cluster.etcd) {
    if (auto s = platform.disk.make_directory(at.home(member.name)); !s) return s;
  }
  for (const std::string& dir : {at.secrets(), at.log_dir()}) {
    if (auto s = platform.disk.make_directory(dir); !s) return s;
  }
  auto secrets = standby_of.empty() ? write_secrets(platform, cluster)
                                    : follow(platform, standby_of, cluster, defaults);
  if (!secrets) return secrets;
  const auto write = [&](const std::string& path, const std::string& text) {
    return platform.disk.write(path, text, env::Durability::kFsync, 0600);
  };
  for (const LocalNode& node : cluster.nodes) {
    if (auto s = write(at.config(node.name), node_config(cluster, node, with_parameters(defaults)));
        !s) {
      return s;
    }
  }
  if (auto s = write(at.config(kProxyProcess), proxy_config(cluster)); !s) return s;
  // Last: a directory without it is not a cluster yet.
  return write(at.cluster_file(), encode(cluster));
}

}  // namespace

bool port_is_free(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const int on = 1;  // as the servers do: connections that wait for their end don't count
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool free = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  close(fd);
  return free;
}

Status check_ports(const LocalCluster& cluster) {
  std::set<int> seen;
  for (const int port : ports_of(cluster)) {
    if (port < 1 || port > 65535) {
      return fail(ErrorCode::kInvalid, fmt::format("port {} is out of range", port),
                  "Choose others with --base-port, --proxy-port, --api-port");
    }
    if (!seen.insert(port).second) {
      return fail(ErrorCode::kInvalid, fmt::format("port {} is needed twice", port),
                  "Choose others with --base-port, --proxy-port, --api-port");
    }
    if (!port_is_free(port)) {
      return fail(ErrorCode::kConflict, fmt::format("port {} is in use by another program", port),
                  "Free it (`ss -ltnp` shows who has it), or choose others with --base-port, "
                  "--proxy-port, --api-port");
    }
  }
  return {};
}

Result<LocalCluster> create_cluster(const Platform& platform, const NewCluster& wanted) {
  if (auto s = control::validate(wanted.defaults); !s) return std::unexpected(s.error());
  LocalCluster cluster;
  cluster.dir = wanted.dir;
  cluster.user = wanted.user;
  for (int i = 1; i <= wanted.nodes; ++i) cluster.nodes.push_back({fmt::format("n{}", i), {}, {}});
  for (int i = 1; i <= wanted.etcd_members; ++i) {
    cluster.etcd.push_back({fmt::format("{}{}", kEtcdPrefix, i), {}, {}});
  }
  if (auto etcd = find_etcd(platform.disk); !cluster.etcd.empty() && !etcd) {
    return std::unexpected(etcd.error());
  }
  const std::string socket =
      cluster.layout().run(cluster.nodes.back().name) + "/.s.PGSQL.65535.lock";
  if (socket.size() > kSocketPathMax) {
    return fail(ErrorCode::kInvalid,
                fmt::format("{}: too long by {} characters for PostgreSQL's socket below it",
                            wanted.dir, socket.size() - kSocketPathMax),
                "Choose a shorter --dir");
  }
  auto bin_dir = find_bin_dir(platform.disk, wanted);
  if (!bin_dir) return std::unexpected(bin_dir.error());
  cluster.bin_dir = std::move(*bin_dir);
  if (auto s = choose_ports(cluster, wanted); !s) return std::unexpected(s.error());
  if (auto s = write_files(platform, cluster, wanted.standby_of, wanted.defaults); !s) {
    return std::unexpected(s.error());
  }
  return cluster;
}

Result<LocalCluster> load_cluster(const Platform& platform, const std::string& dir) {
  const auto text = platform.disk.read(Layout{dir}.cluster_file(), kFileBytesMax);
  if (!text) {
    return fail(ErrorCode::kNotFound, fmt::format("there is no cluster in {}", dir),
                "Start one with `bascule up`, or say where it is with --dir");
  }
  auto cluster = decode_local_cluster(*text);
  if (cluster) cluster->dir = dir;  // it may have been moved
  return cluster;
}

}  // namespace bascule::cli
