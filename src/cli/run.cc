#include "cli/run.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>

#include "base/log.h"
#include "base/log_level.h"
#include "cli/api_glue.h"
#include "cli/app.h"
#include "cli/cluster_watch.h"
#include "cli/exit_code.h"
#include "cli/leader_lease.h"
#include "cli/monitor_role.h"
#include "cli/password_commands.h"
#include "cli/peer_port.h"
#include "cli/pid_file.h"
#include "cli/reload.h"
#include "cli/role_configs.h"
#include "cli/route_tracker.h"
#include "cli/signals.h"
#include "cli/user.h"
#include "node/node.h"
#include "proxy/proxy.h"

namespace bascule::cli {
namespace {

constexpr int kStoreThreads = 2;
// Cloning, rewinding and a hung query hold a thread each; probes and kills must not wait for them.
constexpr int kNodeThreads = 8;
constexpr Millis kStoreTimeout{1000};
constexpr Millis kPublishEvery{1000};
constexpr Nanos kHandOverWithin = 60s;  // where nothing depends on the time
constexpr Nanos kHoldOnAgain = 200ms;
constexpr Nanos kBetweenAgain = 200ms;

class Daemon {
 public:
  // `pid_file`: is let go of while another process takes over.
  Daemon(const Platform& platform, const DaemonConfig& config, std::optional<PidFile>& pid_file)
      : platform_(platform),
        config_(config),
        pid_file_(pid_file),
        who_(config.node      ? config.node->name.str()
             : config.monitor ? "monitor"
                              : "proxy"),
        loop_(platform.make_loop()),
        node_pool_(platform.make_pool(config.node ? kNodeThreads : 1)),
        api_pool_(platform.make_pool(1)),  // its accept loop occupies a thread
        proxy_id_(platform.entropy.hex(6)),
        tracker_(proxy_id_),
        notes_(platform.disk, proxy_events_file(config)) {}

  ~Daemon() {
    if (hand_over_) hand_over_->withdraw();
    if (passwords_) passwords_->stop();
    password_pool_.reset();
    watch_.reset();
    lease_.reset();
    loop_->cancel(publish_timer_);
    loop_->cancel(hold_on_timer_);
    api_.reset();
    api_pool_.reset();
    acks_.reset();
    monitor_.reset();
    if (proxy_) proxy_->stop();
    node_.reset();
    node_pool_.reset();  // its work may still post to the loop and use the store
    store_.reset();
  }

  Status start() {
    if (config_.standalone()) {
      if (auto s = start_proxy(); !s) return s;
      return offer_hand_over();
    }
    if (auto s = open_store(); !s) return s;
    if (platform_.make_http) http_ = platform_.make_http(*loop_, peer_tls());
    if (config_.node) {
      if (auto s = start_node(); !s) return s;
    }
    if (config_.monitor) {
      if (auto s = start_monitor(); !s) return s;
    }
    if (config_.proxy) {
      if (auto s = start_proxy(); !s) return s;
    }
    if (config_.api) {
      if (auto s = start_api(); !s) return s;
    }
    watch_ = std::make_unique<ClusterWatch>(
        *loop_, store_->store(), control::Keys(config_.cluster),
        [this](const control::ClusterView& view, MonoTime begun) { on_view(view, begun); });
    watch_->start();
    return offer_hand_over();
  }

  // Returns when everything has ended in order.
  Status run() {
    StopSignals signals(*loop_, [this] { on_signal(); }, [this] { (void)reload(); });
    loop_->run();
    return outcome_;
  }

 private:
  Status open_store() {
    OpenStore::Options options;
    options.identity = platform_.entropy.hex(16);
    options.timeout = kStoreTimeout;
    options.threads = kStoreThreads;
    auto store = OpenStore::open(platform_, config_.store, *loop_, options);
    if (!store) return std::unexpected(store.error());
    store_ = std::move(*store);
    return {};
  }

  // Among ourselves: the authority that signs the members' certificates, and our own.
  env::HttpTls peer_tls() const {
    if (!config_.api || !config_.api->tls) return {};
    const api::HttpTls& tls = *config_.api->tls;
    return {tls.client_ca_file, tls.cert_file, tls.key_file};
  }

