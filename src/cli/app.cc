#include "cli/app.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>

#include "cli/commands.h"
#include "cli/completion.h"
#include "cli/config.h"
#include "cli/demo.h"
#include "cli/exit_code.h"
#include "cli/run.h"

namespace bascule::cli {
namespace {

// Declares each subcommand with its options, and the action that runs once they are parsed.
class Commands {
 public:
  explicit Commands(const Platform& platform) : platform_(platform) {
    app_.require_subcommand(1);
    app_.set_version_flag("--version", kVersion);
    app_.failure_message(CLI::FailureMessage::simple);
    add_run();
    add_up();
    add_down();
    add_demo();
    add_views();
    add_requests();
    add_config();
    add_rest();
  }

  int run(int argc, char** argv) {
    try {  // CLI11 reports by exception, also for --help
      app_.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
      return app_.exit(error) == 0 ? kExitOk : kExitUsage;
    }
    return action_();
  }

 private:
  CLI::App* add(const std::string& name, const std::string& description,
                std::function<int()> action) {
    CLI::App* sub = app_.add_subcommand(name, description);
    sub->callback([this, action = std::move(action)] { action_ = action; });
    return sub;
  }

  // The CLI11 way of options: each is a reference to a field that must outlive the parse.
  template <typename T>
  std::shared_ptr<T> options() {
    auto value = std::make_shared<T>();
    kept_.push_back(value);
    return value;
  }

  static void add_where(CLI::App* sub, ClusterOptions& where) {
    sub->add_option("--dir", where.dir,
                    "Directory of `bascule up` (default: $BASCULE_DIR or ./bascule-data)");
    sub->add_option("-c,--config", where.config_file, "A configuration file of the cluster");
    sub->add_option("--api", where.api.url,
                    "Through the API of a daemon, https://HOST:PORT (default: $BASCULE_API)")
        ->excludes("--dir")
        ->excludes("--config");
    // Also with $BASCULE_API, of which the parser knows nothing: ClusterAccess::open() refuses
    // them without either.
    sub->add_option("--token-file", where.api.token_file,
                    "File with the token for the API (default: $BASCULE_TOKEN_FILE)");
    sub->add_option("--ca-file", where.api.ca_file, "Who signs the API's certificate");
    sub->add_option("--cert", where.api.cert_file, "Our certificate for the API");
    sub->add_option("--key", where.api.key_file, "Its key");
  }
  static void add_json(CLI::App* sub, bool& json) { sub->add_flag("--json", json, "For machines"); }

  void add_run() {
    struct Options {
      std::string file, user;
      bool take_over = false;
    };
    const auto o = options<Options>();
    CLI::App* sub =
        add("run", "Run the daemon with the roles that a configuration file names", [this, o] {
          auto config = o->file.empty() ? config_from_environment(platform_) : load_config(o->file);
          if (!config) return report(config.error());
          return run_daemon(platform_, std::move(*config), o->user,
                            o->take_over ? Start::kTakeOver : Start::kAlone);
        });
    sub->add_flag("--take-over", o->take_over,
                  "Take over the listening sockets of the daemon that runs with this "
                  "configuration (proxy.handover_socket)");
    sub->add_option("-c,--config", o->file,
                    "Configuration file (default: a monitor of the databases that DATABASE_URL "
                    "or DB_<REGION>_URL name)");
    sub->add_option("--user", o->user, "Started as root, run as this user (default: postgres)");
  }

  void add_cluster_config(CLI::App* sub, std::string& timing, std::string& ttl, std::string& sync) {
    sub->add_option("--timing", timing, "fast (ttl 2 s), default (5 s) or wide (30 s)")
        ->check(CLI::IsMember(kTimingPresets));
    sub->add_option("--ttl", ttl, "Time after which a silent leader is replaced, e.g. 5s");
    sub->add_option("--sync", sync, "Synchronous replication: on (default), quorum or off")
        ->check(CLI::IsMember({"on", "quorum", "off"}));
  }

