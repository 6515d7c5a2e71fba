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
#include "proxy/session_changes.h"
#include "proxy/settings.h"

namespace bascule::proxy {

struct SharedStatement;

class SessionMemory {
 public:
  struct Limits {
    size_t prepared_count = 0, prepared_bytes = 0, settings = 0;
  };
  // `base`: the settings of the client's start-up, where its servers do not have them from theirs.
  SessionMemory(const Limits& limits, SettingsRef base) : limits_(limits), base_(std::move(base)) {}

  struct Prepared {
    // The whole Parse, or the Query with its PREPARE, unless `statement` has it.
    std::string message;
    Effects effects;
    std::vector<StateChange> changes;
    std::shared_ptr<const SharedStatement> statement;  // where clients share servers
    uint64_t columns = 0;  // what the client was told that it returns, as a hash; 0: nothing
  };

  // ---- Statements. `message` numbers what is sent to the server (SessionTracker::sent())
  // ----------
  // kTaken: it will fail, most likely, and what is sent next means the older statement.
  enum class NameIs { kFree, kTaken };
  void parse_sent(uint64_t message, std::string_view name, Prepared statement,
                  NameIs name_is = NameIs::kFree);
  void close_sent(uint64_t message, std::string_view name);
  // By SQL: PREPARE, and DEALLOCATE (of all if `name` is empty), as the `number`th statement of the
  // message. Its tag is what counts in the end: a rollback does not undo it.
  void prepare_sent(uint64_t message, uint16_t number, std::string_view name, Prepared statement);
  void deallocate_sent(uint64_t message, uint16_t number, std::string_view name);
  void answered(uint64_t message);  // ParseComplete, CloseComplete
  void skipped(uint64_t next);      // what was sent before `next` is not answered any more
  void forget(std::string_view name);
  void remember(std::string_view name, Prepared statement);
  Prepared* find(std::string_view name);  // confirmed or on its way
  const Prepared* find(std::string_view name) const {
    return const_cast<SessionMemory*>(this)->find(name);
  }
  size_t prepared_count() const { return prepared_.size() + pending_.size(); }
  // What was sent decides about names, or takes start-up values away, and is not answered yet.
  bool undecided() const { return !pending_.empty() || (!staged_.empty() && resets_base()); }
  // The client's name for a statement; empty if it has none.
  std::string_view name_of(uint32_t statement_id) const;

  // ---- Settings, pins and the transaction that they depend on --------------------------------
  void stage(uint64_t message, const StateChange& change);
  // CommandComplete or PortalSuspended: which statement of the message that was, from 0.
  uint16_t on_tag(uint64_t message, std::string_view tag);
  void on_error(uint64_t message);  // ErrorResponse
  enum class Block { kNone, kOpen };
  void on_ready(Block transaction);
  // The server was lost: what was not confirmed did not happen.
  void forget_unconfirmed();
  // A setting has another value than before, and no statement said so.
  void observe(std::string_view name, std::string_view value);
  // Settings of statements since the last settled() have these values now: "SET datestyle = 'ISO'"
  // alone would leave half of what another server has.
  void reported(const Parameters& values);
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
  bool settings_open() const;
  // Something was sent that depends on how the transaction goes on.
  bool open() const { return !staged_.empty() || !transaction_.empty(); }
  bool pinned() const { return pin() != Pin::kNone || !channels_.empty(); }
  // Another connection listens for all clients: LISTEN does not pin.
  enum class Listening { kHere, kElsewhere };
  void set_listening(Listening where) { listening_ = where; }
  Listening listening() const { return listening_; }
  // Of committed LISTENs.
  const std::vector<std::string>& channels() const { return channels_; }
  // Something could not be followed, is too much, or can't be moved.
  Pin pin() const { return pin_ != Pin::kNone || pins_.empty() ? pin_ : pins_.front().first; }
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
    // kPrepare, kGone: by SQL; kGone: of all if `name` is empty.
    enum class Kind : uint8_t { kParse, kUnlikely, kClose, kPrepare, kGone } kind = Kind::kParse;
    uint16_t number = 0;  // of the statement in the message
    std::string name;
    Prepared statement;
  };
  Pending take_pending();
  bool resets_base() const;
  struct Staged {
    uint64_t message = 0;
    StateChange change;
  };
  void confirm_names(uint64_t message, uint16_t number);
  void confirm(StateChange change, std::string_view tag);
  void unfollowed(std::string_view tag);
  void on_discard_all();
  void to_savepoint(const std::string& name, StateChange::Kind kind);
  void commit();
  void apply(const StateChange& change);
  void add_pin(Pin pin, const std::string& name);
  void remove_pin(Pin pin, const std::string& name);
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
  FrontQueue<Staged> staged_;             // sent
  std::vector<std::string> applied_;      // names changed since settled(); "": all
  std::vector<std::string> lost_base_;    // names of base_ that the server does not have
  bool changed_ = false;
  bool rolled_back_ = false;  // by a ROLLBACK that was not looked into
  bool failed_ = false;       // an error since the last ReadyForQuery
  uint64_t tag_message_ = UINT64_MAX;
  uint16_t tag_count_ = 0;  // tags of that message
  Pin pin_ = Pin::kNone;    // until DISCARD ALL
  Listening listening_ = Listening::kHere;
  std::vector<std::string> channels_;
  static constexpr size_t kPinsMax = 100;
  // What can be undone, by name; empty: by all of its kind only.
  std::vector<std::pair<Pin, std::string>> pins_;
};

}  // namespace bascule::proxy
