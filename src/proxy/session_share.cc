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

std::string_view until_nul(std::string_view text) { return text.substr(0, text.find('\0')); }

// In a failed transaction, of one that can be parsed: nothing but what ends it or a part of it
// runs.
bool surely_refused(const Effects& e) {
  return e.statements > 0 && !e.ends_failed && !e.commits && !e.savepoints &&
         e.transaction == TransactionEffect::kNone;
}

// As they stand in the message: count and Oids.
std::string_view types_of(const pgwire::ParseView& parse) {
  const size_t header = parse.statement.size() + parse.sql.size() + 2;
  return {parse.statement.data() + header, 2 + parse.parameter_types.size()};
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
    const SettingsRef& wanted = goal();
    if (server_->settings == wanted) return;
    inject_settings(difference(*server_->settings, *wanted));
    server_->settings = wanted;
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
  append_parse(server_name(serial), sql, types);
}

void Session::append_parse(std::string_view name, std::string_view sql, std::string_view types) {
  std::string& out = to_server_->build();
  const size_t at = out.size() + 1;
  out.append("P\0\0\0\0", 5).append(name).append(1, '\0');
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
  ++counts_->server_parses;
  if (evicted != 0) server_->closing.push_back(evicted);
  if (!server_->closing.empty()) close_doomed();
  if (settings_open()) doomed_.push_back(serial);
  return serial;
}

// A client that was told what a statement returns, and does not ask now, must not get rows of other
// columns: PostgreSQL sees to that for its own plan, not for one that is made anew on another
// server. True: what this server has is being looked at. `bytes` begins with a Bind.
bool Session::must_verify(std::string_view bytes) {
  stale_bind_ = verifying_ = false;
  const pgwire::Frame frame = pgwire::peek_frame(bytes, pgwire::kMaxPayload);
  if (!frame.header_known) return false;
  const std::string_view payload =
      bytes.substr(pgwire::kFrameHeaderSize, frame.size() - pgwire::kFrameHeaderSize);
  const size_t name_at = payload.find('\0') + 1;  // 0: not there
  const size_t name_end = name_at == 0 ? std::string_view::npos : payload.find('\0', name_at);
  if (name_end == std::string_view::npos) return false;
  const std::string_view name = payload.substr(name_at, name_end - name_at);
  SessionMemory::Prepared* named = memory_ && !name.empty() ? memory_->find(name) : nullptr;
  if (name.empty() ? unnamed().told == 0
                   : named == nullptr || named->columns == 0 || !named->statement) {
    return false;
  }
  const std::string_view next = bytes.substr(std::min(frame.size(), bytes.size()));
  const bool asks = next.size() > pgwire::kFrameHeaderSize && next[0] == 'D' &&
                    next[pgwire::kFrameHeaderSize] == 'P';
  const bool counts =
      tracker_.takes_statements() && tracker_.transaction() != TransactionStatus::kFailed;
  if (asks || !counts) return false;
  if (tracker_.quiescent()) prepare_server();
  if (name.empty()) return must_verify_unnamed();
  const StatementRef statement = statement_of(name, *named);
  const uint64_t has = server_->statements.columns(statement->id);
  stale_bind_ = has != 0 && has != kUnseenColumns && has != named->columns;
  if (has != 0) return false;
  verifying_ = true;
  if (looking_at(statement)) return true;
  touched_ = true;
  open_batch();
  look_at(statement, server_name(ensure(statement)));
  return true;
}

// What the server has since it was parsed there, PostgreSQL watches over by itself.
bool Session::must_verify_unnamed() {
  if (looking_at(nullptr)) return verifying_ = true;
  if (server_->unnamed == unnamed_id_) {
    const bool seen = unnamed().seen != 0 && unnamed().seen != kUnseenColumns;
    stale_bind_ = seen && unnamed().seen != unnamed().told;
    return false;
  }
  const bool same = unnamed().told_at == meanings_now();
  if (same || unnamed_id_ == 0 || !unnamed().changes.empty()) return false;
  touched_ = verifying_ = true;
  open_batch();
  ensure_unnamed();
  look_at(nullptr, "");
  return true;
}

