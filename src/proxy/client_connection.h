// One client: its socket, its log-in, then its Session, relayed to the server that the dispatcher
// gives it. Belongs to its worker.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/rare_string.h"
#include "proxy/client_login.h"
#include "proxy/pool.h"
#include "proxy/session.h"
#include "proxy/split.h"

namespace bascule::proxy {

class Console;
class ServerConnection;
class Worker;
struct ConsoleSnapshot;
struct SocketView;

class ClientConnection final : public env::StreamHandler, public SessionOutput {
 public:
  // `host`: the stream's peer_host().
  ClientConnection(Worker& worker, env::Stream& stream, std::string host, PortKind port,
                   ClientLogin::Room room, Handle self);
  ~ClientConnection() override;

  Handle self() const { return self_; }
  PortKind port() const { return port_; }
  // Whose servers it needs now: kWriter or kReader.
  PortKind side() const { return side_; }
  // The server that its reads are to go to, while it is there and has a connection; empty: any.
  std::string_view member() const { return member_; }
  SplitClient& split() { return *split_; }
  // A parameter's value as the client knows it.
  std::string_view reported(std::string_view name) const { return find_parameter(*told_, name); }
  Pool& pool() { return *pool_; }
  Session& session() { return *session_; }
  ServerConnection* server() const { return server_; }
  bool open() const { return phase_ != Phase::kGone; }

  // ---- The dispatcher's half -----------------------------------------------------------------
  // Waiting for a server: since when, and by which ticket.
  struct Hold {
    uint32_t ticket = 0;  // 0: does not wait
    MonoTime since{};
  };
  Hold& hold() { return hold_; }
  void take(ServerConnection& server);  // a server is given; on_attached() follows, perhaps at once
  void on_attached();
  void on_restore_failed(std::string_view sqlstate, std::string_view why);
  void resume() { stream_->resume(); }  // what it waited for is there
  // It has waited for long: see env::Stream.
  void delay_acks() {
    if (!unread_) stream_->delay_acks();
  }
  // What it waits for will not come: an error for the statement, or the end during log-in.
  void give_up(std::string_view sqlstate, const std::string& message);
  void fail(std::string_view sqlstate, std::string_view message);  // FATAL, then the end
  void on_server_lost(Loss loss, const std::string& who);
  void move_if_idle();  // its server is to be left: at once if nothing runs
  // The secret of its BackendKeyData.
  bool owns(std::string_view secret) const {
    return (phase_ == Phase::kSession || phase_ == Phase::kConsole) &&
           pgwire::secrets_equal(secret, cancel_secret());
  }
  bool cancel();  // true: the server has something to cancel

  // ---- The server's half ---------------------------------------------------------------------
  void after_server_data();
  void on_server_drained() {
    if (stream_ != nullptr) stream_->resume();
  }

  void on_user_answer(const UserAnswer& answer);  // of AuthLookup::ask()

  // Of Listeners.
  using Channel = Session::Channel;
  void on_channel(const std::string& channel, Channel what);
  // Kept until the client is between two transactions, and has read what it was sent. `channel`:
  // empty for a notice about all.
  void on_notification(std::string_view channel, std::string_view message);

  bool on_readable() override;
  void on_peer_gone() override;
  void on_secured() override;
  size_t on_data(std::string_view bytes) override;
  void on_drained() override;
  void on_closed(int error) override;

  void to_server(std::string_view bytes) override;
  void to_client(std::string_view bytes) override;
  void on_parameter(std::string_view name, std::string_view value) override;
  void on_synced() override { tell_parameters(); }
  void on_unreplicated() override;
  uint32_t process_id() const override;

  std::string describe() const;  // for messages: its address
  void sweep(MonoTime now);      // looks whether it has taken too long

  // ---- The console's half; client_console.cc -------------------------------------------------
  Console* console() const { return console_.get(); }
  void show(SocketView& view) const;
  void count(ConsoleSnapshot& out) const;
  Pin pinned_by() const;  // why it keeps its server; kNone: it does not
  // Tells it why, if it can be told anything, and closes it.
  void time_out(std::string_view sqlstate, std::string_view message);
  const Pool* known_pool() const { return pool_; }  // null: not logged in yet

