// PostgreSQL 15 as far as replication, durability and roles go: WAL that is written, flushed,
// streamed, acknowledged and replayed; synchronous replication with a copy of the setting in every
// walsender; crash, restart, fast shutdown, promotion. Facts: control-plane.md (those marked
// "tried"), src/backend/replication/syncrep.c and walreceiverfuncs.c of PostgreSQL 15.
//
// One object a host for the whole run; each start of the server is a new process of the world.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "control/events.h"
#include "sim/wal.h"
#include "sim/world.h"

namespace bascule::sim {

class FailoverSlot;
class PostgresModel;

// As synchronous_standby_names matches (pg_strcasecmp).
bool same_name(const std::string& a, const std::string& b);

// What let a commit's waiter go, with the setting in force for whoever let it go.
struct Release {
  // kCancelled: the client asked for an end of the wait. The commit stays, a warning says where.
  enum class By { kNoSync, kStandby, kSettingEmptied, kCancelled };
  By by = By::kNoSync;
  std::string standby;  // application_name of the walsender
  std::vector<std::string> setting;
};

// What checkers see of PostgreSQL. Called at the instant it happens.
class PostgresObserver {
 public:
  virtual ~PostgresObserver() = default;
  virtual void wal_durable(Endpoint, const WalRecord&, uint64_t /*id before it*/) {}
  virtual void commit_inserted(Endpoint, const WalRecord&) {}
  virtual void commit_released(Endpoint, const WalRecord&, const Release&) {}
  virtual void started(Endpoint, const DataDirectory&) {}
  virtual void promoted(Endpoint, uint32_t /*timeline*/, uint64_t /*fork*/) {}
};

struct Disk {
  Nanos flush_low = micros(150);
  Nanos flush_high = micros(2000);
  SimTime hung_until{0};
  // kWal: once the segment in use is full, PostgreSQL panics. kData: nothing but WAL is written.
  control::DiskFull full = control::DiskFull::kNo;
  Nanos flush_time(Prng& random, SimTime now) const;
};

// What the servers share.
struct Fabric {
  World& world;
  PostgresObserver& observer;
  std::vector<PostgresModel*> servers;  // by host
  std::function<std::optional<Endpoint>(const NodeName&)> host_of;
  uint64_t next_content = 1;
  uint64_t next_session = 1;
  Nanos retry_interval = millis(500);   // wal_retrieve_retry_interval
  uint64_t wal_keep_bytes = 1 << 20;    // wal_keep_size
  double slow_reloads = 0.03;           // probability that one takes 0.1 to 2.5 s to take effect
  Nanos stream_timeout = millis(5000);  // wal_sender_timeout, wal_receiver_timeout
  FailoverSlot* consumer = nullptr;     // of a logical slot, in runs that have one
  bool calm = false;  // a receiver does not tell every second what its upstream knows
};

class PostgresModel {
 public:
  enum class Run { kDown, kStarting, kStandby, kPrimary, kStopping };
  using Done = std::function<void(bool ok)>;
  // kNo: refused, or the connection broke and the outcome is unknown. kHereOnly: COMMIT with the
  // warning that the standby may not have it.
  enum class Answer { kNo, kAcknowledged, kHereOnly };
  using Reply = std::move_only_function<void(Answer)>;

  PostgresModel(Fabric& fabric, Endpoint host, NodeName name);

  DataDirectory& data() { return data_; }
  const DataDirectory& data() const { return data_; }
  Disk& disk() {  // to change it
    world().disturb(process_);
    return disk_;
  }
  const Disk& disk() const { return disk_; }
  Run run() const { return run_; }
  bool any_process() const { return run_ != Run::kDown || orphans_; }
  bool orphans() const { return orphans_; }
  bool hung() const { return any_process() && world().stopped(process_); }
  ProcessId process() const { return process_; }

  // ---- life. `done` runs in the server's own event; never if the server dies before -------------
  void start_primary(std::vector<std::string> sync, size_t count, Done done);
  void start_standby(std::optional<control::Upstream> upstream, std::string application_name,
                     Done done);
  // Every process is gone at once; connections are reset (the kernel lives).
  void kill_all();
  // SIGKILL of the postmaster alone: its children go on for `orphans_for`, then all is gone.
  void kill_postmaster(Nanos orphans_for);
  void power_loss();  // everything that is not flushed is gone, and nobody is told
  void fast_shutdown(Done done);
  // Processes ended by themselves (crash, orphans gone, shutdown). Not after kill_all().
  std::function<void(std::string_view how)> on_exit;

  // ---- what the shell does over SQL and signals -------------------------------------------------
  void set_upstream(std::optional<control::Upstream> upstream, std::string application_name);
  void unblock_replay();
  void signal_receiver();
  // No receiver is left, the startup process has seen the reload, all WAL on disk is replayed.
  bool isolated() const;
  // `enforced`: what the shell does to get that timeline; PostgreSQL itself takes the next unknown.
  void promote(const control::op::Promote& op, std::function<void(uint32_t timeline)> done);
  // Somebody starts it to promote it: until its end, or until its agent promotes it.
  void is_run_by_hand() { by_hand_ = true; }
  bool runs_by_hand() const { return by_hand_; }
  void set_sync(std::vector<std::string> names, size_t count);
  void checkpoint(Done done);
  uint64_t write_marker(Done flushed);  // returns its end
  void ensure_slots(const std::vector<std::string>& slots, const std::vector<std::string>& drop);
  void terminate_senders(const std::vector<std::string>& names);
  void set_max_connections(int value) { max_connections_set_ = value; }  // from the next start on
  control::PgStatus status() const;

