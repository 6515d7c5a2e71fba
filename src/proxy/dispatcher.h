// Gives servers to clients: pools, the queue of clients that wait, connecting and its retries, what
// becomes of servers when they break or the route changes. One a worker.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/prng.h"
#include "proxy/pool.h"
#include "proxy/server_connection.h"

namespace bascule::proxy {

class CancelRequest;
class ClientConnection;
class Worker;
struct ConsoleSnapshot;

class Dispatcher {
 public:
  explicit Dispatcher(Worker& worker);
  ~Dispatcher();

  Pool& pool(const std::string& user, const std::string& database, Parameters startup);

  // What a client of this kind is told at log-in; null if no server has been seen yet. `startup`:
  // all of the client's start-up parameters, sorted.
  ParametersRef reported(Pool& pool, PortKind kind, const Parameters& startup);
  void remember_reported(const Pool& pool, PortKind kind, const Parameters& startup,
                         const Parameters& reported);

  // ---- Clients -------------------------------------------------------------------------------
  enum class Acquired {
    kReady,    // attached, and statements may begin
    kWaiting,  // resume() or give_up() of the client follows
    kRefused,  // it has been told
  };
  Acquired acquire(ClientConnection& client);
  // True: the client is in the queue. False: it may not have to be; see acquire().
  bool queue_unread(ClientConnection& client);
  void stop_waiting(ClientConnection& client);
  // Splitting ports: the replica for a read; none: the primary is to answer it.
  std::optional<std::string> pick_reader(std::string_view affinity);
  void release(ServerConnection& server, ServerConnection::Use use);
  void drop(ServerConnection& server);  // with whatever runs on it; its client is not told
  // Cancels what its client has sent. `done` runs when that is over.
  void cancel(ServerConnection& server, env::Callback done);
  void abandon(ServerConnection& server);  // drop(), and what it does is cancelled

  // ---- Servers -------------------------------------------------------------------------------
  void on_connected(ServerConnection& server);
  void on_connect_failed(ServerConnection& server, const ServerLogin::Failure& failure);
  void on_idle(ServerConnection& server);
  void on_checked(ServerConnection& server);
  void on_answer(const ServerConnection& server);  // one that is being cancelled
  void cancel_ended(Handle server);
  void retire(Handle server);  // closed once its client gives it back
  ServerConnection* server(Handle handle) const { return servers_.find(handle); }
  void on_lost(ServerConnection& server, Loss loss);

  // ---- The worker ----------------------------------------------------------------------------
  void on_route();
  void pump_all();
  void make_room();    // another worker waits for a place
  void close_stale();  // idle for too long; opens what is to be there, checks what is
  void on_config();
  bool gate_open(PortKind kind) const;
  void close_all();
  void bury() { servers_.bury(); }

  // ---- The console; dispatcher_console.cc. `database`: empty for all -------------------------
  void on_controls();
  // Server connections are closed once they are free, sessions moved between two statements.
  void reconnect(const std::string& database);
  void reconnect_region(const std::string& region);
  enum class Sockets { kNo, kYes };
  void show(ConsoleSnapshot& out, Sockets sockets) const;
  void next_period();

