// Keeps the daemons of a local cluster running: what systemd does on a real host. It adopts one
// that still runs from before (by its pid file), and starts a dead one again with growing pauses.
// Runs on one loop's thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cli/platform.h"

namespace bascule::cli {

struct SupervisedProcess {
  std::string name;
  std::vector<std::string> argv;
  std::string log_file;
  std::string pid_file;   // how a later supervisor finds it
  std::string hold_file;  // while it exists the process is not started
  enum class PidFileBy { kItself, kSupervisor };
  PidFileBy pid_file_by = PidFileBy::kItself;
};

class Supervisor {
 public:
  static constexpr Millis kRestartAfterMin{100};
  static constexpr Millis kRestartAfterMax{5000};
  static constexpr Millis kStableAfter{10'000};  // lived so long: the pause begins small again
  static constexpr Millis kStopTimeout{20'000};  // then SIGKILL

  Supervisor(env::Loop& loop, env::Process& process, env::Disk& disk,
             std::vector<SupervisedProcess> processes);
  ~Supervisor();

  void start();
  // SIGTERM to all, in turn: all of one group have ended before the next is told. Names that no
  // group has are told last. Then `done`.
  void stop(std::vector<std::vector<std::string>> groups, std::function<void()> done);
  // A second stop: no more waiting.
  void kill_all();

 private:
  struct Child {
    SupervisedProcess spec;
    std::unique_ptr<env::ProcessHandle> handle;  // null: not running
    MonoTime started{};
    Millis pause{kRestartAfterMin};
    env::TimerId timer = env::TimerId::kNone;
  };

  void launch(Child& child);
  std::unique_ptr<env::ProcessHandle> adopt(const SupervisedProcess& spec);
  void watch(Child& child);
  void on_exit(Child& child);
  void launch_later(Child& child, Millis pause);
  void stop_next_group();

  env::Loop& loop_;
  env::Process& process_;
  env::Disk& disk_;
  std::vector<Child> children_;
  bool stopping_ = false;
  std::vector<std::vector<std::string>> groups_;
  std::function<void()> done_;
  env::TimerId kill_timer_ = env::TimerId::kNone;
};

}  // namespace bascule::cli
