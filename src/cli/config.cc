#include "cli/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "env/guard_wire.h"

namespace bascule::cli {
namespace {

constexpr int64_t kPortMax = 65535;
constexpr size_t kFileBytesMax = 1 << 20;
constexpr size_t kPeersMax = 32;  // each of them hears of each cancel request that nobody knows

std::string resolve(const std::string& path, const std::string& file) {
  const std::filesystem::path given(path);
  if (given.is_absolute()) return path;
  std::error_code error;
  const auto base = std::filesystem::absolute(file, error).parent_path();
  return (base / given).lexically_normal().string();
}

class Parser {
 public:
  explicit Parser(const std::string& file, std::vector<KeyFact>* facts = nullptr) : file_(file) {
    config_.file = file;
    problems_.facts = facts;
  }

  Result<DaemonConfig> parse(const YAML::Node& root) {
    MapReader top(problems_, root, "");
    standalone_ =
        root.IsMap() && root["proxy"] && root["proxy"].IsMap() && root["proxy"]["servers"];
    read_top(top);
    if (top.has("node")) read_node(top.map("node"));
    if (top.has("monitor")) {
      config_.monitor.emplace();
      read_monitor(
          top.map("monitor"), problems_,
          [this](const std::string& path) { return resolve(path, file_); }, *config_.monitor);
      if (config_.node) {
        top.problem("monitor", "a cluster is led by agents (node) or by a monitor, not by both");
      }
    }
    if (top.has("proxy")) read_proxy(top.map("proxy"));
    if (top.has("api")) {
      read_api(
          top.map("api"), problems_,
          [this](const std::string& path) { return resolve(path, file_); }, config_.api.emplace());
    }
    MapReader log = top.map("log");
    read_log(log);
    MapReader defaults = top.map("defaults");
    read_cluster_config(defaults, config_.defaults);
    defaults.finish();
    if (config_.node && config_.node->watchdog.mode == node::WatchdogConfig::Mode::kRequired &&
        !node::watchdog_times(config_.defaults.ttl)) {
      top.problem("defaults", "ttl is too short for node.watchdog, which needs 1.5 s");
    }
    // Asked for here so that they are known names even in a file that has none of them.
    top.raw("node"), top.raw("monitor"), top.raw("proxy"), top.raw("api");
    top.finish();
    if (!config_.node && !config_.monitor && !config_.proxy && !config_.api &&
        problems_.list.empty()) {
      problems_.list.push_back(
          {0, "",
           "has none of the sections node, monitor, proxy, api: there would be nothing to run"});
    }
    if (standalone_) {
      for (const char* section : {"node", "monitor", "api"}) {
        if (top.has(section)) top.problem(section, "can't be beside proxy.servers");
      }
    }
    check_ports();
    if (!problems_.list.empty()) return fail(ErrorCode::kInvalid, render());
    return std::move(config_);
  }

 private:
  void read_top(MapReader& top) {
    MapReader cluster = top.map("cluster");
    if (standalone_) config_.cluster = "proxy";
    cluster.text("name", config_.cluster, standalone_ ? Need::kOptional : Need::kRequired);
    cluster.finish();
    if (!config_.cluster.empty() && !NodeName::parse(config_.cluster)) {
      cluster.problem("name", "expected 1 to 40 of a-z, 0-9, - and _, first a letter");
    }
    // A proxy with a list of servers of its own is part of no cluster.
    if (standalone_) {
      if (top.has("store")) top.problem("store", "proxy.servers names the servers: no store then");
      top.raw("store");
    } else {
      read_store(
          top, [this](const std::string& path) { return resolve(path, file_); }, config_.store);
    }
    top.text("user", config_.user);
    if (top.text("pid_file", config_.pid_file)) config_.pid_file = resolve(config_.pid_file, file_);
  }

  void read_credential(MapReader node, Credential& credential, Need need) {
    node.text("user", credential.user);
    if (node.text("password_file", credential.password_file, need)) {
      credential.password_file = resolve(credential.password_file, file_);
    }
    node.finish();
  }

