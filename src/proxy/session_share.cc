// The client's half of Session where servers are shared: a server gets the session's settings
// before its first statement, and every prepared statement that it lacks before it is used. Each
// message of the client stays one message to the server, so that errors, their skipping of what
// follows, and answers come in the order that PostgreSQL gives them; what is put in between is an
// Edit, whose answer the client does not see.
#include <algorithm>
#include <charconv>
#include <utility>

#include "pgwire/messages.h"
#include "proxy/session.h"

namespace bascule::proxy {

using pgwire::Scan;
using pgwire::TransactionStatus;

namespace {

constexpr std::string_view kSpace = " \t\r\n\f\v";

std::string_view until_nul(std::string_view text) { return text.substr(0, text.find('\0')); }

bool is_name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '$' || (static_cast<unsigned char>(c) & 0x80) != 0;
}

bool equals_word(std::string_view text, std::string_view lower_word) {
  return std::equal(text.begin(), text.end(), lower_word.begin(), lower_word.end(),
                    [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a | 32 : a) == b; });
}

// Where the name of a statement stands in "EXECUTE name ..." or "DEALLOCATE [PREPARE] name".
struct NamedStatement {
  size_t from = 0, to = 0;
  std::string name;
  bool deallocates = false;
};
std::optional<NamedStatement> find_name(std::string_view sql) {
  size_t at = 0;
  const auto word = [&] {
    at = std::min(sql.find_first_not_of(kSpace, at), sql.size());
    const size_t from = at;
    while (at < sql.size() && is_name_char(sql[at])) ++at;
    return sql.substr(from, at - from);
  };
  const std::string_view verb = word();
  const bool deallocates = equals_word(verb, "deallocate");
  if (!deallocates && !equals_word(verb, "execute")) return std::nullopt;
  NamedStatement found;
  found.deallocates = deallocates;
  std::string_view name = word();
  if (deallocates && equals_word(name, "prepare")) name = word();
  if (!name.empty()) {
    if (equals_word(name, "all")) return std::nullopt;
    found.to = at;
    found.from = at - name.size();
    for (const char c : name) {
      found.name += c >= 'A' && c <= 'Z' ? static_cast<char>(c | 32) : c;
    }
    return found;
  }
  if (at >= sql.size() || sql[at] != '"') return std::nullopt;
  found.from = at;
  const size_t end = sql.find('"', at + 1);
  if (end == std::string_view::npos) return std::nullopt;
  found.name = sql.substr(at + 1, end - at - 1);
  found.to = end + 1;
  return found;
}

bool may_name_statement(std::string_view sql) {
  const size_t at = sql.find_first_not_of(kSpace);
  return at != std::string_view::npos && ((sql[at] | 32) == 'e' || (sql[at] | 32) == 'd');
}

void put_length(std::string& out, size_t at) {
  const auto length = static_cast<uint32_t>(out.size() - at);
  for (size_t i = 0; i < 4; ++i) out[at + i] = static_cast<char>(length >> (24 - 8 * i));
}

}  // namespace

// ---- The server is made ready
// --------------------------------------------------------------------

void Session::prepare_server() {
  if (tracker_.transaction() == TransactionStatus::kIdle) {
    if (server_->settings == wanted_) return;
    inject_settings(difference(*server_->settings, *wanted_));
    server_->settings = wanted_;
    if (memory_) memory_->synced();
  } else if (tracker_.transaction() == TransactionStatus::kInTransaction && settings_open()) {
    inject_settings(memory_->restore_base());
  }
}

void Session::inject_settings(const std::string& sql) {
  if (sql.empty()) return;
  edits_.push_back({tracker_.sent_count(), EditKind::kSettings});
  pgwire::append_query(to_server_->build(), sql);
  tracker_.sent('Q');
  server_->unnamed = 0;
}

void Session::send_parse(uint32_t serial, std::string_view sql, std::string_view types) {
  std::string& out = to_server_->build();
  const size_t at = out.size() + 1;
  out.append("P\0\0\0\0", 5).append(server_name(serial)).append(1, '\0');
  out.append(sql).append(1, '\0').append(types);
  put_length(out, at);
  tracker_.sent('P');
}

void Session::close_doomed() {
  for (const uint32_t serial : std::exchange(server_->closing, {})) {
    edits_.push_back({tracker_.sent_count(), EditKind::kInjectedClose});
    pgwire::append_close(to_server_->build(), pgwire::Target::kStatement, server_name(serial));
    tracker_.sent('C');
  }
}