  Status start_node() {
    auto config = node_config(config_, platform_.disk);
    if (!config) return std::unexpected(config.error());
    if (access(platform_.process.self_program().c_str(), X_OK) == 0) {
      config->program = platform_.process.self_program();
    }
    if (auto s = node::validate(*config); !s) return s;
    node_ = std::make_unique<node::Node>(
        std::move(*config), node::NodeDeps{*loop_, *node_pool_, platform_.process, platform_.disk,
                                           platform_.entropy, store_->store(), http_.get()});
    node_->on_exit([this](Status status) {
      outcome_ = std::move(status);
      loop_->stop();
    });
    return node_->start();
  }

  Status start_monitor() {
    auto config = resolve_monitor(platform_, config_.cluster, *config_.monitor);
    if (!config) return std::unexpected(config.error());
    const std::string name = config->monitor.name;
    monitor_ =
        std::make_unique<MonitorRole>(platform_, std::move(*config), *loop_, store_->store());
    monitor_->shell().on_note([this, name](const monitor::effect::Note& note) {
      notes_.add({platform_.clock.wall_now(), platform_.clock.now(), name, note.level, note.what,
                  note.why, note.fields});
      node_pool_->submit([this] { notes_.write_pending(); });
    });
    monitor_->shell().start();
    return {};
  }

  Status start_proxy() {
    auto config = proxy_config(config_, platform_);
    if (!config) return std::unexpected(config.error());
    log(LogLevel::kInfo, who_, "proxy listens",
        {{"writer", config_.proxy->writer.to_string()},
         {"reader", config_.proxy->reader ? config_.proxy->reader->to_string() : "none"},
         {"workers", config->workers}});
    warn_of_descriptors(config->clients_max + config->pool_size);
    config->process.reload = [this](std::function<void(Status)> done) {
      loop_->post([this, done = std::move(done)] { done(reload()); });
    };
    config->process.shut_down = [this] { loop_->post([this] { end_unless_between(); }); };
    if (!config_.proxy->handover_socket.empty() && platform_.hand_over != nullptr) {
      hand_over_ = platform_.hand_over;
      config->process.pass_cancel = [this](uint32_t pid, const std::string& secret,
                                           env::Callback done) {
        hand_over_->pass_cancel(pid, secret, std::move(done));
      };
    }
    proxy_ = std::make_unique<proxy::Proxy>(std::move(*config), platform_.engines);
    if (store_) {
      acks_ = std::make_unique<ProxyAcks>(*loop_, store_->store(), control::Keys(config_.cluster),
                                          proxy_id_, *proxy_);
      if (http_) {
        lease_ = std::make_unique<LeaderLease>(*loop_, *http_, [this](Epoch epoch, MonoTime until) {
          const auto change = tracker_.on_lease(epoch, until);
          if (!change.extend) return;
          proxy_->extend_permit(change.epoch, *change.extend);
          routes_until_ = *change.extend;
        });
      }
    }
    fetch_passwords();
    return proxy_->start();
  }

  // Everything accepts: whoever ran before may stop, and the next may come.
  Status offer_hand_over() {
    if (hand_over_ == nullptr) return {};
    if (auto s = hand_over_->accepted(*loop_); !s) return s;
    env::HandOverEvents events;
    events.prepare = [this](auto done) { prepare_hand_over(std::move(done)); };
    events.aborted = [this] { hold_on(); };
    events.taken = [this] {
      log(LogLevel::kInfo, who_, "taken over: ends when its clients have left");
      proxy_->leave();
    };
    events.cancel = [this](uint32_t pid, const std::string& secret, env::Callback done) {
      proxy_->cancel(pid, secret, std::move(done));
    };
    return hand_over_->offer(*loop_, config_.proxy->handover_socket, std::move(events));
  }

  void prepare_hand_over(std::function<void(Result<Nanos>)> done) {
    if (stopping_) return done(fail(ErrorCode::kConflict, "the running process is stopping"));
    if (!node_) {
      let_go();
      return done(kHandOverWithin);
    }
    node_->leave([this, done = std::move(done)](Result<MonoTime> until) {
      if (!until) return done(std::unexpected(until.error()));
      let_go();
      node_.reset();
      // Half of what is left is ours, should nobody come.
      done(*until == MonoTime::max() ? kHandOverWithin : (*until - loop_->now()) / 2);
    });
  }

