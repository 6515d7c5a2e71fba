#include "proxy/session_memory.h"

#include <algorithm>
#include <utility>

#include "pgwire/messages.h"
#include "proxy/statements.h"

namespace bascule::proxy {
namespace {

using Kind = StateChange::Kind;

constexpr std::string_view kSpace = " \t\r\n\f\v";

std::string_view trim(std::string_view s) {
  const size_t from = s.find_first_not_of(kSpace);
  if (from == std::string_view::npos) return {};
  return s.substr(from, s.find_last_not_of(kSpace) - from + 1);
}

std::string lower(std::string_view s) {
  std::string out(s);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c | 32) : c;
  return out;
}

// Takes the next word off the front: up to white space or '='.
std::string_view take_word(std::string_view& rest) {
  rest = trim(rest);
  const size_t end = std::min(rest.find_first_of(" \t\r\n\f\v="), rest.size());
  const std::string_view word = rest.substr(0, end);
  rest.remove_prefix(end);
  return word;
}

std::string unquote(std::string_view name) {
  if (name.size() >= 2 && name.front() == '"' && name.back() == '"') {
    return std::string(name.substr(1, name.size() - 2));
  }
  return lower(name);
}

// "= DEFAULT", "TO DEFAULT", "TIME ZONE LOCAL", "ROLE NONE": a RESET in effect.
bool is_default(std::string_view name, std::string_view rest) {
  std::string word = lower(take_word(rest));
  if (word == "to" || (name == "timezone" && word == "zone")) word = lower(take_word(rest));
  if (word.empty() && !rest.empty() && rest.front() == '=') {
    rest.remove_prefix(1);
    word = lower(take_word(rest));
  }
  if (name == "role" && word == "none") return true;
  return word == "default" || (name == "timezone" && word == "local");
}

StateChange parse_set(std::string_view statement, std::string_view rest) {
  std::string word = lower(take_word(rest));
  if (word == "local" || word == "transaction" || word == "constraints") return {};
  if (word == "session") {
    word = lower(take_word(rest));
    if (word == "transaction" || word == "constraints") return {};
    if (word == "characteristics" || word == "authorization") word = "session " + word;
  }
  if (word == "time") {
    word = "timezone";
  } else if (word == "names") {
    word = "client_encoding";
  } else if (word == "schema") {
    word = "search_path";
  } else if (word == "xml") {
    word = "xmloption";
  }
  word = unquote(word);
  if (is_default(word, rest)) return {.kind = Kind::kReset, .name = word};
  return {.kind = Kind::kSet, .name = word, .text = std::string(statement)};
}

StateChange parse_reset(std::string_view rest) {
  std::string word = lower(take_word(rest));
  if (word == "all") return {.kind = Kind::kResetAll};
  if (word == "session") word = "session authorization";
  if (word == "time") word = "timezone";
  return {.kind = Kind::kReset, .name = unquote(word)};
}

StateChange parse_deallocate(std::string_view rest) {
  std::string_view word = take_word(rest);
  if (lower(word) == "prepare" && !trim(rest).empty()) word = take_word(rest);
  if (lower(word) == "all") return {.kind = Kind::kDeallocateAll};
  return {.kind = Kind::kDeallocate, .name = unquote(word)};
}

}  // namespace

std::optional<std::vector<StateChange>> parse_state_changes(std::string_view sql) {
  std::vector<StateChange> changes;
  // Comments and dollar quotes are left to PostgreSQL: such a text is not followed.
  for (const std::string_view sign : {"--", "/*", "$"}) {
    if (sql.find(sign) != std::string_view::npos) return std::nullopt;
  }
  sql = trim(sql);
  while (!sql.empty() && sql.back() == ';') sql = trim(sql.substr(0, sql.size() - 1));
  const bool quoted = sql.find_first_of("'\"\\") != std::string_view::npos;
  if (quoted && sql.find(';') != std::string_view::npos) return std::nullopt;
  while (!sql.empty()) {
    const size_t end = std::min(sql.find(';'), sql.size());
    const std::string_view statement = trim(sql.substr(0, end));
    sql.remove_prefix(std::min(end + 1, sql.size()));
    std::string_view rest = statement;
    const std::string word = lower(take_word(rest));
    if (word == "set") changes.push_back(parse_set(statement, rest));
    if (word == "reset") changes.push_back(parse_reset(rest));
    if (word == "deallocate") changes.push_back(parse_deallocate(rest));
    if (word == "discard" && lower(take_word(rest)) == "all") {
      changes.push_back({.kind = Kind::kDiscardAll});
    }
  }
  return changes;
}

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
                      std::string(name), std::move(statement)});
}

