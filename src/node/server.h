// One PostgreSQL on this host as the operations see it: its files, its processes, sessions with it.
// Blocking; used in the pool by one operation at a time (and by the sampler, read-only). Start and
// stop go through the guard.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "control/events.h"
#include "env/clock.h"
#include "env/disk.h"
#include "env/process.h"
#include "node/config.h"
#include "node/guard_session.h"
#include "node/pg_connection.h"
#include "node/pg_files.h"

namespace bascule::node {

struct ServerDeps {
  const NodeConfig& config;  // bin_dir, state_file and program filled in
  env::Process& process;
  env::Disk& disk;
  const env::Clock& clock;
};

// Below run_dir, while initdb reads it.
constexpr const char* kPasswordFile = "initdb.pw";

// What a half-done operation leaves beside the state file, so that nothing starts on it.
enum class Marker { kHalfInitialized, kHalfCloned, kHalfRewound, kRolesPending };

class Server {
 public:
  explicit Server(ServerDeps deps) : deps_(deps) {}

  const NodeConfig& config() const { return deps_.config; }
  env::Process& process() { return deps_.process; }
  env::Disk& disk() { return deps_.disk; }
  const env::Clock& clock() const { return deps_.clock; }
  Bound within(Nanos time, std::function<bool()> cancelled = [] { return false; }) const {
    return {deps_.clock, deps_.clock.now() + time, std::move(cancelled)};
  }

  // -- what survives: set by the shell whenever it persists. Thread-safe.
  void set_identity(std::string incarnation, bool ballot_intent);
  bool ballot_intent() const;
  std::string sync_name() const;  // name + "_" + incarnation
  // The cluster's dynamic parameters by the newest record that was seen; none: none was yet.
  // Thread-safe.
  void want_parameters(std::map<std::string, std::string> parameters);
  std::optional<std::map<std::string, std::string>> wanted_parameters() const;
  // What a start has written of them, until the next Reload; none: nothing. Thread-safe.
  void started_with(std::optional<std::map<std::string, std::string>> parameters);
  bool started_with_others() const;  // than are wanted now

  // -- files
  std::string binary(const std::string& name) const { return deps_.config.bin_dir + "/" + name; }
  std::string data(const std::string& name) const { return deps_.config.data_dir + "/" + name; }
  std::string run(const std::string& name) const { return deps_.config.run_dir + "/" + name; }
  int version_major() const { return version_major_; }
  Status detect_version();  // of the binaries; 13 to 18
  control::DataDir data_dir_state();
  bool marked(Marker marker);
  Status mark(Marker marker);
  Status unmark(Marker marker);
  // bascule.conf, pg_hba.conf, pg_ident.conf, passfile, the include. The upstream is left out while
  // a ballot is out, whatever `settings` say. `overridden`: parameters of ours that were found in
  // postgresql.auto.conf and removed from it.
  Status write_configuration(const ServerSettings& settings, std::vector<std::string>* overridden);
  std::string rendered(const ServerSettings& settings) const;  // bascule.conf
  // bascule.conf and pg_ident.conf by this member's configuration; upstream, synchronous set and
  // what else operations have set stay as they are. Nothing is reloaded.
  Status refresh_configuration();
  Status set_standby_signal();     // durable
  Status remove_standby_signal();  // durable
  Result<ControlData> control_data(const Bound& bound);
  Result<env::Finished> run_tool(const std::string& name, std::vector<std::string> arguments,
                                 const Bound& bound,
                                 std::function<void(std::string_view)> on_output = {});
  // SIGKILL to tools that an agent which died has left: pg_basebackup's receiver outlives it,
  // writes on into the data directory and occupies the slot. Only when none of ours runs.
  Status end_stray_tools(const Bound& bound);
  std::string log_tail();  // why it ended, by PostgreSQL's log: see why_it_ended()

  // -- processes
  env::Pid postmaster_pid();  // from postmaster.pid; 0 when there is none or it is not alive
  // Whether that postmaster has announced that it accepts connections. Asking it instead would fill
  // its log with refusals.
  bool says_ready(env::Pid postmaster);
  Result<GuardSession> guard();
  // `begun`: when the operation was; a kill since then wins.
  Status start_postmaster(GuardSession& guard, MonoTime begun);
  Status reload();  // SIGHUP to the postmaster
  // Starts a CHECKPOINT and does not wait for it. The session is kept until the next one is parked.
  void checkpoint_soon(PgConnection session);
  // Fast shutdown, then waits. Error: still running, perhaps stopping.
  Status stop_fast(const Bound& bound);
  // Number of the guard's start whose end we have asked for: its exit is no news. 0: none.
  std::atomic<uint64_t> stopped_on_purpose{0};
  // SIGKILL to whatever of PostgreSQL still works in the data directory; for use without a guard.
  Status kill_leftovers(Nanos at_most);

  // -- sessions, as the superuser through the local socket
  Result<PgConnection> session(const Bound& bound, const std::string& database = "postgres");
  // Speaks the replication protocol too (IDENTIFY_SYSTEM); has its own pool of slots, so that it
  // comes in when the connections of clients are exhausted.
  Result<PgConnection> replication_session(const Bound& bound);
  // To another member, as the replication user.
  Result<PgConnection> remote_session(const control::Upstream& member, const Bound& bound);
  // Likewise, for SQL.
  Result<PgConnection> remote_sql_session(const control::Upstream& member, const Bound& bound);
  std::string remote_conninfo(const control::Upstream& member, const std::string& database) const;

 private:
  ConfInputs conf_inputs() const;
  PgConnection::Parameters remote(const control::Upstream& member) const;

  ServerDeps deps_;
  int version_major_ = 0;
  std::optional<PgConnection> parked_;  // operations only
  mutable std::mutex mutex_;
  std::string incarnation_;                                         // guarded by mutex_
  bool ballot_intent_ = false;                                      // guarded by mutex_
  std::optional<std::map<std::string, std::string>> parameters_;    // guarded by mutex_
  std::optional<std::map<std::string, std::string>> started_with_;  // likewise
};

// Timeline and end of WAL: of a primary what is flushed, of a standby what is received or replayed,
// whichever is further, on the timeline that is being replayed.
struct SystemPosition {
  uint64_t system_id = 0;
  Position position;
};
Result<SystemPosition> identify_system(PgConnection& replication_session, const Bound& bound);

}  // namespace bascule::node