uint32_t Session::new_serial(uint32_t id) {
  uint32_t evicted = 0;
  const uint32_t serial = server_->statements.add(id, evicted, limits_.server_statements);
  if (evicted != 0) server_->closing.push_back(evicted);
  if (!server_->closing.empty()) close_doomed();
  if (settings_open()) doomed_.push_back(serial);
  return serial;
}

uint32_t Session::ensure(const StatementRef& statement) {
  uint32_t serial = server_->statements.find(statement->id);
  used_id_ = statement->id;
  used_serial_ = serial;
  if (serial != 0) return serial;
  used_serial_ = serial = new_serial(statement->id);
  edits_.push_back({tracker_.sent_count(), EditKind::kInjectedParse, serial});
  send_parse(serial, statement->sql, statement->types);
  return serial;
}

void Session::ensure_unnamed() {
  if (server_->unnamed == unnamed_id_) return;
  server_->unnamed = unnamed_id_;
  unnamed_touched_ = tracker_.sent_count() + 1;
  if (unnamed_id_ != 0) {
    edits_.push_back({tracker_.sent_count(), EditKind::kInjectedParse});
    to_server_->build().append(unnamed_message_);
    tracker_.sent('P');
  } else {  // another client's must not be met
    edits_.push_back({tracker_.sent_count(), EditKind::kInjectedClose});
    pgwire::append_close(to_server_->build(), pgwire::Target::kStatement, "");
    tracker_.sent('C');
  }
}

// By the message that is sent next. 0: there is none any more.
void Session::replace_unnamed(uint64_t id) {
  if (tracker_.in_flight()) {
    older_unnamed_.push_back({unnamed_, std::move(unnamed_changes_), std::move(unnamed_message_),
                              unnamed_id_, unnamed_sent_});
    unnamed_changes_.clear();
  } else {
    older_unnamed_.clear();
  }
  unnamed_message_.clear();
  unnamed_id_ = id;
  server_->unnamed = id == 0 && tracker_.in_flight() ? ServerState::kUnknown : id;
  unnamed_touched_ = unnamed_sent_ = tracker_.sent_count() + 1;
}

// Whatever was sent before, the server will not refuse a statement because of a failed transaction.
bool Session::surely_healthy() const {
  if (tracker_.transaction() == TransactionStatus::kFailed) return false;
  return !tracker_.in_flight() ||
         (!open_after_ && tracker_.transaction() == TransactionStatus::kIdle);
}

// ---- Messages
// ------------------------------------------------------------------------------------

// False: it passes as it is.
bool Session::rewrite(const Scan& piece) {
  // The server reads data or throws everything away: nothing has a meaning.
  if (tracker_.skipping_until_sync() || tracker_.copy() != pgwire::CopyState::kNone) return false;
  switch (piece.type) {
    case 'Q':
      return rewrite_query(piece);
    case 'P':
      return rewrite_parse(piece);
    case 'B':
      rewrite_bind(piece);
      return true;
    case 'D':
    case 'C':
      return rewrite_target(piece);
    default:
      return false;
  }
}

bool Session::rewrite_query(const Scan& piece) {
  replace_unnamed(0);
  if (!piece.ends) return false;
  const std::string_view sql = until_nul(piece.payload());
  if (pool_mode_ == PoolMode::kStatement) {
    scanner_.begin();
    scanner_.feed(sql);
    if (refuse_transaction('Q', scanner_.finish())) return true;
  }
  if (!may_name_statement(sql)) return false;
  const std::string translated = translate_sql(sql);
  if (translated.empty()) return false;
  pgwire::append_query(to_server_->build(), translated);
  tracker_.sent('Q');
  live_message(piece);
  return true;
}

