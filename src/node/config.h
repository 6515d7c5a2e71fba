// What a node is told about its PostgreSQL: paths, addresses, credentials, parameters.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "control/agent.h"
#include "env/disk.h"
#include "env/process.h"
#include "node/watchdog.h"

namespace bascule::node {

// A login role that clients (through the proxy) use; created when the cluster is bootstrapped.
struct ClientUser {
  std::string name;
  // A SCRAM-SHA-256 verifier ("SCRAM-SHA-256$4096:…") or a plain password; handed to PostgreSQL as
  // is.
  std::string password;
  std::string database;  // created, owned by the user; empty: none
};

// Commands that are run when something changed here (hooks.h): program and arguments; empty: none.
struct HookConfig {
  std::vector<std::string> on_role_change;
  std::vector<std::string> on_start;    // PostgreSQL accepts connections
  std::vector<std::string> on_stop;     // it is gone
  std::vector<std::string> on_restart;  // it was restarted and has the role again that it had
  std::vector<std::string> on_reload;   // it has read its configuration again
  Millis timeout{30000};                // then the command is killed
  bool operator==(const HookConfig&) const = default;
};

// How a data directory is made by a command of the operator's, run with its path as
// BASCULE_DATA_DIR and the like (ops_create.cc).
struct CopyMethod {
  std::string name;                  // "basebackup": pg_basebackup
  std::vector<std::string> command;  // program and arguments
  Millis timeout{std::chrono::hours(24)};
  bool operator==(const CopyMethod&) const = default;
};

struct NodeConfig {
  // name, host and port (where others reach this PostgreSQL), region, priority, initial cluster
  // configuration. `agent.new_incarnation` may be left empty: drawn from entropy.
  control::AgentConfig agent;

  std::string data_dir;    // PostgreSQL's; created if missing (0700)
  std::string run_dir;     // sockets, pid files, logs, events.jsonl; created if missing (0700)
  std::string state_file;  // control::LocalState; empty: run_dir + "/state.json"
  std::string bin_dir;     // of PostgreSQL; empty: the newest of /usr/lib/postgresql/<13..18>/bin
  std::string program;     // path of the bascule binary, for `bascule guard`; empty: /proc/self/exe

  // As in listen_addresses; the port is agent.port. Empty: agent.host.
  std::string listen;
  // Host-based access beside what Bascule itself needs, as lines of pg_hba.conf, in order. Empty:
  // "host all all all scram-sha-256".
  std::vector<std::string> hba;

  std::string superuser = "postgres";  // over the local socket: by peer (the owner of run_dir)
  std::string superuser_password;      // empty: no password, so local socket only
  std::string replication_user = "bascule_replication";  // streams, clones, rewinds, asks positions
  std::string replication_password;                      // required; the same on every member
  std::vector<ClientUser> client_users;
  std::map<std::string, std::string> parameters;  // e.g. {"shared_buffers", "1GB"}; ours win

  WatchdogConfig watchdog;

  HookConfig hooks;
  std::optional<CopyMethod> bootstrap;      // instead of initdb, of a new cluster
  std::vector<CopyMethod> replica_methods;  // in this order; none: pg_basebackup

  // A standby or primary that is silent for so long is taken for gone by replication.
  Millis replication_timeout{2000};
  Millis sampling{250};         // until the agent asks for another period
  Millis probe_deadline{1000};  // then PgRun::kUnresponsive
};

// Checks paths, names and parameters without touching the disk; the message names the setting.
Status validate(const NodeConfig& config);

// Validates, and fills in state_file, program and bin_dir where they are empty.
Status complete(NodeConfig& config, env::Process& process, env::Disk& disk);

}  // namespace bascule::node
