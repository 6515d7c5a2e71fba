// Commands that the operator wants to be run when something changed here: never waited for, one
// after the other, each with a time limit. Nothing is decided by them, and they fence nothing.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/time.h"
#include "base/types.h"
#include "control/agent.h"
#include "env/loop.h"
#include "env/process.h"
#include "node/config.h"
#include "node/notes.h"

namespace bascule::node {

// What is told to the command, as BASCULE_<NAME>.
using HookFacts = std::vector<std::pair<std::string, std::string>>;

// Which hooks a change of state calls for. Pure.
class RoleWatch {
 public:
  enum class Role { kUnknown, kNone, kReplica, kPrimary };
  struct Change {
    Role from = Role::kUnknown, to = Role::kUnknown;
    bool started = false, stopped = false;
    bool restarted = false;  // it has the role again that it had before it stopped
  };
  // "primary" as long as the record says so and PostgreSQL is one; while a member stands for
  // election, is promoted or repointed it keeps the role that it had.
  Change observe(control::Phase phase, const control::PgStatus& postgres);
  Role role() const { return role_; }

 private:
  Role role_ = Role::kUnknown;
  Role before_ = Role::kUnknown;  // it stopped
};
std::string_view to_string(RoleWatch::Role role);

class Hooks {
 public:
  static constexpr size_t kWaitingMax = 16;  // beyond that the oldest are left out

  using Say = std::function<void(NoteRecord)>;  // thread-safe
  Hooks(HookConfig config, env::BlockingPool& pool, env::Process& process, const env::Clock& clock,
        Say say);
  // What waits is dropped; a command that runs ends by itself or by its limit.
  ~Hooks();

  // Loop's thread. What waits goes by the old ones.
  void configure(HookConfig config);

  // `done` once nothing runs and nothing waits any more: at once, or in a thread of the pool.
  void when_idle(std::function<void()> done);
  Millis timeout() const;  // loop's thread

  // Loop's thread; returns at once.
  void fire(const std::string& event, HookFacts facts);

 private:
  struct Job {
    std::string event;
    std::vector<std::string> argv;
    HookFacts facts;
    Millis timeout;
  };
  struct Shared;
  static void run_next(const std::shared_ptr<Shared>& shared);

  std::shared_ptr<Shared> shared_;  // with the pool's work, which may outlive us
};

}  // namespace bascule::node
