// Carries out control::Effects on one real PostgreSQL and reports control::Events. Knows nothing of
// why. On the loop's thread; blocking work in the pool. See the duties in control/events.h.
//
// Operations wait until the guard has confirmed the deadline that was set before them.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "control/events.h"
#include "env/disk.h"
#include "env/loop.h"
#include "env/process.h"
#include "node/config.h"
#include "node/guard_client.h"
#include "node/notes.h"
#include "node/ops.h"
#include "node/peers.h"
#include "node/sampler.h"
#include "node/server.h"
#include "store/store.h"

namespace bascule::node {

struct ShellDeps {
  env::Loop& loop;
  env::BlockingPool& pool;
  env::Process& process;
  env::Disk& disk;
  store::Store& store;
  env::Entropy& entropy;
  env::HttpClient* http = nullptr;
};

class Shell {
 public:
  // Events are delivered in a later turn of the loop, in order.
  using EventSink = std::function<void(control::Event)>;

  // Fills in what may be left empty, checks, creates directories, takes run_dir/agent.lock, reads
  // the version of PostgreSQL and the state file (absent: a default state; unreadable: an error).
  // Blocking (tens of ms), before the loop runs.
  struct Opened {
    std::unique_ptr<Shell> shell;
    control::LocalState state;
  };
  static Result<Opened> open(NodeConfig config, ShellDeps deps);

  // Lets go of PostgreSQL and the guard, which go on. Work in the pool ends by itself and reports
  // to nobody; the pool must be joined before the loop and the other dependencies go.
  ~Shell();
  Shell(const Shell&) = delete;
  Shell& operator=(const Shell&) = delete;

  // Attaches to the guard, or kills what a lost guard has left and starts a new one; `ready` is
  // called when the guard is there (a running PostgreSQL is adopted), or with an error.
  void start(const control::LocalState& state, EventSink sink, std::function<void(Status)> ready);
  void perform(control::Effects effects);
  void note(NoteRecord record);  // with time and member filled in
  // Of the configured device, for a cluster's `ttl`; before start(): from then on. `usable` is told
  // whether it can be had, now and whenever that changes.
  void watchdog(Millis ttl, std::function<void(bool)> usable);
  // Slots that a promotion of this member will need. While it streams and nothing else is to be
  // done they are created without WAL, so that a promotion does not have to. Old ones are released.
  // `leader`: the primary that logical ones are copied from; none: nobody leads, or we do.
  void prepare_slots(std::vector<std::string> slots,
                     std::map<std::string, control::PermanentSlot> permanent,
                     std::optional<control::Upstream> leader);
  // The cluster's dynamic parameters: every start of PostgreSQL from now on is with them.
  void want_parameters(std::map<std::string, std::string> parameters);
  void peer_asks(const std::string& sealed, std::function<void(Result<std::string>)> done);
  // Nothing is begun any more that nobody asked for, until stay().
  void leave();
  void stay() { leaving_ = false; }
  // Nothing runs, waits or is being written. Lasts after leave().
  bool at_rest() const;
  void on_exit(std::function<void()> callback);  // effect::Exit, after the guard was told to end

  std::vector<NoteRecord> notes() const;  // thread-safe
  std::string guard_description() const;  // loop's thread
  const NodeConfig& config() const;

 private:
  struct Shared;  // what work in the pool needs, also should it end after us
  struct RunningOp {
    control::OpId id = 0;
    std::string name;
    std::shared_ptr<OpControl> control;  // shared with the pool's thread
  };

  Shell(std::shared_ptr<Shared> shared, ShellDeps deps, std::unique_ptr<env::FileLock> lock);

  void perform_one(control::effect::ReadStore&& e);
  void perform_one(control::effect::CommitStore&& e);
  void perform_one(control::effect::StartOp&& e);
  void perform_one(control::effect::ArmGuard&& e);
  void perform_one(control::effect::DisarmGuard&& e);
  void perform_one(control::effect::Persist&& e);
  void perform_one(control::effect::SetSampling&& e);
  void perform_one(control::effect::Note&& e);
  void perform_one(control::effect::AskPeer&& e);
  void perform_one(control::effect::AnswerPeer&& e);
  void perform_one(control::effect::Exit&& e);

  void emit(control::Event event);
  void remark(std::string what, std::string why, LogLevel level = LogLevel::kWarn);
  GuardClient::Handlers guard_handlers();
  void start_guard();
  void guard_attached(const env::GuardReport& report);
  void guard_exited(const env::GuardReport& report);
  void guard_lost(const std::string& how);
  void watchdog_is(env::WatchdogState state, int error);
  void leftovers_killed(const std::string& how, bool ran);
  void begin_kill(control::OpId id);
  void finish_kills_if_dead();
  void finish_kills();
  void next_op();
  void run_in_pool();
  void op_done(control::OpId id, const std::string& name, Result<control::OpData> result);
  void permanent_slots_looked_at(std::vector<std::string> troubles);
  void apply_identity();
  void next_persist();
  void persisted(const Status& status);
  void sample_now();
  void sampled(control::PgStatus status);
  void maybe_probe_writes(const control::PgStatus& status);
  void maybe_prepare_slots(const control::PgStatus& status);
  void maybe_reload(const control::PgStatus& status);
  void maybe_retry_permanent_slots(const control::PgStatus& status);
  void maybe_keep_slots(control::PgStatus& status);

  std::shared_ptr<Shared> shared_;
  ShellDeps deps_;
  std::unique_ptr<env::FileLock> lock_;
  control::ClusterParser parser_;
  EventSink sink_;
  std::function<void(Status)> ready_;
  std::function<void()> on_exit_;
  std::unique_ptr<GuardClient> guard_;
  std::function<void(bool)> watchdog_usable_;
  bool leaving_ = false;
  bool guard_lost_ = false;  // and its leftovers are being killed
  MonoTime guard_lost_at_{};

  std::deque<control::effect::StartOp> ops_;  // waiting; the running one is not among them
  RunningOp running_;                         // id 0: none
  std::vector<control::OpId> kills_;          // waiting for everything to be dead

  control::LocalState persisted_;
  std::deque<control::effect::Persist> persists_;  // the first is being written
  env::TimerId persist_timer_ = env::TimerId::kNone;

  std::vector<std::string> slots_wanted_;
  std::optional<std::vector<std::string>> slots_prepared_;  // none: not since the last promotion
  std::map<std::string, control::PermanentSlot> slots_of_others_;
  MonoTime slots_prepared_at_{};
  MonoTime streaming_since_{};  // zero: it does not
  // Of a primary: what is wrong with them, when they are looked at again, and after how long.
  std::vector<std::string> slot_troubles_;
  MonoTime slots_retry_at_ = MonoTime::max();
  Nanos slots_retry_after_{};

  Peers peers_;
  struct Question {
    Peers::Opened opened;
    std::function<void(Result<std::string>)> done;
  };
  std::map<uint64_t, Question> questions_;  // that the agent is to answer, by token
  uint64_t next_token_ = 1;

  Millis sample_every_;
  bool sampling_ = false;
  bool sample_again_ = false;
  env::TimerId sample_timer_ = env::TimerId::kNone;
};

}  // namespace bascule::node
