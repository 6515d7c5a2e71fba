#include "proxy/proxy.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "proxy/crew.h"

namespace bascule::proxy {

struct Proxy::Impl {
  Impl(ProxyConfig config, env::EngineFactory& engines)
      : shared(std::move(config)), factory(engines), crew(workers, shared.config) {}
  Shared shared;
  env::EngineFactory& factory;
  std::vector<std::unique_ptr<Worker>> workers;  // constant while they run
  Workers crew;
  std::unique_ptr<Monitor> monitor;  // of a static list of servers
  mutable std::mutex mutex;
  std::shared_ptr<const Route> route;    // guarded by mutex; shared: each worker keeps its own view
  std::shared_ptr<const Access> access;  // guarded by mutex; shared: likewise
};

Proxy::Proxy(ProxyConfig config, env::EngineFactory& factory)
    : impl_(std::make_unique<Impl>(std::move(config), factory)) {}

Proxy::~Proxy() { stop(); }

Status Proxy::start() {
  Impl& p = *impl_;
  const ProxyConfig& config = p.shared.config;
  if (config.workers < 1 || config.workers > Worker::kWorkersMax || config.pool_size < 1) {
    return fail(ErrorCode::kInvalid, "proxy: workers must be 1 to 128 and pool_size at least 1");
  }
  if (!config.monitor.servers.empty()) {
    if (auto status = Monitor::validate(config.monitor); !status) return status;
  }
  const auto kind = p.factory.choose(config.engine);
  if (!kind) return std::unexpected(kind.error());
  std::vector<std::unique_ptr<env::Engine>> engines;
  for (int i = 0; i < config.workers; ++i) {
    engines.push_back(p.factory.create("proxy-" + std::to_string(i), *kind));
  }
  auto access = Access::build(config.access, p.factory.tls(), engines.front()->entropy(), nullptr);
  if (!access) return std::unexpected(access.error());
  p.access = *access;
  for (int i = 0; i < config.workers; ++i) {
    p.workers.push_back(
        std::make_unique<Worker>(i, p.shared, p.crew, std::move(engines[static_cast<size_t>(i)])));
    p.workers.back()->set_access(p.access);
    if (auto status = p.workers.back()->listen(); !status) {
      p.workers.clear();
      return status;
    }
  }
  for (auto& worker : p.workers) worker->start();
  if (!config.monitor.servers.empty()) {
    p.monitor = std::make_unique<Monitor>(config.monitor, p.factory.create("proxy-mon", *kind),
                                          p.access, [this](RouteTable table) {
                                            if (auto status = publish(std::move(table)); !status) {
                                              log(LogLevel::kError, "proxy", "a route was refused",
                                                  {{"reason", status.error().to_string()}});
                                            }
                                          });
    p.monitor->start();
  }
  log(LogLevel::kInfo, "proxy", "listening",
      {{"workers", config.workers},
       {"pool_size", config.pool_size},
       {"engine", *kind == env::EngineKind::kUring ? "io_uring" : "epoll"}});
  return {};
}

void Proxy::stop() {
  impl_->monitor.reset();
  // All threads end before any worker goes: they post to each other.
  for (auto& worker : impl_->workers) worker->stop();
  impl_->workers.clear();
}

Status Proxy::publish(RouteTable table) {
  Impl& p = *impl_;
  const std::lock_guard lock(p.mutex);
  if (p.route && table.epoch < p.route->table.epoch) {
    return fail(ErrorCode::kConflict, "route table of an older epoch");
  }
  auto next = std::make_shared<Route>();
  next->version = p.route ? p.route->version + 1 : 1;
  const bool same_epoch = p.route && p.route->table.epoch == table.epoch;
  next->permit = same_epoch ? p.route->permit : std::make_shared<Permit>(table.permit_until);
  if (same_epoch && table.permit_until > next->permit->until()) {
    next->permit->extend(table.permit_until);
  }
  next->table = std::move(table);
  p.route = std::move(next);
  for (auto& worker : p.workers) {
    worker->post([w = worker.get(), route = p.route] { w->set_route(route); });
  }
  return {};
}

void Proxy::set_server_password(const std::string& user, Result<std::string> password) {
  impl_->shared.server_passwords.set(user, std::move(password));
}

Status Proxy::reload(AccessConfig config) {
  Impl& p = *impl_;
  const std::lock_guard lock(p.mutex);
  if (p.workers.empty()) return fail(ErrorCode::kUnavailable, "the proxy does not run");
  auto access = Access::build(std::move(config), p.factory.tls(), p.workers.front()->entropy(),
                              p.access.get());
  if (!access) return std::unexpected(access.error());
  p.access = std::move(*access);
  for (auto& worker : p.workers) {
    worker->post([w = worker.get(), next = p.access] { w->set_access(next); });
  }
  log(LogLevel::kInfo, "proxy", "users, rules and certificates were loaded");
  return {};
}

Status Proxy::reload(ProxyConfig next) {
  if (auto status = reload(std::move(next.access)); !status) return status;
  return impl_->crew.configure([&](ProxyConfig& config) -> Status {
    next.access = {};
    next.listeners = config.listeners;
    next.workers = config.workers;
    next.process = config.process;
    next.routing = config.routing;
    next.monitor = config.monitor;
    config = std::move(next);
    return {};
  });
}

void Proxy::leave() {
  (void)impl_->crew.control([](Controls& controls) -> Status {
    controls.leaving = true;
    return {};
  });
}

void Proxy::reconnect(const std::string& region) {
  for (auto& worker : impl_->workers) {
    worker->post([w = worker.get(), region] { w->dispatcher().reconnect_region(region); });
  }
}

void Proxy::cancel(uint32_t pid, const std::string& secret, env::Callback done) {
  impl_->crew.cancel(pid, secret, [done = std::move(done)](Crew::Known) mutable { done(); });
}

void Proxy::extend_permit(Epoch epoch, MonoTime until) {
  Impl& p = *impl_;
  const std::lock_guard lock(p.mutex);
  if (!p.route || p.route->table.epoch != epoch || p.workers.empty()) return;
  const MonoTime before = p.route->permit->until();
  p.route->permit->extend(until);
  // The margin covers a worker that is just looking at the old one.
  if (before > p.workers.front()->loop().now() + 100ms) return;
  // It had run out, and statements wait because of that.
  for (auto& worker : p.workers) {
    worker->post([w = worker.get()] { w->dispatcher().pump_all(); });
  }
}

ProxyStats Proxy::stats() const {
  ProxyStats stats;
  {
    const std::lock_guard lock(impl_->mutex);
    stats.route_version = impl_->route ? impl_->route->version : 0;
  }
  for (const auto& worker : impl_->workers) stats.workers.push_back(worker->stats());
  if (!stats.workers.empty()) {
    stats.total = stats.workers.front();
    for (size_t i = 1; i < stats.workers.size(); ++i) stats.total = stats.total + stats.workers[i];
  }
  return stats;
}

bool Proxy::drained() const {
  const ProxyStats s = stats();
  return !s.workers.empty() && s.total.route_version == s.route_version &&
         s.total.active_transactions == 0;
}

}  // namespace bascule::proxy
