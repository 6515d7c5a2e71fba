// One client from its first byte until it is welcome: log-in, admission, what its session begins
// with.
#include <algorithm>
#include <optional>
#include <utility>

#include "pgwire/messages.h"
#include "proxy/client_connection.h"
#include "proxy/dispatcher.h"
#include "proxy/worker.h"

namespace bascule::proxy {
namespace {

constexpr size_t kGreetingSize = 1024;  // usually enough for the parameters that servers report

}  // namespace

size_t ClientConnection::on_login_data(std::string_view bytes) {
  std::string reply;
  const size_t done = login_->on_bytes(bytes, reply);
  after_login_step(reply);
  return done;
}

void ClientConnection::on_secured() {
  std::string reply;
  login_->on_secured(stream_->tls_info(), reply);
  after_login_step(reply);
}

// Nothing is read meanwhile, so that the end of the client is noticed.
void ClientConnection::look_up(std::string& reply) {
  const std::string user(login_->startup().user());
  UserAnswer answer;
  switch (worker_.lookups().ask(user, login_->question(), self_, answer)) {
    case AuthLookup::Asked::kKnown:
      login_->on_answer(std::move(answer), reply);
      return after_login_step(reply);
    case AuthLookup::Asked::kLater:
      if (!reply.empty()) stream_->send(reply);
      stream_->pause();
      return;
    case AuthLookup::Asked::kTooMany:
      worker_.counters().logins_failed.add();
      return fail("53300", "too many users are being looked up (proxy)");
  }
}

void ClientConnection::on_user_answer(const UserAnswer& answer) {
  if (phase_ != Phase::kLogin || login_->state() != ClientLogin::State::kLookup) return;
  std::string reply;
  stream_->resume();
  login_->on_answer(answer, reply);
  after_login_step(reply);
}

void ClientConnection::end_login() {
  if (!login_) return;
  const std::string address = login_->connected_from();
  login_.reset();
  worker_.shared().logging_in.leave(address);
}

void ClientConnection::login_timed_out() {
  if (login_->state() == ClientLogin::State::kCancel) return close();
  worker_.counters().logins_failed.add();
  if (login_->state() != ClientLogin::State::kLookup) {
    return fail("57014", "canceling authentication due to timeout");
  }
  fail("57P03", "the user can't be looked up now: " + worker_.lookups().last_error());
}

void ClientConnection::after_login_step(std::string& reply) {
  switch (login_->state()) {
    case ClientLogin::State::kStartTls:
      if (!reply.empty()) stream_->send(reply);
      login_->tls_started();
      stream_->start_tls(*login_->access().client_tls, env::Stream::TlsSide::kServer, {});
      break;
    case ClientLogin::State::kLookup:
      look_up(reply);
      break;
    case ClientLogin::State::kAuthenticated:
      on_authenticated(std::move(reply));
      break;
    case ClientLogin::State::kCancel:
      pass_cancel();
      break;
    case ClientLogin::State::kFailed:
      worker_.counters().logins_failed.add();
      worker_.refusals().note(worker_.loop().now(), stream_->peer(), login_->failure());
      if (login_->doubts_answer()) worker_.lookups().doubt(std::string(login_->startup().user()));
      finish(reply);
      break;
    default:
      if (!reply.empty()) stream_->send(reply);
      break;
  }
}

// Closed when the cancel has been delivered, as PostgreSQL does: libpq waits for that, and what it
// sends next is not to be hit.
void ClientConnection::pass_cancel() {
  pgwire::CancelKey key = login_->cancel_key();
  const auto passed_on = PeerProxies::passed_on(key);
  if (passed_on) key.secret = *passed_on;
  const auto end = [&worker = worker_, self = self_] {
    if (ClientConnection* c = worker.client(self)) c->close();
  };
  worker_.crew().cancel(
      key.pid, key.secret, [&worker = worker_, key, end, further = !passed_on](Crew::Known known) {
        worker.post([&worker, key, end, ask = further && known == Crew::Known::kNo] {
          ask ? worker.peers().pass(key, end) : end();
        });
      });
}

void ClientConnection::on_authenticated(std::string reply) {
  worker_.loop().cancel(std::exchange(login_timer_, env::TimerId::kNone));
  if (begin_console(reply)) return;
  const std::string user(login_->startup().user());
  const std::string database(login_->startup().database());
  if (login_->startup().version >= pgwire::kProtocol32) {
    long_secret_ = std::make_unique<std::string>();
  }
  const bool replication = login_->startup().replication != pgwire::ReplicationMode::kNone;
  Parameters startup;
  for (const auto& [name, value] : login_->startup().parameters) {
    if (name == "user" || name == "database") continue;
    if (name == "replication" && !replication) continue;
    set_parameter(startup, name, value);
  }
  auto tables = replication ? std::nullopt : set_durability(database, user, startup);
  std::sort(startup.begin(), startup.end());
  worker_.credentials().learn(user, login_->server_keys(), login_->password(), login_->looked_up());
  end_login();
  if (worker_.controls().disabled.contains(database)) {
    return fail("55000", "database \"" + database + "\" is disabled");
  }
  const DatabaseRule* rule = find_database(worker_.config().databases, database);
  if (rule == nullptr && !worker_.config().databases.empty()) {
    return fail("3D000", "database \"" + database + "\" does not exist (proxy)");
  }
  if (!admit(user, database)) return;
  PoolMode mode = replication ? PoolMode::kSession : pool_mode(worker_.config(), user, database);
  if (port_ == PortKind::kSplit && !replication && (rule == nullptr || rule->hosts.empty())) {
    // Each statement has a server of its own; what a session can't share pins it to the primary.
    if (mode == PoolMode::kSession) mode = PoolMode::kTransaction;
    split_ = std::make_unique<SplitClient>();
  }
  SettingsTable& table = worker_.workspace().settings;
  if (mode == PoolMode::kSession) {
    pool_ = &worker_.dispatcher().pool(user, database, startup);
    session_ = std::make_unique<Session>(port_, mode, worker_.shared().limits, worker_.workspace(),
                                         table.none());
  } else {
    StartupSettings split = split_startup(startup);
    pool_ = &worker_.dispatcher().pool(user, database, std::move(split.rest));
    session_ = std::make_unique<Session>(port_, mode, worker_.shared().limits, worker_.workspace(),
                                         table.settings(std::move(split.settings)));
  }
  if (tables && port_ != PortKind::kReader) {
    session_->set_durability(std::move(*tables), worker_.write_reaches().slot(*pool_));
  }
  if (pool_->user != user) login_user_ = std::make_unique<std::string>(user);
  counted_ = true;
  session_->set_pool(pool_->traffic.now, worker_.shared().parsed.of(pool_->user, pool_->database));
  ++pool_->clients;
  ++pool_->traffic.now.logins;
  if (auto reported = worker_.dispatcher().reported(*pool_, side_, startup)) {
    return welcome(std::move(reported), std::move(reply));
  }
  stream_->send(reply);
  startup_ = std::make_unique<Parameters>(std::move(startup));
  // The first client of its kind: what to tell it only a server knows.
  phase_ = Phase::kWaitingForParameters;
  worker_.dispatcher().acquire(*this);
}

// What the rules say of its commits: in general by a parameter, by table by what is returned.
std::optional<TableDurability> ClientConnection::set_durability(const std::string& database,
                                                                const std::string& user,
                                                                Parameters& startup) const {
  const std::vector<DurabilityRule>& rules = worker_.config().durability;
  const bool strict = worker_.route() == nullptr || worker_.route()->table.sync_strict;
  const Demands demands = strict ? Demands::kStandby : Demands::kNothing;
  auto tables = table_durability_of(rules, database, user, startup, demands);
  const std::string level(durability_of(rules, database, user, startup, demands));
  if (!level.empty()) set_parameter(startup, "synchronous_commit", level);
  return tables;
}

bool ClientConnection::admit(const std::string& user, const std::string& database) {
  Shared& shared = worker_.shared();
  const ProxyConfig& config = worker_.config();
  if (!shared.clients_of_database.enter(database, max_db_clients(config, database))) {
    fail("53300", "too many connections for database \"" + database + "\" (proxy)");
    return false;
  }
  if (!shared.clients_of_user.enter(user, max_user_clients(config, user, database))) {
    shared.clients_of_database.leave(database);
    fail("53300", "too many connections for role \"" + user + "\" (proxy)");
    return false;
  }
  return true;
}

void ClientConnection::uncount() {
  if (!std::exchange(counted_, false)) return;
  worker_.shared().clients_of_database.leave(pool_->database);
  worker_.shared().clients_of_user.leave(login_user_ ? *login_user_ : pool_->user);
}

// `reply`: what is still to be said of the authentication. One message less for both kernels.
void ClientConnection::welcome(ParametersRef parameters, std::string reply) {
  phase_ = Phase::kSession;
  startup_.reset();
  told_ = std::move(parameters);
  session_->set_greeting(told_);
  const std::string random = random_bytes(worker_.entropy(), sizeof secret_);
  std::copy(random.begin(), random.end(), secret_);
  if (long_secret_) *long_secret_ = random_bytes(worker_.entropy(), kLongSecret);
  const std::string secret(cancel_secret());
  reply.reserve(reply.size() + kGreetingSize);
  for (const auto& [name, value] : *told_) pgwire::append_parameter_status(reply, name, value);
  pgwire::append_backend_key_data(reply, {worker_.cancel_pid(self_), secret});
  pgwire::append_ready_for_query(reply, pgwire::TransactionStatus::kIdle);
  stream_->send(reply);
  stream_->resume();
}

}  // namespace bascule::proxy