  struct StoreChoice {
    std::string engine = "file";
    int members = 1;
    int etcd_members() const { return engine == "etcd" ? members : 0; }
  };
  static void add_store(CLI::App* sub, StoreChoice& store) {
    CLI::Option* engine = sub->add_option("--store", store.engine,
                                          "file (SQLite) or etcd, which is started with the rest")
                              ->check(CLI::IsMember({"file", "etcd"}))
                              ->capture_default_str();
    sub->add_option("--store-nodes", store.members, "Members of that etcd: 1, 3 or 5")
        ->check(CLI::IsMember({1, 3, 5}))
        ->needs(engine)
        ->capture_default_str();
  }

  static Status apply(const std::string& timing, const std::string& ttl, const std::string& sync,
                      control::ClusterConfig& config) {
    apply_timing(timing, config);
    if (!ttl.empty()) {
      const auto parsed = parse_duration(ttl);
      if (!parsed) return std::unexpected(parsed.error());
      config.ttl = *parsed;
    }
    config.sync_mode = sync == "off"      ? control::SyncMode::kOff
                       : sync == "quorum" ? control::SyncMode::kQuorum
                                          : control::SyncMode::kOn;
    return {};
  }

  void add_up() {
    struct Options : UpOptions {
      StoreChoice store;
      std::string timing = "default", ttl, sync = "on";
    };
    const auto o = options<Options>();
    o->cluster.dir = platform_.environment("BASCULE_DIR").value_or("bascule-data");
    CLI::App* sub = add("up", "Start a local cluster and leave it running", [this, o] {
      if (auto s = apply(o->timing, o->ttl, o->sync, o->cluster.defaults); !s) {
        return report(s.error());
      }
      o->cluster.etcd_members = o->store.etcd_members();
      return up_command(platform_, *o);
    });
    sub->add_option("--dir", o->cluster.dir, "Where its data is")->capture_default_str();
    sub->add_option("--nodes", o->cluster.nodes, "Number of PostgreSQL servers")
        ->check(CLI::Range(1, 9))
        ->capture_default_str();
    sub->add_option("--base-port", o->cluster.base_port,
                    "API here, then nodes, proxy, agents' APIs (default: free ports from 15430 on)")
        ->check(CLI::Range(1, 65000));
    sub->add_option("--proxy-port", o->cluster.proxy_port, "Writer port; the reader's is the next")
        ->check(CLI::Range(1, 65000));
    sub->add_option("--api-port", o->cluster.api_port, "Port of the API")
        ->check(CLI::Range(1, 65535));
    CLI::Option* version = sub->add_option("--pg-version", o->cluster.pg_version,
                                           "13 to 18 (default: newest installed)")
                               ->check(CLI::Range(13, 18));
    sub->add_option("--bin-dir", o->cluster.bin_dir,
                    "PostgreSQL's programs (default: Debian's of that version)")
        ->excludes(version);
    sub->add_option("--user", o->user, "Started as root, run as this user (default: postgres)");
    sub->add_option("--wait", o->wait, "How long to wait until it is ready")->capture_default_str();
    sub->add_flag("--foreground", o->foreground, "Stay, and stop the cluster at Ctrl-C");
    sub->add_option("--standby-of", o->cluster.standby_of,
                    "Directory of another local cluster that this one follows as a whole");
    add_store(sub, o->store);
    add_cluster_config(sub, o->timing, o->ttl, o->sync);
  }

  void add_down() {
    const auto o = options<DownOptions>();
    CLI::App* sub = add("down", "Stop a local cluster in order, and make sure that nothing is left",
                        [this, o] { return down_command(platform_, *o); });
    sub->add_option("--dir", o->dir, "Its directory (default: $BASCULE_DIR or ./bascule-data)");
    sub->add_flag("--purge", o->purge, "Delete the directory with all data");
  }

