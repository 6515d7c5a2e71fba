// The server's half of Session. What it answers to messages that are not the client's as they were:
// session_edits.cc.
#include <algorithm>
#include <utility>

#include "pgwire/messages.h"
#include "proxy/session.h"

namespace bascule::proxy {

using pgwire::Scan;
using pgwire::ScanKind;
using pgwire::TransactionStatus;

namespace {

std::string_view until_nul(std::string_view text) { return text.substr(0, text.find('\0')); }

// A client that was told the columns before, and does not ask now, must hear that they are others.
bool asks_what_it_executes(std::string_view batch) {
  std::optional<std::string_view> asked;  // the last statement
  bool described = false;                 // what the last Bind has bound
  while (!batch.empty()) {
    const pgwire::Frame frame = pgwire::peek_frame(batch, pgwire::kMaxPayload);
    std::string_view payload = frame.payload;
    if (frame.type == 'D' && payload.starts_with('P')) described = true;
    if (frame.type == 'D' && payload.starts_with('S')) asked = until_nul(payload.substr(1));
    if (frame.type == 'B') {
      payload.remove_prefix(std::min(until_nul(payload).size() + 1, payload.size()));
      described = asked == until_nul(payload);
    }
    if (frame.type == 'E' && !described) return false;
    batch.remove_prefix(std::min(frame.size(), batch.size()));
  }
  return true;
}

// Above this an idle session gives its copy of the last statement back.
constexpr size_t kKeepCapacity = 512;

// Of the reported parameters those that a statement can set.
bool is_setting(std::string_view name) {
  for (const std::string_view fixed :
       {"server_version", "server_encoding", "is_superuser", "session_authorization",
        "in_hot_standby", "integer_datetimes"}) {
    if (name == fixed) return false;
  }
  return true;
}

// After these a statement may return other columns than before, or write more.
bool may_change_plans(std::string_view tag) {
  if (tag.size() < 9 || (tag[0] != 'A' && tag[0] != 'C' && tag[0] != 'D')) return false;
  if (tag.starts_with("ALTER ")) return !tag.starts_with("ALTER ROLE");
  for (const std::string_view t : {"CREATE VIEW", "CREATE FUNCTION", "CREATE TRIGGER",
                                   "CREATE RULE", "DROP VIEW", "DROP FUNCTION", "DROP TYPE"}) {
    if (tag.starts_with(t)) return true;
  }
  return false;
}

bool deallocates_all(std::string_view tag) {
  return tag == std::string_view("DEALLOCATE ALL\0", 15) ||
         tag == std::string_view("DISCARD ALL\0", 12);
}

SessionMemory::Block block(TransactionStatus status) {
  return status == TransactionStatus::kIdle ? SessionMemory::Block::kNone
                                            : SessionMemory::Block::kOpen;
}

}  // namespace

void Session::attach(ServerState& server, SessionOutput& out) {
  attached_ = true;
  touched_ = false;
  server_ = &server;
  if (unnamed_) unnamed_->seen = 0;
  if (server.plans != *workspace_.plans) {
    server.plans = *workspace_.plans;
    server.statements.drain(server.closing);
  }
  if (memory_) memory_->synced();
  if (durability_) durability_->levels.on_attach();
  if (retry_.empty()) return;
  const std::string statement = retry_.take();
  on_client(statement, Gate::kOpen, out);
}

SessionMemory::Script Session::script(const ServerState& server) const {
  if (!shares()) return memory_ ? memory_->script() : SessionMemory::Script{};
  if (server.settings == wanted_ || !may_fail(*server.settings, *wanted_)) return {};
  return full_script(server);
}

SessionMemory::Script Session::full_script(const ServerState& server) const {
  SessionMemory::Script script;
  if (!shares()) return script;
  const std::string sql = difference(*server.settings, *wanted_);
  if (sql.empty()) return script;
  pgwire::append_query(script.bytes, sql);
  script.ready_count = 1;
  return script;
}

void Session::detach() { releasable() ? void(release()) : forget_server(); }

Session::Relayed Session::on_server(std::string_view bytes, pgwire::FrameScanner& scanner,
                                    Permit permit, Writable writable, SessionOutput& out) {
  Relayed result;
  ByteRun run(workspace_.to_client);
  answered_before_ = answered_;
  while (result.consumed < bytes.size()) {
    if (channels_awaited_ > 0 && bytes[result.consumed] == 'Z' && scanner.at_boundary()) {
      result.held = true;
      break;
    }
    const Scan piece = scanner.next(bytes.substr(result.consumed));
    if (piece.kind == ScanKind::kNeedMore) break;
    if (piece.kind == ScanKind::kBad) {
      result.lost = Loss::kProtocol;
      break;
    }
    if (piece.kind == ScanKind::kStart) {
      reply_ = Reply::kRelay;
      result.lost = server_message(piece, permit, writable, out);
      if (result.lost) break;
    } else if (piece.kind == ScanKind::kRun) {
      const bool ours = !edits_.empty() && edits_.front().own() &&
                        edits_.front().message == tracker_.answered_count();
      reply_ = ours || again_ ? Reply::kSwallow : Reply::kRelay;
    }
    result.consumed += piece.bytes.size();
    if (reply_ == Reply::kSwallow) continue;
    if (reply_ == Reply::kReplace) {
      answered_ = true;
      run.build().append(replacement_);
      reply_ = Reply::kSwallow;  // the rest of the message
      continue;
    }
    if (reply_ == Reply::kReplaceStart) {
      client_mid_message_ = !scanner.at_boundary();
      run.build().append(replacement_);
      reply_ = Reply::kRelay;
      continue;
    }
    if (piece.kind != ScanKind::kStart || piece.type != 'S') answered_ = true;
    client_mid_message_ = !scanner.at_boundary();
    run.view(piece.bytes);
  }
  // What came with the refusal has not been told yet, and another server will say it.
  const bool untold = result.lost == Loss::kReadOnly;
  if (untold) client_mid_message_ = false;
  if (!run.bytes().empty() && !untold) out.to_client(run.bytes());
  // Not before: what follows may send to the client by itself.
  if (std::exchange(synced_, false) && !result.lost) out.on_synced();
  if (again_ && !result.lost && !tracker_.in_flight()) send_again(out);
  if (only_prepared() && !result.lost) send_own_sync(out);
  if (server_listens_ && !result.lost) unlisten_server(out);
  return result;
}

// Prepared and flushed, as asyncpg does: nothing is open that the client could notice, and others
// may have the server before its Sync comes.
bool Session::only_prepared() const {
  return shares() && batches_.size() == 1 && !batches_.front().ended && !batches_.front().binds &&
         !batches_.front().from_transaction && !tracker_.in_flight() &&
         !tracker_.skipping_until_sync() && front_.at_boundary() && !verifying_ &&
         tracker_.transaction() == TransactionStatus::kIdle;
}

// What the client listens to comes from elsewhere now.
void Session::unlisten_server(SessionOutput& out) {
  if (!idle()) return;
  server_listens_ = false;
  edits_.push_back({tracker_.sent_count(), EditKind::kSettings});
  tracker_.sent('Q');
  server_->unnamed = 0;
  std::string unlisten;
  pgwire::append_query(unlisten, "UNLISTEN *");
  out.to_server(unlisten);
}

void Session::send_own_sync(SessionOutput& out) {
  batches_.pop_front();
  edits_.push_back({tracker_.sent_count(), EditKind::kOwnSync});
  tracker_.sent('S');
  std::string sync;
  pgwire::append_sync(sync);
  out.to_server(sync);
}

std::optional<Loss> Session::server_message(const Scan& piece, Permit permit, Writable writable,
                                            SessionOutput& out) {
  const bool claims = piece.type == 'Z' || piece.type == 'C';
  if (claims && permit == Permit::kExpired) return Loss::kPermit;
  const uint64_t message = tracker_.answered_count();
  const bool edited = !edits_.empty() && edits_.front().message == message;
  if (edited && edits_.front().own()) return own_reply(piece, writable, out);
  if (piece.type == 'N') {
    on_notice(piece);
    return std::nullopt;
  }
  // It comes by the connection that listens for all, too; or by what a function of another client
  // has left.
  if (piece.type == 'A' && (server_listens_ || (shares() && movable()))) {
    reply_ = Reply::kSwallow;
  }
  if (piece.type == 'A') on_notification(piece, out);
  if (piece.type == 'E') {
    if (auto loss = server_error(piece, writable)) return loss;
  }
  if (tracker_.received(piece.type, piece.payload()) ==
      pgwire::SessionTracker::Verdict::kViolation) {
    return Loss::kProtocol;
  }
  switch (piece.type) {
    case 'Z':
      on_ready();
      // The end of a statement that has not been sent to its end.
      if (text_ != Text::kNone && batches_.empty()) return Loss::kProtocol;
      if (pool_mode_ == PoolMode::kStatement &&
          tracker_.transaction() != TransactionStatus::kIdle) {
        return Loss::kProtocol;
      }
      break;
    case 'C':
    case 's':
      if (memory_) on_tag(message, piece.payload());
      if (may_change_plans(piece.payload())) changes_plans_ = true;
      if (shares() && deallocates_all(piece.payload())) on_deallocated_all(message);
      // DISCARD ALL undoes whatever pinned the session.
      if (pin_ != Pin::kNone && piece.payload() == std::string_view("DISCARD ALL\0", 12)) {
        pin_ = Pin::kNone;
      }
      break;
    case '1':
    case '3':
      if (memory_) memory_->answered(message);
      break;
    case 'S':
      on_parameter(piece.payload(), out);
      break;
    default:
      break;
  }
  if (edited && !edits_.empty() && edits_.front().message == message) edit_reply(piece);
  if (unreplicated_) tell_unreplicated(piece, out);
  if (piece.type == 'E' && shares()) unnamed_after_error(message);
  if (piece.type == 'E' || piece.type == 'Z') {
    if (memory_) memory_->skipped(tracker_.answered_count());
    if (!edits_.empty()) drop_edits(tracker_.answered_count());
    if (doubted_ != 0 && doubted_ <= tracker_.answered_count()) {
      doubted_ = 0;
      server_->statements.believe(server_->closing);
    }
  }
  if (again_ && piece.type != 'S' && piece.type != 'A') reply_ = Reply::kSwallow;
  if (reply_ == Reply::kSwallow || piece.type == 'S' || piece.type == 'A') return std::nullopt;
  const bool same_again =
      piece.type == '1' || piece.type == 't' || (piece.type == '3' && reply_ == Reply::kReplace);
  if (!same_again) {
    beyond_parses_ = true;
  } else if (answers_again_ > 0) {
    --answers_again_;
    reply_ = Reply::kSwallow;
  } else {
    ++answers_given_;
  }
  return std::nullopt;
}

// Its own backend's: from this client, which has that server for itself, or it would not listen.
// The client knows its backend by another process id.
void Session::on_notification(const Scan& piece, const SessionOutput& out) {
  std::string own;
  for (int shift = 24; shift >= 0; shift -= 8) own += static_cast<char>(server_->pid >> shift);
  if (reply_ != Reply::kRelay || !piece.payload().starts_with(own)) return;
  const uint32_t pid = out.process_id();
  replacement_ = piece.bytes;
  for (size_t i = 0; i < own.size(); ++i) {
    replacement_[pgwire::kFrameHeaderSize + i] = static_cast<char>(pid >> (24 - 8 * i));
  }
  reply_ = Reply::kReplaceStart;
}

void Session::on_notice(const Scan& piece) {
  if (again_) reply_ = Reply::kSwallow;
  // "canceling wait for synchronous replication due to user request", in any language; its SQLSTATE
  // is that of every warning.
  unreplicated_ |= pgwire::parse_error_prefix(piece.payload()).routine == "SyncRepWaitForLSN";
}

// PostgreSQL lets success follow that warning, which drivers do not show. The error stands in place
// of a tag that is all of the answer; of a longer one it is the end.
void Session::tell_unreplicated(const Scan& piece, SessionOutput& out) {
  const bool only = piece.type == 'C' && !batches_.empty() && !batches_.front().binds &&
                    batches_.front().effects.statements == 1;
  const bool instead = piece.type == 'E' || only;
  if (!instead && piece.type != 'Z') return;
  unreplicated_ = false;
  replacement_.clear();
  pgwire::append_error_response(
      replacement_, {.sqlstate = "08007",
                     .message = "the commit's wait for its synchronous standby was cancelled: "
                                "whether it outlives the primary is unknown",
                     .hint = "It took effect on the primary. After a failover look whether it is "
                             "still there."});
  if (!instead) replacement_.append(piece.bytes);
  reply_ = Reply::kReplace;
  out.on_unreplicated();
}

void Session::on_deallocated_all(uint64_t message) {
  if (message < doubted_) {
    server_->statements.disbelieve();
  } else {  // nobody saw it coming
    server_->statements.clear();
  }
}

void Session::on_tag(uint64_t message, std::string_view payload) {
  const uint16_t number = memory_->on_tag(message, until_nul(payload));
  const auto confirmed = [&](const Edit& e) {
    return e.message == message && e.kind == EditKind::kPrepared && e.number == number;
  };
  while (!edits_.empty() && confirmed(edits_.front())) edits_.pop_front();
}

void Session::on_parameter(std::string_view payload, SessionOutput& out) {
  const auto parameter = pgwire::parse_parameter_status(payload);
  if (!parameter) return;
  Parameters values = *server_->reported;
  if (reply_ == Reply::kRelay && shares() && is_setting(parameter->name)) {
    const bool seen = std::any_of(observed_.begin(), observed_.end(),
                                  [&](const auto& o) { return o.first == parameter->name; });
    if (!seen) {
      observed_.emplace_back(parameter->name, find_parameter(values, parameter->name));
    }
  }
  set_parameter(values, parameter->name, parameter->value);
  server_->reported = workspace_.settings.parameters(values);
  if (reply_ != Reply::kRelay) return;
  out.on_parameter(parameter->name, parameter->value);
  // The server is about to get its start-up value, which the client sees already.
  if (shares() && greeting_ && memory_ && memory_->resets(parameter->name)) {
    replacement_.clear();
    pgwire::append_parameter_status(replacement_, parameter->name,
                                    find_parameter(*greeting_, parameter->name));
    reply_ = Reply::kReplace;
  }
}

std::optional<Loss> Session::server_error(const Scan& piece, Writable writable) {
  const pgwire::ErrorView error = pgwire::parse_error_prefix(piece.payload());
  if (error.fatal()) {
    if (error.sqlstate == "57P01" || error.sqlstate == "57P03") return Loss::kShutdown;
    if (error.sqlstate == "57P02") return Loss::kCrash;
    fatal_forwarded_ = true;
  } else if (error.sqlstate == "25006" && writable == Writable::kNo && port_ != PortKind::kReader) {
    const bool answered = std::exchange(answered_, answered_before_);
    if (may_retry(Loss::kReadOnly)) return Loss::kReadOnly;
    answered_ = answered;
  }
  if (shares()) {
    if (error.sqlstate == "0A000" && error.message == "cached plan must not change result type") {
      // Other servers have plans of before the change, too.
      server_->plans = ++*workspace_.plans;
      server_->statements.drain(server_->closing);
      again_ = !again_ && may_prepare_again();
    }
    if (piece.ends) name_as_client(piece);
    if (!own_error_.empty()) tell_own_error(error.sqlstate);
  }
  if (!again_) error_forwarded_ = true;
  if (memory_) memory_->on_error(tracker_.answered_count());
  return std::nullopt;
}

// The server skips what follows the message that failed.
void Session::unnamed_after_error(uint64_t message) {
  const uint64_t failed = message + 1;
  for (OlderUnnamed& older : older_unnamed_) {
    if (older.sent >= failed && older.sent <= tracker_.answered_count()) older.id = 0;
  }
  if (unnamed_sent_ > tracker_.answered_count()) return;  // it comes after the Sync
  if (unnamed_touched_ < failed) return;
  server_->unnamed = ServerState::kUnknown;
  if (unnamed_sent_ < failed) return;
  while (unnamed_sent_ > failed && !older_unnamed_.empty()) {
    OlderUnnamed& older = older_unnamed_.back();
    unnamed_ = std::move(older.what);
    if (unnamed_) unnamed_->told = unnamed_->seen = 0;
    unnamed_id_ = older.id;
    unnamed_sent_ = older.sent;
    older_unnamed_.pop_back();
  }
  if (unnamed_sent_ >= failed) unnamed_id_ = 0;
}

// The statements were prepared by somebody else, before a table changed: nobody needs to see that.
// All of the batch is here, and it failed before it did anything.
bool Session::may_prepare_again() const {
  return retaining_ && !beyond_parses_ && !sent_again_ && batches_.size() == 1 &&
         batches_.front().ended && front_.at_boundary() && !batches_.front().from_transaction &&
         tracker_.transaction() == TransactionStatus::kIdle && asks_what_it_executes(retained_);
}

void Session::send_again(SessionOutput& out) {
  again_ = false;
  batches_.clear();
  open_after_ = false;
  const uint32_t known = answers_given_;
  const std::string batch = std::exchange(retained_, {});
  for (std::string_view rest = batch; !rest.empty();) {
    const pgwire::Frame frame = pgwire::peek_frame(rest, pgwire::kMaxPayload);
    if (frame.type == 'P' && memory_) memory_->forget(until_nul(frame.payload));
    rest.remove_prefix(std::min(frame.size(), rest.size()));
  }
  on_client(batch, Gate::kOpen, out);
  sent_again_ = true;
  answers_again_ = known;
}

void Session::on_ready() {
  const TransactionStatus status = tracker_.transaction();
  const bool last = tracker_.ready_outstanding() == 0;
  ++readies_;
  if (again_) {
    if (memory_) memory_->on_ready(block(status));
    return;
  }
  if (status == TransactionStatus::kIdle) {
    ++transactions_;
    if (!bound_.empty()) drop_bound(tracker_.answered_count());
  }
  if (!batches_.empty()) batches_.pop_front();
  // A Sync that a COPY swallowed left a batch that nothing will answer.
  while (last && !batches_.empty() && batches_.front().ended) batches_.pop_front();
  if (memory_) memory_->on_ready(block(status));
  if (status == TransactionStatus::kIdle) settle();
  if (durability_ && status == TransactionStatus::kIdle && batches_.empty()) settle_level();
  error_forwarded_ = false;
  own_error_.clear();
  if (status == TransactionStatus::kIdle && std::exchange(changes_plans_, false)) {
    // Not for those that planned in the meantime.
    ++*workspace_.plans;
  }
  if (batches_.empty()) failed_.clear();
  if (batches_.empty()) open_after_ = status != TransactionStatus::kIdle;
  retaining_ = false;
  retained_.clear();
  if (retained_.capacity() > kKeepCapacity) std::string().swap(retained_);
}

// A transaction is over: which settings hold now.
void Session::settle() {
  if (!shares()) {
    if (memory_) memory_->settled();
    return;
  }
  if (memory_) memory_->reported(*server_->reported);
  for (const auto& [name, before] : std::exchange(observed_, {})) {
    const std::string_view now = find_parameter(*server_->reported, name);
    if (now != before && !(memory_ && memory_->explains(name))) memory().observe(name, now);
  }
  if (memory_ && memory_->take_changed()) {
    wanted_ = memory_->wanted(workspace_.settings);
    server_->settings = leveled(memory_->left(workspace_.settings));
    memory_->settled();
  }
  for (const uint32_t serial : std::exchange(doomed_, {})) {
    if (server_->statements.id_of(serial) == 0) continue;
    server_->statements.remove_serial(serial);
    server_->closing.push_back(serial);
  }
}

}  // namespace bascule::proxy
