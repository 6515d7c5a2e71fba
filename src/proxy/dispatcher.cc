#include "proxy/dispatcher.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "proxy/cancel_request.h"
#include "proxy/client_connection.h"
#include "proxy/worker.h"

namespace bascule::proxy {
namespace {

constexpr PortKind kKinds[] = {PortKind::kWriter, PortKind::kReader};

}  // namespace

Dispatcher::Dispatcher(Worker& worker)
    : worker_(worker), prng_(0), replicas_first_(worker.config().routing) {
  replicas_first_.primary_share = 0;
  uint64_t seed = 0;
  const std::string random = random_bytes(worker.entropy(), sizeof seed);
  std::copy(random.begin(), random.end(), reinterpret_cast<char*>(&seed));
  prng_ = Prng(seed);
}

Dispatcher::~Dispatcher() = default;

Pool& Dispatcher::pool(const std::string& login, const std::string& database, Parameters startup) {
  const DatabaseRule* rule = find_database(worker_.config().databases, database);
  const std::string& user = rule != nullptr && !rule->user.empty() ? rule->user : login;
  if (rule != nullptr) {
    for (const auto& [name, value] : rule->settings) {
      if (find_parameter(startup, name).empty()) set_parameter(startup, name, value);
    }
  }
  std::sort(startup.begin(), startup.end());
  auto& pool = pools_[{user, database, startup}];
  if (!pool) {
    pool = std::make_unique<Pool>();
    if (rule != nullptr) pool->rule = std::make_shared<const DatabaseRule>(*rule);
    pool->user = user;
    pool->database = database;
    pool->startup = std::move(startup);
    pool->mode = pool_mode(worker_.config(), login, database);
    pool->halt = worker_.controls().of(database);
    pool->caps = worker_.shared().caps.of(worker_.config(), user, database);
  }
  return *pool;
}

ParametersRef Dispatcher::reported(Pool& pool, PortKind kind, const Parameters& startup) {
  ReportedParameters& all = worker_.shared().reported;
  Pool::Side::Greeting& last = pool.side(kind).greeting;
  const uint64_t version = all.version();
  if (last.told && last.version == version && last.startup == startup) return last.told;
  const auto known = all.find({kind, pool.user, pool.database, startup});
  if (!known) return nullptr;
  last = {version, startup, worker_.workspace().settings.parameters(*known)};
  return last.told;
}

void Dispatcher::remember_reported(const Pool& pool, PortKind kind, const Parameters& startup,
                                   const Parameters& reported) {
  worker_.shared().reported.store({kind, pool.user, pool.database, startup}, reported);
}

// ---- Clients -----------------------------------------------------------------------------------

Dispatcher::Acquired Dispatcher::acquire(ClientConnection& client) {
  Pool& pool = client.pool();
  const PortKind kind = client.side();
  // Readers wait for one of several servers each: who wants another one does not stand in the way.
  const bool first = pool.side(kind).waiting.empty() || !client.member().empty();
  if (first && serve(pool, kind, client)) {
    // Attached, or its settings are being restored.
  } else {
    const int max = worker_.config().hold_count_max;
    if (worker_.shared().held.load() >= max) {
      client.give_up("53300", fmt::format("{} statements wait for a server already: the limit of "
                                          "the proxy",
                                          max));
      return Acquired::kRefused;
    }
    enqueue(client);
    // Behind others, where all places are taken, nothing can have changed.
    if (kind == PortKind::kReader || !pool.side(kind).refused) pump(pool, kind);
  }
  if (client.hold().ticket != 0) return Acquired::kWaiting;
  if (client.server() == nullptr) return Acquired::kRefused;
  return client.server()->restoring() ? Acquired::kWaiting : Acquired::kReady;
}

bool Dispatcher::queue_unread(ClientConnection& client) {
  const Pool::Side& side = client.pool().side(client.side());
  if (client.side() == PortKind::kReader) return false;  // another server may do
  if (!side.refused || side.waiting.empty()) return false;
  if (worker_.shared().held.load() >= worker_.config().hold_count_max) return false;
  enqueue(client);
  return true;
}

// Serves a client if that is possible now; begins what makes it possible if not.
bool Dispatcher::serve(Pool& pool, PortKind kind, ClientConnection& client) {
  if (ServerConnection* own = client.server()) {
    const bool open = own->target().role == PortKind::kReader || gate_open(PortKind::kWriter);
    if (!open || pool.halt == Halt::kSuspended) return false;
    stop_waiting(client);
    client.resume();
    return true;
  }
  if (!gate_open(pool, kind) || pool.halt != Halt::kNone) return false;
  ServerConnection* server = find_idle(pool, kind, client.session().wanted(), client.member());
  if (server == nullptr) {
    if (being_checked(pool)) return false;  // it is for whoever waits longest
    open_connections(pool, kind);
    // Where no connection can be had to the one that was chosen, another will do.
    const Pool::Side& side = pool.side(kind);
    if (client.member().empty() || !(side.limited || side.failing)) return false;
    server = find_idle(pool, kind, client.session().wanted(), {});
    if (server == nullptr) return false;
  }
  if (due_for_check(*server)) {
    server->check(worker_.config().server_check_query);
    return false;
  }
  ++pool.traffic.now.assignments;
  if (client.hold().ticket != 0) {
    const Nanos waited = worker_.turn_began() - client.hold().since;
    pool.traffic.now.wait_time += waited;
    if (waited >= kAckDelay) client.delay_acks();
  }
  stop_waiting(client);
  client.take(*server);
  return true;
}

void Dispatcher::pump(Pool& pool, PortKind kind) {
  const Pool::Side& side = pool.side(kind);
  const bool limited = side.limited;
  serve_queue(pool, kind);
  const bool due = worker_.turn_began() - claim_checked_ >= kClaimGrain;
  if (claiming_ && (limited != side.limited || due)) update_claim();
}

void Dispatcher::serve_queue(Pool& pool, PortKind kind) {
  Pool::Side& side = pool.side(kind);
  if (kind == PortKind::kReader) return serve_readers(pool);
  while (!side.waiting.empty()) {
    const Waiter waiter = side.waiting.front();
    ClientConnection* client = waiting_client(waiter);
    if (client != nullptr && !serve(pool, kind, *client)) return;
    // serve() may have come here again, for a server that a client gave back at once.
    if (!side.waiting.empty() && side.waiting.front() == waiter) side.waiting.pop_front();
  }
  side.limited = side.refused = false;
  side.full = nullptr;
}

void Dispatcher::serve_readers(Pool& pool) {
  Pool::Side& side = pool.side(PortKind::kReader);
  int left = 0;
  for (size_t i = 0; i < side.waiting.size() && left < kReadersLookedAt;) {
    const Waiter waiter = side.waiting[i];
    ClientConnection* client = waiting_client(waiter);
    if (client != nullptr && !serve(pool, PortKind::kReader, *client)) {
      ++left;
      ++i;
      continue;
    }
    // serve() may have come here again, for a server that a client gave back at once.
    const auto again = std::find(side.waiting.begin(), side.waiting.end(), waiter);
    if (again == side.waiting.end()) return;
    i = static_cast<size_t>(again - side.waiting.begin());
    side.waiting.erase(again);
  }
  if (side.waiting.empty()) side.limited = side.refused = false;
}

void Dispatcher::pump_all() {
  for (auto& [key, pool] : pools_) {
    for (const PortKind kind : kKinds) {
      pool->side(kind).refused = false;
      pump(*pool, kind);
    }
  }
  // A place that was granted and is not needed any more goes to the next worker.
  if (const auto next = worker_.shared().servers.decline(worker_.index())) {
    worker_.crew().wake(*next);
  }
}

void Dispatcher::release(ServerConnection& server, ServerConnection::Use use) {
  const bool always = worker_.config().server_reset == ProxyConfig::Reset::kAlways;
  server.detach(always ? ServerConnection::Use::kDirty : use);
}

void Dispatcher::drop(ServerConnection& server) { remove(server); }

void Dispatcher::cancel(ServerConnection& server, env::Callback done) {
  begin(
      std::make_unique<CancelRequest>(worker_, server, CancelRequest::Aim::kSent, std::move(done)));
}

void Dispatcher::abandon(ServerConnection& server) {
  begin(std::make_unique<CancelRequest>(worker_, server, CancelRequest::Aim::kAbandoned,
                                        env::Callback()));
  remove(server);
}

void Dispatcher::begin(std::unique_ptr<CancelRequest> request) {
  worker_.counters().cancels.add();
  cancels_.push_back(std::move(request));
  cancels_.back()->look();
}

void Dispatcher::on_answer(const ServerConnection& server) {
  // No more than one for each time that its client was cancelled: few.
  for (size_t i = 0; i < cancels_.size(); ++i) {
    if (cancels_[i]->server() == server.self()) cancels_[i]->look();
  }
}

void Dispatcher::retire(Handle handle) {
  if (ServerConnection* server = servers_.find(handle)) server->set_expires({});
}

// ---- Servers -----------------------------------------------------------------------------------

// The last that was used, unless another one of the last has the client's settings.
ServerConnection* Dispatcher::find_idle(Pool& pool, PortKind kind, const SettingsRef& wanted,
                                        std::string_view member) {
  ServerConnection* best = nullptr;
  size_t best_at = 0;
  int looked_at = 0;
  for (size_t i = pool.idle.size(); i-- > 0 && looked_at < kIdleChoice;) {
    ServerConnection* server = servers_.find(pool.idle[i]);
    if (server == nullptr || !usable(*server, kind)) continue;
    if (!member.empty() && server->target().name != member) continue;
    const bool due = due_for_check(*server);
    if (due && being_checked(pool)) continue;
    ++looked_at;
    const bool matches = server->state().settings == wanted;
    if (best != nullptr && (due || !matches)) continue;
    best = server;
    best_at = i;
    if (matches) break;
  }
  if (best == nullptr) return nullptr;
  pool.idle.erase(pool.idle.begin() + static_cast<std::ptrdiff_t>(best_at));
  --best->load().idle;
  worker_.counters().servers_idle.sub();
  return best;
}

void Dispatcher::take_from_idle(ServerConnection& server) {
  if (std::erase(server.pool().idle, server.self()) == 0) return;
  --server.load().idle;
  worker_.counters().servers_idle.sub();
}

void Dispatcher::open_connections(Pool& pool, PortKind kind) {
  Pool::Side& side = pool.side(kind);
  if (side.retry != env::TimerId::kNone || side.refused) return;
  const int burst = side.failing ? 1 : kConnectBurst;
  while (side.connecting < burst) {
    // The first in the queue have connections under way already.
    const MonoTime since = waiting_since(side, side.connecting);
    if (since == MonoTime::max()) return;
    auto target = choose(pool, kind, member_of_waiter(side, side.connecting));
    if (!target) return;
    const Nanos waited = worker_.loop().now() - since;
    const ProxyConfig& config = worker_.config();
    side.full = Caps::take(
        pool.caps,
        waited >= config.reserve_pool_timeout ? Caps::Reserve::kUse : Caps::Reserve::kKeep,
        worker_.index());
    if (side.full != nullptr) {
      side.refused = true;
      if (!evict_idle(side.full)) ask_for_room();
      return;
    }
    if (!worker_.shared().servers.acquire(worker_.index(), since)) {
      Caps::give(pool.caps);
      side.limited = side.refused = claiming_ = true;
      claimed_since_ = since;
      if (!evict_idle()) ask_for_room();
      return;
    }
    side.limited = false;
    open(pool, kind, std::move(*target));
  }
}

// Its place below all limits is taken.
void Dispatcher::open(Pool& pool, PortKind kind, Target target) {
  pool.opened_for = kind;
  ++pool.side(kind).connecting;
  ++pool.servers;
  MemberLoad& load = loads_[target.name];
  ++load.servers;
  worker_.counters().servers.add();
  ServerConnection& server = servers_.emplace(worker_, pool, kind, std::move(target), load);
  if (pool.own_secret()) {
    ServerCredential credential;
    credential.password = pool.rule->secret;
    return server.connect(std::move(credential));
  }
  server.connect(worker_.credentials().get(*worker_.access(), pool.user));
}

void Dispatcher::on_connected(ServerConnection& server) {
  Pool& pool = server.pool();
  Pool::Side& side = pool.side(server.kind());
  --side.connecting;
  side.failing = false;
  remember_reported(pool, server.kind(), pool.startup, server.parameters());
  if (server.derived_keys() && !pool.elsewhere() && !pool.own_secret()) {
    worker_.credentials().derived(pool.user, *server.derived_keys());
  }
  worker_.counters().servers_total.add();
  const Nanos general = worker_.config().server_lifetime;
  const Nanos life = pool.rule ? pool.rule->server_lifetime.value_or(general) : general;
  if (life > 0s) {
    // Not all at once.
    server.set_expires(worker_.loop().now() +
                       Nanos(prng_.between(life.count() / 10 * 9, life.count())));
  }
  on_idle(server);
}

void Dispatcher::on_connect_failed(ServerConnection& server, const ServerLogin::Failure& failure) {
  Pool& pool = server.pool();
  const PortKind kind = server.kind();
  Pool::Side& side = pool.side(kind);
  const std::string who =
      fmt::format("{} ({})", server.target().name, server.target().endpoint.to_string());
  if (server.target().role == PortKind::kReader) {
    avoid_[server.target().name] = worker_.loop().now() + 1s;
  }
  if (server.target().elsewhere) ++pool.next_host;
  --side.connecting;
  side.last_error = fmt::format("{}: {}", who, failure.message);
  const bool again = failure.sqlstate == "28P01" && !pool.own_secret() &&
                     worker_.credentials().refused(*worker_.access(), pool.user);
  remove(server);
  if (!failure.transient() && !again) return fail_waiting(pool, kind, failure, who);
  side.failing = true;
  schedule_retry(pool, kind);
}

void Dispatcher::fail_waiting(Pool& pool, PortKind kind, const ServerLogin::Failure& failure,
                              const std::string& who) {
  std::deque<Waiter> waiting = std::exchange(pool.side(kind).waiting, {});
  const bool login = failure.sqlstate.starts_with("28");
  if (login) {
    log(LogLevel::kError, "proxy", "can't log in to a server",
        {{"server", who}, {"user", pool.user}, {"error", failure.message}});
  }
  const std::string message = login ? fmt::format("the proxy can't log in to {} as \"{}\": {}", who,
                                                  pool.user, failure.message)
                                    : failure.message;
  for (const Waiter& waiter : waiting) {
    ClientConnection* client = waiting_client(waiter);
    if (client == nullptr) continue;
    stop_waiting(*client);
    client->fail(failure.sqlstate, message);
  }
}

void Dispatcher::schedule_retry(Pool& pool, PortKind kind) {
  Pool::Side& side = pool.side(kind);
  if (side.retry != env::TimerId::kNone) return;
  const ProxyConfig& config = worker_.config();
  const Nanos delay(prng_.between(config.retry_delay_min.count(), config.retry_delay_max.count()));
  side.retry = worker_.loop().call_after(delay, [this, &pool, kind] {
    pool.side(kind).retry = env::TimerId::kNone;
    pump(pool, kind);
  });
}

void Dispatcher::on_idle(ServerConnection& server) {
  const MonoTime now = worker_.turn_began();
  server.touch_idle(now);
  place_idle(server, now);
}

void Dispatcher::place_idle(ServerConnection& server, MonoTime now) {
  Pool& pool = server.pool();
  // Somebody at another worker has waited longer than anybody here: the place is theirs.
  if (stale(server) || due_elsewhere(pool, now) || server.expires() < now ||
      pool.halt == Halt::kPaused) {
    remove(server);
    for (const PortKind kind : kKinds) pump(pool, kind);
    return;
  }
  pool.idle.push_back(server.self());
  ++server.load().idle;
  worker_.counters().servers_idle.add();
  for (const PortKind kind : kKinds) pump(pool, kind);
}

bool Dispatcher::waits_for(const Cap& cap) const {
  for (const auto& [key, pool] : pools_) {
    for (const Pool::Side& side : pool->sides) {
      if (side.full == &cap && waiting_since(side, 0) != MonoTime::max()) return true;
    }
  }
  return false;
}

bool Dispatcher::due_elsewhere(const Pool& pool, MonoTime now) {
  const MonoTime here = std::min(waiting_since(pool.sides[0], 0), waiting_since(pool.sides[1], 0));
  MonoTime there = worker_.shared().servers.waiting_since();
  const bool far =
      pool.mode == PoolMode::kSession || here == MonoTime::max() || here - there >= kHandOverMargin;
  if (far && there < here && claiming_ && there == claimed_since_) {
    update_claim();  // it is this worker's own, and may be out of date
    there = worker_.shared().servers.waiting_since();
  }
  if (here == MonoTime::max()) {
    if (there < here) return pool.mode == PoolMode::kSession || hand_over_pays(now, now - there);
    const uint64_t own = Caps::bit(worker_.index());
    for (const Cap* cap : pool.caps) {
      const uint64_t wanted = cap->wanted.load(std::memory_order_relaxed);
      if ((wanted & ~own) != 0 || ((wanted & own) != 0 && waits_for(*cap))) return true;
    }
    return false;
  }
  if (there >= here) return false;
  if (pool.mode == PoolMode::kSession) return true;
  return hand_over_pays(now, here - there);
}

// Places that came and went with every transaction would cost more than they are worth: each move
// is a new connection. `unfair`: how much longer than anybody here the other worker's client waits.
bool Dispatcher::hand_over_pays(MonoTime now, Nanos unfair) {
  if (unfair < kHandOverMargin || now < next_hand_over_) return false;
  next_hand_over_ = now + kHandOverInterval;
  return true;
}

void Dispatcher::on_lost(ServerConnection& server, Loss loss) {
  ClientConnection* client = server.client();
  const std::string who = server.target().describe();
  Pool& pool = server.pool();
  worker_.counters().servers_lost.add();
  remove(server);
  if (client != nullptr) client->on_server_lost(loss, who);
  for (const PortKind kind : kKinds) pump(pool, kind);
}

void Dispatcher::remove(ServerConnection& server) {
  take_from_idle(server);
  server.close();
  --server.pool().servers;
  --server.load().servers;
  worker_.counters().servers.sub();
  servers_.remove(server.self());
  bury_later();
  if (const uint64_t waiting = Caps::give(server.caps()); waiting != 0) {
    for (int i = 0; i < worker_.crew().size(); ++i) {
      if ((waiting & Caps::bit(i)) != 0) worker_.crew().wake(i);
    }
  }
  if (const auto next = worker_.shared().servers.release()) worker_.crew().wake(*next);
}

bool Dispatcher::evict_idle(const Cap* below, MonoTime used_before) {
  ServerConnection* oldest = nullptr;
  for (auto& [key, pool] : pools_) {
    const auto& caps = pool->caps;
    if (below != nullptr && std::find(caps.begin(), caps.end(), below) == caps.end()) continue;
    for (const Handle handle : pool->idle) {
      ServerConnection* server = servers_.find(handle);
      if (server == nullptr || server->idle_since() > used_before) continue;
      if (oldest == nullptr || server->idle_since() < oldest->idle_since()) oldest = server;
    }
  }
  if (oldest == nullptr) return false;
  remove(*oldest);
  return true;
}

// ---- The worker --------------------------------------------------------------------------------

void Dispatcher::on_route() {
  avoid_.clear();
  for (auto& [key, pool] : pools_) {
    for (Pool::Side& side : pool->sides) {
      worker_.loop().cancel(std::exchange(side.retry, env::TimerId::kNone));
      side.failing = false;
    }
  }
  for (const Handle handle : servers_.handles()) {
    ServerConnection* server = servers_.find(handle);
    if (server == nullptr || !stale(*server)) continue;
    if (!server->ready()) {
      on_connect_failed(*server, {"57P01", "the route changed"});
    } else if (server->client() == nullptr) {
      remove(*server);
    } else if (server->target().role == PortKind::kReader && !server->restoring()) {
      server->client()->move_if_idle();
    } else {
      on_lost(*server, Loss::kEpoch);
    }
  }
  for (auto& [key, pool] : pools_) {
    for (Pool::Side& side : pool->sides) {
      worker_.loop().cancel(std::exchange(side.retry, env::TimerId::kNone));
    }
  }
  pump_all();
}

void Dispatcher::close_all() {
  worker_.loop().cancel(std::exchange(room_timer_, env::TimerId::kNone));
  worker_.loop().cancel(std::exchange(expiry_timer_, env::TimerId::kNone));
  for (const Handle handle : servers_.handles()) {
    if (ServerConnection* server = servers_.find(handle)) remove(*server);
  }
  cancels_.clear();
}

void Dispatcher::cancel_ended(Handle handle) {
  if (ServerConnection* server = servers_.find(handle)) server->cancel_ended();
  bury_later();
}

void Dispatcher::bury_later() {
  if (std::exchange(burying_, true)) return;
  worker_.loop().post([this] {
    burying_ = false;
    servers_.bury();
    std::erase_if(cancels_, [](const auto& c) { return c->done(); });
  });
}

}  // namespace bascule::proxy