bool Session::rewrite_parse(const Scan& piece) {
  const std::string_view payload = piece.payload();
  if (payload.find('\0') == std::string_view::npos) {
    broken_ = true;
    return true;
  }
  if (!payload.starts_with('\0')) {
    if (piece.payload_length >= limits_.memory.prepared_bytes) {
      open_batch();
      relay_ = Relay::kDrop;
      send_refused('P', "54000:the statement is too large to be prepared under a name here");
      return true;
    }
    relay_ = Relay::kCollect;
    parse_message_ = piece.bytes;
    if (piece.ends) finish_parse();
    return true;
  }
  replace_unnamed(++workspace_.unnamed_ids);
  if (piece.payload_length >= limits_.memory.prepared_bytes) unnamed_id_ = 0;
  if (!piece.ends) return false;
  const auto parse = pgwire::parse_parse(payload);
  if (!parse) return false;
  if (pool_mode_ == PoolMode::kStatement) {
    scanner_.begin();
    scanner_.feed(parse->sql);
    if (refuse_transaction('P', scanner_.finish())) return true;
  }
  if (!may_name_statement(parse->sql)) return false;
  const std::string translated = translate_sql(parse->sql);
  if (translated.empty()) return false;
  std::string& out = to_server_->build();
  const size_t at = out.size() + 1;
  const auto types = payload.substr(parse->sql.size() + 2);
  out.append("P\0\0\0\0\0", 6).append(translated).append(1, '\0').append(types);
  put_length(out, at);
  unnamed_sent_ = tracker_.sent_count() + 1;
  tracker_.sent('P');
  live_message(piece);
  return true;
}

// A named Parse is complete in parse_message_.
void Session::finish_parse() {
  const std::string message = std::exchange(parse_message_, {});
  const auto parse =
      pgwire::parse_parse(std::string_view(message).substr(pgwire::kFrameHeaderSize));
  if (!parse) {
    broken_ = true;
    return;
  }
  open_batch();
  scanner_.begin();
  scanner_.feed(parse->sql);
  Effects effects = scanner_.finish();
  std::vector<StateChange> changes = changes_of(effects, parse->sql);
  if (refuse_transaction('P', effects)) return;
  if (tracker_.skipping_until_sync()) return;
  parse_named(*parse, effects, std::move(changes));
}

void Session::parse_named(const pgwire::ParseView& parse, const Effects& effects,
                          std::vector<StateChange> changes) {
  const size_t header = parse.statement.size() + parse.sql.size() + 2;
  const std::string_view types(parse.statement.data() + header, 2 + parse.parameter_types.size());
  SessionMemory& known = memory();
  SessionMemory::Prepared* existing = known.find(parse.statement);
  if (existing == nullptr && known.prepared_count() >= limits_.memory.prepared_count) {
    return send_refused('P', "53400:too many prepared statements in this session");
  }
  const StatementRef statement =
      workspace_.statements.get(wanted_->plan_id, parse.sql, types, effects, changes);
  SessionMemory::Prepared prepared{{}, effects, std::move(changes), statement};
  if (existing != nullptr) {
    // The server finds what PostgreSQL would: an error in the text, or that the name is taken.
    const uint32_t serial = ensure(statement_of(parse.statement, *existing));
    edits_.push_back(
        {tracker_.sent_count(), EditKind::kParse, serial, statement, std::string(parse.statement)});
    known.parse_sent(tracker_.sent_count(), parse.statement, std::move(prepared),
                     SessionMemory::NameIs::kTaken);
    return send_parse(serial, parse.sql, types);
  }
  const bool reuse = surely_healthy() && !settings_open();
  const uint32_t there = reuse ? server_->statements.find(statement->id) : 0;
  if (there != 0) {
    edits_.push_back({tracker_.sent_count(), EditKind::kParsedBefore});
    known.parse_sent(tracker_.sent_count(), parse.statement, std::move(prepared));
    pgwire::append_close(to_server_->build(), pgwire::Target::kStatement, kNoStatement);
    tracker_.sent('C');
    return;
  }
  const uint32_t serial = new_serial(statement->id);
  edits_.push_back(
      {tracker_.sent_count(), EditKind::kParse, serial, statement, std::string(parse.statement)});
  known.parse_sent(tracker_.sent_count(), parse.statement, std::move(prepared));
  send_parse(serial, parse.sql, types);
}

const StatementRef& Session::statement_of(std::string_view name,
                                          SessionMemory::Prepared& prepared) {
  if (prepared.statement == nullptr) {  // by AbortedTransaction
    const auto parse =
        pgwire::parse_parse(std::string_view(prepared.message).substr(pgwire::kFrameHeaderSize));
    const std::string_view types =
        std::string_view(prepared.message)
            .substr(pgwire::kFrameHeaderSize + name.size() + parse->sql.size() + 2);
    prepared.statement = workspace_.statements.get(wanted_->plan_id, parse->sql, types,
                                                   prepared.effects, prepared.changes);
  } else if (prepared.statement->plan_id != wanted_->plan_id && !settings_open()) {
    prepared.statement = workspace_.statements.rebind(*prepared.statement, wanted_->plan_id);
  }
  return prepared.statement;
}

