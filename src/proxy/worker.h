// One thread of the proxy: its loop, its clients, its dispatcher. Everything except post-like calls
// (marked "any thread") runs on that thread; before start() and after join() on the owner's.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "env/net.h"
#include "proxy/access.h"
#include "proxy/auth_lookup.h"
#include "proxy/client_connection.h"
#include "proxy/console_snapshot.h"
#include "proxy/dispatcher.h"
#include "proxy/listener.h"
#include "proxy/peer_proxies.h"
#include "proxy/refusal_log.h"
#include "proxy/server_credentials.h"
#include "proxy/shared.h"
#include "proxy/slot_map.h"
#include "proxy/split.h"
#include "proxy/stats.h"
#include "proxy/write_reaches.h"

namespace bascule::proxy {

class Worker {
 public:
  Worker(int index, Shared& shared, Crew& crew, std::unique_ptr<env::Engine> engine);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  Status listen();
  void start();
  void stop();  // ends the thread; closes everything

  // Any thread.
  void post(env::Callback callback) { engine_->loop().post(std::move(callback)); }
  WorkerStats stats() const;

  // On the worker's thread.
  void set_route(std::shared_ptr<const Route> route);
  void set_access(std::shared_ptr<const Access> access);
  void set_config(std::shared_ptr<const ProxyConfig> config);
  void set_controls(std::shared_ptr<const Controls> controls);
  // `done` as in Crew::cancel().
  void cancel(uint32_t client_index, std::string secret, Crew::CancelDone done);

  int index() const { return index_; }
  Shared& shared() { return shared_; }
  Crew& crew() { return crew_; }
  env::Loop& loop() { return engine_->loop(); }
  // When the present turn of the loop began: for figures.
  MonoTime turn_began() const { return engine_->turn_began(); }
  env::Net& net() { return engine_->net(); }
  env::Entropy& entropy() { return engine_->entropy(); }
  WorkerCounters& counters() { return counters_; }
  Dispatcher& dispatcher() { return dispatcher_; }
  SplitRouter& split() { return split_; }
  Workspace& workspace() { return workspace_; }
  const Route* route() const { return route_.get(); }
  // Who may come in, as of now. Whoever needs the same answer later keeps it.
  const std::shared_ptr<const Access>& access() const { return access_; }
  // As of now: some settings can be changed.
  const ProxyConfig& config() const { return *config_; }
  const Controls& controls() const { return *controls_; }
  ServerCredentials& credentials() { return credentials_; }
  AuthLookup& lookups() { return lookups_; }
  Listeners& listeners() { return listeners_; }
  PeerProxies& peers() { return peers_; }
  WriteReaches& write_reaches() { return write_reaches_; }
  RefusalLog& refusals() { return refusals_; }

  ClientConnection* client(Handle handle) const { return clients_.find(handle); }
  void remove_client(Handle handle);

  // ---- For the console -----------------------------------------------------------------------
  enum class Sockets { kNo, kYes };
  ConsoleSnapshot snapshot(Sockets sockets) const;
  // Clients of a database (empty: all) are told, and closed, and their servers with them.
  void kill(const std::string& database);
  bool kill_client(uint64_t id);
  // Of clients, or of servers: never used again in this process.
  uint64_t socket_id(Handle handle) const;
  static int worker_of_socket(uint64_t id) {
    return static_cast<int>(id >> kClientBits) & ((1 << kWorkerBits) - 1);
  }

  // BackendKeyData for a client, and the way back. Never the process id of a server on Linux, which
  // is below 2^22: a notification of somebody else is not to be taken for one of the client's own.
  uint32_t cancel_pid(Handle client) const;
  static int worker_of(uint32_t cancel_pid) {
    return static_cast<int>(cancel_pid >> kClientBits) - 1;
  }
  static uint32_t client_of(uint32_t cancel_pid) {
    return (cancel_pid & ((1u << kClientBits) - 1)) - 1;
  }
  static constexpr int kWorkersMax = 127;

 private:
  // The process id is a positive int32 for drivers: 7 bits for the worker, from 1 on, 24 for the
  // client.
  static constexpr int kClientBits = 24, kWorkerBits = 7;
  static constexpr Nanos kSweepInterval = 10s;
  static constexpr Nanos kLeavingInterval = 50ms;
  // Clients beyond the limit that are heard at all, to be told so (or to cancel).
  static constexpr int kRefusalsMax = 100;

  class Port final : public env::Acceptor {
   public:
    Port(Worker& worker, PortKind kind) : worker_(worker), kind_(kind) {}
    void on_accept(env::Stream& stream) override { worker_.accept(stream, kind_); }

   private:
    Worker& worker_;
    PortKind kind_;
  };

  void accept(env::Stream& stream, PortKind kind);
  void sweep();
  Nanos sweep_interval() const;
  void count_pinned();
  void next_period();
  void watch_leaving();

  const int index_;
  Shared& shared_;
  Crew& crew_;
  std::unique_ptr<env::Engine> engine_;
  Port writer_{*this, PortKind::kWriter}, reader_{*this, PortKind::kReader};
  Port splitter_{*this, PortKind::kSplit};
  WorkerCounters counters_;
  std::shared_ptr<const Route> route_;
  std::shared_ptr<const Access> access_;
  std::shared_ptr<const ProxyConfig> config_;
  std::shared_ptr<const Controls> controls_;
  ServerCredentials credentials_{shared_.server_passwords};
  AuthLookup lookups_{*this};
  Listeners listeners_{*this};
  PeerProxies peers_{*this};
  WriteReaches write_reaches_{*this};
  RefusalLog refusals_;
  Workspace workspace_;
  SlotMap<ClientConnection> clients_;
  Dispatcher dispatcher_;
  SplitRouter split_{*this};
  bool burying_ = false;
  bool started_ = false;
  bool leaving_ = false;
  MonoTime leaving_since_{};
  MonoTime period_began_{}, period_before_{};  // of the averages
};

}  // namespace bascule::proxy
