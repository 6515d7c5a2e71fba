// One admin console: a client that came to the database "pgbouncer" or "bascule". Carries out its
// commands: asks all workers for what they have, changes what they act by, waits until something
// has come true. Belongs to its client's worker and runs on its thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "proxy/console_protocol.h"
#include "proxy/shared.h"
#include "proxy/slot_map.h"

namespace bascule::proxy {

class ClientConnection;
class Worker;

class Console {
 public:
  enum class Right { kLook, kOrder };
  // What this user may do; nothing: the console is not for it. `database` is no console's: nothing
  // either, and is_database() says so.
  static bool is_database(const AccessConfig& access, std::string_view database);
  static std::optional<Right> right_of(const AccessConfig& access, std::string_view user);

  Console(Worker& worker, ClientConnection& client, std::string user, Right right);
  ~Console();
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  // Consumes whole messages; while busy() the rest waits.
  size_t on_bytes(std::string_view bytes);
  bool busy() const { return protocol_.state() == ConsoleProtocol::State::kRunning; }
  bool ended() const { return protocol_.state() == ConsoleProtocol::State::kEnded; }
  void cancel();  // what it waits for; PAUSE is taken back, as by PgBouncer
  void stop();    // the client is gone: nothing of this calls it any more
  const std::string& user() const { return user_; }

 private:
  enum class Detail { kPools, kSockets };
  using OnSnapshot = std::function<void(const ConsoleSnapshot&)>;
  using Until = std::function<bool(const ConsoleSnapshot&)>;

  void carry_out();
  void change(const ConsoleCommand& command);
  void show(ConsoleShow what);
  void pause(const ConsoleCommand& command);
  void resume(const std::string& database);
  void suspend();
  void kill(const std::string& database);
  void kill_client(uint64_t id);
  void shut_down(ShutdownMode mode);
  void reload();
  void set(const ConsoleCommand& command);

  // Asks all workers; one question at a time.
  void ask(Detail detail, OnSnapshot then);
  void on_piece(uint64_t question, ConsoleSnapshot piece);
  void wait_until(Until until);
  void look_again();
  // Calls `work` with this console on its own thread, if it still waits for the same answer.
  using Return = std::function<void(std::function<void(Console&)> work)>;
  Return way_back();

  void done();                      // with the command's own tag
  void done(const Status& status);  // or its error
  void refuse(std::string_view sqlstate, std::string message);
  void finish(ConsoleAnswer answer);

  static constexpr Nanos kLookEvery = 10ms;

  Worker& worker_;
  ClientConnection& client_;
  const std::string user_;
  const Right right_;
  ConsoleProtocol protocol_;
  bool stopped_ = false;
  bool in_on_bytes_ = false;  // the caller goes on with the bytes by itself
  uint64_t question_ = 0;     // numbers what was asked last
  int missing_ = 0;           // workers that have not answered it
  ConsoleSnapshot answers_;
  OnSnapshot then_;
  Until until_;
  env::TimerId look_ = env::TimerId::kNone;
};

}  // namespace bascule::proxy
