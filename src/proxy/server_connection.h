// One connection to a PostgreSQL server: log-in, then attached to clients one after the other.
// Belongs to the dispatcher of its worker.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "pgwire/frames.h"
#include "proxy/pool.h"
#include "proxy/server_dial.h"
#include "proxy/session.h"

namespace bascule::proxy {

class ClientConnection;
class Worker;
struct SocketView;

class ServerConnection final : public env::StreamHandler, public ServerDial::Owner {
 public:
  ServerConnection(Worker& worker, Pool& pool, PortKind kind, Target target, MemberLoad& load,
                   Handle self);
  ~ServerConnection() override = default;

  void connect(ServerCredential credential);
  // From idle. The script runs first if there is one; then the client is told.
  void attach(ClientConnection& client, const SessionMemory::Script& script);
  // The client has gone or gives it back; only at a message boundary. kDirty: reset it first.
  enum class Use { kClean, kDirty };
  void detach(Use use);
  // From idle, out of the pool: Dispatcher::on_checked() or on_lost() follows.
  void check(const std::string& query);
  void close();  // the stream; the object is the dispatcher's to remove

  void send(std::string_view bytes) { stream_->send(bytes); }
  bool congested() const { return stream_->congested(); }
  void pause() { stream_->pause(); }
  void resume() { stream_->resume(); }

  Handle self() const { return self_; }
  Pool& pool() const { return pool_; }
  PortKind kind() const { return kind_; }  // of the port whose clients it was opened for
  const Target& target() const { return target_; }
  MemberLoad& load() { return load_; }  // the dispatcher's account of that member
  ClientConnection* client() const { return client_; }
  void show(SocketView& view) const;  // for the console; server_console.cc
  bool being_canceled() const { return cancels_ > 0; }
  bool testing() const { return phase_ == Phase::kResetting || phase_ == Phase::kChecking; }
  bool ready() const {
    return phase_ != Phase::kConnecting && phase_ != Phase::kLogin && phase_ != Phase::kPreparing;
  }
  bool idle() const { return phase_ == Phase::kIdle; }
  // A script has made it what the client wants.
  bool restored() const { return restored_; }
  bool restoring() const { return phase_ == Phase::kRestoring; }
  bool at_boundary() const { return scanner_.at_boundary(); }
  ServerState& state() { return state_; }
  const Parameters& parameters() const { return *state_.reported; }
  const pgwire::CancelKey& cancel_key() const { return cancel_key_; }
  const std::optional<pgwire::ScramKeys>& derived_keys() const { return derived_keys_; }
  MonoTime idle_since() const { return idle_since_; }
  MonoTime busy_since() const { return busy_since_; }  // of the client that has it
  MonoTime expires() const { return expires_; }
  void set_expires(MonoTime at) { expires_ = at; }
  // Cancel requests under way: it must not go to another client meanwhile.
  void cancel_begins() { ++cancels_; }
  void cancel_ended();
  void touch_idle(MonoTime now) { idle_since_ = now; }
  MonoTime checked() const { return checked_; }
  // The limits below which it has a place: those of its pool when it was opened.
  const std::vector<Cap*>& caps() const { return caps_; }

  size_t on_data(std::string_view bytes) override;
  void on_drained() override;
  void on_closed(int error) override;

 private:
  enum class Phase {
    kConnecting,
    kLogin,
    kPreparing,  // the database's connect_query runs
    kIdle,
    kRestoring,
    kAttached,
    kResetting,
    kChecking,
    kClosed,
  };

  void on_dialed(env::Stream& stream) override;
  void on_dial_failed(const ServerDial::Failure& failure) override;
  bool dial_otherwise();
  size_t on_login_data(std::string_view bytes);
  size_t on_own_data(std::string_view bytes);  // idle, restoring, resetting
  size_t on_attached_data(std::string_view bytes);
  void gather_rest(bool all_taken);
  void own_script_done();
  void login_failed(ServerLogin::Failure failure);
  void become_idle();
  void logged_in();
  void begin_own(Phase phase, const std::vector<std::string>& queries);
  std::vector<std::string> reset_queries() const;

  Worker& worker_;
  Pool& pool_;
  const PortKind kind_;
  const Target target_;
  MemberLoad& load_;
  const Handle self_;
  const std::vector<Cap*> caps_;
  Phase phase_ = Phase::kConnecting;
  env::Stream* stream_ = nullptr;
  ClientConnection* client_ = nullptr;
  pgwire::FrameScanner scanner_{pgwire::kBackendPolicy};
  std::unique_ptr<ServerDial> dial_;  // until the log-in is over
  std::unique_ptr<ServerLogin> login_;
  std::optional<pgwire::ScramKeys> derived_keys_;
  env::TimerId deadline_ = env::TimerId::kNone;
  ServerState state_;
  pgwire::CancelKey cancel_key_;
  int ready_expected_ = 0;  // of our own statements
  std::string script_error_, script_sqlstate_;
  MonoTime idle_since_{}, busy_since_{}, opened_{}, checked_{};
  MonoTime expires_ = MonoTime::max();
  int cancels_ = 0;
  uint32_t gathered_ = 1;  // as the stream was told
  bool restored_ = false;
};

}  // namespace bascule::proxy
