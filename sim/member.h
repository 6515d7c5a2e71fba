// One member of the simulated cluster: the production agent, the shell that carries out its effects
// (control/events.h is the contract), the guard, PostgreSQL, and what is on the disk.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "control/agent.h"
#include "sim/decoded.h"
#include "sim/observer.h"
#include "sim/postgres_model.h"
#include "sim/store_model.h"
#include "sim/world.h"

namespace bascule::sim {

struct ShellFaults {
  double op_fails = 0.01;    // chance that an operation ends in an error without having been done
  double op_unknown = 0.01;  // chance that it is done and reported as failed
  Nanos persist_low = micros(300);
  Nanos persist_high = millis(6);
  Nanos sample_takes{0};         // so much longer
  bool api_silent = false;       // other agents get no answer
  Nanos unchanged_sample{0};     // at least so often a sample that shows nothing new is told
  bool restores_backup = false;  // what creates a new cluster is a command that restores one
};

class Member {
 public:
  Member(World& world, StoreModel& store, Decoded& decoded, Fabric& fabric, Observer& observer,
         Endpoint host, control::AgentConfig config, control::UnsafeMutations unsafe);

  // ---- faults and life --------------------------------------------------------------------------
  void boot();  // guard and agent
  void kill_agent(Nanos restart_after);
  void stop_agent();
  void continue_agent();
  void kill_guard();
  void stop_guard();  // SIGSTOP: the agent's shell notices and replaces it
  void power_loss();
  void kill_processes(Nanos restart_after);  // all of them; the kernel lives, and refuses
  void jump_wall_clock(Millis by) { wall_offset_ += by; }
  void rename(NodeName name) { config_.name = std::move(name); }  // of the agent, when it starts
  void terminate_agent();  // SIGTERM: leave in order; restarts a while after it has exited
  ShellFaults& faults() { return faults_; }

  // ---- what checkers and scripts look at --------------------------------------------------------
  const NodeName& name() const { return config_.name; }
  Endpoint host() const { return host_; }
  const control::AgentConfig& config() const { return config_; }
  PostgresModel& pg() { return pg_; }
  const PostgresModel& pg() const { return pg_; }
  control::Agent* agent() { return agent_.get(); }
  const control::Agent* agent() const { return agent_.get(); }
  bool agent_running() const { return agent_ && !world_.stopped(agent_process_); }
  bool guard_alive() const { return guard_alive_; }
  std::optional<MonoTime> guard_deadline() const { return guard_deadline_; }
  const control::LocalState& persisted() const { return persisted_; }
  const std::optional<control::Op>& running_op() const { return running_op_; }
  World& world() { return world_; }
  ProcessId agent_process() const { return agent_process_; }
  std::function<Member*(const NodeName&)> find_peer;

 private:
  using Result_ = Result<control::OpData>;

  // agent
  void start_agent();
  WallTime wall() const {
    return WallTime(std::chrono::duration_cast<Millis>(world_.now()) + wall_offset_);
  }
  void deliver(control::Event event);
  void handle(control::Event& event);
  void carry_out(control::Effects effects);
  void carry_out_one(control::effect::ReadStore& e);
  void carry_out_one(control::effect::CommitStore& e);
  void carry_out_one(control::effect::StartOp& e);
  void carry_out_one(control::effect::ArmGuard& e);
  void carry_out_one(control::effect::DisarmGuard& e);
  void carry_out_one(control::effect::Persist& e);
  void carry_out_one(control::effect::SetSampling& e);
  void carry_out_one(control::effect::Note& e);
  void carry_out_one(control::effect::Exit& e);
  void carry_out_one(control::effect::AskPeer& e);
  void carry_out_one(control::effect::AnswerPeer& e);
  void asked(std::function<void(control::PeerReply)> answer, const control::PeerRequest& request);
  void arm_wakeup();
  void sample_after(Nanos delay);
  void sample(MonoTime begun, Nanos answer, uint64_t token);
  void tell(control::PgStatus status, Nanos answer);
  void rest();

