// Looks at PostgreSQL and says what it sees. Blocking, in the pool, one sample at a time.
//
// Sessions: one replication-type session (its own pool of slots, so that it comes in when clients
// have used up all connections) is kept for a second at most, then made anew: settings are read
// from a session at most that old, whose own reload the postmaster had told it of; and a postmaster
// that forks no more is found within a second.
#pragma once

#include <mutex>
#include <optional>
#include <string>

#include "control/events.h"
#include "node/server.h"

namespace bascule::node {

class Sampler {
 public:
  explicit Sampler(Server& server) : server_(server) {}

  // `postmaster`: pid that the guard reports, 0 when PostgreSQL does not run.
  // `processes`: something of PostgreSQL lives.
  control::PgStatus sample(env::Pid postmaster, bool processes);
  // What was seen of the directory, and of pg_control while stopped, is no longer true.
  // Thread-safe.
  void forget_stopped();
  void set_progress(std::string progress);  // thread-safe

 private:
  void look_at_files(control::PgStatus& status);
  Status look_at_server(control::PgStatus& status, const Bound& bound);
  Status ensure_session(const Bound& bound);
  control::DataDir look_at_directory();
  control::DiskFull look_at_disks();

  Server& server_;
  std::optional<PgConnection> session_;
  MonoTime session_since_{};
  std::optional<SystemPosition> identified_;  // in this session, as a primary
  env::Pid session_of_ = 0;                   // postmaster that the session belongs to
  // PostgreSQL writes a whole segment of WAL before it uses it.
  uint64_t segment_bytes_ = 16 << 20;
  bool pending_restart_ = false;
  bool pending_lowers_ = false;
  int receiver_ = 0;             // process that streamed at the sample before
  bool connected_once_ = false;  // to that postmaster
  std::mutex mutex_;
  std::optional<control::DataDir> directory_;  // guarded by mutex_
  std::optional<ControlData> stopped_;         // guarded by mutex_
  std::string progress_;                       // guarded by mutex_
};

}  // namespace bascule::node