  void read_client_users(MapReader& reader, NodeSection& node) {
    const YAML::Node list = reader.raw("client_users");
    if (!list) return;
    if (!list.IsSequence()) {
      reader.problem("client_users", "expected a list of {name, password_file, database}");
      return;
    }
    for (const auto& item : list) {
      MapReader entry(problems_, item, "node.client_users");
      ClientUserSection user;
      entry.text("name", user.name, Need::kRequired);
      if (entry.text("password_file", user.password_file, Need::kRequired)) {
        user.password_file = resolve(user.password_file, file_);
      }
      entry.text("database", user.database);
      entry.finish();
      node.client_users.push_back(std::move(user));
    }
  }

  // A program's path, or a list of it and its arguments.
  void read_command(MapReader& reader, const std::string& key, std::vector<std::string>& out) {
    const YAML::Node value = reader.raw(key);
    if (!value) return;
    if (value.IsScalar()) {
      out = {value.Scalar()};
    } else if (!reader.text_list(key, out)) {
      return;
    }
    if (out.empty() || out.front().empty()) {
      reader.problem(key, "expected a program, or a list of it and its arguments");
    } else {
      out.front() = resolve(out.front(), file_);
    }
  }

  void read_commands(MapReader& reader, NodeSection& node) {
    MapReader hooks = reader.map("hooks");
    read_command(hooks, "on_role_change", node.hooks.on_role_change);
    read_command(hooks, "on_start", node.hooks.on_start);
    read_command(hooks, "on_stop", node.hooks.on_stop);
    read_command(hooks, "on_restart", node.hooks.on_restart);
    read_command(hooks, "on_reload", node.hooks.on_reload);
    hooks.duration("timeout", node.hooks.timeout, {.min = 100ms, .max = 1h});
    hooks.finish();
    if (reader.has("bootstrap")) {
      MapReader own = reader.map("bootstrap");
      node.bootstrap = node::CopyMethod{"bootstrap", {}};
      read_command(own, "command", node.bootstrap->command);
      own.duration("timeout", node.bootstrap->timeout, {.min = 1s, .max = 240h});
      if (node.bootstrap->command.empty()) own.problem("command", "is required");
      own.finish();
    } else {
      reader.raw("bootstrap");
    }
    const YAML::Node list = reader.raw("replica_methods");
    if (!list) return;
    if (!list.IsSequence()) {
      return reader.problem("replica_methods", "expected a list of basebackup or {name, command}");
    }
    for (const auto& item : list) {
      node::CopyMethod method;
      if (item.IsScalar() && item.Scalar() == "basebackup") {
        method.name = item.Scalar();
      } else {
        MapReader entry(problems_, item, "node.replica_methods");
        entry.text("name", method.name, Need::kRequired);
        read_command(entry, "command", method.command);
        entry.duration("timeout", method.timeout, {.min = 1s, .max = 240h});
        if (method.command.empty()) entry.problem("command", "is required");
        entry.finish();
      }
      node.replica_methods.push_back(std::move(method));
    }
  }

  void read_tags(MapReader& reader, control::MemberTags& tags) {
    reader.flag("nosync", tags.nosync);
    reader.flag("noloadbalance", tags.noloadbalance);
    reader.flag("clonefrom", tags.clonefrom);
    std::string relay;
    if (!reader.text("replicatefrom", relay) || relay.empty()) return;
    const auto parsed = NodeName::parse(relay);
    if (parsed) {
      tags.replicatefrom = *parsed;
    } else {
      reader.problem("replicatefrom", parsed.error().to_string());
    }
  }

  void read_watchdog(MapReader reader, node::WatchdogConfig& watchdog) {
    int mode = static_cast<int>(watchdog.mode);
    reader.choice("mode", mode, {"off", "automatic", "required"});
    watchdog.mode = static_cast<node::WatchdogConfig::Mode>(mode);
    reader.text("device", watchdog.device);
    if (!watchdog.device.starts_with('/') || watchdog.device.size() > env::kWatchdogPathMax) {
      reader.problem("device", "must be an absolute path");
    }
    reader.finish();
  }

