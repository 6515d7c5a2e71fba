#include "proxy/session_memory.h"

#include <algorithm>
#include <utility>

#include "pgwire/messages.h"

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

StateChange parse_set(std::string_view statement, std::string_view rest) {
  std::string word = lower(take_word(rest));
  if (word == "local" || word == "transaction" || word == "constraints") return {};
  if (word == "session") {
    word = lower(take_word(rest));
    if (word == "characteristics" || word == "authorization") word = "session " + word;
  } else if (word == "time") {
    word = "timezone";
  } else if (word == "names") {
    word = "client_encoding";
  }
  return {Kind::kSet, unquote(word), std::string(statement)};
}

StateChange parse_reset(std::string_view rest) {
  std::string word = lower(take_word(rest));
  if (word == "all") return {Kind::kResetAll, {}, {}};
  if (word == "session") word = "session authorization";
  if (word == "time") word = "timezone";
  return {Kind::kReset, unquote(word), {}};
}

StateChange parse_deallocate(std::string_view rest) {
  std::string_view word = take_word(rest);
  if (lower(word) == "prepare" && !trim(rest).empty()) word = take_word(rest);
  if (lower(word) == "all") return {Kind::kDeallocateAll, {}, {}};
  return {Kind::kDeallocate, unquote(word), {}};
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
  }
  return changes;
}

void SessionMemory::parse_sent(uint32_t batch, std::string_view name, Prepared statement) {
  // A client may pipeline many: what exceeds the limit is only counted, and pins when confirmed.
  if (pending_bytes_ + statement.message.size() > limits_.prepared_bytes) {
    std::string().swap(statement.message);
  }
  pending_bytes_ += statement.message.size();
  pending_.push_back({batch, std::string(name), std::move(statement)});
}

SessionMemory::Pending SessionMemory::take_pending() {
  Pending first = std::move(pending_.front());
  pending_.pop_front();
  pending_bytes_ -= first.statement.message.size();
  return first;
}

void SessionMemory::parse_completed() {
  if (pending_.empty()) return;
  Pending done = take_pending();
  if (!done.name.empty()) store(done.name, std::move(done.statement));
}

void SessionMemory::store(std::string_view name, Prepared statement) {
  close_sent(name);
  const size_t bytes = name.size() + statement.message.size();
  if (prepared_.size() >= limits_.prepared_count ||
      prepared_bytes_ + bytes > limits_.prepared_bytes || statement.message.empty()) {
    pin_ = Pin::kPrepared;
    return;
  }
  prepared_bytes_ += bytes;
  prepared_.emplace(name, std::move(statement));
}

void SessionMemory::close_sent(std::string_view name) {
  const auto it = prepared_.find(name);
  if (it == prepared_.end()) return;
  prepared_bytes_ -= it->first.size() + it->second.message.size();
  prepared_.erase(it);
}

const SessionMemory::Prepared* SessionMemory::find(std::string_view name) const {
  for (size_t i = pending_.size(); i-- > 0;) {
    if (pending_[i].name == name) return &pending_[i].statement;
  }
  const auto it = prepared_.find(name);
  return it == prepared_.end() ? nullptr : &it->second;
}

void SessionMemory::stage(const std::vector<StateChange>& changes) {
  for (const StateChange& change : changes) staged_.push_back(change);
}

void SessionMemory::apply(const StateChange& change) {
  const auto same_name = [&](const StateChange& s) { return s.name == change.name; };
  switch (change.kind) {
    case Kind::kSet:
      // Renewed at the end: a later setting may depend on it (role, search_path).
      std::erase_if(settings_, same_name);
      if (settings_.size() >= limits_.settings) {
        pin_ = Pin::kSettings;
      } else {
        settings_.push_back(change);
      }
      break;
    case Kind::kReset:
      std::erase_if(settings_, same_name);
      break;
    case Kind::kResetAll:
      // RESET ALL leaves role and session authorization alone.
      std::erase_if(settings_, [](const StateChange& s) {
        return s.name != "role" && s.name != "session authorization";
      });
      break;
    case Kind::kDeallocate:
      close_sent(change.name);
      break;
    case Kind::kDeallocateAll:
      prepared_.clear();
      prepared_bytes_ = 0;
      break;
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
      apply({Kind::kDeallocateAll, {}, {}});
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

void SessionMemory::on_ready(uint32_t batch, Block transaction, bool last_outstanding) {
  while (!pending_.empty() && pending_.front().batch <= batch) take_pending();
  if (last_outstanding) staged_.clear();
  if (transaction == Block::kNone) {
    if (!rolled_back_) {
      for (const StateChange& change : transaction_) apply(change);
    }
    transaction_.clear();
  } else if (rolled_back_ && !transaction_.empty()) {
    pin_ = Pin::kSettings;  // ROLLBACK TO a savepoint before or after the SET: unknown
  }
  rolled_back_ = false;
}

void SessionMemory::forget_unconfirmed() {
  pending_.clear();
  pending_bytes_ = 0;
  staged_.clear();
  transaction_.clear();
  rolled_back_ = false;
}

SessionMemory::Script SessionMemory::script() const {
  Script script;
  if (!settings_.empty()) {
    std::string sql;
    for (const StateChange& setting : settings_) sql += setting.text + ";";
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