  // guard
  void start_guard();
  void watch_deadline();
  void pg_exited(std::string_view how);

  // operations: sim/operations.cc
  void begin(const control::op::InitDb& op);
  void begin(const control::op::StartPrimary& op);
  void begin(const control::op::StartStandby& op);
  void begin(const control::op::SetUpstream& op);
  void begin(const control::op::StopReceiver& op);
  void begin(const control::op::Promote& op);
  void begin(const control::op::Kill& op);
  void begin(const control::op::Checkpoint& op);
  void begin(const control::op::CleanStop& op);
  void begin(const control::op::VerifyReceived& op);
  void begin(const control::op::SetSync& op);
  void begin(const control::op::EnsureSlots& op);
  void begin(const control::op::TerminateSenders& op);
  void begin(const control::op::Rewind& op);
  void begin(const control::op::Clone& op);
  void begin(const control::op::Reload& op);
  void kill_by_guard(control::OpId id);
  void finish(Result_ result);
  void finish_at(Position position);
  void fail_op(std::string why);
  // Runs as the agent's process if the operation is still the current one then.
  void step(Nanos delay, InlineFunction run);
  // A callback for PostgresModel that continues the operation in the agent's process.
  PostgresModel::Done then(std::function<void()> run);
  void poll_isolated(SimTime restart_at, SimTime give_up);
  void poll_received(control::Upstream candidate, Position position, SimTime give_up);
  void stop_cleanly_then(std::function<void()> run);
  void fetch_from(const control::Upstream& source, Nanos takes,
                  std::function<void(PostgresModel&)> copy);
  PostgresModel* reach(const control::Upstream& target);
  std::string application_name() const;

  World& world_;
  StoreModel& store_;
  Decoded& decoded_;
  Fabric& fabric_;
  Observer& observer_;
  Endpoint host_;
  control::AgentConfig config_;
  control::UnsafeMutations unsafe_;
  Prng random_;
  ShellFaults faults_;
  PostgresModel pg_;

  std::unique_ptr<control::Agent> agent_;
  ProcessId agent_process_{};
  std::vector<control::Event> inbox_;  // events that came while a step ran
  bool stepping_ = false;
  std::optional<SimTime> wakeup_at_;
  uint64_t wakeup_token_ = 0;
  Nanos sampling_{0};
  uint64_t sampling_token_ = 0;
  ProcessId logged_into_{};        // the postmaster that the sampler has a session with
  uint64_t receiver_sampled_ = 0;  // that said at the last sample that it streams; 0: none
  // What PostgreSQL's status depends on, as far as no operation is under way.
  struct Glance {
    ProcessId process{};
    uint64_t events = 0;
    bool stopped = false;
    control::DiskFull full = control::DiskFull::kNo;
    bool operator==(const Glance&) const = default;
  };
  Glance glance() const;
  std::optional<control::PgStatus> told_;  // the sample that the agent knows
  SimTime told_at_{0};
  Glance told_glance_;  // at the last sample that was looked into
  control::LocalState persisted_;
  bool restart_on_exit_ = false;
  Millis wall_offset_{0};

  struct Answer {
    std::function<void(control::PeerReply)> send;
    control::PeerRequest request;
  };
  std::map<uint64_t, Answer> answers_;  // that the agent owes
  uint64_t peer_token_ = 0;

  bool up_ = false;              // the host has power
  ProcessId service_manager_{};  // restarts the agent; lives as long as the host is up
  ProcessId guard_process_{};
  bool guard_alive_ = false;
  std::optional<MonoTime> guard_deadline_;
  std::optional<MonoTime> write_probe_since_;  // it waits for its flush

  std::optional<control::Op> running_op_;
  control::OpId running_id_ = 0;
  uint64_t op_token_ = 0;
  bool kill_running_ = false;
};

}  // namespace bascule::sim
