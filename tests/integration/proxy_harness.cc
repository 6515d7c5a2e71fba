// The proxy by itself, driven by lines on standard input, for tests and measurements.
//   proxy_harness writer=PORT [reader=PORT] [workers=N] [pool=N] [clients=N] [hold_ms=N]
//                 [split=PORT] [primary_share=0.3] [region=NAME] [catalog_ms=N] [hold_count=N]
//                 [auth_ms=N] [user=NAME:PASSWORD | user=NAME:SCRAM-SHA-256$...]... [access=FILE]
//                 (harness_access.h) [socket_dir=DIR] (after writer)
// Commands: reload FILE;  route epoch=N [primary=NAME@HOST:PORT] [replica=NAME@HOST:PORT]...
// [state=draining]
//           [permit_ms=N];  permit EPOCH MS;  stats;  drained;  quit
// Each answers one line.
#include <fmt/format.h>

#include <signal.h>
#include <unistd.h>

#include <charconv>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>

#include "posix/clock.h"
#include "posix/handover.h"
#include "posix/reactor.h"
#include "posix/worker_engine.h"
#include "proxy/proxy.h"
#include "tests/integration/harness_access.h"

namespace bascule {
namespace {

int64_t number(std::string_view text) {
  int64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

std::pair<std::string, std::string> split(const std::string& text, char at) {
  const size_t i = text.find(at);
  return {text.substr(0, i), i == std::string::npos ? "" : text.substr(i + 1)};
}

proxy::PoolMode pool_mode(std::string_view word) {
  return word == "transaction" ? proxy::PoolMode::kTransaction
         : word == "statement" ? proxy::PoolMode::kStatement
                               : proxy::PoolMode::kSession;
}

proxy::RouteMember member(const std::string& text) {
  const auto [name, address] = split(text, '@');
  const size_t colon = address.rfind(':');
  proxy::RouteMember m;
  m.name = name;
  m.endpoint = {address.substr(0, colon),
                static_cast<uint16_t>(number(std::string_view(address).substr(colon + 1)))};
  return m;
}

// NAME;host=HOST:PORT|HOST:PORT;dbname=...;...
proxy::DatabaseRule database(const std::string& text) {
  proxy::DatabaseRule rule;
  std::istringstream parts(text);
  std::getline(parts, rule.name, ';');
  for (std::string part; std::getline(parts, part, ';');) {
    const auto [key, value] = split(part, '=');
    const int count = static_cast<int>(number(value));
    if (key == "host") {
      std::istringstream hosts(value);
      for (std::string host; std::getline(hosts, host, '|');) {
        const auto [address, port] = split(host, ':');
        rule.hosts.push_back({address, static_cast<uint16_t>(number(port))});
      }
    }
    if (key == "first") rule.balance = proxy::DatabaseRule::Balance::kFirst;
    if (key == "dbname") rule.dbname = value;
    if (key == "user") rule.user = value;
    if (key == "secret") rule.secret = value;
    if (key == "mode") rule.mode = pool_mode(value);
    if (key == "pool") rule.pool_size = count;
    if (key == "min") rule.min_pool_size = count;
    if (key == "max") rule.max_connections = count;
    if (key == "connect_query") rule.connect_query = value;
    if (key == "app") rule.settings.emplace_back("application_name", value);
  }
  return rule;
}

// LEVEL;table=...;user=...
proxy::DurabilityRule durability(const std::string& text) {
  proxy::DurabilityRule rule;
  rule.even_if_strict = true;
  std::istringstream parts(text);
  std::getline(parts, rule.synchronous_commit, ';');
  for (std::string part; std::getline(parts, part, ';');) {
    const auto [key, value] = split(part, '=');
    if (key == "table") rule.table = value;
    if (key == "user") rule.user = value;
    if (key == "app") rule.application_name = value;
  }
  return rule;
}

proxy::ProxyConfig parse_config(int argc, char** argv) {
  proxy::ProxyConfig config;
  for (int i = 1; i < argc; ++i) {
    const auto [key, value] = split(argv[i], '=');
    const auto port = static_cast<uint16_t>(number(value));
    if (key == "writer") config.listeners.push_back({{"127.0.0.1", port}, {}});
    if (key == "peer") config.peers.push_back({"127.0.0.1", port});
    if (key == "reader") {
      config.listeners.push_back({{"127.0.0.1", port}, proxy::PortKind::kReader});
    }
    if (key == "split") {
      config.listeners.push_back({{"127.0.0.1", port}, proxy::PortKind::kSplit});
    }
    if (key == "primary_share") config.routing.primary_share = std::stod(value);
    if (key == "region") config.routing.region = value;
    if (key == "catalog_ms") config.catalog_refresh = Millis(number(value));
    if (key == "workers") config.workers = static_cast<int>(number(value));
    if (key == "durability") config.durability.push_back(durability(value));
    if (key == "engine") {
      config.engine = value == "io_uring" ? env::EngineKind::kUring
                      : value == "epoll"  ? env::EngineKind::kEpoll
                                          : env::EngineKind::kAuto;
    }
    if (key == "pool") config.pool_size = static_cast<int>(number(value));
    if (key == "mode") config.pool_mode = pool_mode(value);
    if (key == "database") config.databases.push_back(database(value));
    if (key == "min_pool") config.min_pool_size = static_cast<int>(number(value));
    if (key == "reset") config.server_reset_query = value;
    if (key == "reset_always") config.server_reset = proxy::ProxyConfig::Reset::kAlways;
    if (key == "check") config.server_check_query = value;
    if (key == "check_ms") config.server_check_delay = Millis(number(value));
    if (key == "server_idle_ms") config.server_idle_timeout = Millis(number(value));
    if (key == "leave_ms") config.leave_timeout = Millis(number(value));
    if (key == "prepared") config.server_prepared_max = static_cast<size_t>(number(value));
    if (key == "pool_each") config.default_pool_size = static_cast<int>(number(value));
    if (key == "reserve") config.reserve_pool_size = static_cast<int>(number(value));
    if (key == "reserve_ms") config.reserve_pool_timeout = Millis(number(value));
    if (key == "db_max") config.max_db_connections = static_cast<int>(number(value));
    if (key == "user_max") config.max_user_connections = static_cast<int>(number(value));
    if (key == "db_clients") config.max_db_client_connections = static_cast<int>(number(value));
    if (key == "user_clients") {
      config.max_user_client_connections = static_cast<int>(number(value));
    }
    if (key == "lifetime_ms") config.server_lifetime = Millis(number(value));
    if (key == "query_ms") config.query_timeout = Millis(number(value));
    if (key == "transaction_ms") config.transaction_timeout = Millis(number(value));
    if (key == "idle_transaction_ms") config.idle_transaction_timeout = Millis(number(value));
    if (key == "client_idle_ms") config.client_idle_timeout = Millis(number(value));
    if (key == "session_pool") {  // of this database
      proxy::PoolRule rule;
      rule.database = value;
      rule.mode = proxy::PoolMode::kSession;
      config.pools.push_back(std::move(rule));
    }
    if (key == "clients") config.clients_max = static_cast<int>(number(value));
    if (key == "hold_ms") config.hold_timeout = Millis(number(value));
    if (key == "hold_count") config.hold_count_max = static_cast<int>(number(value));
    if (key == "auth_ms") config.auth_timeout = Millis(number(value));
    if (key == "per_address") config.logins_per_address_max = static_cast<int>(number(value));
    if (key == "access") config.access = read_access(value);
    if (key == "socket_dir") {
      config.listeners.push_back({{value, config.listeners.front().endpoint.port}, {}});
    }
    if (key == "console_admin") config.access.console_admins.push_back(value);
    if (key == "console_stats") config.access.console_stats.push_back(value);
    if (key == "stats_ms") config.stats_period = Millis(number(value));
    if (key == "user") {
      const auto [name, secret] = split(value, ':');
      config.access.users.push_back({name, secret});
    }
  }
  return config;
}

std::string route(proxy::Proxy& proxy, std::istringstream& words) {
  proxy::RouteTable table;
  for (std::string word; words >> word;) {
    const auto [key, value] = split(word, '=');
    if (key == "epoch") table.epoch = Epoch{static_cast<uint64_t>(number(value))};
    if (key == "primary") table.primary = member(value);
    if (key == "replica") table.replicas.push_back(member(value));
    if (key == "state" && value == "draining") table.state = proxy::RouteState::kDraining;
    if (key == "permit_ms") table.permit_until = posix::boot_now() + Millis(number(value));
    if (key == "reason") table.reason = value;
  }
  const Status status = proxy.publish(std::move(table));
  return status ? "ok" : status.error().to_string();
}

std::string stats(const proxy::Proxy& proxy) {
  const proxy::ProxyStats s = proxy.stats();
  const proxy::WorkerStats& t = s.total;
  std::string out = fmt::format(
      R"({{"clients":{},"held":{},"active":{},"servers":{},"servers_idle":{},"clients_total":{},)"
      R"("logins_failed":{},"servers_total":{},"servers_lost":{},"transactions":{},"moved":{},)"
      R"("retried":{},"errors_outage":{},"hold_timeouts":{},"clients_dropped":{},"cancels":{},"unreplicated":{},"split_replica":{},"split_primary":{},)"
      R"("route_version":{},"applied":{},"busy_ms":{},"longest_turn_us":{},"turns":{}}})",
      t.clients, t.held, t.active_transactions, t.servers, t.servers_idle, t.clients_total,
      t.logins_failed, t.servers_total, t.servers_lost, t.transactions, t.moved, t.retried,
      t.errors_outage, t.hold_timeouts, t.clients_dropped, t.cancels, t.unreplicated,
      t.split_replica, t.split_primary, s.route_version, t.route_version, to_ms(t.loop.busy),
      t.loop.longest_turn.count() / 1000, t.loop.turns);
  return out;
}

// What the daemon does for the console.
void set_hooks(proxy::ProxyConfig& config, const std::string& access_file,
               std::unique_ptr<proxy::Proxy>& proxy) {
  config.process.shut_down = [] { ::kill(::getpid(), SIGTERM); };
  if (access_file.empty()) return;
  config.process.reload = [&proxy, access_file](const std::function<void(Status)>& done) {
    done(proxy->reload(read_access(access_file)));
  };
}

// What the daemon does with proxy.handover_socket: on a loop of its own.
class TakeOver {
 public:
  TakeOver(posix::ListeningSockets& sockets, std::string path)
      : socket_(sockets), path_(std::move(path)) {}
  ~TakeOver() {
    if (!thread_.joinable()) return;
    loop_.stop();
    thread_.join();
    socket_.withdraw();
  }

  Status take() {
    const Result<bool> taken = socket_.take(path_);
    return taken ? Status() : std::unexpected(taken.error());
  }
  void pass_cancel(uint32_t pid, const std::string& secret, env::Callback done) {
    socket_.pass_cancel(pid, secret, std::move(done));
  }
  Status offer(proxy::Proxy& proxy) {
    if (auto s = socket_.accepted(loop_); !s) return s;
    env::HandOverEvents events;
    events.prepare = [](const auto& done) { done(60s); };
    events.aborted = [] {};
    events.taken = [&proxy] { proxy.leave(); };
    events.cancel = [&proxy](uint32_t pid, const std::string& secret, env::Callback done) {
      proxy.cancel(pid, secret, std::move(done));
    };
    auto status = socket_.offer(loop_, path_, std::move(events));
    if (status) thread_ = std::thread([this] { loop_.run(); });
    return status;
  }

 private:
  posix::Reactor loop_;
  posix::HandOverSocket socket_;
  const std::string path_;
  std::thread thread_;
};

std::string option(int argc, char** argv, std::string_view name) {
  for (int i = 1; i < argc; ++i) {
    if (const auto [key, value] = split(argv[i], '='); key == name) return value;
  }
  return {};
}

int failed(const Error& error) {
  std::cout << error.to_string() << std::endl;
  return 1;
}

int run(int argc, char** argv) {
  posix::WorkerEngineFactory factory;
  proxy::ProxyConfig config = parse_config(argc, argv);
  std::unique_ptr<proxy::Proxy> owned;
  set_hooks(config, option(argc, argv, "access"), owned);
  std::unique_ptr<TakeOver> take_over;
  if (const std::string path = option(argc, argv, "handover"); !path.empty()) {
    take_over = std::make_unique<TakeOver>(factory.listening(), path);
    config.process.pass_cancel = [&](uint32_t pid, const std::string& secret, env::Callback done) {
      take_over->pass_cancel(pid, secret, std::move(done));
    };
    if (auto s = take_over->take(); !s) return failed(s.error());
  }
  owned = std::make_unique<proxy::Proxy>(std::move(config), factory);
  proxy::Proxy& proxy = *owned;
  if (const Status status = proxy.start(); !status) return failed(status.error());
  if (take_over) {
    if (auto s = take_over->offer(proxy); !s) return failed(s.error());
  }
  std::cout << "ready" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command;
    words >> command;
    std::string answer = "?";
    if (command == "route") answer = route(proxy, words);
    if (command == "permit") {
      uint64_t epoch = 0;
      int64_t ms = 0;
      words >> epoch >> ms;
      proxy.extend_permit(Epoch{epoch}, posix::boot_now() + Millis(ms));
      answer = "ok";
    }
    if (command == "password") {  // USER PASSWORD, or USER - WHY
      std::string user, password;
      words >> user >> password;
      proxy.set_server_password(
          user, password == "-" ? Result<std::string>(fail(ErrorCode::kUnavailable, "no token yet"))
                                : password);
      answer = "ok";
    }
    if (command == "reload") {
      std::string file;
      words >> file;
      const Status status = proxy.reload(read_access(file));
      answer = status ? "ok" : status.error().to_string();
    }
    if (command == "stats") answer = stats(proxy);
    if (command == "drained") answer = proxy.drained() ? "yes" : "no";
    if (command == "quit") break;
    std::cout << answer << std::endl;
  }
  take_over.reset();
  proxy.stop();
  return 0;
}

}  // namespace
}  // namespace bascule

int main(int argc, char** argv) { return bascule::run(argc, argv); }