  void add_demo() {
    struct Options : DemoOptions {
      StoreChoice store;
      std::string timing = "default", ttl, sync = "on", fault_name = "postmaster";
    };
    const auto o = options<Options>();
    CLI::App* sub = add("demo", "Show a cluster under load losing its primary", [this, o] {
      if (auto s = apply(o->timing, o->ttl, o->sync, o->defaults); !s) return report(s.error());
      o->etcd_members = o->store.etcd_members();
      o->fault = o->fault_name == "host" ? DemoFault::kHost : DemoFault::kPostmaster;
      return demo_command(platform_, *o);
    });
    sub->add_option("--repeat", o->repeat, "So many kills and switchovers")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    sub->add_option("--clients", o->clients, "Clients that write")
        ->check(CLI::Range(1, 200))
        ->capture_default_str();
    sub->add_option("--fault", o->fault_name,
                    "postmaster: SIGKILL of it; host: of agent, guard and PostgreSQL at once")
        ->check(CLI::IsMember({"postmaster", "host"}))
        ->capture_default_str();
    add_json(sub, o->json);
    sub->add_flag("--keep", o->keep, "Leave the cluster running in the end");
    sub->add_option("--dir", o->dir, "Where (default: a new directory in /tmp)");
    sub->add_option("--user", o->user, "Started as root, run as this user (default: postgres)");
    sub->add_option("--pg-version", o->pg_version, "13 to 18 (default: newest installed)")
        ->check(CLI::Range(13, 18));
    add_store(sub, o->store);
    add_cluster_config(sub, o->timing, o->ttl, o->sync);
  }

  void add_views() {
    const auto s = options<StatusOptions>();
    CLI::App* sub = add("status", "Members with role, state, timeline, lag, reason",
                        [this, s] { return status_command(platform_, *s); });
    add_where(sub, *s);
    add_json(sub, s->json);
    sub->add_flag("-w,--watch", s->watch, "Again and again, until Ctrl-C");
    const auto h = options<ClusterOptions>();
    sub = add("history", "Every change of leader, with its reason",
              [this, h] { return history_command(platform_, *h); });
    add_where(sub, *h);
    add_json(sub, h->json);
  }

  void add_request(const std::string& name, const std::string& description,
                   control::RequestKind kind) {
    const auto cancel_it = options<bool>();
    const auto o = options<RequestOptions>();
    CLI::App* sub = add(name, description, [this, o, kind, cancel_it] {
      if (*cancel_it) {
        CancelOptions cancel;
        static_cast<ClusterOptions&>(cancel) = *o;
        return cancel_command(platform_, cancel);
      }
      return request_command(platform_, *o, kind);
    });
    add_where(sub, *o);
    add_json(sub, o->json);
    if (kind == control::RequestKind::kSwitchover) {
      sub->add_option("--to-region", o->region,
                      "To the best of that region, preferred from then on");
      sub->add_option("--at", o->at, "When: 2026-11-21T23:00:00Z, 23:00 (UTC) or +10min");
      sub->add_flag("--cancel", *cancel_it, "Take back what is scheduled");
    }
    sub->add_option("--candidate", o->candidate, "The member that is to lead (default: the best)");
    sub->add_option("--wait", o->wait, "How long to follow it to its end (default: 60s)")
        ->expected(0, 1);
    sub->add_flag_callback("--no-wait", [o] { o->wait = "0s"; }, "Only ask");
    if (kind == control::RequestKind::kFailover) {
      sub->add_flag("--force", o->force,
                    "Accept a member that lacks acknowledged commits: they are lost");
      sub->add_flag("--old-primary-is-dead", o->old_primary_dead,
                    "With --force: the host of the old primary is off for sure; without the store "
                    "it might go on beside the new one")
          ->needs("--force");
      sub->add_flag("--yes", o->yes, "Don't ask whether that is meant");
    }
  }

  void add_requests() {
    add_request("switchover", "Planned change of the primary, without loss",
                control::RequestKind::kSwitchover);
    add_request("failover", "Change of the primary when there is none or it is sick",
                control::RequestKind::kFailover);
    add_tasks();
    add_proxy_commands();
    add_plain("pause", "No automatic failover until resumed", [this](const ClusterOptions& o) {
      return pause_command(platform_, o, PauseCommand::kPause);
    });
    add_plain("resume", "Automatic failover again", [this](const ClusterOptions& o) {
      return pause_command(platform_, o, PauseCommand::kResume);
    });
    add_plain("check-health", "A monitor looks at every database now (needs --api)",
              [this](const ClusterOptions& o) { return check_health_command(platform_, o); });
  }