// Null: the unnamed one.
void Session::look_at(const StatementRef& statement, std::string_view name) {
  edits_.push_back({tracker_.sent_count(), EditKind::kOwnDescribe, 0, statement});
  pgwire::append_describe(to_server_->build(), pgwire::Target::kStatement, name);
  tracker_.sent('D');
  pgwire::append_flush(to_server_->build());
}

bool Session::looking_at(const StatementRef& statement) const {
  for (size_t i = 0; i < edits_.size(); ++i) {
    if (edits_[i].kind == EditKind::kOwnDescribe && edits_[i].statement == statement) return true;
  }
  return false;
}

uint32_t Session::ensure(const StatementRef& statement) {
  uint32_t serial = server_->statements.find(statement->id);
  if (serial != 0) return serial;
  serial = new_serial(statement->id);
  if (statement->by_sql()) {
    inject_prepare(serial, *statement);
    injected_ = tracker_.sent_count();
  } else {
    edits_.push_back({tracker_.sent_count(), EditKind::kInjectedParse, serial});
    injected_ = tracker_.sent_count() + 1;
    send_parse(serial, statement->sql, statement->types);
  }
  return serial;
}

// By the message that is sent next.
void Session::uses(uint32_t serial, std::string_view name) {
  if (!used_.empty() && used_.back().serial == serial && used_.back().name == name) return;
  const bool alone = !tracker_.in_flight();
  while (used_.size() > 1 && (alone || used_.size() >= kFailedMax)) used_.pop_back();
  if (used_.empty() || !alone) used_.emplace_back();
  used_.back().from = tracker_.sent_count();
  used_.back().serial = serial;
  used_.back().name = name;
}

const Session::Unnamed& Session::unnamed() const {
  static const Unnamed kNone;
  return unnamed_ ? *unnamed_ : kNone;
}

Session::Unnamed& Session::unnamed_to_change() {
  if (!unnamed_) unnamed_ = std::make_unique<Unnamed>();
  return *unnamed_;
}

void Session::ensure_unnamed() {
  if (server_->unnamed == unnamed_id_) return;
  server_->unnamed = unnamed_id_;
  unnamed_touched_ = injected_ = tracker_.sent_count() + 1;
  if (unnamed_id_ != 0) {
    edits_.push_back({tracker_.sent_count(), EditKind::kInjectedParse});
    to_server_->build().append(unnamed().message);
    tracker_.sent('P');
  } else {  // another client's must not be met
    edits_.push_back({tracker_.sent_count(), EditKind::kInjectedClose});
    pgwire::append_close(to_server_->build(), pgwire::Target::kStatement, "");
    tracker_.sent('C');
  }
}

// By the message that is sent next. 0: there is none any more.
void Session::replace_unnamed(uint64_t id) {
  const bool in_flight = tracker_.in_flight();
  replaces_absent_ = in_flight && (replaces_absent_ || server_->unnamed != unnamed_id_);
  if (in_flight) {
    older_unnamed_.push_back({std::move(unnamed_), unnamed_id_, unnamed_sent_});
  } else {
    older_unnamed_.clear();
    if (unnamed_) *unnamed_ = {};
  }
  unnamed_id_ = id;
  server_->unnamed = id == 0 && in_flight ? ServerState::kUnknown : id;
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
  if (!tracker_.takes_statements()) return false;
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
  Effects effects = scan_statements(sql);
  if (refuse_transaction('Q', effects)) return true;
  const std::vector<StateChange> changes = changes_of(effects, sql, Of::kQuery);
  std::vector<NameAction> actions;
  std::string translated;
  if (!changes.empty()) {
    bring_statements(changes, Within::kQuery);
    translated = translate(sql, changes, effects, actions);
  }
  open_batch().ended = true;
  if (translated.empty()) {
    to_server_->view(piece.bytes);
  } else {
    pgwire::append_query(to_server_->build(), translated);
  }
  tracker_.sent('Q');
  apply(effects);
  if (!changes.empty()) follow(tracker_.sent_count() - 1, changes, actions);
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
  if (!parse || pool_mode_ != PoolMode::kStatement) return false;
  return refuse_transaction('P', scan_statements(parse->sql));
}