  void let_go() {
    pid_file_.reset();
    loop_->cancel(publish_timer_);
    api_.reset();
    monitor_.reset();  // two of one name must not look after the databases
  }

  // Nobody took over after all.
  void hold_on() {
    if (config_.node) {
      if (auto s = start_node(); !s) {
        log(LogLevel::kError, who_, "the agent does not run: trying again",
            {{"reason", s.error().to_string()}});
        node_.reset();
        hold_on_timer_ = loop_->call_after(kHoldOnAgain, [this] { hold_on(); });
        return;
      }
    }
    if (!config_.pid_file.empty()) {
      auto created = PidFile::create(platform_.disk, platform_.process, config_.pid_file);
      if (created) pid_file_ = std::move(*created);
    }
    if (config_.monitor) {
      if (auto s = start_monitor(); !s) {
        log(LogLevel::kError, who_, "the monitor does not run",
            {{"reason", s.error().to_string()}});
      }
    }
    if (!config_.api) return;
    if (auto s = start_api(); !s) {
      log(LogLevel::kError, who_, "the api does not listen", {{"reason", s.error().to_string()}});
    }
  }

  void warn_of_descriptors(int connections) {
    constexpr int kOthers = 100;
    if (connections + kOthers <= platform_.descriptors) return;
    log(LogLevel::kWarn, who_, "fewer descriptors than clients_max and pool_size ask for",
        {{"limit", platform_.descriptors},
         {"needed", connections + kOthers},
         {"hint", "raise the hard limit of open files (LimitNOFILE= of the service, ulimit -Hn)"}});
  }

  // On a thread of the API.
  Result<std::string> check_health() {
    if (!config_.monitor) {
      return fail(ErrorCode::kConflict, "no monitor runs in this daemon",
                  "Agents look at their databases all the time; ask a daemon with a monitor");
    }
    loop_->post([this] {
      if (monitor_) monitor_->shell().check_now();  // else it was let go of meanwhile
    });
    return "checking";
  }

  Status start_api() {
    const HostPort& at = config_.api->listen;
    api::HttpOptions options = config_.api->options();
    if (node_) options.peers = peer_port(platform_, *node_);
    const ClusterAt cluster{config_.cluster, config_.store, ""};
    options.refused = refusal_handler(platform_, cluster, config_.api->audit_file);
    api_ = std::make_unique<api::HttpServer>(
        std::move(options), platform_.clock, *api_pool_,
        command_handler(platform_, cluster, config_.api->audit_file,
                        [this](const api::Command& command) {
                          return command.kind == api::Command::Kind::kCheckHealth
                                     ? check_health()
                                     : reconnect(proxy_.get(), command.region);
                        }));
    publish_snapshot();
    const auto port = api_->start();
    if (!port) return std::unexpected(port.error());
    log(LogLevel::kInfo, who_, "api listens", {{"address", at.to_string()}});
    return {};
  }

  // Also while the store is silent: what this daemon itself knows goes on, and the age of the rest
  // shows.
  void publish_snapshot() {
    loop_->cancel(publish_timer_);
    const Millis ttl = view_.config ? view_.config->value.ttl : config_.defaults.ttl;
    publish_timer_ =
        loop_->call_after(std::min(ttl / 4, kPublishEvery), [this] { publish_snapshot(); });
    api::Snapshot snapshot;
    snapshot.cluster = config_.cluster;
    snapshot.version = kVersion;
    snapshot.instance = config_.api->listen.to_string();
    snapshot.wall = platform_.clock.wall_now();
    snapshot.taken_at = loop_->now();
    if (node_) snapshot.local = local_member(config_.node->name, node_->view());
    snapshot.view = view_;
    snapshot.store_seen_at = view_seen_at_;
    snapshot.routes_until = routes_until_;
    if (proxy_) add_proxy(proxy_->stats(), snapshot);
    api_->publish(std::move(snapshot));
  }

