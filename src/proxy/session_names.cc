// PREPARE, EXECUTE and DEALLOCATE in the text of a client's statement, where servers are shared: a
// text is sent with the names that its statements have on the server, after what the server lacks.
// A PREPARE is known by its text, as a Parse is, and is sent again to the next server.
//
// A DEALLOCATE must succeed without taking the statement from the others: it gets one that was made
// for it alone.
#include <algorithm>
#include <utility>

#include "pgwire/messages.h"
#include "proxy/session.h"

namespace bascule::proxy {

using Kind = StateChange::Kind;

namespace {

bool control(const StateChange& c) {
  return c.kind >= Kind::kCommit && c.kind <= Kind::kRollbackTo;
}

std::string placeholder(size_t i) {
  return std::string(kServerNamePrefix) + "d" + std::to_string(i);
}

}  // namespace

// What the message with this number does, once the server confirms it.
void Session::follow(uint64_t message, const std::vector<StateChange>& changes,
                     std::vector<NameAction>& actions) {
  const bool matters = std::any_of(changes.begin(), changes.end(), [&](const StateChange& c) {
    if (control(c)) return memory_ && memory_->open();
    if (c.kind == Kind::kUnpin) return memory_ && (memory_->open() || memory_->pinned());
    return c.is_setting() || c.kind == Kind::kPin;
  });
  // Also what undoes a pin of the same text.
  const bool pins = std::any_of(changes.begin(), changes.end(),
                                [](const StateChange& c) { return c.kind == Kind::kPin; });
  if (matters || pins) {
    for (const StateChange& c : changes) {
      if (c.is_setting() || control(c) || c.kind == Kind::kPin || c.kind == Kind::kUnpin) {
        memory().stage(message, c);
      }
      if (c.kind == Kind::kPin && c.pin == Pin::kListen && shares()) ask_for_channel(c.name);
    }
  }
  take_names(message, actions);
}

// The server that has the client now listens as well, until the transaction is over.
void Session::ask_for_channel(const std::string& name) {
  if (!shares_channels_ || name.empty()) return;
  memory().set_listening(SessionMemory::Listening::kElsewhere);
  server_listens_ = true;
  if (asked_channels_.size() >= kChannelsMax || channels().size() >= kChannelsMax) {
    shares_channels_ = false;
    return memory().set_listening(SessionMemory::Listening::kHere);
  }
  asked_channels_.push_back(name);
  ++channels_awaited_;
}

void Session::on_channel(Channel what) {
  if (channels_awaited_ > 0) --channels_awaited_;
  if (what == Channel::kLive) return;
  // Then its own server does it, and is kept.
  shares_channels_ = server_listens_ = false;
  memory().set_listening(SessionMemory::Listening::kHere);
}

const std::vector<std::string>& Session::channels() const {
  static const std::vector<std::string> kNone;
  return memory_ ? memory_->channels() : kNone;
}

void Session::take_names(uint64_t message, std::vector<NameAction>& actions) {
  for (NameAction& a : actions) {
    switch (a.kind) {
      case NameAction::Kind::kPrepare:
        if (shares())
          edits_.push_back({message, EditKind::kPrepared, a.serial, nullptr, a.name, a.number});
        memory().prepare_sent(message, a.number, a.name, std::move(a.prepared));
        break;
      case NameAction::Kind::kDeallocate:
        if (memory_) memory_->deallocate_sent(message, a.number, a.name);
        break;
      case NameAction::Kind::kDeallocateAll:
        memory().deallocate_sent(message, a.number, {});
        if (!shares()) break;
        server_->statements.doubt();
        doubted_ = message + 1;
        break;
    }
  }
}

// Where the server is the client's own, and has its names.
std::vector<Session::NameAction> Session::names_as_sent(std::string_view sql,
                                                        const std::vector<StateChange>& changes,
                                                        const Effects& effects) {
  std::vector<NameAction> actions;
  for (const StateChange& c : changes) {
    NameAction a{.number = c.statement, .name = c.name};
    if (c.kind == Kind::kPrepare) {
      if (c.end <= sql.size()) {
        pgwire::append_query(a.prepared.message,
                             "PREPARE " + std::string(sql.substr(c.from, c.end - c.from)));
      }
      a.prepared.effects = effects;
    } else if (c.kind == Kind::kDeallocate) {
      a.kind = NameAction::Kind::kDeallocate;
    } else if (c.kind == Kind::kDeallocateAll || c.kind == Kind::kDiscardAll) {
      a.kind = NameAction::Kind::kDeallocateAll;
    } else {
      continue;
    }
    actions.push_back(std::move(a));
  }
  return actions;
}

// ---- What a text needs on the server
// -------------------------------------------------------------

// Before a Query what fails must not make the server skip it: an exchange of our own.
void Session::bring(const StatementRef& statement, Within within) {
  if (server_->statements.find(statement->id) != 0) return;
  const bool batch_open = !batches_.empty() && !batches_.back().ended;
  if (within == Within::kBatch || batch_open) {
    ensure(statement);
    return;
  }
  const uint32_t serial = new_serial(statement->id);
  injected_ = tracker_.sent_count() + 1;
  if (statement->by_sql()) {
    edits_.push_back({tracker_.sent_count(), EditKind::kOwnQuery, serial});
    pgwire::append_query(to_server_->build(), "PREPARE " + server_name(serial) + statement->sql);
    tracker_.sent('Q');
    return;
  }
  edits_.push_back({tracker_.sent_count(), EditKind::kOwnParse, serial});
  send_parse(serial, statement->sql, statement->types);
  edits_.push_back({tracker_.sent_count(), EditKind::kOwnSync});
  pgwire::append_sync(to_server_->build());
  tracker_.sent('S');
}

void Session::bring_statements(const std::vector<StateChange>& changes, Within within) {
  if (!server_->closing.empty()) close_doomed();
  size_t placeholders = 0;
  for (const StateChange& c : changes) {
    SessionMemory::Prepared* prepared =
        c.names_statement() && memory_ ? memory_->find(c.name) : nullptr;
    if (c.kind == Kind::kDeallocate) {
      const std::string name = placeholder(placeholders++);
      const bool made = std::any_of(changes.begin(), changes.end(), [&](const StateChange& other) {
        return other.kind == Kind::kPrepare && other.name == c.name;
      });
      if (prepared == nullptr && !made) continue;
      inject_close(name);
      edits_.push_back({tracker_.sent_count(), EditKind::kInjected});
      pgwire::append_parse(to_server_->build(), name, "");
      tracker_.sent('P');
    } else if (prepared != nullptr) {
      bring(statement_of(c.name, *prepared), within);
    }
  }
}

void Session::inject_close(std::string_view name) {
  edits_.push_back({tracker_.sent_count(), EditKind::kInjected});
  pgwire::append_close(to_server_->build(), pgwire::Target::kStatement, name);
  tracker_.sent('C');
}

// Within a batch: as messages of the extended protocol, which end no transaction.
void Session::inject_prepare(uint32_t serial, const SharedStatement& statement) {
  run_temporary("PREPARE " + server_name(serial) + statement.sql, serial);
}

// A statement that returns no rows. `makes`: the serial of what it prepares; 0: nothing.
void Session::run_temporary(std::string_view sql, uint32_t makes) {
  inject_close(kTemporaryName);
  const auto injected = [&](char type, uint32_t made = 0) {
    edits_.push_back({tracker_.sent_count(), EditKind::kInjected, made});
    tracker_.sent(type);
    return &to_server_->build();
  };
  pgwire::append_parse(*injected('P'), kTemporaryName, sql);
  pgwire::append_bind(*injected('B'), kTemporaryName, kTemporaryName, {});
  pgwire::append_execute(*injected('E', makes), kTemporaryName);
  pgwire::append_close(*injected('C'), pgwire::Target::kPortal, kTemporaryName);
}

// ---- Texts
// ---------------------------------------------------------------------------------------

// How the server is to call the statement of `change`; empty: as the client does.
std::string Session::server_name_for(const StateChange& c, std::string_view sql,
                                     const Effects& effects, std::vector<NameAction>& actions,
                                     size_t& placeholders) {
  const SessionMemory::Prepared* known = memory_ ? memory_->find(c.name) : nullptr;
  for (NameAction& a : actions) {
    const bool all = a.kind == NameAction::Kind::kDeallocateAll;
    if (!all && a.name != c.name) continue;
    known = a.kind == NameAction::Kind::kPrepare ? &a.prepared : nullptr;
  }
  const size_t at = c.kind == Kind::kDeallocate ? placeholders++ : 0;
  if (known == nullptr && c.kind == Kind::kPrepare) {
    if (memory().prepared_count() + actions.size() >= limits_.memory.prepared_count) return {};
    NameAction a{.number = c.statement, .name = c.name};
    a.prepared.effects = effects;
    a.prepared.statement = workspace_.statements.get(*wanted_, sql.substr(c.to, c.end - c.to),
                                                     kPreparedBySql, effects, {});
    const uint32_t id = a.prepared.statement->id;
    if (const uint32_t old = server_->statements.find(id); old != 0) {
      server_->closing.push_back(old);
      server_->statements.remove(id);
    }
    uint32_t evicted = 0;
    a.serial = server_->statements.add(id, evicted, limits_.server_statements);
    ++counts_->server_parses;
    if (evicted != 0) server_->closing.push_back(evicted);
    if (settings_open()) doomed_.push_back(a.serial);
    actions.push_back(std::move(a));
    return server_name(actions.back().serial);
  }
  if (known == nullptr || known->statement == nullptr) {
    // Nobody gets at the server's own names.
    return is_server_name(c.name) ? std::string(kServerNamePrefix) + "x" : std::string();
  }
  if (c.kind == Kind::kDeallocate) {
    actions.push_back({NameAction::Kind::kDeallocate, c.statement, c.name});
    return placeholder(at);
  }
  const uint32_t serial = server_->statements.find(known->statement->id);
  if (serial == 0) return {};
  uses(serial, c.name);
  return server_name(serial);
}

// `sql` with the names that statements have on the server; empty: as it is. Everything that it
// needs has been brought.
std::string Session::translate(std::string_view sql, const std::vector<StateChange>& changes,
                               const Effects& effects, std::vector<NameAction>& actions) {
  std::string out;
  size_t done = 0, placeholders = 0;
  for (const StateChange& c : changes) {
    if (c.kind == Kind::kDeallocateAll || c.kind == Kind::kDiscardAll) {
      actions.push_back({NameAction::Kind::kDeallocateAll, c.statement});
    }
    if (!c.names_statement()) continue;
    const std::string name = server_name_for(c, sql, effects, actions, placeholders);
    if (name.empty()) {
      if (c.kind == Kind::kPrepare) pin_ = Pin::kPrepare;
      continue;
    }
    out.append(sql.substr(done, c.from - done)).append(name);
    done = c.to;
  }
  if (!out.empty()) out.append(sql.substr(done));
  return out;
}

// ---- Extended queries
// ----------------------------------------------------------------------------

void Session::send_temporary(std::string_view name, std::string_view sql, std::string_view types) {
  temporary_for_ = name;
  inject_close(kTemporaryName);
  edits_.push_back({tracker_.sent_count(), EditKind::kInjected});
  append_parse(kTemporaryName, sql, types);
}

// The names mean what they mean now, not what they meant when the text was parsed. False: there is
// nothing to translate.
bool Session::bind_translated(const pgwire::BindView& bind, const StatementText& text,
                              std::optional<std::string_view> values,
                              std::vector<NameAction>& actions) {
  if (!values) return false;  // no statement with names takes parameters
  bring_statements(*text.changes, Within::kBatch);
  const std::string translated = translate(text.sql, *text.changes, *text.effects, actions);
  if (translated.empty()) return false;
  send_temporary(bind.statement, translated, text.types);
  append_bind(bind, kTemporaryName);
  apply(*text.effects);
  if (!bound_.empty()) unbind(bind.portal);
  bound(bind.portal, *text.changes, std::exchange(actions, {}), values);
  return true;
}

bool Session::describe_translated(std::string_view name, const StatementText& text) {
  const bool executes = std::any_of(text.changes->begin(), text.changes->end(),
                                    [](const auto& c) { return c.kind == Kind::kExecute; });
  if (!executes) return false;
  std::vector<NameAction> actions;
  bring_statements(*text.changes, Within::kBatch);
  const std::string translated = translate(text.sql, *text.changes, *text.effects, actions);
  if (translated.empty()) return false;
  send_temporary(name, translated, text.types);
  pgwire::append_describe(to_server_->build(), pgwire::Target::kStatement, kTemporaryName);
  tracker_.sent('D');
  return true;
}

void Session::unbind(std::string_view portal) {
  bound_.remove_if([&](const Bound& b) { return b.portal == portal; });
}

// `values`: the Bind after its names, if it is there as a whole.
void Session::bound(std::string_view portal, const std::vector<StateChange>& changes,
                    std::vector<NameAction> actions, std::optional<std::string_view> values) {
  if (changes.empty() && actions.empty()) return;
  if (bound_.size() >= kBoundMax) {
    pin_ = Pin::kSettings;
    return;
  }
  // A serial must not be taken for a statement that was never made.
  for (const NameAction& a : actions) {
    if (a.serial == 0) continue;
    server_->statements.remove_serial(a.serial);
    server_->closing.push_back(a.serial);
  }
  bound_.push_back({std::string(portal), tracker_.sent_count() - 1, resolve(changes, values),
                    std::move(actions)});
}

void Session::on_execute(std::string_view payload) {
  const std::string_view portal = payload.substr(0, payload.find('\0'));
  for (size_t i = 0; i < bound_.size(); ++i) {
    if (bound_[i].portal != portal) continue;
    Bound b = std::move(bound_[i]);
    bound_.erase(i);
    return follow(tracker_.sent_count() - 1, b.changes, b.actions);
  }
}

// The transaction of these portals is over.
void Session::drop_bound(uint64_t before) {
  bound_.remove_if([&](const Bound& b) { return b.message < before; });
}

}  // namespace bascule::proxy