  // ---- clients ----------------------------------------------------------------------------------
  bool accepts_writes() const { return run_ == Run::kPrimary && !world().stopped(process_); }
  void commit(uint64_t id, uint32_t bytes, Reply reply);
  void cancel(uint64_t id);  // ends its wait for the standby, if it waits
  size_t waiters() const { return waiters_.size(); }
  std::string describe() const;  // for traces
  const std::vector<std::string>& sync_setting() const { return setting_; }
  size_t sync_count() const { return count_; }
  uint64_t set_at() const { return set_at_; }  // where the WAL ended when the setting was changed
  int max_connections() const { return max_connections_; }

  // ---- faults -----------------------------------------------------------------------------------
  void block_replay(Nanos how_long);                               // paused, or a conflicting query
  void set_receive_delay(Nanos extra) { receive_delay_ = extra; }  // a standby that lags
  void set_slow_reload(bool on) { slow_reload_ = on; }
  void set_slow_shutdown(bool on) { slow_shutdown_ = on; }
  void set_connections_exhausted(bool on) { connections_exhausted_ = on; }  // those of clients
  bool receiver_running() const { return receiver_.state != Receiver::State::kNone; }
  bool receiver_streaming() const { return receiver_.state == Receiver::State::kStreaming; }
  uint64_t receiver_attempt() const { return receiver_.attempt; }

 private:
  friend struct ReplicationTest;
  struct Sender {
    uint64_t session = 0;
    Endpoint standby = -1;
    std::string name;
    std::vector<std::string> setting;  // its own copy of synchronous_standby_names
    size_t count = 1;                  // ANY count (setting)
    size_t priority = 0;               // by that copy; 0: not synchronous
    size_t next = 0;                   // index of the next record to send
    bool started = false;              // the receiver has asked for WAL (START_REPLICATION)
    bool in_flight = false;
    bool streaming = false;
    uint64_t flush = 0;
    uint64_t replay = 0;
    SimTime last_contact{};
  };
  struct Streamed {
    std::vector<WalRecord> records;
    std::vector<Fork> ancestors;  // history files, as they were when this was sent
  };
  struct Receiver {
    enum class State { kNone, kConnecting, kStreaming };
    State state = State::kNone;
    std::optional<control::Upstream> upstream;
    Endpoint host = -1;
    uint64_t session = 0;
    uint64_t attempt = 0;
    SimTime last_contact{};
  };
  struct Pending {  // a backend in the middle of COMMIT
    WalRecord record;
    Reply reply;
  };

  World& world() const { return fabric_.world; }
  void begin_process(Run run);
  void end_process();
  void lose_clients();
  WalRecord append(WalKind kind, uint32_t bytes, uint64_t commit = 0);
  void make_durable(size_t count);
  void flush_soon();
  bool panics();
  void flushed_locally();
  void heartbeat();
  void maybe_finish_shutdown();
  void exited(std::string_view how);
  void write_checkpoint();

  // synchronous replication
  void reload_senders();
  void reload_sender(Sender& sender);
  void reload_checkpointer();
  void release_waiters(const Sender& sender);
  void release_up_to(uint64_t lsn, const Release& release);
  void finish(Pending pending, const Release& release);
  Nanos reload_delay();

  // streaming, standby's side
  void startup_reacts();
  void launch_receiver();
  void drop_receiver(bool tell_upstream);
  void connected(uint64_t attempt, uint64_t session, Endpoint host);
  void receive(uint64_t session, const Streamed& streamed, uint64_t upstream_end);
  void replay();
  void send_reply();
  bool reply_is_known(const PostgresModel& upstream) const;
  void relaunch_later();
  // streaming, upstream's side
  bool accept_standby(PostgresModel& standby, uint64_t session, const std::string& name,
                      const std::string& slot);
  void pump(Sender& sender);
  void pump_all();
  void handle_reply(uint64_t session, uint64_t flush, uint64_t replayed);
  void drop_sender(uint64_t session, bool tell_standby);
  Sender* find_sender(uint64_t session);

  Fabric& fabric_;
  Endpoint host_;
  NodeName name_;
  Prng random_;
  DataDirectory data_;
  Disk disk_;
  Run run_ = Run::kDown;
  bool orphans_ = false;
  bool was_standby_ = false;  // while stopping
  bool by_hand_ = false;
  ProcessId process_{};
  Done shutdown_done_;

  // primary
  std::vector<std::string> setting_;  // of the postmaster and new sessions
  size_t count_ = 1;                  // ANY count_ (setting_)
  bool sync_defined_ = false;         // what backends go by: set by the checkpointer
  uint64_t released_ = 0;             // waiters up to here were let go
  std::vector<Pending> unflushed_;
  std::vector<Pending> waiters_;
  std::vector<std::pair<uint64_t, Done>> markers_;
  std::vector<Sender> senders_;
  bool flush_pending_ = false;
  bool shutdown_record_written_ = false;

  // standby
  std::string application_name_;
  bool renamed_ = false;                       // by a reload that the startup process hasn't seen
  std::optional<control::Upstream> conninfo_;  // postgresql.conf, a new session's view
  std::optional<control::Upstream> startup_conninfo_;  // what the startup process goes by
  bool reaction_pending_ = false;
  bool relaunch_pending_ = false;
  Receiver receiver_;
  uint64_t receive_reported_ = 0;  // pg_last_wal_receive_lsn(): NULL or low after a restart
  uint64_t upstream_end_ = 0;
  size_t replayed_ = 0;
  SimTime replay_blocked_until_{0};
  Nanos receive_delay_{0};
  bool slow_reload_ = false;
  uint64_t set_at_ = 0;  // where the WAL ended when the setting was changed
  bool slow_shutdown_ = false;
  bool connections_exhausted_ = false;
  int max_connections_ = 100;  // in force
  int max_connections_set_ = 100;
};

}  // namespace bascule::sim