  void on_view(const control::ClusterView& view, MonoTime begun) {
    route(view, begun);
    if (!api_) return;
    view_ = view;
    view_seen_at_ = begun;
    publish_snapshot();
  }

  void route(const control::ClusterView& view, MonoTime begun) {
    if (!proxy_) return;
    RouteTracker::Change change = tracker_.on_read(view, begun);
    if (change.publish) {
      note_route(*change.publish);
      if (auto s = proxy_->publish(std::move(*change.publish)); !s) {
        log(LogLevel::kError, who_, "proxy refused a route", {{"reason", s.error().to_string()}});
      }
    } else if (change.extend) {
      proxy_->extend_permit(change.epoch, *change.extend);
    }
    acks_->on_view(view);
    if (lease_) lease_->on_view(view, begun);
  }

  void note_route(const proxy::RouteTable& table) {
    const bool draining = table.state == proxy::RouteState::kDraining;
    // Replicas and reasons come and go; what matters to people is where writes go.
    const std::string primary = table.primary ? table.primary->name : "";
    const WriteRoute route{table.epoch, primary, draining};
    if (std::exchange(noted_route_, route) == route) return;
    node::NoteRecord note;
    note.at = platform_.clock.wall_now();
    note.mono = platform_.clock.now();
    note.member = config_.node ? who_ + " proxy" : who_;
    note.what = !table.primary ? "holding" : draining ? "draining" : "routing";
    note.why = table.primary ? fmt::format("writes go to {}", table.primary->name)
                             : fmt::format("writes wait: {}", table.reason);
    note.fields = {{"epoch", fmt::format("{}", table.epoch.value)},
                   {"replicas", fmt::format("{}", table.replicas.size())}};
    notes_.add(std::move(note));
    node_pool_->submit([this] { notes_.write_pending(); });
  }

  // SIGHUP, and RELOAD at the console: the file and the files that it names. What stays as it was
  // is named; of the proxy's part see Proxy::reload().
  Status reload() {
    const auto config = load_config(config_.file);
    const Status status = [&]() -> Status {
      if (!config) return std::unexpected(config.error());
      if (!proxy_) return {};
      if (!config->proxy) return fail(ErrorCode::kInvalid, "the section proxy is gone");
      auto next = proxy_config(*config, platform_);
      if (!next) return std::unexpected(next.error());
      return proxy_->reload(std::move(*next));
    }();
    if (status) take_over_settings(*config);
    if (!status) {
      log(LogLevel::kError, who_, "not reloaded: everything stays as it was",
          {{"error", status.error().to_string()}});
    }
    return status;
  }

  void take_over_settings(const DaemonConfig& wanted) {
    set_log_level(wanted.log.level);
    if (api_ && wanted.api) api_->set_tokens(wanted.api->options().tokens);
    if (node_ && wanted.node) {
      if (const auto next = node_config(wanted, platform_.disk)) {
        node_->retag(next->agent, next->hooks);
      }
    }
    tell_of_reload(who_, config_, wanted);
  }

  void fetch_passwords() {
    const auto& commands = config_.proxy->access.password_commands;
    if (commands.empty()) return;
    password_pool_ = platform_.make_pool(2);
    passwords_ = std::make_unique<PasswordCommands>(
        *loop_, *password_pool_, platform_.process, commands,
        [this](const std::string& user, Result<std::string> password) {
          proxy_->set_server_password(user, std::move(password));
        });
    passwords_->start();
  }

  // Of three processes the middle one may lose its clients first.
  void end_unless_between() {
    if (hand_over_ == nullptr || !hand_over_->between()) return on_signal();
    loop_->call_after(kBetweenAgain, [this] { end_unless_between(); });
  }

  void on_signal() {
    if (std::exchange(stopping_, true) || !node_) {
      loop_->stop();
      return;
    }
    log(LogLevel::kInfo, who_, "asked to stop: leaving the cluster in order");
    node_->request_shutdown();
  }