// A named Parse is complete in parse_message_.
void Session::finish_parse() {
  const std::string message = parse_message_.take();
  const auto parse =
      pgwire::parse_parse(std::string_view(message).substr(pgwire::kFrameHeaderSize));
  if (!parse) {
    broken_ = true;
    return;
  }
  open_batch();
  Effects effects = scan_statements(parse->sql);
  std::vector<StateChange> changes = changes_of(effects, parse->sql, Of::kNamed);
  if (refuse_transaction('P', effects)) return;
  if (tracker_.skipping_until_sync()) return;
  parse_named(*parse, effects, std::move(changes));
}

// Named Parse messages up to a Sync, as PQprepare() sends them, whose texts some server took under
// the same settings: this client needs none to be told so, and does not wait while others hold them
// all. What has become of the text since shows when it is used. 0: not such a batch, or not all of
// it is here.
size_t Session::take_known_parses(std::string_view bytes, SessionOutput& out) {
  if (parsed_ == nullptr || pool_mode_ != PoolMode::kTransaction) return 0;
  std::vector<std::pair<std::string, SessionMemory::Prepared>> taken;
  size_t size = 0;
  for (;;) {
    const pgwire::Frame frame = pgwire::peek_frame(bytes.substr(size), pgwire::kMaxPayload);
    if (frame.state != pgwire::FrameState::kComplete) return 0;
    size += frame.size();
    if (frame.type == 'S' && frame.payload.empty()) break;
    const auto parse = pgwire::parse_parse(frame.payload);
    if (frame.type != 'P' || !parse || parse->statement.empty()) return 0;
    const bool fits = frame.payload.size() < limits_.memory.prepared_bytes &&
                      memory().prepared_count() + taken.size() < limits_.memory.prepared_count;
    const bool again = std::any_of(taken.begin(), taken.end(),
                                   [&](const auto& t) { return t.first == parse->statement; });
    if (!fits || again || memory().find(parse->statement) != nullptr) return 0;
    const std::string_view types = types_of(*parse);
    const uint64_t key = ParsedTexts::key(wanted_->plan_hash, parse->sql, types);
    if (!parsed_->has(key, *workspace_.plans)) return 0;
    Effects effects = scan_statements(parse->sql);
    std::vector<StateChange> changes = changes_of(effects, parse->sql, Of::kNamed);
    StatementRef statement =
        workspace_.statements.get(*wanted_, parse->sql, types, effects, changes);
    taken.emplace_back(
        parse->statement,
        SessionMemory::Prepared{{}, effects, std::move(changes), std::move(statement)});
  }
  std::string reply;
  for (auto& [name, prepared] : taken) {
    memory().remember(name, std::move(prepared));
    pgwire::append_parse_complete(reply);
  }
  pgwire::append_ready_for_query(reply, TransactionStatus::kIdle);
  counts_->client_parses += taken.size();
  ++readies_;
  ++transactions_;
  out.to_client(reply);
  return size;
}

void Session::parse_named(const pgwire::ParseView& parse, const Effects& effects,
                          std::vector<StateChange> changes) {
  const std::string_view types = types_of(parse);
  SessionMemory& known = memory();
  SessionMemory::Prepared* existing = known.find(parse.statement);
  if (existing == nullptr && known.prepared_count() >= limits_.memory.prepared_count) {
    return send_refused('P', "53400:too many prepared statements in this session");
  }
  ++counts_->client_parses;
  const StatementRef statement =
      workspace_.statements.get(*wanted_, parse.sql, types, effects, changes);
  SessionMemory::Prepared prepared{{}, effects, std::move(changes), statement};
  if (existing != nullptr && tracker_.transaction() == TransactionStatus::kFailed &&
      !tracker_.in_flight() && surely_refused(effects)) {
    // Fails in any case, before the name counts.
    known.parse_sent(tracker_.sent_count(), parse.statement, std::move(prepared),
                     SessionMemory::NameIs::kTaken);
    return append_parse(kTemporaryName, parse.sql, types);
  }
  if (existing != nullptr) {
    // The server finds what PostgreSQL would: an error in the text, or that the name is taken.
    const uint32_t serial = ensure(statement_of(parse.statement, *existing));
    uses(serial, parse.statement);
    edits_.push_back({tracker_.sent_count(), EditKind::kParseTaken, serial, statement,
                      std::string(parse.statement)});
    known.parse_sent(tracker_.sent_count(), parse.statement, std::move(prepared),
                     SessionMemory::NameIs::kTaken);
    return send_parse(serial, parse.sql, types);
  }
  const bool reuse = surely_healthy() && !settings_open() && !changes_plans_;
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
    prepared.statement =
        workspace_.statements.get(*wanted_, parse->sql, types, prepared.effects, prepared.changes);
  } else if (prepared.statement->plan_id != wanted_->plan_id && !settings_open() &&
             server_->statements.find(prepared.statement->id) == 0) {
    // Where it is there, PostgreSQL knows what the change of settings means to it.
    prepared.statement = workspace_.statements.rebind(*prepared.statement, *wanted_);
  }
  return prepared.statement;
}

