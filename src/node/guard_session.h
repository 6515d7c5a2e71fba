// Blocking conversation with the guard over a connection of its own, for operations that run in the
// pool: starting, signalling, waiting for the end. One thread. The loop's side is GuardClient.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "env/clock.h"
#include "env/guard_wire.h"
#include "env/process.h"

namespace bascule::node {

class GuardSession {
 public:
  static Result<GuardSession> open(env::Process& process, const env::Clock& clock,
                                   const std::string& run_dir);

  Result<env::GuardReport> status();
  // Starts the postmaster. kConflict: one runs already, the armed deadline has passed, or a kill
  // was asked for since `begun`.
  Result<env::GuardReport> start(const std::string& log_file, const std::vector<std::string>& argv,
                                 const std::vector<std::string>& environment, MonoTime begun);
  Status signal(int number);
  // Until every process of PostgreSQL is reaped. kTimeout, or kUnavailable when `cancelled`.
  Result<env::GuardReport> wait_exit(MonoTime deadline, const std::function<bool()>& cancelled);
  // Whether PostgreSQL has ended since start(), as far as reports have arrived. Never waits.
  bool exited();
  const env::GuardReport& last() const { return last_; }

 private:
  GuardSession(std::unique_ptr<env::PacketSocket> socket, const env::Clock& clock)
      : socket_(std::move(socket)), clock_(&clock) {}
  Result<env::GuardReport> ask(env::GuardRequest request, std::string_view rest = {});
  Status drain();

  std::unique_ptr<env::PacketSocket> socket_;
  const env::Clock* clock_;
  uint64_t next_id_ = 1;
  env::GuardReport last_;
};

// "exit 1", "signal 9" from a wait status.
std::string describe_wait_status(int wait_status);

}  // namespace bascule::node
