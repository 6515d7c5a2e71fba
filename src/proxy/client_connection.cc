#include "proxy/client_connection.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/log.h"
#include "pgwire/messages.h"
#include "proxy/console.h"
#include "proxy/dispatcher.h"
#include "proxy/worker.h"

namespace bascule::proxy {
namespace {

constexpr std::string_view kCancelled = "57014";
const std::string kCancelledMessage = "canceling statement due to user request";

}  // namespace

ClientConnection::ClientConnection(Worker& worker, env::Stream& stream, std::string host,
                                   PortKind port, ClientLogin::Room room, Handle self)
    : worker_(worker),
      stream_(&stream),
      port_(port),
      side_(port == PortKind::kReader ? port : PortKind::kWriter),
      self_(self),
      connected_(worker.loop().now()) {
  stream.set_handler(*this);
  login_ = std::make_unique<ClientLogin>(
      worker.access(), worker.entropy(), room,
      ClientOrigin{std::move(host), [this] { return stream_->peer_user(); }});
  login_timer_ = worker.loop().call_after(worker.config().auth_timeout, [this] {
    login_timer_ = env::TimerId::kNone;
    login_timed_out();
  });
}

ClientConnection::~ClientConnection() = default;

size_t ClientConnection::on_data(std::string_view bytes) {
  switch (phase_) {
    case Phase::kLogin:
      return on_login_data(bytes);
    case Phase::kWaitingForParameters:
      stream_->pause();
      return 0;
    case Phase::kSession:
      return on_session_data(bytes);
    case Phase::kConsole:
      return on_console_data(bytes);
    case Phase::kGone:
      return bytes.size();
  }
  return bytes.size();
}

// ---- Relay -------------------------------------------------------------------------------------

Session::Gate ClientConnection::gate() const {
  if (server_ != nullptr && pool_->halt == Halt::kSuspended) return Session::Gate::kShut;
  if (server_ == nullptr || server_->target().role == PortKind::kReader) {
    return Session::Gate::kOpen;
  }
  return worker_.dispatcher().gate_open(PortKind::kWriter) ? Session::Gate::kOpen
                                                           : Session::Gate::kShut;
}

// Behind others that wait for places which are all taken it can only wait: what it says stays in
// the kernel, not in memory here. Not of a client that prepares: that may need no server.
bool ClientConnection::on_readable() {
  const bool leaves = phase_ == Phase::kSession && server_ == nullptr && !split_ &&
                      session_->shares() && session_->idle() && session_->transactions() > 0 &&
                      session_->prepared_count() == 0 && worker_.dispatcher().queue_unread(*this);
  if (!leaves) return true;
  unread_ = true;
  stream_->pause();
  return false;
}

size_t ClientConnection::on_session_data(std::string_view bytes) {
  if (terminating_) return bytes.size();
  size_t done = 0;
  for (;;) {
    const Session::Intake intake = session_->on_client(bytes.substr(done), gate(), *this);
    done += intake.consumed;
    if (intake.next == Session::Next::kNeedServer) {
      if (split_ && choose_side(bytes.substr(done)) == Sides::kNeedMore) break;
      if (worker_.dispatcher().acquire(*this) != Dispatcher::Acquired::kWaiting && open()) continue;
      if (open()) stream_->pause();
    } else if (intake.next == Session::Next::kBusy) {
      pipeline_full_ = true;
      stream_->pause();
    } else if (intake.next == Session::Next::kTerminate) {
      say_goodbye();
      return bytes.size();
    } else if (intake.next == Session::Next::kBroken) {
      fail("08P01", "invalid frontend message");
      return bytes.size();
    }
    break;
  }
  if (!open()) return bytes.size();
  ask_for_channels();
  if (server_ != nullptr && server_->congested()) stream_->pause();
  pool_->traffic.now.received += done;
  count_active();
  if (unread_) {  // It was given a server before: perhaps for nothing that needs one.
    const bool needless = server_ != nullptr && !server_->restoring() && session_->releasable() &&
                          server_->at_boundary();
    if (needless || session_->in_flight()) unread_ = false;  // else: the middle of a message
    if (needless) release();
  }
  return done;
}

// Of a splitting port: the next batch begins with `unread`.
ClientConnection::Sides ClientConnection::choose_side(std::string_view unread) {
  if (server_ != nullptr) return Sides::kDecided;  // the gate is shut: it stays where it is
  const SplitRouter::Decision decision = worker_.split().decide(*this, unread);
  if (decision.need_more) return Sides::kNeedMore;
  side_ = PortKind::kWriter;
  member_.clear();
  if (decision.any_server) {
    if (const auto replica = worker_.dispatcher().pick_reader(decision.affinity)) {
      side_ = PortKind::kReader;
      member_ = *replica;
    }
  }
  (side_ == PortKind::kReader ? worker_.counters().split_replica : worker_.counters().split_primary)
      .add();
  return Sides::kDecided;
}

void ClientConnection::to_server(std::string_view bytes) { server_->send(bytes); }

void ClientConnection::to_client(std::string_view bytes) {
  if (stream_ == nullptr) return;
  if (pool_ != nullptr) pool_->traffic.now.sent += bytes.size();
  stream_->send(bytes);
}

void ClientConnection::on_parameter(std::string_view name, std::string_view value) {
  told_ = server_->state().reported;
  // A replica that was promoted: the reader port does not lead to the primary by accident.
  if (name == "in_hot_standby" && value == "off" && server_->target().role == PortKind::kReader) {
    leaving_server_ = true;
  }
}

uint32_t ClientConnection::process_id() const { return worker_.cancel_pid(self_); }

void ClientConnection::on_unreplicated() {
  worker_.counters().unreplicated.add();
  log(LogLevel::kWarn, "proxy", "a commit's wait for its synchronous standby was cancelled",
      {{"client", describe()}, {"user", pool_->user}, {"database", pool_->database}});
}

void ClientConnection::after_server_data() {
  count_active();
  if (stream_ == nullptr) {
    if (session_->idle() || !session_->in_flight()) leave();
    return;
  }
  if (terminating_ && (!session_->owed_ready() || session_->reads_copy())) return end_goodbye();
  if (subscriptions_) {
    ask_for_channels();
    deliver_notifications();
  }
  if (pipeline_full_ && !session_->pipeline_full()) {
    pipeline_full_ = false;
    stream_->resume();
  }
  if (leaving_server_ && session_->idle()) {
    move_if_idle();
  } else if (session_->shares() && session_->releasable() && server_->at_boundary()) {
    release();
  } else if (stream_->congested()) {
    server_->pause();
  }
}

// Between two transactions: whoever waits longest is next.
void ClientConnection::release() {
  ServerConnection& server = *std::exchange(server_, nullptr);
  if (session_->release()) {
    worker_.dispatcher().release(server, ServerConnection::Use::kClean);
  } else {
    worker_.dispatcher().drop(server);
  }
}

void ClientConnection::on_drained() {
  if (server_ != nullptr) server_->resume();
  deliver_notifications();
}

// ---- Servers come and go -----------------------------------------------------------------------

void ClientConnection::take(ServerConnection& server) {
  server_ = &server;
  leaving_server_ = false;
  const bool greeting = phase_ == Phase::kWaitingForParameters;
  const SessionMemory::Script script =
      greeting ? session_->full_script(server.state()) : session_->script(server.state());
  server.attach(*this, script);
  if (script.ready_count == 0) on_attached();
}

void ClientConnection::on_attached() {
  if (server_->restored()) server_->state().settings = session_->wanted();
  if (phase_ == Phase::kWaitingForParameters) {
    ServerConnection& server = *std::exchange(server_, nullptr);
    worker_.dispatcher().remember_reported(*pool_, side_, *startup_, server.parameters());
    welcome(server.state().reported, {});
    worker_.dispatcher().release(server, ServerConnection::Use::kClean);
    return;
  }
  if (std::exchange(cancelled_, false)) {
    worker_.dispatcher().release(*std::exchange(server_, nullptr), ServerConnection::Use::kClean);
    return give_up(kCancelled, kCancelledMessage);
  }
  // Not before its settings are those of this client.
  if (!session_->shares() || server_->state().settings == session_->wanted()) tell_parameters();
  if (std::exchange(had_server_, true) && !session_->shares()) worker_.counters().moved.add();
  if (session_->wants_retry()) worker_.counters().retried.add();
  // What follows on a replica has not been looked at yet.
  if (split_) session_->set_one_batch(server_->target().role == PortKind::kReader);
  session_->attach(server_->state(), *this);
  ask_for_channels();
  if (session_->active()) count_active();  // it has sent something again
  stream_->resume();
}

// Another server may have other values (in_hot_standby, server_version): the client's driver must
// not go on with the old ones.
void ClientConnection::tell_parameters() {
  const ParametersRef& now = server_->state().reported;
  if (told_ == now) return;
  std::string reply;
  for (const auto& [name, value] : *now) {
    if (find_parameter(*told_, name) == value) continue;
    if (split_ && name == "in_hot_standby") continue;  // its statements are everywhere
    pgwire::append_parameter_status(reply, name, value);
  }
  told_ = now;
  if (!reply.empty()) to_client(reply);
}

void ClientConnection::on_restore_failed(std::string_view sqlstate, std::string_view why) {
  server_ = nullptr;
  // Of its start-up parameters, as PostgreSQL would have said it.
  if (phase_ == Phase::kWaitingForParameters) return fail(sqlstate, why);
  worker_.counters().clients_dropped.add();
  fail("57P01", "the session could not be set up again on another server: " + std::string(why));
}

void ClientConnection::give_up(std::string_view sqlstate, const std::string& message) {
  if (phase_ != Phase::kSession) return fail(sqlstate, message);
  session_->refuse(sqlstate, message, *this);
  count_active();
  stream_->resume();
}

void ClientConnection::on_server_lost(Loss loss, const std::string& who) {
  server_ = nullptr;
  if (stream_ == nullptr) return leave();
  leaving_server_ = false;
  if (phase_ == Phase::kWaitingForParameters) {
    worker_.dispatcher().acquire(*this);
    return;
  }
  if (loss == Loss::kReadOnly && split_) {
    side_ = PortKind::kWriter;
    worker_.split().mistaken(*this);
  }
  const bool restoring = !session_->attached();
  const Session::After after = session_->on_lost(loss, who, *this);
  count_active();
  if (after == Session::After::kClose) {
    worker_.counters().clients_dropped.add();
    return finish({});
  }
  if (terminating_ && !session_->wants_retry()) return end_goodbye();
  if (hold_.ticket != 0) return;  // waits already: for the gate, now for a server too
  if (std::exchange(cancelled_, false)) return give_up(kCancelled, kCancelledMessage);
  if (restoring || session_->wants_retry()) {
    stream_->pause();
    if (worker_.dispatcher().acquire(*this) == Dispatcher::Acquired::kWaiting) return;
  }
  if (open()) stream_->resume();
}

void ClientConnection::move_if_idle() {
  leaving_server_ = true;
  if (!session_->attached() || !session_->idle()) return;
  if (!session_->movable()) return;  // stays until the server itself goes
  ServerConnection& server = *std::exchange(server_, nullptr);
  leaving_server_ = false;
  session_->detach();
  worker_.dispatcher().drop(server);
}

bool ClientConnection::cancel() {
  if (phase_ == Phase::kConsole) {
    console_->cancel();
    return false;
  }
  if (hold_.ticket != 0) {
    worker_.dispatcher().stop_waiting(*this);
    give_up(kCancelled, kCancelledMessage);
    return false;
  }
  cancelled_ = server_ != nullptr && server_->restoring();
  return server_ != nullptr && !cancelled_ && session_->in_flight();
}

std::string ClientConnection::describe() const {
  return stream_ != nullptr ? stream_->peer() : "a client that has gone";
}

// ---- The end -----------------------------------------------------------------------------------

void ClientConnection::fail(std::string_view sqlstate, std::string_view message) {
  std::string reply;
  pgwire::append_error_response(reply,
                                {.severity = "FATAL", .sqlstate = sqlstate, .message = message});
  finish(reply);
}

void ClientConnection::finish(std::string_view last_words) {
  if (!open()) return;
  env::Stream* stream = std::exchange(stream_, nullptr);
  leave();
  stream->send(last_words);
  stream->close_after_flush();
}

// What was sent before it is carried out and answered, as PostgreSQL does.
void ClientConnection::say_goodbye() {
  const bool runs = server_ != nullptr && !server_->restoring() && session_->owed_ready();
  if (!runs || session_->reads_copy()) return end_goodbye();
  terminating_ = true;
  stream_->pause();
}

void ClientConnection::end_goodbye() {
  env::Stream* stream = std::exchange(stream_, nullptr);
  leave();
  stream->close_when_sent();
}

void ClientConnection::close() {
  if (!open()) return;
  if (stream_ == nullptr) return leave();
  std::exchange(stream_, nullptr)->close();
  leave();
}

void ClientConnection::leave() {
  end_login();
  if (console_ && phase_ != Phase::kGone) {
    console_->stop();
    worker_.shared().consoles.fetch_sub(1);
  }
  phase_ = Phase::kGone;
  worker_.loop().cancel(std::exchange(login_timer_, env::TimerId::kNone));
  worker_.dispatcher().stop_waiting(*this);
  if (ServerConnection* server = std::exchange(server_, nullptr)) {
    const bool clean_end = session_->reusable() && server->at_boundary() && !server->restoring();
    if (clean_end) {
      const bool clean = session_->shares() ? session_->movable() : !session_->touched();
      worker_.dispatcher().release(
          *server, clean ? ServerConnection::Use::kClean : ServerConnection::Use::kDirty);
    } else {
      // PostgreSQL notices that a client has gone only when it writes to it: stop what runs.
      if (session_->active() && !server->restoring()) {
        worker_.dispatcher().abandon(*server);
      } else {
        worker_.dispatcher().drop(*server);
      }
    }
  }
  if (subscriptions_) worker_.listeners().leave(self_, *pool_);
  subscriptions_.reset();
  if (session_) {
    session_->detach();
    count_active();
  }
  uncount();
  if (pool_ != nullptr) --pool_->clients;
  worker_.remove_client(self_);
}

void ClientConnection::on_peer_gone() {
  // Nobody is there for what waits in the queue. Otherwise its last bytes are read first.
  if (hold_.ticket != 0 || phase_ != Phase::kSession) {
    close();
  }
}

void ClientConnection::on_closed(int error) {
  if (phase_ == Phase::kLogin && error == EPROTO) {
    worker_.counters().logins_failed.add();
    worker_.refusals().note(worker_.loop().now(), stream_->peer(),
                            "TLS handshake: " + stream_->tls_error());
  }
  stream_ = nullptr;
  // It said goodbye and did not wait for the answers.
  if (terminating_ && server_ != nullptr && session_->in_flight()) return server_->resume();
  leave();
}

}  // namespace bascule::proxy
