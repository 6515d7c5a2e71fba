#include "proxy/worker.h"

#include <algorithm>
#include <utility>

namespace bascule::proxy {

Worker::Worker(int index, Shared& shared, Crew& crew, std::unique_ptr<env::Engine> engine)
    : index_(index),
      shared_(shared),
      crew_(crew),
      engine_(std::move(engine)),
      // Not owned; the crew replaces it.
      config_(&shared.config, [](const ProxyConfig*) {}),
      controls_(std::make_shared<const Controls>()),
      dispatcher_(*this) {
  workspace_.plans = &shared_.plans;
}

Worker::~Worker() { stop(); }

Status Worker::listen() {
  for (const ProxyListener& listener : shared_.config.listeners) {
    Port& port = listener.kind == PortKind::kWriter   ? writer_
                 : listener.kind == PortKind::kReader ? reader_
                                                      : splitter_;
    if (auto status = net().listen(listener.endpoint, port); !status) return status;
  }
  shared_.accepting.fetch_add(1);
  return {};
}

void Worker::start() {
  loop().call_after(sweep_interval(), [this] { sweep(); });
  period_began_ = period_before_ = loop().now();
  loop().call_after(config().stats_period, [this] { next_period(); });
  started_ = true;
  engine_->start();
}

void Worker::stop() {
  if (!std::exchange(started_, false)) return;
  loop().stop();
  engine_->join();
  net().close_listeners();
  for (const Handle handle : clients_.handles()) {
    if (ClientConnection* client = clients_.find(handle)) client->close();
  }
  lookups_.close();
  listeners_.close();
  peers_.close();
  write_reaches_.close();
  dispatcher_.close_all();
  dispatcher_.bury();
  clients_.bury();
}

Nanos Worker::sweep_interval() const {
  Nanos interval = kSweepInterval;
  const ProxyConfig& c = config();
  for (const Nanos limit : {c.query_timeout, c.transaction_timeout, c.idle_transaction_timeout,
                            c.client_idle_timeout, c.reserve_pool_timeout, c.server_lifetime}) {
    const bool counts = limit > 0s && (limit != c.reserve_pool_timeout || c.reserve_pool_size > 0);
    if (counts) interval = std::min(interval, std::clamp<Nanos>(limit / 4, 50ms, 1s));
  }
  const bool ahead =
      c.min_pool_size > 0 || std::ranges::any_of(c.databases, [](const DatabaseRule& rule) {
        return rule.min_pool_size.value_or(0) > 0;
      });
  if (ahead) interval = std::min<Nanos>(interval, 1s);
  if (!c.server_check_query.empty()) {
    interval = std::min(interval, std::clamp<Nanos>(c.server_check_delay / 4, 50ms, 1s));
  }
  return interval;
}

void Worker::sweep() {
  const MonoTime now = loop().now();
  for (const Handle handle : clients_.handles()) {
    if (ClientConnection* client = clients_.find(handle)) client->sweep(now);
  }
  count_pinned();
  if (config().reserve_pool_size > 0) dispatcher_.pump_all();
  dispatcher_.close_stale();
  lookups_.sweep();
  write_reaches_.sweep();
  loop().call_after(sweep_interval(), [this] { sweep(); });
}

WorkerStats Worker::stats() const {
  WorkerStats stats = counters_.read();
  stats.loop = engine_->stats();
  return stats;
}

void Worker::accept(env::Stream& stream, PortKind kind) {
  counters_.clients_total.add();
  const int before = shared_.clients.fetch_add(1);
  const int max = config().clients_max;
  if (before >= max + kRefusalsMax) {
    shared_.clients.fetch_sub(1);
    return stream.close();
  }
  counters_.clients.add();
  std::string host = stream.peer_host();
  if (!shared_.logging_in.enter(host, config().logins_per_address_max)) {
    counters_.logins_failed.add();
    counters_.clients.sub();
    shared_.clients.fetch_sub(1);
    return stream.close();
  }
  clients_.emplace(*this, stream, std::move(host), kind,
                   before < max ? ClientLogin::Room::kFree : ClientLogin::Room::kFull);
}

void Worker::remove_client(Handle handle) {
  if (clients_.find(handle) == nullptr) return;
  clients_.remove(handle);
  counters_.clients.sub();
  shared_.clients.fetch_sub(1);
  if (std::exchange(burying_, true)) return;
  loop().post([this] {
    burying_ = false;
    clients_.bury();
  });
}

void Worker::set_route(std::shared_ptr<const Route> route) {
  route_ = std::move(route);
  dispatcher_.on_route();
  listeners_.on_route();
  counters_.route_version.set(route_->version);
}

void Worker::set_config(std::shared_ptr<const ProxyConfig> config) {
  config_ = std::move(config);
  for (const int worker : shared_.servers.set_max(config_->pool_size)) crew_.wake(worker);
  dispatcher_.on_config();
}

void Worker::set_access(std::shared_ptr<const Access> access) {
  access_ = std::move(access);
  lookups_.reset();
}

uint32_t Worker::cancel_pid(Handle client) const {
  return (static_cast<uint32_t>(index_ + 1) << kClientBits) | (client.index + 1);
}

void Worker::cancel(uint32_t client_index, std::string secret, Crew::CancelDone done) {
  // A turn of the loop later: what the client sent before it has been read by then.
  loop().post([this, client_index, secret = std::move(secret), done = std::move(done)]() mutable {
    ClientConnection* client = clients_.at(client_index);
    if (client == nullptr || !client->owns(secret)) return done(Crew::Known::kNo);
    if (!client->cancel()) return done(Crew::Known::kYes);
    dispatcher_.cancel(*client->server(),
                       [done = std::move(done)]() mutable { done(Crew::Known::kYes); });
  });
}

}  // namespace bascule::proxy
