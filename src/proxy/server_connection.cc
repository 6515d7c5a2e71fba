#include "proxy/server_connection.h"

#include <string.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "pgwire/messages.h"
#include "proxy/client_connection.h"
#include "proxy/dispatcher.h"
#include "proxy/worker.h"

namespace bascule::proxy {

using pgwire::Scan;
using pgwire::ScanKind;

namespace {

// A smaller message comes by few reads anyway, and waiting for it costs more than it saves.
constexpr uint32_t kGatherFrom = 128 * 1024;
constexpr uint32_t kGatherMost = 256 * 1024;
constexpr uint32_t kGatherLast = 64 * 1024;

}  // namespace

ServerConnection::ServerConnection(Worker& worker, Pool& pool, PortKind kind, Target target,
                                   MemberLoad& load, Handle self)
    : worker_(worker),
      pool_(pool),
      kind_(kind),
      target_(std::move(target)),
      load_(load),
      self_(self),
      caps_(pool.caps),
      opened_(worker.loop().now()) {}

void ServerConnection::connect(ServerCredential credential) {
  if (!credential.unavailable.empty()) {
    // Not before this returns; and it may be there the next time.
    deadline_ = worker_.loop().call_after(0ns, [this, why = std::move(credential.unavailable)] {
      deadline_ = env::TimerId::kNone;
      login_failed({"08001", why});
    });
    return;
  }
  Parameters startup = {{"user", pool_.user}, {"database", pool_.server_database()}};
  startup.insert(startup.end(), pool_.startup.begin(), pool_.startup.end());
  login_ = std::make_unique<ServerLogin>(
      std::move(startup), std::move(credential),
      pgwire::make_nonce(random_bytes(worker_.entropy(), pgwire::kScramNonceBytes)));
  dial_ = std::make_unique<ServerDial>(worker_.net(), worker_.access(), target_.endpoint, *this);
  dial_->dial();
  deadline_ = worker_.loop().call_after(worker_.config().connect_timeout, [this] {
    deadline_ = env::TimerId::kNone;
    login_failed({"08001", "time-out"});
  });
}

void ServerConnection::close() {
  dial_.reset();
  worker_.loop().cancel(deadline_);
  deadline_ = env::TimerId::kNone;
  if (stream_ != nullptr) {
    if (ready()) {
      std::string bye;
      pgwire::append_terminate(bye);
      if (scanner_.at_boundary() && phase_ != Phase::kAttached) stream_->send(bye);
    }
    std::exchange(stream_, nullptr)->close();
  }
  phase_ = Phase::kClosed;
}

void ServerConnection::on_dialed(env::Stream& stream) {
  stream_ = &stream;
  stream.set_handler(*this);
  phase_ = Phase::kLogin;
  const bool hidden = stream.secured() || target_.endpoint.host.starts_with('/');
  stream.send(login_->first(channel_binding(stream),
                            hidden ? ServerLogin::Privacy::kPrivate : ServerLogin::Privacy::kNone));
}

void ServerConnection::on_dial_failed(const ServerDial::Failure& failure) {
  login_failed({failure.sqlstate, failure.message});
}

// The server's rules demand TLS, or refuse it, and the configuration has no opinion.
bool ServerConnection::dial_otherwise() {
  if (login_->failure().sqlstate != "28000" || !dial_->dial_otherwise()) return false;
  std::exchange(stream_, nullptr)->close();
  login_->restart(pgwire::make_nonce(random_bytes(worker_.entropy(), pgwire::kScramNonceBytes)));
  phase_ = Phase::kConnecting;
  return true;
}

void ServerConnection::login_failed(ServerLogin::Failure failure) {
  worker_.dispatcher().on_connect_failed(*this, failure);
}

size_t ServerConnection::on_data(std::string_view bytes) {
  switch (phase_) {
    case Phase::kConnecting:
      return 0;
    case Phase::kLogin:
      return on_login_data(bytes);
    case Phase::kAttached:
      return on_attached_data(bytes);
    case Phase::kPreparing:
    case Phase::kIdle:
    case Phase::kRestoring:
    case Phase::kResetting:
    case Phase::kChecking:
      return on_own_data(bytes);
    case Phase::kClosed:
      return bytes.size();
  }
  return bytes.size();
}

size_t ServerConnection::on_login_data(std::string_view bytes) {
  std::string reply;
  const size_t done = login_->on_bytes(bytes, reply);
  if (!reply.empty()) stream_->send(reply);
  if (login_->state() == ServerLogin::State::kFailed) {
    if (!dial_otherwise()) login_failed(login_->failure());
    return bytes.size();
  }
  if (login_->state() != ServerLogin::State::kReady) return done;
  state_.reported = worker_.workspace().settings.parameters(login_->parameters());
  state_.settings = worker_.workspace().settings.none();
  cancel_key_ = login_->cancel_key();
  state_.pid = cancel_key_.pid;
  derived_keys_ = login_->derived_keys();
  // A standby on the writer's side: promotion is not through yet, or the route is out of date.
  if (target_.role == PortKind::kWriter && !target_.read_only &&
      find_parameter(parameters(), "in_hot_standby") == "on") {
    login_failed({"57P03", "it is still a standby"});
    return bytes.size();
  }
  login_.reset();
  dial_.reset();
  if (pool_.rule && !pool_.rule->connect_query.empty()) {
    begin_own(Phase::kPreparing, {pool_.rule->connect_query});
  } else {
    logged_in();
  }
  return done;
}

void ServerConnection::logged_in() {
  worker_.loop().cancel(std::exchange(deadline_, env::TimerId::kNone));
  phase_ = Phase::kIdle;
  worker_.dispatcher().on_connected(*this);
}

void ServerConnection::begin_own(Phase phase, const std::vector<std::string>& queries) {
  phase_ = phase;
  ready_expected_ = static_cast<int>(queries.size());
  script_error_.clear();
  std::string bytes;
  for (const std::string& query : queries) pgwire::append_query(bytes, query);
  stream_->send(bytes);
}

void ServerConnection::check(const std::string& query) {
  begin_own(Phase::kChecking, {query});
  deadline_ = worker_.loop().call_after(worker_.config().connect_timeout, [this] {
    deadline_ = env::TimerId::kNone;
    worker_.dispatcher().on_lost(*this, Loss::kConnection);
  });
}

// What is known of a server that others share is true after DISCARD ALL only.
std::vector<std::string> ServerConnection::reset_queries() const {
  const std::string discard = "DISCARD ALL";
  const std::string& query = worker_.config().server_reset_query;
  const bool alone = pool_.mode == PoolMode::kSession;
  if (query == discard || (query.empty() && !alone)) return {discard};
  if (alone) return query.empty() ? std::vector<std::string>() : std::vector{query};
  return {query, discard};
}

void ServerConnection::attach(ClientConnection& client, const SessionMemory::Script& script) {
  client_ = &client;
  busy_since_ = worker_.turn_began();
  ready_expected_ = script.ready_count;
  restored_ = false;
  script_error_.clear();
  if (ready_expected_ == 0) {
    phase_ = Phase::kAttached;
    return;
  }
  phase_ = Phase::kRestoring;
  stream_->send(script.bytes);
}

void ServerConnection::detach(Use use) {
  client_ = nullptr;
  stream_->resume();
  const auto reset = use == Use::kClean ? std::vector<std::string>() : reset_queries();
  if (reset.empty()) return become_idle();
  begin_own(Phase::kResetting, reset);
}

void ServerConnection::become_idle() {
  phase_ = Phase::kIdle;
  if (cancels_ > 0) return;  // cancel_ended() goes on
  worker_.dispatcher().on_idle(*this);
}

void ServerConnection::cancel_ended() {
  --cancels_;
  if (cancels_ == 0 && phase_ == Phase::kIdle) worker_.dispatcher().on_idle(*this);
}

// What a server says while no client is attached: answers to our own statements, changed settings,
// or its farewell.
size_t ServerConnection::on_own_data(std::string_view bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const Scan piece = scanner_.next(bytes.substr(done));
    if (piece.kind == ScanKind::kNeedMore) break;
    if (piece.kind == ScanKind::kBad) {
      worker_.dispatcher().on_lost(*this, Loss::kProtocol);
      return bytes.size();
    }
    done += piece.bytes.size();
    if (piece.kind != ScanKind::kStart) continue;
    if (piece.type == 'S') {
      if (const auto p = pgwire::parse_parameter_status(piece.payload())) {
        Parameters values = parameters();
        set_parameter(values, p->name, p->value);
        state_.reported = worker_.workspace().settings.parameters(values);
      }
    } else if (piece.type == 'E') {
      const pgwire::ErrorView error = pgwire::parse_error_prefix(piece.payload());
      if (error.fatal() && phase_ == Phase::kPreparing) {
        login_failed({std::string(error.sqlstate), std::string(error.message)});
        return bytes.size();
      }
      if (error.fatal() || phase_ == Phase::kIdle) {
        worker_.dispatcher().on_lost(*this, Loss::kShutdown);
        return bytes.size();
      }
      script_error_ = std::string(error.message);
      script_sqlstate_ = std::string(error.sqlstate);
    } else if (piece.type == 'Z' && ready_expected_ > 0 && --ready_expected_ == 0) {
      own_script_done();
      if (phase_ == Phase::kAttached || phase_ == Phase::kClosed) break;
    }
  }
  return done;
}