  const Platform& platform_;
  const DaemonConfig& config_;
  std::optional<PidFile>& pid_file_;
  const std::string who_;
  std::unique_ptr<env::Loop> loop_;
  std::unique_ptr<env::BlockingPool> node_pool_, api_pool_;
  // What the API answers from, as last read.
  control::ClusterView view_;
  std::optional<MonoTime> view_seen_at_;
  env::TimerId publish_timer_ = env::TimerId::kNone;
  env::TimerId hold_on_timer_ = env::TimerId::kNone;
  std::unique_ptr<OpenStore> store_;
  std::unique_ptr<env::HttpClient> http_;  // to other members' APIs
  std::unique_ptr<node::Node> node_;
  std::unique_ptr<proxy::Proxy> proxy_;
  env::HandOver* hand_over_ = nullptr;  // null: nobody can take over
  std::unique_ptr<PasswordCommands> passwords_;
  std::unique_ptr<env::BlockingPool> password_pool_;
  std::unique_ptr<api::HttpServer> api_;
  std::unique_ptr<MonitorRole> monitor_;
  std::unique_ptr<ProxyAcks> acks_;
  std::unique_ptr<LeaderLease> lease_;
  std::optional<MonoTime> routes_until_;  // by lease_
  std::unique_ptr<ClusterWatch> watch_;
  const std::string proxy_id_;
  RouteTracker tracker_;
  node::Notes notes_;  // of the proxy; the node has its own
  struct WriteRoute {
    Epoch epoch;
    std::string primary;
    bool draining = false;
    bool operator==(const WriteRoute&) const = default;
  };
  std::optional<WriteRoute> noted_route_;
  Status outcome_;
  bool stopping_ = false;
};

Result<bool> take_over(const Platform& platform, const DaemonConfig& config) {
  if (!config.proxy || config.proxy->handover_socket.empty() || platform.hand_over == nullptr) {
    return fail(ErrorCode::kInvalid, "nobody can be taken over from",
                "Set proxy.handover_socket, also in the daemon that runs");
  }
  return platform.hand_over->take(config.proxy->handover_socket);
}

Status prepare_user(const Platform& platform, const DaemonConfig& config,
                    const std::string& wanted) {
  const auto user = choose_user(platform, wanted.empty() ? config.user : wanted);
  if (!user) return std::unexpected(user.error());
  if (running_as_root()) {
    std::vector<std::string> dirs;
    if (!config.standalone() && !config.store.etcd)
      dirs.push_back(std::filesystem::path(config.store.path).parent_path());
    if (config.node) dirs.insert(dirs.end(), {config.node->data_dir, config.node->run_dir});
    if (!config.pid_file.empty()) {
      dirs.push_back(std::filesystem::path(config.pid_file).parent_path());
    }
    for (const std::string& dir : dirs) {
      if (auto s = make_directory_for(*user, dir); !s) return s;
    }
  }
  return become(platform, *user);
}

}  // namespace

int run_daemon(const Platform& platform, DaemonConfig config, const std::string& user,
               Start start) {
  const auto failed = [](const Error& error) {
    fmt::print(stderr, "bascule: {}\n", error.to_string());
    log(LogLevel::kError, "bascule", "cannot run", {{"reason", error.to_string()}});
    return exit_code_of(error);
  };
  if (auto s = control::validate(config.defaults); !s) return failed(s.error());
  if (auto s = prepare_user(platform, config, user); !s) return failed(s.error());
  configure_logging(config.log);
  if (start == Start::kTakeOver) {
    const Result<bool> taken = take_over(platform, config);
    if (!taken) return failed(taken.error());
    log(LogLevel::kInfo, "bascule",
        *taken ? "takes over from the running daemon" : "nobody to take over from");
  }
  std::optional<PidFile> pid_file;
  if (!config.pid_file.empty()) {
    auto created = PidFile::create(platform.disk, platform.process, config.pid_file);
    if (!created) return failed(created.error());
    pid_file = std::move(*created);
  }
  Daemon daemon(platform, config, pid_file);
  if (auto s = daemon.start(); !s) return failed(s.error());
  log(LogLevel::kInfo, "bascule", "running",
      {{"config", config.file}, {"pid", platform.process.self()}});
  const Status outcome = daemon.run();
  if (!outcome) return failed(outcome.error());
  log(LogLevel::kInfo, "bascule", "ended in order");
  return kExitOk;
}

}  // namespace bascule::cli
