// What each subcommand does once its options are parsed. All return an ExitCode and print for
// people on standard output (progress and errors on standard error).
#pragma once

#include <string>
#include <vector>

#include "cli/cluster_access.h"
#include "cli/local_cluster.h"
#include "cli/platform.h"

namespace bascule::cli {

struct ClusterOptions : ClusterWhere {
  bool json = false;
};

struct StatusOptions : ClusterOptions {
  bool watch = false;
};
int status_command(const Platform& platform, const StatusOptions& options);
int history_command(const Platform& platform, const ClusterOptions& options);
int audit_command(const Platform& platform, const ClusterOptions& options);
int config_show_command(const Platform& platform, const ClusterOptions& options);
int config_history_command(const Platform& platform, const ClusterOptions& options);
int config_set_command(const Platform& platform, const ClusterOptions& options,
                       const std::vector<std::string>& assignments);

struct RequestOptions : ClusterOptions {
  std::string candidate;
  bool force = false, old_primary_dead = false, yes = false;
  std::string at, region;
  std::string wait = "60s";  // "0s": don't
};
int request_command(const Platform& platform, const RequestOptions& options,
                    control::RequestKind kind);
struct TaskOptions : ClusterOptions {
  std::vector<std::string> members;  // none: all, one after the other
  std::string at;
  std::string timeout;
  std::string wait = "10min";  // "0s": don't
  bool pending = false, by_switchover = false, yes = false;
};
int task_command(const Platform& platform, const TaskOptions& options, api::Command::Kind kind);
int tasks_command(const Platform& platform, const ClusterOptions& options);
struct CancelOptions : ClusterOptions {
  std::string id;  // empty: what is scheduled of `kind`
  api::Command::Kind kind = api::Command::Kind::kSwitchover;
};
int cancel_command(const Platform& platform, const CancelOptions& options);

struct ReconnectOptions : ClusterOptions {
  std::string region;  // empty: all servers
};
int reconnect_command(const Platform& platform, const ReconnectOptions& options);
int check_health_command(const Platform& platform, const ClusterOptions& options);
int analyze_query_command(const std::string& query);

enum class PauseCommand { kPause, kResume };
// Whom it names in commands that it asks for: "ops@host".
std::string who(const Platform& platform);
int pause_command(const Platform& platform, const ClusterOptions& options, PauseCommand command);

struct UpOptions {
  NewCluster cluster;
  std::string user;
  std::string wait = "120s";
  bool foreground = false;
};
int up_command(const Platform& platform, UpOptions options);
struct DownOptions {
  std::string dir;
  bool purge = false;
};
int down_command(const Platform& platform, const DownOptions& options);

struct TokenOptions {
  std::string name;
  std::string role = "admin";
};
// Prints a new token for the API and the entry of api.tokens that admits it.
int token_command(const Platform& platform, const TokenOptions& options);

struct ImportOptions {
  std::string file;    // pgbouncer.ini
  std::string output;  // empty: standard output
  bool json = false, force = false;
};
// kExitFailed: written, and something could not be carried over.
int import_command(const Platform& platform, const ImportOptions& options);

// The JSON schema of bascule.yaml, for editors.
int config_schema_command();
int validate_config_command(const Platform& platform, const std::string& file);

// What was asked for and is not waited for, for machines: {"operation": id, "scheduledAt"?: time}.
int print_asked(const std::string& id, WallTime at);
// "paused", or {"message": "paused"}.
int print_done(const std::string& text, bool json);
// Prints an error as people get to see it, and returns its exit code.
int report(const Error& error);

}  // namespace bascule::cli