  void read_node(MapReader reader) {
    NodeSection node;
    std::string name;
    reader.text("name", name, Need::kRequired);
    if (!name.empty()) {
      const auto parsed = NodeName::parse(name);
      if (parsed) {
        node.name = *parsed;
      } else {
        reader.problem("name", parsed.error().to_string());
      }
    }
    reader.text("data_dir", node.data_dir, Need::kRequired);
    reader.text("run_dir", node.run_dir, Need::kRequired);
    node.data_dir = resolve(node.data_dir, file_);
    node.run_dir = resolve(node.run_dir, file_);
    reader.text("host", node.host);
    reader.integer("port", node.port, {.min = 1, .max = kPortMax});
    reader.text("region", node.region);
    reader.integer("priority", node.priority, {.min = 0, .max = 1000});
    reader.flag("nofailover", node.nofailover);
    read_tags(reader, node.tags);
    read_watchdog(reader.map("watchdog"), node.watchdog);
    read_commands(reader, node);
    MapReader postgresql = reader.map("postgresql");
    postgresql.integer("version", node.pg_version, {.min = 13, .max = 18});
    if (postgresql.text("bin_dir", node.bin_dir)) node.bin_dir = resolve(node.bin_dir, file_);
    postgresql.text_map("parameters", node.parameters);
    postgresql.text_list("hba", node.hba);
    postgresql.finish();
    read_credential(reader.map("superuser"), node.superuser, Need::kOptional);
    read_credential(reader.map("replication"), node.replication, Need::kRequired);
    read_client_users(reader, node);
    reader.finish();
    config_.node = std::move(node);
  }

