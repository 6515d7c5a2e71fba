// What the statements of a text do to the state of their session, one by one: settings, names of
// prepared statements, what pins it, and the transaction that all this depends on. Reads words, not
// a tree; what it can't tell for sure it says so, and the session keeps its server. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proxy/statement_scanner.h"

namespace bascule::proxy {

struct StateChange {
  enum class Kind : uint8_t {
    kNothing,  // SET LOCAL, SET TRANSACTION, ...: over with the transaction
    kSet,
    kReset,
    kResetAll,
    kSetConfig,  // set_config() with parameters: see resolve()
    kPrepare,
    kExecute,
    kDeallocate,
    kDeallocateAll,
    kDiscardAll,
    kCommit,
    kRollback,
    kSavepoint,
    kRelease,
    kRollbackTo,
    kPin,    // `name`: what it is; empty: unknown, or not to be undone by its name
    kUnpin,  // ... that is no more; empty: all of this pin
  };
  Kind kind = Kind::kNothing;
  Pin pin = Pin::kNone;       // kPin, kUnpin
  bool restored = false;      // kReset, kResetAll: the client's defaults have been set again since
  bool parameters = false;    // `name` or `text` has $1: see resolve()
  uint16_t statement = 0;     // the how manieth of the text, from 0
  uint32_t from = 0, to = 0;  // kPrepare, kExecute, kDeallocate: where the name stands
  uint32_t end = 0;           // kPrepare: of the statement
  std::string name = {};      // of setting, statement, savepoint, ...; lower case unless quoted
  std::string text = {};      // kSet: a statement that sets it; kSetConfig: the value
  std::string is_local = {};  // kSetConfig
  bool operator==(const StateChange&) const = default;

  static StateChange of(Kind kind, std::string name = {}) {
    StateChange c;
    c.kind = kind;
    c.name = std::move(name);
    return c;
  }
  static StateChange of_pin(Kind kind, Pin pin, std::string name = {}) {
    StateChange c = of(kind, std::move(name));
    c.pin = pin;
    return c;
  }

  bool is_setting() const { return kind <= Kind::kResetAll; }
  bool names_statement() const {
    return kind == Kind::kPrepare || kind == Kind::kExecute || kind == Kind::kDeallocate;
  }
};

// Texts beyond this are not read.
constexpr size_t kFollowedMax = 16 * 1024;

// The changes of `sql` in order. Nothing if its statements can't be told apart for sure.
std::optional<std::vector<StateChange>> parse_state_changes(std::string_view sql);

// Of a set_config() that is called once.
StateChange set_config_change(std::string_view name, std::string_view value,
                              std::string_view is_local);

// With the parameters of a Bind: `values` is the message after the names (BindView::rest); nothing
// if it is not there as a whole. What stays unknown pins.
std::vector<StateChange> resolve(const std::vector<StateChange>& changes,
                                 std::optional<std::string_view> values);

}  // namespace bascule::proxy