  // A command without options of its own.
  void add_plain(const std::string& name, const std::string& description,
                 std::function<int(const ClusterOptions&)> command) {
    const auto o = options<ClusterOptions>();
    CLI::App* sub =
        add(name, description, [o, command = std::move(command)] { return command(*o); });
    add_where(sub, *o);
    add_json(sub, o->json);
  }

  void add_proxy_commands() {
    const auto reconnect = options<ReconnectOptions>();
    CLI::App* sub =
        add("reconnect", "Replace a proxy's server connections, clients stay (needs --api)",
            [this, reconnect] { return reconnect_command(platform_, *reconnect); });
    add_where(sub, *reconnect);
    add_json(sub, reconnect->json);
    sub->add_option("region", reconnect->region, "Those to servers of that region (default: all)");
    const auto query = options<std::string>();
    add("analyze-query", "What a statement reads and writes, and where it may go, as JSON",
        [query] { return analyze_query_command(*query); })
        ->add_option("query", *query, "The statement")
        ->required();
  }

  CLI::App* add_task(const std::string& name, const std::string& description,
                     const std::shared_ptr<TaskOptions>& o, api::Command::Kind kind) {
    CLI::App* sub =
        add(name, description, [this, o, kind] { return task_command(platform_, *o, kind); });
    add_where(sub, *o);
    add_json(sub, o->json);
    sub->add_option("--wait", o->wait, "How long to follow it to its end (default: 10min)")
        ->expected(0, 1);
    sub->add_flag_callback("--no-wait", [o] { o->wait = "0s"; }, "Only ask");
    return sub;
  }

  void add_tasks() {
    constexpr const char* kAll = "Which (default: all, one after the other, the primary last)";
    const auto restart = options<TaskOptions>();
    CLI::App* sub = add_task("restart", "Restart PostgreSQL, never of two members at a time",
                             restart, api::Command::Kind::kRestart);
    sub->add_option("members", restart->members, kAll);
    sub->add_flag("--pending", restart->pending, "Only members that wait for a restart");
    sub->add_flag("--by-switchover", restart->by_switchover,
                  "Instead of restarting the primary in place: switch over");
    sub->add_option("--at", restart->at, "When: 2026-11-21T23:00:00Z, 23:00 (UTC) or +10min");
    sub->add_option("--timeout", restart->timeout,
                    "A member that is not back by then has failed (default: 2min)");
    const auto reload = options<TaskOptions>();
    add_task("reload", "Have PostgreSQL read its configuration again", reload,
             api::Command::Kind::kReload)
        ->add_option("members", reload->members, kAll);
    const auto reinit = options<TaskOptions>();
    sub = add_task("reinit", "Delete a replica's data and copy it anew", reinit,
                   api::Command::Kind::kReinit);
    sub->add_option("member", reinit->members, "Which")->required()->expected(1);
    sub->add_flag("--yes", reinit->yes, "Don't ask whether that is meant");
    const auto remove = options<TaskOptions>();
    sub =
        add_task("remove", "Take a member out of the cluster", remove, api::Command::Kind::kRemove);
    sub->add_option("member", remove->members, "Which")->required()->expected(1);
    sub->add_flag("--yes", remove->yes, "Don't ask whether that is meant");
    const auto tasks = options<ClusterOptions>();
    sub = add("tasks", "What was asked for, is scheduled, or under way",
              [this, tasks] { return tasks_command(platform_, *tasks); });
    add_where(sub, *tasks);
    add_json(sub, tasks->json);
    const auto audit = options<ClusterOptions>();
    sub = add("audit", "Who asked for what, and what came of it",
              [this, audit] { return audit_command(platform_, *audit); });
    add_where(sub, *audit);
    add_json(sub, audit->json);
    const auto cancel = options<CancelOptions>();
    sub = add("cancel", "Take back what is scheduled, or end what is under way",
              [this, cancel] { return cancel_command(platform_, *cancel); });
    add_where(sub, *cancel);
    add_json(sub, cancel->json);
    sub->add_option("id", cancel->id, "Which, as `bascule tasks` shows it")->required();
  }

