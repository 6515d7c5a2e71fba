// A whole cluster on this host: making its files, starting and stopping it. Used by `up`, `down`
// and `demo`. All of it runs as the user that the cluster belongs to.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/layout.h"
#include "cli/platform.h"
#include "cli/supervisor.h"
#include "control/records.h"

namespace bascule::cli {

struct NewCluster {
  std::string dir;
  std::string user;
  int nodes = 3;
  int base_port = 0;   // 0: free ports from kBasePort on
  int proxy_port = 0;  // 0: the one after the nodes'; the reader's is the next
  int api_port = 0;
  int pg_version = 0;      // 0: newest installed
  std::string bin_dir;     // of PostgreSQL, absolute; empty: by pg_version
  int etcd_members = 0;    // 0: the store is a file
  std::string standby_of;  // directory of the cluster to follow; empty: none
  control::ClusterConfig defaults;
};
inline constexpr int kBasePort = 15430;

// Checks the ports, draws the secrets, writes every file. The directory exists and is ours.
Result<LocalCluster> create_cluster(const Platform& platform, const NewCluster& wanted);
Result<LocalCluster> load_cluster(const Platform& platform, const std::string& dir);

// Whether something listens on 127.0.0.1:port (or we may not listen there).
bool port_is_free(int port);
// Names the first port of the cluster that somebody else uses.
Status check_ports(const LocalCluster& cluster);

// What the supervisor is to run.
std::vector<SupervisedProcess> processes_of(const Platform& platform, const LocalCluster& cluster);
Status start_supervisor(const Platform& platform, const LocalCluster& cluster);
bool supervisor_runs(const Platform& platform, const LocalCluster& cluster);
// `bascule supervise`: the body of the supervisor process.
int run_supervisor(const Platform& platform, const std::string& dir);

using Say = std::function<void(const std::string& line)>;

// Until the primary is writable through the proxy and every member streams. `say` gets what
// changed.
Status wait_until_ready(const Platform& platform, const LocalCluster& cluster, Millis limit,
                        const Say& say);

// Stops everything in order (replicas, then the primary), then whatever is left, guards included,
// and makes sure that no process works in the directory any more.
Status stop_cluster(const Platform& platform, const LocalCluster& cluster, const Say& say);

// Kills everything at once and deletes the directory: for clusters whose data nobody wants.
Status destroy_cluster(const Platform& platform, const LocalCluster& cluster);

// A running primary, every other member streaming on its timeline.
bool records_are_ready(const control::ClusterView& view, const LocalCluster& cluster);

struct LeftProcess {
  env::Pid pid = 0;
  std::string title;
};
// Processes of bascule and PostgreSQL that work in `dir`, by their arguments or working directory.
std::vector<LeftProcess> processes_in(const Platform& platform, const std::string& dir);

}  // namespace bascule::cli