 private:
  bool permitted() const;
  bool gate_open(const Pool& pool, PortKind kind) const {
    return pool.elsewhere() || gate_open(kind);
  }
  std::optional<Target> choose(Pool& pool, PortKind kind, std::string_view member);
  std::optional<Target> choose_elsewhere(Pool& pool);
  std::optional<Target> choose_read(const RoutingPolicy& policy, std::string_view affinity);
  // May serve reads: by its route, its lag and what the last attempts to reach it said.
  bool readable(const RouteMember& replica) const;
  bool any_readable() const;
  int in_use(const std::string& member) const;
  bool usable(const ServerConnection& server, PortKind kind) const;
  bool stale(const ServerConnection& server) const;  // the route does not lead to it any more
  template <class Predicate>
  void reconnect_where(Predicate wanted);
  void pump(Pool& pool, PortKind kind);
  bool serve(Pool& pool, PortKind kind, ClientConnection& client);
  // `member`: empty for any.
  ServerConnection* find_idle(Pool& pool, PortKind kind, const SettingsRef& wanted,
                              std::string_view member);
  void open_connections(Pool& pool, PortKind kind);
  void open(Pool& pool, PortKind kind, Target target);
  void place_idle(ServerConnection& server, MonoTime now);
  bool wanted_at_least(const Pool& pool) const;
  void keep_minimum(Pool& pool);
  void check_idle();
  bool due_for_check(const ServerConnection& server) const;
  bool being_checked(const Pool& pool) const;
  void remove(ServerConnection& server);
  void begin(std::unique_ptr<CancelRequest> request);
  // Since when the client waits that has `skip` others before it; max(): nobody.
  MonoTime waiting_since(const Pool::Side& side, int skip) const;
  std::string_view member_of_waiter(const Pool::Side& side, int skip) const;
  void update_claim();
  void serve_queue(Pool& pool, PortKind kind);
  void serve_readers(Pool& pool);
  void enqueue(ClientConnection& client);
  void expire_next_at(MonoTime when);
  void expire_waiting();
  void expire(ClientConnection& client);
  ClientConnection* waiting_client(const Waiter& waiter) const;
  void schedule_retry(Pool& pool, PortKind kind);
  bool evict_idle(const Cap* below = nullptr, MonoTime used_before = MonoTime::max());
  void ask_for_room();
  bool waits_for(const Cap& cap) const;
  bool due_elsewhere(const Pool& pool, MonoTime now);
  bool hand_over_pays(MonoTime now, Nanos unfair);
  std::string holders(const Pool& pool) const;
  void take_from_idle(ServerConnection& server);
  void fail_waiting(Pool& pool, PortKind kind, const ServerLogin::Failure& failure,
                    const std::string& who);
  void leave_servers(Pool& pool);
  void retire(const Pool& pool);
  std::string why_waiting(Pool& pool, PortKind kind, std::string_view& sqlstate);
  void bury_later();

  // How many idle servers are looked at for one that has a client's settings.
  static constexpr int kIdleChoice = 16;
  // How many waiting readers that can't be served are passed over for others that can.
  static constexpr int kReadersLookedAt = 64;
  static constexpr Nanos kHandOverMargin = 20ms, kHandOverInterval = 50ms;
  static constexpr Nanos kAckDelay = 40ms;   // TCP_DELACK_MIN of Linux
  static constexpr Nanos kClaimGrain = 1ms;  // of this worker's place in the queue for the limit
  static constexpr Nanos kRested = 20ms;  // so long unused, a connection may go to another worker
  // Connections opened at once for one pool's queue: a promoted server has many clients to greet.
  static constexpr int kConnectBurst = 16;
  static constexpr size_t kRetiredMax = 1'000;

  Worker& worker_;
  Prng prng_;
  std::map<Pool::Key, std::unique_ptr<Pool>> pools_;
  std::map<std::string, MemberLoad> loads_;  // by member; server connections refer to theirs
  SlotMap<ServerConnection> servers_;
  std::vector<Candidate> candidates_;      // of choose_read()
  RoutingPolicy replicas_first_;           // of reader ports: the primary has no share
  std::map<std::string, MonoTime> avoid_;  // replicas that could not be reached, until when
  std::vector<std::unique_ptr<CancelRequest>> cancels_;
  std::map<std::string, Traffic> retired_;  // by database: of pools that are gone
  uint32_t next_ticket_ = 0;
  MonoTime next_hand_over_{};
  env::TimerId room_timer_ = env::TimerId::kNone;    // the other workers have been asked
  env::TimerId expiry_timer_ = env::TimerId::kNone;  // of the client that waits longest
  bool claiming_ = false;  // in the queue for the limit of server connections
  MonoTime claimed_since_{}, claim_checked_{};
  bool burying_ = false;
};

}  // namespace bascule::proxy
