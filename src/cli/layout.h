// The directory of a local cluster (`bascule up`): where everything is. Drawn in docs/cli.md, which
// scripts and tests rely on.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cli/store_at.h"
#include "cli/units.h"

namespace bascule::cli {

struct Layout {
  std::string dir;  // absolute

  std::string cluster_file() const { return dir + "/cluster.json"; }
  std::string store() const { return dir + "/store.db"; }
  std::string supervisor_pid() const { return dir + "/supervisor.pid"; }
  std::string secrets() const { return dir + "/secrets"; }
  std::string secret(std::string_view name) const { return secrets() + "/" + std::string(name); }
  std::string log_dir() const { return dir + "/log"; }
  std::string log(std::string_view process) const {
    return log_dir() + "/" + std::string(process) + ".log";
  }
  // `process`: a node's name, kProxyProcess, or that of an etcd.
  std::string home(std::string_view process) const;
  std::string config(std::string_view process) const { return home(process) + "/bascule.yaml"; }
  std::string pid_file(std::string_view process) const { return home(process) + "/agent.pid"; }
  std::string hold_file(std::string_view process) const { return home(process) + "/hold"; }
  std::string data(std::string_view node) const { return home(node) + "/data"; }
  std::string run(std::string_view node) const { return home(node) + "/run"; }
};
inline constexpr std::string_view kProxyProcess = "proxy";
inline constexpr std::string_view kEtcdPrefix = "etcd";  // etcd1, etcd2, ...

struct LocalNode {
  std::string name;
  HostPort address;  // of PostgreSQL
  HostPort api;      // of its agent
  bool operator==(const LocalNode&) const = default;
};

// A member of the cluster's own etcd (`bascule up --store etcd`).
struct LocalEtcd {
  std::string name;
  HostPort client;
  HostPort peer;
  bool operator==(const LocalEtcd&) const = default;
};

// cluster.json: what was decided when the cluster was made.
struct LocalCluster {
  std::string cluster = "main";
  std::string dir;
  std::string user;     // that everything runs as
  std::string bin_dir;  // of PostgreSQL
  std::vector<LocalNode> nodes;
  std::vector<LocalEtcd> etcd;  // empty: the store is a file
  HostPort writer, reader, api;
  std::string superuser = "postgres";
  std::string app_user = "app";
  std::string database = "app";

  Layout layout() const { return {dir}; }
  StoreAt store() const;
  std::string psql_line() const;               // without the password: by PGPASSFILE
  std::vector<std::string> processes() const;  // nodes in order, then the proxy
};
std::string encode(const LocalCluster& cluster);
Result<LocalCluster> decode_local_cluster(std::string_view json);

}  // namespace bascule::cli
