// What of a session must be set up again when it moves to another server: settings changed with SET
// and statements prepared by protocol messages. Everything is staged when it is sent and counts
// only when the server has confirmed it. Pure; one object a session, made when first needed.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/front_queue.h"
#include "proxy/statement_scanner.h"

namespace bascule::proxy {

// One statement that changes what is remembered.
struct StateChange {
  enum class Kind { kSet, kReset, kResetAll, kDeallocate, kDeallocateAll, kNothing };
  Kind kind =
      Kind::kNothing;  // kNothing: SET LOCAL, SET TRANSACTION, ...: over with the transaction
  std::string name;    // of setting or statement, lower case unless quoted
  std::string text;    // kSet
};
// The SET, RESET and DEALLOCATE of `sql` in order. Nothing if they can't be told apart for sure.
std::optional<std::vector<StateChange>> parse_state_changes(std::string_view sql);

class SessionMemory {
 public:
  struct Limits {
    size_t prepared_count = 0, prepared_bytes = 0, settings = 0;
  };
  explicit SessionMemory(const Limits& limits) : limits_(limits) {}

  struct Prepared {
    std::string message;  // the whole Parse
    Effects effects;
    std::vector<StateChange> changes;
  };

  // `batch` numbers the client's batches (to the next ReadyForQuery), rising.
  void parse_sent(uint32_t batch, std::string_view name, Prepared statement);
  void parse_completed();  // ParseComplete
  void close_sent(std::string_view name);
  const Prepared* find(std::string_view name) const;  // confirmed or on its way

  void stage(const std::vector<StateChange>& changes);
  void on_tag(std::string_view tag);  // CommandComplete
  // ErrorResponse; `in_transaction`: one was open before this batch.
  enum class Block { kNone, kOpen };
  void on_error(Block transaction);
  void on_ready(uint32_t batch, Block transaction, bool last_outstanding);
  // The server was lost: what was not confirmed did not happen.
  void forget_unconfirmed();

  // Something could not be followed, or is too much.
  Pin pin() const { return pin_; }
  bool empty() const { return prepared_.empty() && settings_.empty(); }
  // Messages that set up a new server, and how many ReadyForQuery answer them.
  struct Script {
    std::string bytes;
    int ready_count = 0;
  };
  Script script() const;

 private:
  struct Pending {
    uint32_t batch = 0;
    std::string name;
    Prepared statement;
  };
  Pending take_pending();
  void apply(const StateChange& change);
  void store(std::string_view name, Prepared statement);

  Limits limits_;
  std::map<std::string, Prepared, std::less<>> prepared_;
  size_t prepared_bytes_ = 0;
  FrontQueue<Pending> pending_;  // Parse sent, not answered; unnamed ones too
  size_t pending_bytes_ = 0;
  std::vector<StateChange> settings_;     // committed, in order
  std::vector<StateChange> transaction_;  // confirmed, of the open transaction
  FrontQueue<StateChange> staged_;        // sent
  bool rolled_back_ = false;
  Pin pin_ = Pin::kNone;
};

}  // namespace bascule::proxy