  void add_config() {
    struct Options : ClusterOptions {
      std::vector<std::string> assignments;
    };
    const auto o = options<Options>();
    CLI::App* config = app_.add_subcommand("config", "The cluster's dynamic configuration");
    config->require_subcommand(1);
    CLI::App* show = config->add_subcommand("show", "Print it");
    show->callback(
        [this, o] { action_ = [this, o] { return config_show_command(platform_, *o); }; });
    add_where(show, *o);
    add_json(show, o->json);
    CLI::App* history = config->add_subcommand("history", "Who changed what, and when");
    history->callback(
        [this, o] { action_ = [this, o] { return config_history_command(platform_, *o); }; });
    add_where(history, *o);
    add_json(history, o->json);
    CLI::App* set = config->add_subcommand("set", "Change it: KEY=VALUE...");
    set->callback([this, o] {
      action_ = [this, o] { return config_set_command(platform_, *o, o->assignments); };
    });
    add_where(set, *o);
    add_json(set, o->json);
    set->add_option("assignments", o->assignments, "e.g. ttl=10s sync_strict=true")->required();
  }

  void add_rest() {
    const auto token = options<TokenOptions>();
    CLI::App* make_token = add("token", "A new token for the API",
                               [this, token] { return token_command(platform_, *token); });
    make_token->add_option("--name", token->name, "Whose it is; for the audit")->required();
    make_token->add_option("--role", token->role, "admin, or viewer: no commands")
        ->check(CLI::IsMember({"admin", "viewer"}))
        ->capture_default_str();
    const auto file = options<std::string>();
    const auto schema = options<bool>();
    CLI::App* validate = add("validate-config", "Check a configuration file", [this, file, schema] {
      return *schema ? config_schema_command() : validate_config_command(platform_, *file);
    });
    validate->add_option("file", *file, "Configuration file");
    validate->add_flag("--schema", *schema, "Print the JSON schema of such files");
    validate->require_option(1);
    const auto import = options<ImportOptions>();
    CLI::App* importer = add("import", "Turn a pgbouncer.ini into a bascule.yaml",
                             [this, import] { return import_command(platform_, *import); });
    importer->add_option("file", import->file, "pgbouncer.ini")->required();
    importer->add_option("-o,--output", import->output, "Write it there (default: print it)");
    importer->add_flag("--force", import->force, "Replace the output file");
    add_json(importer, import->json);
    add("version", "Print the version", [] {
      fmt::print("bascule {}\n", kVersion);
      return kExitOk;
    });
    const auto shell = options<std::string>();
    add("completion", "Completion for a shell: source <(bascule completion bash)",
        [this, shell] {
          fmt::print("{}", *shell == "zsh" ? zsh_completion(words()) : bash_completion(words()));
          return kExitOk;
        })
        ->add_option("shell", *shell, "bash or zsh")
        ->required()
        ->check(CLI::IsMember({"bash", "zsh"}));
    const auto dir = options<std::string>();
    CLI::App* supervise = add("supervise", "Body of the supervisor that `up` starts",
                              [this, dir] { return run_supervisor(platform_, *dir); });
    supervise->add_option("--dir", *dir)->required();
    supervise->group("");  // not in the help
  }

  std::vector<CommandWords> words() {
    std::vector<CommandWords> out;
    for (const CLI::App* sub : app_.get_subcommands([](const CLI::App*) { return true; })) {
      if (sub->get_group().empty()) continue;
      CommandWords command{sub->get_name(), sub->get_description(), {}};
      for (const CLI::Option* option : sub->get_options()) {
        for (const std::string& name : option->get_lnames()) command.options.push_back("--" + name);
      }
      for (const CLI::App* inner : sub->get_subcommands([](const CLI::App*) { return true; })) {
        command.options.push_back(inner->get_name());
      }
      out.push_back(std::move(command));
    }
    return out;
  }

  const Platform& platform_;
  CLI::App app_{"Bascule keeps PostgreSQL available", "bascule"};
  std::function<int()> action_;
  std::vector<std::shared_ptr<void>> kept_;
};

}  // namespace

int run_cli(int argc, char** argv, const Platform& platform) {
  return Commands(platform).run(argc, argv);
}

}  // namespace bascule::cli
