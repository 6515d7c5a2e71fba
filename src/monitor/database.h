// What the monitor does with one database, synchronously, in the pool: health check, promotion,
// fence. Every call is bounded by its deadline, except where a name server hangs: libpq resolves
// names without one. One thread at a time for each object; objects are independent.
#pragma once

#include "env/clock.h"
#include "env/process.h"
#include "monitor/access.h"
#include "monitor/events.h"

namespace bascule::monitor {

class Database {
 public:
  Database(const EndpointConfig& config, const Access& access, const env::Clock& clock,
           env::Process& process, std::function<bool()> cancelled);

  // `id` and `endpoint` are left to the caller.
  event::Probed probe(MonoTime deadline) const;
  // Not begun after `not_after`, also when getting the connection took until then.
  Result<ActionData> act(ActionKind kind, MonoTime not_after, MonoTime deadline) const;

 private:
  using Bound = pgclient::Bound;
  using Connection = pgclient::PgConnection;

  enum class Writes { kByDefault, kAllowed };  // kAllowed: whatever the server's default is
  Result<Connection> connect(const Bound& bound, Writes writes) const;
  Result<ActionData> promote(MonoTime not_after, const Bound& bound) const;
  Result<ActionData> fence(MonoTime not_after, const Bound& bound) const;
  Result<ActionData> unfence(const Bound& bound) const;
  Status run_command(const CommandLine& command, const char* what, const Bound& bound) const;
  Status set_read_only(Connection& connection, const char* setting, const Bound& bound) const;
  Status end_sessions(Connection& connection, const Bound& bound) const;
  // Until a new session shows the default.
  Status await_default(const char* setting, const Bound& bound) const;

  const EndpointConfig& config_;
  const Access& access_;
  const env::Clock& clock_;
  env::Process& process_;
  std::function<bool()> cancelled_;
};

// What an error of libpq at log-in means; `message` with SQLSTATE (Errors::kSqlState).
Answer answer_of(const Error& error);

}  // namespace bascule::monitor