void ServerConnection::own_script_done() {
  if (phase_ == Phase::kPreparing) {
    if (script_error_.empty()) return logged_in();
    return login_failed({script_sqlstate_, "connect_query: " + script_error_});
  }
  if (phase_ == Phase::kChecking) {
    worker_.loop().cancel(std::exchange(deadline_, env::TimerId::kNone));
    if (!script_error_.empty()) {
      log(LogLevel::kWarn, "proxy", "server connection failed its check",
          {{"server", target_.name}, {"error", script_error_}});
      return worker_.dispatcher().on_lost(*this, Loss::kProtocol);
    }
    phase_ = Phase::kIdle;
    checked_ = worker_.loop().now();
    return worker_.dispatcher().on_checked(*this);
  }
  if (phase_ == Phase::kResetting) {
    if (!script_error_.empty()) {
      log(LogLevel::kWarn, "proxy", "server connection could not be reset",
          {{"server", target_.name}, {"error", script_error_}});
      return worker_.dispatcher().on_lost(*this, Loss::kProtocol);
    }
    state_.settings = worker_.workspace().settings.none();
    state_.statements.clear();
    state_.closing.clear();
    state_.unnamed = 0;
    return become_idle();
  }
  state_.unnamed = 0;
  if (!script_error_.empty()) {
    ClientConnection* client = std::exchange(client_, nullptr);
    worker_.dispatcher().on_lost(*this, Loss::kProtocol);
    return client->on_restore_failed(script_sqlstate_, script_error_);
  }
  phase_ = Phase::kAttached;
  restored_ = true;
  client_->on_attached();
}

