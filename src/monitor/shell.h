// Carries out what the monitor decides: health checks, promotions and fences in the pool, the store
// on the loop. One instance a daemon; everything on the loop's thread.
//
// The pool needs a thread for each endpoint and one more for the action: a check that hangs must
// not keep the others waiting. It must have ended before the shell is destroyed or the loop is.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "env/loop.h"
#include "env/process.h"
#include "monitor/access.h"
#include "monitor/monitor.h"
#include "store/store.h"

namespace bascule::monitor {

struct ShellConfig {
  MonitorConfig monitor;
  std::map<NodeName, Access> access;
  CommandLine notify_command;  // empty: none
};
// The monitor's own configuration and that every endpoint has its access.
Status validate(const ShellConfig& config);

struct ShellDeps {
  env::Loop& loop;
  env::BlockingPool& pool;
  env::Process& process;
  store::Store& store;
};

class Shell {
 public:
  // `wall`: what time it is, for records that people read.
  Shell(ShellConfig config, ShellDeps deps, std::function<WallTime()> wall);
  ~Shell();
  Shell(const Shell&) = delete;
  Shell& operator=(const Shell&) = delete;

  void start();
  void check_now();
  // Ends running checks, commands and waits soon. Call before the pool is destroyed.
  void stop();
  // Of every decision, with its reason: for the log and the history that people read.
  void on_note(std::function<void(const effect::Note&)> callback) {
    on_note_ = std::move(callback);
  }

  const Monitor& monitor() const { return monitor_; }

 private:
  void step(const Event& event);
  void carry_out(effect::ReadStore&);
  void carry_out(effect::CommitStore& effect);
  void carry_out(effect::Probe& effect);
  void carry_out(effect::Act& effect);
  void carry_out(effect::Note& effect);
  void notify(const effect::Note& note);
  void arm_timer();

  const ShellConfig config_;
  ShellDeps deps_;
  std::function<WallTime()> wall_;
  std::function<void(const effect::Note&)> on_note_;
  Monitor monitor_;
  control::ClusterParser parser_;
  const std::string prefix_;
  env::TimerId timer_ = env::TimerId::kNone;
  uint64_t watch_ = 0;
  int notifying_ = 0;
  // Shared with the pool's work, which may outlive this object by the time of one call.
  std::shared_ptr<std::atomic<bool>> stopping_ = std::make_shared<std::atomic<bool>>(false);
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // loop thread only
};

}  // namespace bascule::monitor
