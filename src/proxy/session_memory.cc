#include "proxy/session_memory.h"

#include <algorithm>
#include <utility>

#include "pgwire/messages.h"
#include "proxy/sql_tokens.h"
#include "proxy/statements.h"

namespace bascule::proxy {
namespace {

using Kind = StateChange::Kind;

// Undone by a rollback.
bool transactional(Pin pin) { return pin != Pin::kAdvisoryLock && pin != Pin::kLoad; }

}  // namespace

void SessionMemory::parse_sent(uint64_t message, std::string_view name, Prepared statement,
                               NameIs name_is) {
  if (name.empty()) return;
  // A client may pipeline many: what exceeds the limit is only counted, and pins when confirmed.
  if (pending_bytes_ + statement.message.size() > limits_.prepared_bytes) {
    std::string().swap(statement.message);
  }
  pending_bytes_ += statement.message.size();
  pending_.push_back({message,
                      name_is == NameIs::kTaken ? Pending::Kind::kUnlikely : Pending::Kind::kParse,
                      0, std::string(name), std::move(statement)});
}

void SessionMemory::close_sent(uint64_t message, std::string_view name) {
  if (!name.empty()) pending_.push_back({message, Pending::Kind::kClose, 0, std::string(name), {}});
}

void SessionMemory::prepare_sent(uint64_t message, uint16_t number, std::string_view name,
                                 Prepared statement) {
  pending_bytes_ += statement.message.size();
  pending_.push_back(
      {message, Pending::Kind::kPrepare, number, std::string(name), std::move(statement)});
}

void SessionMemory::deallocate_sent(uint64_t message, uint16_t number, std::string_view name) {
  pending_.push_back({message, Pending::Kind::kGone, number, std::string(name), {}});
}

SessionMemory::Pending SessionMemory::take_pending() {
  Pending first = std::move(pending_.front());
  pending_.pop_front();
  pending_bytes_ -= first.statement.message.size();
  return first;
}

void SessionMemory::answered(uint64_t message) {
  while (!pending_.empty() && pending_.front().message < message) take_pending();
  if (pending_.empty() || pending_.front().message != message) return;
  Pending done = take_pending();
  if (done.kind == Pending::Kind::kClose) {
    forget(done.name);
  } else {
    remember(done.name, std::move(done.statement));
  }
}

void SessionMemory::confirm_names(uint64_t message, uint16_t number) {
  while (!pending_.empty()) {
    const Pending& first = pending_.front();
    const bool by_sql = first.kind == Pending::Kind::kPrepare || first.kind == Pending::Kind::kGone;
    if (!by_sql || first.message != message || first.number > number) return;
    Pending done = take_pending();
    if (done.number < number) continue;
    if (done.kind == Pending::Kind::kPrepare) {
      remember(done.name, std::move(done.statement));
    } else if (!done.name.empty()) {
      forget(done.name);
    } else {
      prepared_.clear();
      prepared_bytes_ = 0;
    }
  }
}

void SessionMemory::skipped(uint64_t next) {
  while (!pending_.empty() && pending_.front().message < next) take_pending();
  while (!staged_.empty() && staged_.front().message < next) staged_.pop_front();
}

void SessionMemory::remember(std::string_view name, Prepared statement) {
  forget(name);
  const size_t bytes = name.size() + statement.message.size();
  const bool lacking = statement.message.empty() && statement.statement == nullptr;
  if (prepared_.size() >= limits_.prepared_count ||
      prepared_bytes_ + bytes > limits_.prepared_bytes || lacking) {
    pin_ = Pin::kPrepared;
    return;
  }
  prepared_bytes_ += bytes;
  prepared_.emplace(name, std::move(statement));
}

void SessionMemory::forget(std::string_view name) {
  const auto it = prepared_.find(name);
  if (it == prepared_.end()) return;
  prepared_bytes_ -= it->first.size() + it->second.message.size();
  prepared_.erase(it);
}

SessionMemory::Prepared* SessionMemory::find(std::string_view name) {
  for (size_t i = pending_.size(); i-- > 0;) {
    Pending& p = pending_[i];
    if (p.kind == Pending::Kind::kUnlikely) continue;
    if (p.kind == Pending::Kind::kGone && p.name.empty()) return nullptr;
    if (p.name != name) continue;
    const bool made = p.kind == Pending::Kind::kParse || p.kind == Pending::Kind::kPrepare;
    return made ? &p.statement : nullptr;
  }
  const auto it = prepared_.find(name);
  return it == prepared_.end() ? nullptr : &it->second;
}

std::string_view SessionMemory::name_of(uint32_t statement_id) const {
  const auto is = [&](const Prepared& p) { return p.statement && p.statement->id == statement_id; };
  for (size_t i = pending_.size(); i-- > 0;) {
    if (is(pending_[i].statement)) return pending_[i].name;
  }
  for (const auto& [name, prepared] : prepared_) {
    if (is(prepared)) return name;
  }
  return {};
}

void SessionMemory::stage(uint64_t message, const StateChange& change) {
  staged_.push_back({message, change});
}

void SessionMemory::set(Setting setting) {
  // Renewed at the end: a later setting may depend on it (role, search_path).
  std::erase_if(settings_, [&](const Setting& s) { return s.name == setting.name; });
  std::erase(lost_base_, setting.name);
  if (settings_.size() >= limits_.settings) {
    pin_ = Pin::kSettings;
  } else {
    settings_.push_back(std::move(setting));
  }
}

void SessionMemory::lose_base(const StateChange& reset) {
  if (reset.restored) return;
  for (const Setting& s : base_->list) {
    if (reset.kind == Kind::kReset && s.name != reset.name) continue;
    if (reset.kind == Kind::kResetAll && (s.name == "role" || s.name == "session authorization")) {
      continue;
    }
    std::erase(lost_base_, s.name);
    lost_base_.push_back(s.name);
  }
}

void SessionMemory::apply(const StateChange& change) {
  switch (change.kind) {
    case Kind::kSet:
      changed_ = true;
      applied_.push_back(change.name);
      set({change.name, change.text});
      break;
    case Kind::kReset:
      changed_ = true;
      applied_.push_back(change.name);
      std::erase_if(settings_, [&](const Setting& s) { return s.name == change.name; });
      lose_base(change);
      break;
    case Kind::kResetAll:
      changed_ = true;
      applied_.emplace_back();
      // RESET ALL leaves role and session authorization alone.
      std::erase_if(settings_, [](const Setting& s) {
        return s.name != "role" && s.name != "session authorization";
      });
      lose_base(change);
      break;
    case Kind::kPin:
      add_pin(change.pin, change.name);
      break;
    case Kind::kUnpin:
      remove_pin(change.pin, change.name);
      break;
    default:
      break;
  }
}

void SessionMemory::add_pin(Pin pin, const std::string& name) {
  if (pin == Pin::kListen && listening_ == Listening::kElsewhere && !name.empty()) {
    if (std::find(channels_.begin(), channels_.end(), name) == channels_.end()) {
      channels_.push_back(name);
    }
    return;
  }
  const bool counted = pin == Pin::kAdvisoryLock && !name.empty();
  const bool full = pins_.size() >= kPinsMax;
  std::pair<Pin, std::string> entry(pin, full ? std::string() : name);
  if (!counted && std::find(pins_.begin(), pins_.end(), entry) != pins_.end()) return;
  if (full)
    pin_ = pin;
  else
    pins_.push_back(std::move(entry));
}

void SessionMemory::remove_pin(Pin pin, const std::string& name) {
  if (pin == Pin::kListen) {
    std::erase_if(channels_, [&](const std::string& c) { return name.empty() || c == name; });
  }
  if (name.empty()) {
    std::erase_if(pins_, [&](const auto& p) { return p.first == pin; });
    return;
  }
  const auto hides_temporary = [](const std::vector<Setting>& list) {
    return std::any_of(list.begin(), list.end(), [](const Setting& s) {
      return s.name == "search_path" && s.sql.find("pg_temp") != std::string::npos;
    });
  };
  if (pin == Pin::kTemporary && (hides_temporary(settings_) || hides_temporary(base_->list)))
    return;
  const auto it = std::find(pins_.begin(), pins_.end(), std::pair(pin, name));
  if (it != pins_.end()) pins_.erase(it);
}

bool SessionMemory::resets_base() const {
  if (base_->list.empty()) return false;
  for (size_t i = 0; i < staged_.size(); ++i) {
    const Kind kind = staged_[i].change.kind;
    if (kind == Kind::kReset || kind == Kind::kResetAll) return true;
  }
  return false;
}

void SessionMemory::reported(const Parameters& values) {
  for (const std::string& name : applied_) {
    // PostgreSQL reports a few, in the case in which they were defined.
    for (const auto& [parameter, value] : values) {
      if (lower_case(parameter) != name) continue;
      for (Setting& s : settings_) {
        if (s.name == name) s = make_setting(name, value);
      }
    }
  }
}

bool SessionMemory::settings_open() const {
  const auto is = [](const StateChange& c) { return c.is_setting(); };
  for (size_t i = 0; i < staged_.size(); ++i) {
    if (is(staged_[i].change)) return true;
  }
  return std::any_of(transaction_.begin(), transaction_.end(), is);
}

uint16_t SessionMemory::on_tag(uint64_t message, std::string_view tag) {
  if (tag_message_ != message) {
    tag_message_ = message;
    tag_count_ = 0;
  }
  const uint16_t number = tag_count_++;
  if (!pending_.empty()) confirm_names(message, number);
  bool known = false;
  while (!staged_.empty()) {
    Staged& first = staged_.front();
    if (first.message > message) break;
    const bool same = first.message == message;
    if (same && first.change.statement > number) break;
    if (same && first.change.statement == number) {
      known = true;
      confirm(std::move(first.change), tag);
    }
    staged_.pop_front();
  }
  if (tag == "DEALLOCATE ALL") {  // also by an EXECUTE of a statement that does it
    prepared_.clear();
    prepared_bytes_ = 0;
  }
  if (tag == "DISCARD ALL") {
    on_discard_all();
  } else if (!known) {
    unfollowed(tag);
  }
  return number;
}

// Of a text that was not read, or did not need to be.
void SessionMemory::unfollowed(std::string_view tag) {
  if (tag == "SET" || tag == "RESET") {
    pin_ = Pin::kSettings;
  } else if (tag == "ROLLBACK") {
    rolled_back_ = true;
  } else if (tag == "COMMIT") {
    rolled_back_ = false;
  }
}

void SessionMemory::on_discard_all() {
  prepared_.clear();
  prepared_bytes_ = 0;
  settings_.clear();
  transaction_.clear();
  pins_.clear();
  channels_.clear();
  pin_ = Pin::kNone;
  changed_ = true;
  applied_.emplace_back();
  lost_base_.clear();
  for (const Setting& s : base_->list) lost_base_.push_back(s.name);
}

void SessionMemory::confirm(StateChange change, std::string_view tag) {
  switch (change.kind) {
    case Kind::kCommit:
      if (tag == "ROLLBACK") {
        transaction_.clear();
      } else {
        commit();
      }
      break;
    case Kind::kRollback:
      transaction_.clear();
      break;
    case Kind::kRelease:
    case Kind::kRollbackTo:
      to_savepoint(change.name, change.kind);
      break;
    case Kind::kPin:
    case Kind::kUnpin:
      if (transactional(change.pin)) {
        transaction_.push_back(std::move(change));
      } else {
        apply(change);
      }
      break;
    default:
      transaction_.push_back(std::move(change));
      break;
  }
}

// One that is not known was made before anything changed in the transaction.
void SessionMemory::to_savepoint(const std::string& name, Kind kind) {
  size_t at = transaction_.size();
  while (at > 0 &&
         !(transaction_[at - 1].kind == Kind::kSavepoint && transaction_[at - 1].name == name)) {
    --at;
  }
  if (kind == Kind::kRollbackTo) {
    transaction_.resize(at);  // with the savepoint, which stays
    return;
  }
  const auto from = transaction_.begin() + static_cast<std::ptrdiff_t>(at > 0 ? at - 1 : 0);
  transaction_.erase(
      std::remove_if(from, transaction_.end(),
                     [](const StateChange& c) { return c.kind == Kind::kSavepoint; }),
      transaction_.end());
}

void SessionMemory::commit() {
  for (const StateChange& change : transaction_) apply(change);
  transaction_.clear();
}

void SessionMemory::on_error(uint64_t message) {
  failed_ = true;
  const uint16_t number = tag_message_ == message ? tag_count_ : uint16_t{0};
  while (!staged_.empty() && staged_.front().message <= message) {
    const Staged& first = staged_.front();
    const StateChange& c = first.change;
    // It may have happened before the error, and stays.
    const bool ran = first.message == message && c.statement == number;
    if (ran && c.kind == Kind::kPin && !transactional(c.pin)) apply(c);
    staged_.pop_front();
  }
}

void SessionMemory::on_ready(Block transaction) {
  if (transaction == Block::kNone) {
    if (!rolled_back_ && !failed_) commit();
    transaction_.clear();
  } else if (rolled_back_ &&
             std::any_of(transaction_.begin(), transaction_.end(), [](const StateChange& c) {
               return c.kind != Kind::kNothing && c.kind != Kind::kSavepoint;
             })) {
    pin_ = Pin::kSettings;  // ROLLBACK TO a savepoint before or after the SET: unknown
  }
  rolled_back_ = failed_ = false;
}

void SessionMemory::forget_unconfirmed() {
  pending_.clear();
  pending_bytes_ = 0;
  staged_.clear();
  transaction_.clear();
  lost_base_.clear();
  rolled_back_ = failed_ = false;
  tag_message_ = UINT64_MAX;
}

void SessionMemory::observe(std::string_view name, std::string_view value) {
  set(make_setting(name, value));
  changed_ = true;
}

bool SessionMemory::explains(std::string_view name) const {
  const std::string key = lower_case(name);
  return std::any_of(applied_.begin(), applied_.end(),
                     [&](const std::string& a) { return a.empty() || a == key; });
}

bool SessionMemory::resets(std::string_view name) const {
  const std::string key = lower_case(name);
  if (base_->find(key) == nullptr) return false;
  bool lost = std::find(lost_base_.begin(), lost_base_.end(), key) != lost_base_.end();
  for (const StateChange& c : transaction_) {
    if (c.kind == Kind::kResetAll || (c.kind == Kind::kReset && c.name == key)) lost = true;
    if (c.kind == Kind::kSet && c.name == key) lost = false;
  }
  return lost;
}

SettingsRef SessionMemory::wanted(SettingsTable& table) const {
  if (settings_.empty()) return base_;
  std::vector<Setting> list = base_->list;
  for (const Setting& s : settings_) {
    std::erase_if(list, [&](const Setting& b) { return b.name == s.name; });
  }
  list.insert(list.end(), settings_.begin(), settings_.end());
  return table.settings(std::move(list));
}

SettingsRef SessionMemory::left(SettingsTable& table) const {
  SettingsRef wanted = this->wanted(table);
  if (lost_base_.empty()) return wanted;
  std::vector<Setting> list = wanted->list;
  std::erase_if(list, [&](const Setting& s) {
    return std::find(lost_base_.begin(), lost_base_.end(), s.name) != lost_base_.end();
  });
  return table.settings(std::move(list));
}

std::string SessionMemory::restore_base() {
  std::string sql;
  for (size_t i = 0; i < transaction_.size(); ++i) {
    StateChange& change = transaction_[i];
    if ((change.kind != Kind::kReset && change.kind != Kind::kResetAll) || change.restored)
      continue;
    change.restored = true;
    for (const Setting& s : base_->list) {
      if (change.kind == Kind::kReset && s.name != change.name) continue;
      const bool set_since = std::any_of(
          transaction_.begin() + static_cast<std::ptrdiff_t>(i), transaction_.end(),
          [&](const StateChange& c) { return c.kind == Kind::kSet && c.name == s.name; });
      if (!set_since) sql += s.sql + ";";
    }
  }
  return sql;
}

SessionMemory::Script SessionMemory::script() const {
  Script script;
  if (!settings_.empty()) {
    std::string sql;
    for (const Setting& setting : settings_) sql += setting.sql + ";";
    pgwire::append_query(script.bytes, sql);
    ++script.ready_count;
  }
  // A Parse that fails would make the server skip a Query behind it.
  for (const auto& [name, statement] : prepared_) {
    if (!statement.message.starts_with('Q')) continue;
    script.bytes += statement.message;
    ++script.ready_count;
  }
  const size_t parsed_from = script.bytes.size();
  for (const auto& [name, statement] : prepared_) {
    if (statement.message.starts_with('P')) script.bytes += statement.message;
  }
  if (script.bytes.size() > parsed_from) {
    pgwire::append_sync(script.bytes);
    ++script.ready_count;
  }
  return script;
}

}  // namespace bascule::proxy