  void close();  // at once; the worker forgets it

 private:
  enum class Phase { kLogin, kWaitingForParameters, kSession, kConsole, kGone };

  size_t on_login_data(std::string_view bytes);
  void after_login_step(std::string& reply);
  void look_up(std::string& reply);
  void login_timed_out();
  void end_login();
  std::optional<TableDurability> set_durability(const std::string& database,
                                                const std::string& user, Parameters& startup) const;
  bool admit(const std::string& user, const std::string& database);
  void uncount();
  void on_authenticated(std::string reply);
  void welcome(ParametersRef parameters, std::string reply);
  void release();
  void say_goodbye();
  bool begin_console(std::string_view said);  // `said`: the answer to the authentication
  size_t on_console_data(std::string_view bytes);
  void account();
  void end_goodbye();
  void pass_cancel();
  size_t on_session_data(std::string_view bytes);
  void leave();  // the client is gone: what becomes of its server
  void finish(std::string_view last_words);
  void count_active();
  void ask_for_channels();
  void deliver_notifications();
  void tell_parameters();
  Session::Gate gate() const;
  enum class Sides { kDecided, kNeedMore };
  Sides choose_side(std::string_view unread);

  Worker& worker_;
  env::Stream* stream_;
  const PortKind port_;
  PortKind side_;
  const Handle self_;
  Phase phase_ = Phase::kLogin;
  bool counted_active_ = false;
  bool pipeline_full_ = false;  // not read until the server has answered more
  bool had_server_ = false;
  bool unread_ = false;          // it was given a place in the queue before what it says was read
  bool leaving_server_ = false;  // as soon as nothing runs on it
  bool terminating_ = false;     // the client said goodbye: what it sent before is answered
  bool cancelled_ = false;       // what it waits for, while its server is being set up
  bool counted_ = false;         // among the clients of its database and user
  std::unique_ptr<ClientLogin> login_;
  env::TimerId login_timer_ = env::TimerId::kNone;
  Pool* pool_ = nullptr;
  std::unique_ptr<std::string> login_user_;  // where its pool is another user's
  std::unique_ptr<Session> session_;
  RareString member_;
  std::unique_ptr<SplitClient> split_;  // splitting ports
  ServerConnection* server_ = nullptr;
  Hold hold_;
  uint32_t transactions_seen_ = 0, errors_seen_ = 0;
  std::unique_ptr<Console> console_;
  // For the console: since when it is here, and since when the last statement and transaction run.
  const MonoTime connected_;
  MonoTime statement_began_{}, transaction_began_{};
  uint32_t readies_counted_ = 0;
  bool counting_statement_ = false, counting_transaction_ = false;
  // What it was seen doing by sweep(), and since when.
  enum class Doing : uint8_t { kNothing, kStatement, kIdleInTransaction };
  Doing doing_ = Doing::kNothing;
  bool in_transaction_ = false;
  uint32_t readies_seen_ = 0, transactions_swept_ = 0;
  MonoTime doing_since_{}, transaction_since_{};
  // Of protocol 3.0 its keys have 4 bytes; few clients speak a newer one, and there are many
  // clients.
  static constexpr size_t kLongSecret = 32;
  std::string_view cancel_secret() const {
    return long_secret_ ? std::string_view(*long_secret_)
                        : std::string_view(secret_, sizeof secret_);
  }
  char secret_[4] = {};
  std::unique_ptr<std::string> long_secret_;  // 3.2
  std::unique_ptr<Parameters> startup_;       // up to the welcome
  // Of a client that listens to something.
  struct Subscriptions {
    std::vector<std::string> channels;  // that Listeners were asked for
    size_t awaited = 0;
    std::string notifications;  // not delivered yet
  };
  static constexpr size_t kNotificationsMax = 4 << 20;
  std::unique_ptr<Subscriptions> subscriptions_;
  ParametersRef told_;  // the reported parameters as this client knows them
};

}  // namespace bascule::proxy