void Session::rewrite_bind(const Scan& piece) {
  open_batch();
  const auto bind = pgwire::parse_bind(piece.payload());
  if (!bind) {
    broken_ = true;
    return;
  }
  SessionMemory::Prepared* named = nullptr;
  if (!bind->statement.empty() && memory_) named = memory_->find(bind->statement);
  if (named == nullptr) {
    if (bind->statement.empty()) ensure_unnamed();
    // Unknown: PostgreSQL says so, with the client's name for it.
    broken_ = broken_ || is_server_name(bind->statement);
    to_server_->view(piece.bytes);
    tracker_.sent('B');
    return on_bind(piece.payload());
  }
  const uint32_t serial = ensure(statement_of(bind->statement, *named));
  char name[32];
  const size_t prefix = kServerNamePrefix.copy(name, sizeof name);
  const auto end = std::to_chars(name + prefix, name + sizeof name, serial).ptr;
  const auto size = static_cast<size_t>(end - name);
  const uint32_t length =
      4 + piece.payload_length + static_cast<uint32_t>(size - bind->statement.size());
  std::string& out = to_server_->build();
  out.push_back('B');
  for (const int shift : {24, 16, 8, 0}) out.push_back(static_cast<char>(length >> shift));
  out.append(bind->portal).append(1, '\0').append(name, size).append(1, '\0').append(bind->rest);
  tracker_.sent('B');
  apply(named->effects, &named->changes);
}

bool Session::rewrite_target(const Scan& piece) {
  const auto target = pgwire::parse_target(piece.payload());
  if (!target) {
    broken_ = true;
    return true;
  }
  if (target->target == pgwire::Target::kPortal) return false;
  open_batch();
  if (piece.type == 'C') {
    if (target->name.empty()) {
      replace_unnamed(0);
      return false;
    }
    memory().close_sent(tracker_.sent_count(), target->name);
    pgwire::append_close(to_server_->build(), pgwire::Target::kStatement, kNoStatement);
    tracker_.sent('C');
    return true;
  }
  SessionMemory::Prepared* named =
      target->name.empty() || !memory_ ? nullptr : memory_->find(target->name);
  if (named == nullptr) {
    if (target->name.empty()) ensure_unnamed();
    broken_ = broken_ || is_server_name(target->name);
    to_server_->view(piece.bytes);
  } else {
    const uint32_t serial = ensure(statement_of(target->name, *named));
    pgwire::append_describe(to_server_->build(), pgwire::Target::kStatement, server_name(serial));
  }
  tracker_.sent('D');
  return true;
}

// "EXECUTE s1 (2)" of a statement that the client prepared by a message; empty: nothing to
// translate.
std::string Session::translate_sql(std::string_view sql) {
  if (!memory_) return {};
  const auto found = find_name(sql);
  if (!found) return {};
  const size_t end = sql.find_last_not_of(" \t\r\n\f\v;");
  if (end == std::string_view::npos || sql.substr(0, end + 1).find(';') != std::string_view::npos) {
    return {};
  }
  SessionMemory::Prepared* prepared = memory_->find(found->name);
  if (prepared == nullptr) return {};
  const uint32_t serial = ensure(statement_of(found->name, *prepared));
  if (found->deallocates) server_->statements.remove_serial(serial);
  std::string out(sql.substr(0, found->from));
  out.append(server_name(serial)).append(sql.substr(found->to));
  return out;
}

// ---- Statement mode
// ------------------------------------------------------------------------------

bool Session::refuse_transaction(char type, const Effects& effects) {
  if (pool_mode_ != PoolMode::kStatement || effects.transaction != TransactionEffect::kOpens) {
    return false;
  }
  open_batch().ended = type == 'Q';
  send_refused(type,
               "0A000:transactions of more than one message are not allowed in statement "
               "pooling");
  return true;
}

// "SQLSTATE:message". The server is made to fail in its stead, at the right place.
void Session::send_refused(char type, std::string error) {
  edits_.push_back({tracker_.sent_count(), EditKind::kRefused, 0, nullptr, std::move(error)});
  if (type == 'Q') {
    pgwire::append_query(to_server_->build(), "?");
  } else {
    pgwire::append_parse(to_server_->build(), kNoStatement, "?");
  }
  tracker_.sent(type);
}

}  // namespace bascule::proxy
