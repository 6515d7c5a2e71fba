// What of a session must be set up again when it comes to another server: its settings (those of
// its start-up and those changed with SET) and statements prepared by protocol messages. Everything
// is staged when it is sent and counts only when the server has confirmed it. Pure; one object a
// session, made when first needed.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proxy/front_queue.h"
#include "proxy/settings.h"
#include "proxy/statement_scanner.h"

namespace bascule::proxy {

// One statement that changes what is remembered.
struct StateChange {
  enum class Kind {
    kSet,
    kReset,
    kResetAll,
    kDeallocate,
    kDeallocateAll,
    kDiscardAll,
    kNothing,
  };
  Kind kind =
      Kind::kNothing;     // kNothing: SET LOCAL, SET TRANSACTION, ...: over with the transaction
  std::string name = {};  // of setting or statement, lower case unless quoted
  std::string text = {};  // kSet
  bool restored = false;  // kReset, kResetAll: the client's own defaults have been set again since
  bool operator==(const StateChange&) const = default;
};
// The SET, RESET and DEALLOCATE of `sql` in order. Nothing if they can't be told apart for sure.
std::optional<std::vector<StateChange>> parse_state_changes(std::string_view sql);

struct SharedStatement;

class SessionMemory {
 public:
  struct Limits {
    size_t prepared_count = 0, prepared_bytes = 0, settings = 0;
  };
  // `base`: the settings of the client's start-up, where its servers do not have them from theirs.
  SessionMemory(const Limits& limits, SettingsRef base) : limits_(limits), base_(std::move(base)) {}

  struct Prepared {
    std::string message;  // the whole Parse, unless `statement` has it
    Effects effects;
    std::vector<StateChange> changes;
    std::shared_ptr<const SharedStatement> statement;  // where clients share servers
  };

  // ---- Statements. `message` numbers what is sent to the server (SessionTracker::sent())
  // ----------
  // kTaken: it will fail, most likely, and what is sent next means the older statement.
  enum class NameIs { kFree, kTaken };
  void parse_sent(uint64_t message, std::string_view name, Prepared statement,
                  NameIs name_is = NameIs::kFree);
  void close_sent(uint64_t message, std::string_view name);
  void answered(uint64_t message);  // ParseComplete, CloseComplete
  void skipped(uint64_t next);      // what was sent before `next` is not answered any more
  void forget(std::string_view name);
  void remember(std::string_view name, Prepared statement);
  Prepared* find(std::string_view name);  // confirmed or on its way
  const Prepared* find(std::string_view name) const {
    return const_cast<SessionMemory*>(this)->find(name);
  }
  size_t prepared_count() const { return prepared_.size() + pending_.size(); }
  // Statements were sent whose fate is not known yet.
  bool undecided() const { return !pending_.empty(); }
  // The client's name for a statement; empty if it has none.
  std::string_view name_of(uint32_t statement_id) const;

  // ---- Settings ------------------------------------------------------------------------------
  void stage(uint64_t message, const std::vector<StateChange>& changes);
  void on_tag(std::string_view tag);  // CommandComplete
  // ErrorResponse; `in_transaction`: one was open before this batch.
  enum class Block { kNone, kOpen };
  void on_error(Block transaction);
  void on_ready(Block transaction, bool last_outstanding);
  // The server was lost: what was not confirmed did not happen.
  void forget_unconfirmed();
  // A setting has another value than before, and no statement said so.
  void observe(std::string_view name, std::string_view value);
  // Statements of the client explain why this setting has changed since the last settled().
  bool explains(std::string_view name) const;
  void settled() { applied_.clear(); }
  // Since the last call: wanted() and left() may be others.
  bool take_changed() { return std::exchange(changed_, false); }
  SettingsRef wanted(SettingsTable& table) const;  // what the session is to have
  SettingsRef left(SettingsTable& table) const;    // what its server has
  // A start-up value is to be in force again, since a RESET of this batch or transaction.
  bool resets(std::string_view name) const;
  // The server has what is wanted.
  void synced() { lost_base_.clear(); }
  // SET of a start-up value that a RESET in the open transaction took away; empty: none.
  std::string restore_base();
  // Sent or confirmed in the open transaction: the server has settings that wanted() does not tell.
  bool settings_open() const { return !staged_.empty() || !transaction_.empty(); }

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
    uint64_t message = 0;
    // kUnlikely: a Parse of a name that seems to be taken.
    // kGone: a DEALLOCATE, of all if `name` is empty. Its tag is what counts in the end.
    enum class Kind : uint8_t { kParse, kUnlikely, kClose, kGone } kind = Kind::kParse;
    std::string name;
    Prepared statement;
  };
  Pending take_pending();
  void apply(const StateChange& change);
  void set(Setting setting);
  void lose_base(const StateChange& reset);

  Limits limits_;
  SettingsRef base_;
  std::map<std::string, Prepared, std::less<>> prepared_;
  size_t prepared_bytes_ = 0;
  FrontQueue<Pending> pending_;  // sent, not answered; unnamed ones are not kept
  size_t pending_bytes_ = 0;
  std::vector<Setting> settings_;         // committed, in order
  std::vector<StateChange> transaction_;  // confirmed, of the open transaction
  FrontQueue<StateChange> staged_;        // sent
  std::vector<std::string> applied_;      // names changed since settled(); "": all
  std::vector<std::string> lost_base_;    // names of base_ that the server does not have
  bool changed_ = false;
  bool rolled_back_ = false;
  Pin pin_ = Pin::kNone;
};

}  // namespace bascule::proxy