void SessionMemory::close_sent(uint64_t message, std::string_view name) {
  if (!name.empty()) pending_.push_back({message, Pending::Kind::kClose, std::string(name), {}});
}

SessionMemory::Pending SessionMemory::take_pending() {
  Pending first = std::move(pending_.front());
  pending_.pop_front();
  pending_bytes_ -= first.statement.message.size();
  return first;
}

void SessionMemory::answered(uint64_t message) {
  while (!pending_.empty() && pending_.front().kind == Pending::Kind::kGone &&
         pending_.front().message < message) {
    take_pending();
  }
  if (pending_.empty() || pending_.front().message != message) return;
  Pending done = take_pending();
  if (done.kind == Pending::Kind::kClose) {
    forget(done.name);
  } else {
    remember(done.name, std::move(done.statement));
  }
}

void SessionMemory::skipped(uint64_t next) {
  while (!pending_.empty() && pending_.front().message < next) take_pending();
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
    if (p.name == name) return p.kind == Pending::Kind::kParse ? &p.statement : nullptr;
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

void SessionMemory::stage(uint64_t message, const std::vector<StateChange>& changes) {
  for (const StateChange& change : changes) {
    const bool all = change.kind == Kind::kDeallocateAll || change.kind == Kind::kDiscardAll;
    if (all || change.kind == Kind::kDeallocate) {
      pending_.push_back({message, Pending::Kind::kGone, change.name, {}});
    }
    if (change.kind != Kind::kDiscardAll) staged_.push_back(change);  // its tag says it all
  }
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
    case Kind::kDeallocate:
      forget(change.name);
      break;
    case Kind::kDeallocateAll:
      prepared_.clear();
      prepared_bytes_ = 0;
      break;
    case Kind::kDiscardAll:
    case Kind::kNothing:
      break;
  }
}

void SessionMemory::on_tag(std::string_view tag) {
  if (tag == "SET" || tag == "RESET") {
    if (staged_.empty()) {
      pin_ = Pin::kSettings;
      return;
    }
    transaction_.push_back(std::move(staged_.front()));
    staged_.pop_front();
  } else if (tag == "DEALLOCATE" || tag == "DEALLOCATE ALL") {
    // Not undone by a rollback, unlike settings.
    if (staged_.empty()) {
      apply({.kind = Kind::kDeallocateAll});
    } else {
      apply(staged_.front());
      staged_.pop_front();
    }
  } else if (tag == "DISCARD ALL") {
    prepared_.clear();
    prepared_bytes_ = 0;
    settings_.clear();
    transaction_.clear();
    pin_ = Pin::kNone;
    changed_ = true;
    applied_.emplace_back();
    lost_base_.clear();
    for (const Setting& s : base_->list) lost_base_.push_back(s.name);
  } else if (tag == "ROLLBACK") {
    rolled_back_ = true;
  } else if (tag == "COMMIT") {
    rolled_back_ = false;
  }
}

void SessionMemory::on_error(Block transaction) {
  staged_.clear();
  if (transaction == Block::kNone) transaction_.clear();
}

void SessionMemory::on_ready(Block transaction, bool last_outstanding) {
  if (last_outstanding) staged_.clear();
  if (transaction == Block::kNone) {
    if (!rolled_back_) {
      for (const StateChange& change : transaction_) apply(change);
    }
    transaction_.clear();
  } else if (rolled_back_ &&
             std::any_of(transaction_.begin(), transaction_.end(),
                         [](const StateChange& c) { return c.kind != Kind::kNothing; })) {
    pin_ = Pin::kSettings;  // ROLLBACK TO a savepoint before or after the SET: unknown
  }
  rolled_back_ = false;
}

void SessionMemory::forget_unconfirmed() {
  pending_.clear();
  pending_bytes_ = 0;
  staged_.clear();
  transaction_.clear();
  lost_base_.clear();
  rolled_back_ = false;
}

void SessionMemory::observe(std::string_view name, std::string_view value) {
  set(make_setting(name, value));
  changed_ = true;
}

bool SessionMemory::explains(std::string_view name) const {
  const std::string key = lower(name);
  return std::any_of(applied_.begin(), applied_.end(),
                     [&](const std::string& a) { return a.empty() || a == key; });
}

bool SessionMemory::resets(std::string_view name) const {
  const std::string key = lower(name);
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
  if (!prepared_.empty()) {
    for (const auto& [name, statement] : prepared_) script.bytes += statement.message;
    pgwire::append_sync(script.bytes);
    ++script.ready_count;
  }
  return script;
}

}  // namespace bascule::proxy
