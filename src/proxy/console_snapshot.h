// What the console shows, as plain data: each worker describes its own, then all are one.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/time.h"
#include "proxy/config.h"
#include "proxy/traffic.h"

namespace bascule::proxy {

enum class SocketState : uint8_t {
  kClientLogin,
  kClientActive,  // has a server
  kClientIdle,
  kClientWaiting,
  kServerActive,
  kServerIdle,
  kServerTested,  // a reset or a check runs
  kServerLogin,
  kServerBeingCanceled,  // free, but a cancel request is still on its way to it
};

// A client or a server connection.
struct SocketView {
  SocketState state = SocketState::kClientLogin;
  uint64_t id = 0;    // unique for this process
  uint64_t link = 0;  // of the other side; 0: none
  int worker = 0;
  std::string user, database;
  bool replication = false;
  std::string address;  // "10.0.0.1:5432"
  std::string local_address;
  WallTime connected{}, requested{};
  Nanos waiting{0};
  bool closing = false;  // servers: closed as soon as it is free
  uint32_t remote_pid = 0;
  std::string tls, application_name;
  size_t prepared = 0;
  std::string pinned;  // why a client keeps its server; empty: it does not
  std::string member;  // servers: which one

  bool is_server() const { return state >= SocketState::kServerActive; }
};

struct PoolView {
  PoolMode mode = PoolMode::kSession;
  int cl_active = 0, cl_waiting = 0;
  int sv_active = 0, sv_active_cancel = 0, sv_being_canceled = 0, sv_idle = 0, sv_tested = 0;
  int sv_login = 0;
  int sv_closing = 0;  // of all these: closed as soon as they are free
  int busy = 0;        // clients with a statement or transaction that runs
  Nanos longest_wait{0};
  Traffic traffic;
  std::map<std::string, int> pinned;  // clients by reason

  int servers() const { return sv_active + sv_being_canceled + sv_idle + sv_tested + sv_login; }
  PoolView& operator+=(const PoolView& other);
};

struct ConsoleSnapshot {
  // By database, then user.
  std::map<std::pair<std::string, std::string>, PoolView> pools;
  std::map<std::string, Traffic> traffic;  // by database; of pools that are gone too
  std::vector<SocketView> sockets;         // only if asked for
  int clients = 0, login_clients = 0, servers = 0;
  uint64_t client_bytes = 0, server_bytes = 0, statements = 0, settings = 0;  // memory; counts
  Nanos period{0};  // that the averages are of

  ConsoleSnapshot& operator+=(ConsoleSnapshot&& other);
};

}  // namespace bascule::proxy
