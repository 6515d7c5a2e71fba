// Server connections of one kind of client in one worker: same user and database, so that any of
// them is as good for any of those clients once it has the client's settings. In session mode, and
// for start-up parameters that no SET can give, the start-up parameters are the same too.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "proxy/server_login.h"
#include "proxy/shared.h"
#include "proxy/slot_map.h"
#include "proxy/traffic.h"

namespace bascule::proxy {

struct Target {
  std::string name;
  env::Endpoint endpoint;
  bool elsewhere = false;             // a database's own server: its role is kReader
  PortKind role = PortKind::kWriter;  // kReader: a replica
  Epoch epoch;                        // of the route by which it was chosen
  bool read_only = false;             // RouteTable::read_only: a standby in the primary's place
  std::shared_ptr<Permit> permit;     // of the primary's epoch; see Route
  std::string describe() const {
    return role == PortKind::kWriter ? name + ", epoch " + std::to_string(epoch.value) : name;
  }
};

// A worker's server connections to one member.
struct MemberLoad {
  int servers = 0;
  int idle = 0;  // of these
};

// A client in the queue. Stale once the client has another ticket.
struct Waiter {
  Handle client;
  uint32_t ticket = 0;
  bool operator==(const Waiter&) const = default;
};

struct Pool {
  using Key = std::tuple<std::string, std::string, Parameters>;

  std::string user, database;  // as clients call it
  // What leads its clients elsewhere; null: nothing does. shared_ptr: of a configuration that may
  // have been replaced.
  std::shared_ptr<const DatabaseRule> rule;
  size_t next_host = 0;  // of the rule's
  bool elsewhere() const { return rule && !rule->hosts.empty(); }
  bool own_secret() const { return rule && !rule->secret.empty(); }
  const std::string& server_database() const {
    return rule && !rule->dbname.empty() ? rule->dbname : database;
  }
  Parameters startup;  // what its servers are started with, without user and database

  // What happens for one kind of port.
  struct Side {
    std::deque<Waiter> waiting;
    int connecting = 0;
    // The last attempt to connect failed: one at a time until one succeeds.
    bool failing = false;
    std::string last_error;
    env::TimerId retry = env::TimerId::kNone;
    const Cap* full = nullptr;  // this limit is what it waits for
    bool limited = false;       // the limit of server connections is what it waits for
    // There was no place. Whoever has one to give makes Dispatcher::pump_all() run, so that it need
    // not be asked for with every transaction.
    bool refused = false;
    // What the last client was told at log-in: the next one hardly ever differs.
    struct Greeting {
      uint64_t version = 0;  // of ReportedParameters
      Parameters startup;    // the client's
      ParametersRef told;
    } greeting;
  };
  Side sides[2];
  Side& side(PortKind kind) { return sides[static_cast<size_t>(kind)]; }

  PoolMode mode = PoolMode::kSession;
  PortKind opened_for = PortKind::kWriter;  // the last time that a server was
  std::vector<Cap*> caps;
  std::vector<Handle> idle;  // most recently used last
  Halt halt = Halt::kNone;
  Traffic traffic;

  // It may be removed when both are 0.
  int clients = 0;
  int servers = 0;
};

}  // namespace bascule::proxy
