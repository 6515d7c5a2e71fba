// What the console sees of a client, and clients that are consoles.
#include <algorithm>
#include <utility>

#include "pgwire/messages.h"
#include "proxy/client_connection.h"
#include "proxy/console.h"
#include "proxy/console_snapshot.h"
#include "proxy/worker.h"

namespace bascule::proxy {

// Authenticated: true if it came to the console, and then it is one, or has been refused.
bool ClientConnection::begin_console(std::string_view said) {
  const std::string user(login_->startup().user());
  const AccessConfig& access = worker_.access()->config;
  if (!Console::is_database(access, login_->startup().database())) return false;
  stream_->send(said);
  const auto right = Console::right_of(access, user);
  end_login();
  if (!right) {
    fail("42501", "not allowed");
    return true;
  }
  phase_ = Phase::kConsole;
  worker_.shared().consoles.fetch_add(1);
  console_ = std::make_unique<Console>(worker_, *this, user, *right);
  const std::string secret = random_bytes(worker_.entropy(), sizeof secret_);
  std::copy(secret.begin(), secret.end(), secret_);
  std::string reply;
  ConsoleProtocol::greet(worker_.cancel_pid(self_), secret, reply);
  stream_->send(reply);
  return true;
}

size_t ClientConnection::on_console_data(std::string_view bytes) {
  const size_t done = console_->on_bytes(bytes);
  if (!open()) return bytes.size();
  if (console_->ended()) {
    finish({});
    return bytes.size();
  }
  if (console_->busy()) stream_->pause();
  return done;
}

// Statements and transactions for SHOW STATS: called whenever either may have begun or ended.
void ClientConnection::account() {
  if (pool_ == nullptr || !session_) return;
  const bool running = session_->in_flight(), inside = session_->active();
  const auto readies = session_->readies();
  if (readies == readies_counted_ && running == counting_statement_ &&
      inside == counting_transaction_) {
    return;
  }
  TrafficCounts& traffic = pool_->traffic.now;
  const MonoTime now = worker_.turn_began();
  if (readies != readies_counted_) {
    traffic.queries += readies - readies_counted_;
    readies_counted_ = readies;
    if (counting_statement_) traffic.query_time += now - statement_began_;
    counting_statement_ = false;
  }
  if (running && !counting_statement_) statement_began_ = now;
  counting_statement_ = running;
  if (counting_transaction_ && !inside) traffic.transaction_time += now - transaction_began_;
  if (!counting_transaction_ && inside) transaction_began_ = now;
  counting_transaction_ = inside;
}

void ClientConnection::count_active() {
  WorkerCounters& counters = worker_.counters();
  const bool active =
      server_ != nullptr && server_->target().role == PortKind::kWriter && session_->active();
  if (active != counted_active_) {
    counted_active_ = active;
    active ? counters.active_transactions.add() : counters.active_transactions.sub();
  }
  account();
  if (session_->transactions() != transactions_seen_) {
    counters.transactions.add(session_->transactions() - transactions_seen_);
    pool_->traffic.now.transactions += session_->transactions() - transactions_seen_;
    transactions_seen_ = session_->transactions();
  }
  if (session_->errors() != errors_seen_) {
    counters.errors_outage.add(session_->errors() - errors_seen_);
    errors_seen_ = session_->errors();
  }
}

void ClientConnection::count(ConsoleSnapshot& out) const {
  ++out.clients;
  if (phase_ == Phase::kLogin) {
    ++out.login_clients;
    return;
  }
  if (phase_ == Phase::kConsole) {
    PoolView& pool = out.pools[{"pgbouncer", "pgbouncer"}];
    pool.mode = PoolMode::kStatement;
    ++pool.cl_active;
    return;
  }
  if (pool_ == nullptr || phase_ == Phase::kGone) return;
  PoolView& pool = out.pools[{pool_->database, pool_->user}];
  pool.mode = pool_->mode;
  if (hold_.ticket != 0) {
    ++pool.cl_waiting;
    pool.longest_wait = std::max(pool.longest_wait, worker_.loop().now() - hold_.since);
  } else {
    ++pool.cl_active;
  }
  if (!session_) return;
  if (session_->active()) ++pool.busy;
  if (const Pin pin = pinned_by(); pin != Pin::kNone) {
    ++pool.pinned[std::string(proxy::describe(pin))];
  }
}

Pin ClientConnection::pinned_by() const {
  return server_ != nullptr && session_ ? session_->pin() : Pin::kNone;
}

void ClientConnection::show(SocketView& view) const {
  const MonoTime now = worker_.loop().now();
  const WallTime wall = worker_.loop().wall_now();
  const auto wall_of = [&](MonoTime at) {
    return wall - std::chrono::duration_cast<Millis>(now - at);
  };
  view.id = worker_.socket_id(self_);
  view.worker = worker_.index();
  view.state = phase_ == Phase::kLogin ? SocketState::kClientLogin
               : hold_.ticket != 0     ? SocketState::kClientWaiting
               : server_ != nullptr    ? SocketState::kClientActive
                                       : SocketState::kClientIdle;
  view.connected = wall_of(connected_);
  view.requested = statement_began_ == MonoTime{} ? view.connected : wall_of(statement_began_);
  if (hold_.ticket != 0) {
    view.waiting = now - hold_.since;
    view.requested = wall_of(hold_.since);
  }
  for (const ProxyListener& listener : worker_.config().listeners) {
    if (listener.kind != port_) continue;
    view.local_address = listener.endpoint.to_string();
    break;
  }
  if (stream_ != nullptr) {
    view.address = stream_->peer();
    if (stream_->secured()) {
      const env::TlsInfo tls = stream_->tls_info();
      view.tls = tls.version + "/" + tls.cipher;
    }
  }
  if (phase_ == Phase::kConsole) {
    view.user = console_->user();
    view.database = "pgbouncer";
    view.state = SocketState::kClientActive;
  }
  if (server_ != nullptr) view.link = worker_.socket_id(server_->self());
  if (pool_ == nullptr) return;
  view.user = pool_->user;
  view.database = pool_->database;
  view.replication = !find_parameter(pool_->startup, "replication").empty();
  if (!session_) return;
  view.prepared = session_->prepared_count();
  if (told_) view.application_name = reported("application_name");
  view.pinned = proxy::describe(pinned_by());
}

void ServerConnection::show(SocketView& view) const {
  const MonoTime now = worker_.loop().now();
  const WallTime wall = worker_.loop().wall_now();
  const auto wall_of = [&](MonoTime at) {
    return wall - std::chrono::duration_cast<Millis>(now - at);
  };
  view.id = worker_.socket_id(self_);
  view.worker = worker_.index();
  view.state = !ready()             ? SocketState::kServerLogin
               : client_ != nullptr ? SocketState::kServerActive
               : testing()          ? SocketState::kServerTested
               : being_canceled()   ? SocketState::kServerBeingCanceled
                                    : SocketState::kServerIdle;
  view.connected = wall_of(opened_);
  view.requested = busy_since_ == MonoTime{} ? view.connected : wall_of(busy_since_);
  view.user = pool_.user;
  view.database = pool_.database;
  view.replication = !find_parameter(pool_.startup, "replication").empty();
  view.address = target_.endpoint.to_string();
  view.closing = expires_ <= now || pool_.halt == Halt::kPaused;
  view.remote_pid = cancel_key_.pid;
  view.member = target_.name;
  view.prepared = state_.statements.size();
  if (stream_ != nullptr && stream_->secured()) {
    const env::TlsInfo tls = stream_->tls_info();
    view.tls = tls.version + "/" + tls.cipher;
  }
  if (client_ == nullptr) return;
  view.link = worker_.socket_id(client_->self());
  if (ready() && !restoring()) view.application_name = client_->reported("application_name");
}

}  // namespace bascule::proxy