  void read_pools(MapReader& reader, ProxySection& proxy) {
    const std::vector<std::string> modes = {"session", "transaction", "statement"};
    constexpr int kMax = 10'000;
    const IntRange clients{.min = 0, .max = 1'000'000};
    reader.choice("pool_mode", proxy.pool_mode, modes);
    reader.integer("default_pool_size", proxy.default_pool_size, {.min = 0, .max = kMax});
    reader.integer("reserve_pool_size", proxy.reserve_pool_size, {.min = 0, .max = kMax});
    reader.duration("reserve_pool_timeout", proxy.reserve_pool_timeout, {.min = 0ms, .max = 1h});
    reader.integer("min_pool_size", proxy.min_pool_size, {.min = 0, .max = kMax});
    reader.text("server_reset_query", proxy.server_reset_query, Need::kOptional,
                MapReader::Empty::kAllowed);
    reader.flag("server_reset_query_always", proxy.server_reset_query_always);
    reader.text("server_check_query", proxy.server_check_query);
    reader.duration("server_check_delay", proxy.server_check_delay, {.min = 0ms, .max = 24h});
    if (reader.text("handover_socket", proxy.handover_socket)) {
      proxy.handover_socket = resolve(proxy.handover_socket, file_);
    }
    std::vector<std::string> peers;
    reader.text_list("peers", peers);
    for (const std::string& peer : peers) {
      const auto address = parse_host_port(peer);
      address ? proxy.peers.push_back(*address)
              : reader.problem("peers", "expected a list of HOST:PORT");
    }
    if (peers.size() > kPeersMax) reader.problem("peers", "too many");
    reader.duration("leave_timeout", proxy.leave_timeout, {.min = 0ms, .max = 24h});
    reader.integer("max_db_connections", proxy.max_db_connections, {.min = 0, .max = kMax});
    reader.integer("max_user_connections", proxy.max_user_connections, {.min = 0, .max = kMax});
    reader.integer("max_db_client_connections", proxy.max_db_client_connections, clients);
    reader.integer("max_user_client_connections", proxy.max_user_client_connections, clients);
    reader.integer("server_prepared_max", proxy.server_prepared_max, {.min = 1, .max = 100'000});
    reader.duration("server_lifetime", proxy.server_lifetime, {.min = 0ms, .max = 24h});
    reader.duration("query_timeout", proxy.query_timeout, {.min = 0ms, .max = 24h});
    reader.duration("transaction_timeout", proxy.transaction_timeout, {.min = 0ms, .max = 24h});
    reader.duration("idle_transaction_timeout", proxy.idle_transaction_timeout,
                    {.min = 0ms, .max = 24h});
    reader.duration("client_idle_timeout", proxy.client_idle_timeout, {.min = 0ms, .max = 24h});
    const YAML::Node list = reader.raw("pools");
    if (!list) return;
    if (!list.IsSequence()) {
      return reader.problem("pools",
                            "expected a list of {user, database, pool_mode, pool_size, "
                            "reserve_pool_size, max_user_connections, "
                            "max_user_client_connections}");
    }
    for (const auto& item : list) {
      MapReader entry(problems_, item, "proxy.pools");
      PoolSection pool;
      entry.text("user", pool.user);
      entry.text("database", pool.database);
      entry.choice("pool_mode", pool.pool_mode, modes);
      entry.integer("pool_size", pool.pool_size, {.min = 0, .max = kMax});
      entry.integer("reserve_pool_size", pool.reserve_pool_size, {.min = 0, .max = kMax});
      entry.integer("max_user_connections", pool.max_user_connections, {.min = 0, .max = kMax});
      entry.integer("max_user_client_connections", pool.max_user_client_connections, clients);
      entry.finish();
      proxy.pools.push_back(std::move(pool));
    }
  }

  void read_proxy(MapReader reader) {
    ProxySection proxy;
    reader.address("writer", proxy.writer, Need::kRequired);
    HostPort address;
    if (reader.address("reader", address)) proxy.reader = address;
    reader.integer("workers", proxy.workers, {.min = 0, .max = 127});
    reader.choice("engine", proxy.engine, {"auto", "epoll", "io_uring"});
    reader.integer("clients_max", proxy.clients_max, {.min = 1, .max = 1'000'000});
    read_pools(reader, proxy);
    reader.integer("pool_size", proxy.pool_size, {.min = 1, .max = 10'000});
    reader.duration("hold_timeout", proxy.hold_timeout, {.min = 0ms, .max = 1h});
    reader.integer("held_max", proxy.held_max, {.min = 0, .max = 1'000'000});
    reader.duration("connect_timeout", proxy.connect_timeout, {.min = 10ms, .max = 1min});
    reader.duration("login_timeout", proxy.login_timeout, {.min = 100ms, .max = 10min});
    reader.duration("server_idle_timeout", proxy.server_idle_timeout, {.min = 1s, .max = 24h});
    reader.integer("logins_per_address_max", proxy.logins_per_address_max,
                   {.min = 0, .max = 1'000'000});
    read_access(
        reader, problems_, [this](const std::string& path) { return resolve(path, file_); },
        proxy.access);
    read_durability(reader, problems_, proxy.durability);
    read_databases(
        reader, problems_, [this](const std::string& path) { return resolve(path, file_); },
        proxy.databases);
    read_routing(
        reader, problems_, [this](const std::string& path) { return resolve(path, file_); },
        proxy.routing);
    reader.finish();
    config_.proxy = std::move(proxy);
  }

  void read_log(MapReader& reader) {
    int level = static_cast<int>(LogLevel::kInfo);
    int format = 0;
    reader.choice("level", level, {"debug", "info", "warn", "error"});
    reader.choice("format", format, {"text", "json"});
    config_.log.level = static_cast<LogLevel>(level);
    config_.log.format = static_cast<LogFormat>(format);
    if (reader.text("file", config_.log.file)) config_.log.file = resolve(config_.log.file, file_);
    reader.finish();
  }

  // Two listeners of one file on one port: found here, not as EADDRINUSE at three in the morning.
  void check_ports() {
    std::map<int, std::string> used;
    const auto use = [&](int port, const std::string& key) {
      const auto [at, fresh] = used.emplace(port, key);
      if (fresh) return;
      problems_.list.push_back(
          {0, key, fmt::format("port {} is also that of {}", port, at->second)});
    };
    if (config_.node) use(config_.node->port, "node.port");
    if (config_.proxy) use(config_.proxy->writer.port, "proxy.writer");
    if (config_.proxy && config_.proxy->reader) use(config_.proxy->reader->port, "proxy.reader");
    if (config_.proxy && config_.proxy->routing.split) {
      use(config_.proxy->routing.split->port, "proxy.split");
    }
    if (config_.api) use(config_.api->listen.port, "api.listen");
  }

  std::string render() {
    std::ranges::stable_sort(problems_.list, {}, &Problem::line);
    std::string text;
    for (const Problem& problem : problems_.list) {
      if (!text.empty()) text += '\n';
      text += file_;
      if (problem.line > 0) text += fmt::format(":{}", problem.line);
      text += ": ";
      if (!problem.key.empty()) text += problem.key + ": ";
      text += problem.what;
    }
    return text;
  }

  const std::string& file_;
  DaemonConfig config_;
  Problems problems_;
  bool standalone_ = false;
};

}  // namespace

Result<DaemonConfig> parse_config(std::string_view yaml, const std::string& file) {
  // yaml-cpp throws at syntax errors: the exception ends here.
  try {
    return Parser(file).parse(YAML::Load(std::string(yaml)));
  } catch (const YAML::Exception& error) {
    return fail(ErrorCode::kInvalid, fmt::format("{}:{}:{}: {}", file, error.mark.line + 1,
                                                 error.mark.column + 1, error.msg));
  }
}

std::vector<KeyFact> config_keys() {
  // Three files that nobody could run, but that lead the readers into each of their corners.
  const char* const kEveryCorner[] = {
      "{store: {}, node: {client_users: [{}], bootstrap: {}, replica_methods: [{}]}, "
      "defaults: {standby_cluster: {}}, monitor: "
      "{endpoints: [{}]}, api: {tls: {}, tokens: "
      "[{}]}, proxy: {pools: [{}], databases: [{}], durability: [{}], password_commands: [{}], "
      "auth_query: {}}}",
      "{proxy: {servers: [{}]}}", "{}"};
  std::vector<KeyFact> all, out;
  for (const char* yaml : kEveryCorner) {
    (void)Parser("", &all).parse(YAML::Load(yaml));
  }
  std::set<std::pair<std::string, KeyKind>> seen;
  std::map<std::string, bool> mappings;
  for (const KeyFact& fact : all) mappings[fact.path] |= fact.kind == KeyKind::kMap;
  for (KeyFact& fact : all) {
    // A list is also what a section is asked for as, so that its name is known.
    if (fact.kind == KeyKind::kList && mappings[fact.path]) continue;
    if (seen.emplace(fact.path, fact.kind).second) out.push_back(std::move(fact));
  }
  return out;
}

Result<DaemonConfig> load_config(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) {
    return fail(ErrorCode::kNotFound, fmt::format("cannot read {}", file),
                "Does it exist, and may this user read it?");
  }
  // Not by iterators: they throw when reading fails, as it does for a directory.
  std::ostringstream content;
  content << in.rdbuf();
  const std::string text = std::move(content).str();
  if (std::filesystem::is_directory(file)) {
    return fail(ErrorCode::kInvalid, fmt::format("cannot read {}", file), "Is it a file?");
  }
  if (text.size() > kFileBytesMax) {
    return fail(ErrorCode::kInvalid, fmt::format("{}: larger than 1 MB", file));
  }
  return parse_config(text, file);
}

Result<DaemonConfig> config_from_environment(const Platform& platform) {
  const auto get = [&](const char* name, const std::string& otherwise) {
    return platform.environment(name).value_or(otherwise);
  };
  const auto sources = monitor::sources_from_environment(database_environment(platform));
  if (!sources) return std::unexpected(sources.error());
  if (sources->empty()) {
    return fail(ErrorCode::kInvalid, "no configuration file, and no database in the environment",
                "Give -c FILE, or set DATABASE_URL or DB_<REGION>_URL");
  }
  // The same text that a person would write, so that there is one reader with one set of messages.
  const std::string proxy = get("BASCULE_PROXY_LISTEN", "");
  std::string yaml =
      fmt::format("cluster: {{name: {}}}\nstore: {}\nmonitor: {{}}\napi: {{listen: \"{}\"}}\n",
                  get("BASCULE_CLUSTER", "databases"),
                  get("BASCULE_STORE", "file:/var/lib/bascule/monitor/store.db"),
                  get("BASCULE_API_LISTEN", "127.0.0.1:8008"));
  if (!proxy.empty()) {
    yaml += fmt::format("proxy: {{writer: \"{}\", userlist_file: \"{}\"}}\n", proxy,
                        get("BASCULE_USERLIST_FILE", "/etc/bascule/users"));
  }
  return parse_config(yaml, "environment");
}

}  // namespace bascule::cli