void Session::rewrite_bind(const Scan& piece) {
  open_batch().binds = true;
  const auto bind = pgwire::parse_bind(piece.payload());
  if (!bind) {
    broken_ = true;
    return;
  }
  if (!bind->statement.empty()) ++counts_->binds;
  if (std::exchange(stale_bind_, false)) {
    return send_refused('B', "0A000:cached plan must not change result type");
  }
  SessionMemory::Prepared* named = nullptr;
  if (!bind->statement.empty() && memory_) named = memory_->find(bind->statement);
  std::optional<std::string_view> values;
  if (piece.ends) values = bind->rest;
  std::vector<NameAction> actions;
  if (const auto text = text_with_names(bind->statement, named);
      text && bind_translated(*bind, *text, values, actions)) {
    return;
  }
  if (named == nullptr) {
    if (bind->statement.empty()) ensure_unnamed();
    // Unknown: PostgreSQL says so, with the client's name for it.
    broken_ = broken_ || is_server_name(bind->statement);
    to_server_->view(piece.bytes);
    tracker_.sent('B');
    return on_bind(piece, std::move(actions));
  }
  const uint32_t serial = ensure(statement_of(bind->statement, *named));
  uses(serial, bind->statement);
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
  apply(named->effects);
  if (!bound_.empty()) unbind(bind->portal);
  if (!named->changes.empty()) bound(bind->portal, named->changes, std::move(actions), values);
}

void Session::append_bind(const pgwire::BindView& bind, std::string_view statement) {
  std::string& out = to_server_->build();
  const size_t at = out.size() + 1;
  out.append("B\0\0\0\0", 5).append(bind.portal).append(1, '\0').append(statement);
  out.append(1, '\0').append(bind.rest);
  put_length(out, at);
  tracker_.sent('B');
}

// Of a statement whose text names others; nothing: it does not.
std::optional<Session::StatementText> Session::text_with_names(
    std::string_view name, const SessionMemory::Prepared* named) const {
  const auto names = [](const std::vector<StateChange>& changes) {
    return std::any_of(changes.begin(), changes.end(), [](const StateChange& c) {
      return c.names_statement() || c.kind == StateChange::Kind::kDeallocateAll ||
             c.kind == StateChange::Kind::kDiscardAll;
    });
  };
  if (named != nullptr) {
    if (!named->statement || named->statement->by_sql() || !names(named->changes)) return {};
    const SharedStatement& s = *named->statement;
    return StatementText{s.sql, s.types, &named->effects, &named->changes, named->statement};
  }
  if (!name.empty() || unnamed_id_ == 0 || !names(unnamed().changes)) return {};
  const std::string_view payload =
      std::string_view(unnamed().message).substr(pgwire::kFrameHeaderSize);
  const auto parse = pgwire::parse_parse(payload);
  if (!parse) return {};
  return StatementText{parse->sql, payload.substr(parse->sql.size() + 2), &unnamed().effects,
                       &unnamed().changes, nullptr};
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
  if (const auto text = text_with_names(target->name, named);
      text && describe_translated(target->name, *text)) {
    return true;
  }
  if (named == nullptr) {
    if (target->name.empty()) {
      ensure_unnamed();
      edits_.push_back({tracker_.sent_count(), EditKind::kDescribed});
    }
    broken_ = broken_ || is_server_name(target->name);
    to_server_->view(piece.bytes);
  } else {
    const StatementRef& statement = statement_of(target->name, *named);
    const uint32_t serial = ensure(statement);
    uses(serial, target->name);
    edits_.push_back(
        {tracker_.sent_count(), EditKind::kDescribed, 0, statement, std::string(target->name)});
    pgwire::append_describe(to_server_->build(), pgwire::Target::kStatement, server_name(serial));
  }
  tracker_.sent('D');
  return true;
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