// Nobody can use a part of a large message, and PostgreSQL sends it in pieces of 8 KiB. Half of the
// rest each time: so what goes to the client after the server's last byte is little.
void ServerConnection::gather_rest(bool all_taken) {
  const uint32_t rest = all_taken ? scanner_.remaining() : 0;
  uint32_t wanted = 1;
  if (rest >= kGatherFrom || (gathered_ > 1 && rest > 0)) {
    wanted = rest <= kGatherLast ? rest : std::min(rest / 2, kGatherMost);
  }
  if (std::exchange(gathered_, wanted) != wanted) stream_->gather(wanted);
}

size_t ServerConnection::on_attached_data(std::string_view bytes) {
  const bool expires = target_.permit && target_.permit->until() != MonoTime::max();
  const bool expired = expires && worker_.loop().now() >= target_.permit->until();
  ClientConnection& client = *client_;
  const bool read_only = client.port() != PortKind::kReader && !target_.elsewhere &&
                         !target_.read_only &&
                         find_parameter(parameters(), "in_hot_standby") == "on";
  const Session::Relayed relayed = client.session().on_server(
      bytes, scanner_, expired ? Session::Permit::kExpired : Session::Permit::kValid,
      read_only ? Session::Writable::kNo : Session::Writable::kYes, client);
  if (relayed.lost) {
    worker_.dispatcher().on_lost(*this, *relayed.lost);
    return bytes.size();
  }
  if (relayed.held) stream_->pause();
  gather_rest(relayed.consumed == bytes.size());
  if (cancels_ > 0) worker_.dispatcher().on_answer(*this);
  client.after_server_data();
  return relayed.consumed;
}

void ServerConnection::on_drained() {
  if (client_ != nullptr) client_->on_server_drained();
}

void ServerConnection::on_closed(int error) {
  stream_ = nullptr;
  if (!ready()) {
    return login_failed({"08006", error == 0 ? "it closed the connection" : ::strerror(error)});
  }
  worker_.dispatcher().on_lost(*this, Loss::kConnection);
}

}  // namespace bascule::proxy
