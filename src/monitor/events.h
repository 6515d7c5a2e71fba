// The boundary between deciding and doing. Monitor::step() takes one Event and answers with
// Effects; the shell (shell.h with real databases, sim/ with modelled ones) carries them out in
// order and reports back with events.
//
// Shell's duties, which the safety arguments in monitor.h rely on:
//   - A read shows every transaction that committed before `begun` (the store's own contract).
//   - An action is not begun after its `not_after`: a monitor that was stopped in between may have
//     been replaced. It is bounded by `deadline`, as far as a connection can bound what it asked
//     for.
//   - Fence succeeds only if a new session was seen to be read-only by default and the sessions of
//     clients that were there have been ended.
//   - Everything that was begun is answered, once, with its id.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "base/time.h"
#include "base/types.h"
#include "control/records.h"
#include "store/store.h"

namespace bascule::monitor {

// What a health check found. Unknown numbers are 0 or absent: a managed database may not show all.
struct Sample {
  bool in_recovery = false;
  bool read_only = false;  // new transactions are, by default
  Timeline timeline;
  Lsn written;                // primary: end of WAL
  Lsn received;               // standby: end of WAL received
  Lsn replayed;               // standby
  std::optional<Millis> lag;  // standby: age of the newest replayed transaction; 0 if all is
  bool replay_paused = false;
  bool streaming = false;                  // standby: its receiver runs
  std::optional<Millis> receiver_silence;  // since the receiver last heard from its primary
  uint64_t system_id = 0;
  int version = 0;  // 150020
  bool operator==(const Sample&) const = default;
};

enum class Answer {
  kOk,       // `sample` holds
  kRefused,  // it answers, but not us: too many connections, password, unknown database
  kDown,     // no connection, no answer in time, starting, shutting down
};

enum class ActionKind {
  kPromote,  // by SQL or command, if it is not writable already; then as kUnfence
  kFence,    // read-only by default, sessions ended; ActionData.lsn is its end of WAL after that
  kUnfence,  // takes kFence back
};
std::string_view to_string(ActionKind kind);

struct ActionData {
  Lsn lsn;
};

namespace event {
struct Tick {};  // a time asked for by next_wakeup() has come
struct StoreRead {
  MonoTime begun{};
  Result<control::ClusterView> view;
};
struct StoreCommitted {
  uint64_t id = 0;
  store::TxnResult result;
};
struct StoreChanged {};
struct Probed {
  uint64_t id = 0;
  NodeName endpoint;
  Answer answer = Answer::kDown;
  Sample sample;
  std::string error;  // unless kOk; holds no secret
  Millis took{0};
};
struct ActionDone {
  uint64_t id = 0;
  Result<ActionData> result;
};
struct CheckNow {};  // an operator wants all endpoints looked at
}  // namespace event
using Event = std::variant<event::Tick, event::StoreRead, event::StoreCommitted,
                           event::StoreChanged, event::Probed, event::ActionDone, event::CheckNow>;

namespace effect {
struct ReadStore {};
struct CommitStore {
  uint64_t id = 0;
  store::Txn txn;
};
struct Probe {
  uint64_t id = 0;
  NodeName endpoint;
  MonoTime deadline{};
};
struct Act {
  uint64_t id = 0;
  ActionKind kind = ActionKind::kFence;
  NodeName endpoint;
  MonoTime not_after{};
  MonoTime deadline{};
};
// A decision, to act or not to, with its reason: for the log, alerts and the notify command.
struct Note {
  LogLevel level = LogLevel::kInfo;
  std::string what;  // "endpoint down", "failover begun", "failover completed", ...
  std::string why;
  std::vector<std::pair<std::string, std::string>> fields;
};
}  // namespace effect
using Effect =
    std::variant<effect::ReadStore, effect::CommitStore, effect::Probe, effect::Act, effect::Note>;
using Effects = std::vector<Effect>;

}  // namespace bascule::monitor
