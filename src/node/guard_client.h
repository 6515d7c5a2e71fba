// The agent's end of the guard: attaches to the one that lives or starts one, arms its deadline,
// kills through it, and notices its loss. On the loop's thread.
//
// The guard counts as lost when its process ended, its socket hung up, or it left a request
// unanswered for longer than half of the time to the deadline (1 s at most): it is killed then. The
// caller must make sure that PostgreSQL is dead, and call start() again.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "env/guard_wire.h"
#include "env/loop.h"
#include "env/process.h"
#include "node/watchdog.h"

namespace bascule::node {

class GuardClient {
 public:
  struct Handlers {
    std::function<void(const env::GuardReport&)> attached;  // state as found
    std::function<void(const env::GuardReport&)> started;
    std::function<void(const env::GuardReport&)> fenced;
    std::function<void(const env::GuardReport&)> exited;  // all processes are reaped
    std::function<void(std::string how)> lost;
    // The device can be had, runs, cannot be had: whenever that changes. An older guard, which
    // knows of none, answers EINVAL.
    std::function<void(env::WatchdogState, int error)> watchdog;
  };

  GuardClient(env::Loop& loop, env::Process& process, std::string program, std::string run_dir,
              Handlers handlers);
  ~GuardClient();  // detaches; the guard goes on
  GuardClient(const GuardClient&) = delete;
  GuardClient& operator=(const GuardClient&) = delete;

  // Attaches, or starts a guard and then attaches; Handlers::attached tells. A deadline set before
  // is armed first.
  Status start();
  bool attached() const { return socket_ != nullptr && known_; }
  const env::GuardReport& last() const { return last_; }

  void arm(MonoTime deadline);
  void disarm();
  // The device that the guard runs while a deadline is armed, this guard and each later one.
  void watch(const std::string& device, WatchdogTimes times);
  // Calls back once everything asked so far is answered: the deadline is in force.
  void when_settled(env::Callback callback);
  void kill();  // Handlers::exited tells; nothing happens when PostgreSQL does not run
  void end();   // the guard ends, unless PostgreSQL runs

 private:
  void try_attach();
  void watch_socket();
  void on_readable();
  void on_report(const env::GuardReport& report);
  void adopt_deadline(const env::GuardReport& report);
  void ask(env::GuardAsk what, int64_t deadline_ns = 0);
  void ask(env::GuardRequest request, std::string_view rest);
  void ask_for_watchdog();
  void lose(std::string how);
  void settle();

  env::Loop& loop_;
  env::Process& process_;
  const std::string program_;
  const std::string run_dir_;
  const Handlers handlers_;
  std::unique_ptr<env::ProcessHandle> guard_;
  std::unique_ptr<env::PacketSocket> socket_;
  bool known_ = false;   // its first answer has come
  bool active_ = false;  // between start() and the loss
  bool ending_ = false;
  env::GuardReport last_;
  int64_t deadline_ns_ = 0;  // wanted; 0: disarmed
  std::string watchdog_;     // wanted; empty: none
  WatchdogTimes watchdog_times_;
  uint64_t watchdog_asked_ = 0;  // the request; 0: none, or answered
  uint64_t next_id_ = 1;
  uint64_t answered_ = 0;
  env::TimerId answer_timer_ = env::TimerId::kNone;
  env::TimerId attach_timer_ = env::TimerId::kNone;
  MonoTime attach_until_{};
  std::vector<env::Callback> waiting_;
};

}  // namespace bascule::node
