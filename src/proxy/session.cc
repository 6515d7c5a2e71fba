#include "proxy/session.h"

#include <algorithm>
#include <utility>

#include "pgwire/messages.h"

namespace bascule::proxy {

using pgwire::FramePolicy;
using pgwire::Scan;
using pgwire::ScanKind;
using pgwire::TransactionStatus;

namespace {

// Names of statements and portals stand at the front of Parse, Bind and Close.
const FramePolicy& client_policy() {
  static const FramePolicy policy = [] {
    FramePolicy p = pgwire::kFrontendPolicy;
    for (const char type : {'B', 'D', 'E'}) p[static_cast<size_t>(type)].prefix = 512;
    // Whole, as far as they are read.
    for (const char type : {'Q', 'P'}) p[static_cast<size_t>(type)].prefix = kFollowedMax;
    p['C'].prefix = p['C'].max_payload;
    return p;
  }();
  return policy;
}

// Who sends a statement byte by byte keeps no server meanwhile.
bool arrived(std::string_view message) {
  const pgwire::Frame frame = pgwire::peek_frame(message, pgwire::kMaxPayload);
  return frame.state != pgwire::FrameState::kIncomplete || message.size() >= kFollowedMax;
}

bool is_copy(char type) { return type == 'd' || type == 'c' || type == 'f'; }

std::string_view until_nul(std::string_view text) { return text.substr(0, text.find('\0')); }

// The functions of libpq's lo_open() and its kin; others are hardly called by FunctionCall.
bool calls_large_object(std::string_view call) {
  if (call.size() < 4) return false;
  uint32_t oid = 0;
  for (const char c : call.substr(0, 4)) oid = oid << 8 | static_cast<unsigned char>(c);
  constexpr uint32_t kCalled[] = {715, 767, 952, 953,  954,  955,  956,
                                  957, 958, 964, 1004, 3170, 3171, 3172};
  return std::find(std::begin(kCalled), std::end(kCalled), oid) != std::end(kCalled);
}

bool names_unnamed_statement(std::string_view bind) {
  const auto view = pgwire::parse_bind(bind);
  return !view || view->statement.empty();
}

}  // namespace

Session::Session(PortKind port, PoolMode mode, const Limits& limits, Workspace& workspace,
                 SettingsRef base)
    : limits_(limits),
      workspace_(workspace),
      port_(port),
      pool_mode_(mode),
      counts_(&workspace.uncounted),
      base_(std::move(base)),
      wanted_(base_),
      front_(client_policy()),
      replacement_(workspace.replacement) {}

SessionMemory& Session::memory() {
  if (!memory_) memory_ = std::make_unique<SessionMemory>(limits_.memory, base_);
  return *memory_;
}

Pin Session::pin() const { return pin_ == Pin::kNone && memory_ ? memory_->pin() : pin_; }

bool Session::idle() const {
  if (mode_ != Mode::kLive || !front_.at_boundary() || !retry_.empty()) return false;
  return !attached_ || (tracker_.idle() && batches_.empty());
}

bool Session::Batch::opens() const {
  switch (effects.transaction) {
    case TransactionEffect::kOpens:
      return true;
    case TransactionEffect::kCloses:
      return false;
    case TransactionEffect::kNone:
      break;
  }
  return from_transaction;
}

Session::Intake Session::on_client(std::string_view bytes, Gate gate, SessionOutput& out) {
  Intake result;
  size_t live_from = 0;
  ByteRun run(workspace_.to_server);
  to_server_ = &run;
  const bool was_idle = idle();
  if (was_idle && attached_ && gate == Gate::kOpen) {
    retained_.clear();
    retaining_ = true;
    answered_ = sent_again_ = beyond_parses_ = false;
    answers_given_ = answers_again_ = 0;
    pin_before_ = pin();
  }
  while (result.consumed < bytes.size()) {
    const bool live = mode_ == Mode::kLive;
    if (live && front_.at_boundary()) {
      const char type = bytes[result.consumed];
      if (type == 'X') {
        result.next = Next::kTerminate;
        break;
      }
      const bool shut = gate == Gate::kShut && was_idle && result.consumed == live_from;
      if ((!attached_ || (shut && idle())) && !is_copy(type)) {
        if (!attached_ && !arrived(bytes.substr(result.consumed))) break;
        const bool parses = type == 'P' && !attached_;
        if (const size_t taken =
                parses ? take_known_parses(bytes.substr(result.consumed), out) : 0) {
          live_from = result.consumed += taken;
          continue;
        }
        result.next = Next::kNeedServer;
        break;
      }
      const bool next_batch =
          one_batch_ && !batches_.empty() && batches_.back().ended && !open_after_;
      // What a name means in this batch is not known before the one before it has been answered.
      const bool undecided = shares() && memory_ && memory_->undecided() && !batches_.empty() &&
                             batches_.back().ended && type != 'S' && type != 'H';
      // Whether the server skips the Parse of a text that names statements, or what replaced an
      // unnamed statement that it did not have: likewise.
      const bool unsure = (type == 'B' || type == 'D') && shares() && !batches_.empty() &&
                          (batches_.size() > 1 || batches_.back().ended) &&
                          (!unnamed().changes.empty() || replaces_absent_);
      // Whether the server skips what was put in front of an earlier batch's: likewise.
      const bool unmade = injected_ > tracker_.answered_count() && !batches_.empty() &&
                          batches_.back().ended && type != 'S' && type != 'H';
      const std::string_view rest = bytes.substr(result.consumed);
      const bool verifies = type == 'B' && described_ && shares();
      if (pipeline_full() || again_ || next_batch || undecided || unsure || unmade ||
          (durability_ && level_first(rest)) || (verifies && must_verify(rest))) {
        result.next = Next::kBusy;
        break;
      }
    }
    const Scan piece = front_.next(bytes.substr(result.consumed));
    if (piece.kind == ScanKind::kNeedMore) break;
    if (piece.kind == ScanKind::kBad) {
      result.next = Next::kBroken;
      break;
    }
    const size_t end = result.consumed + piece.bytes.size();
    if (live && attached_) {
      live_piece(piece);
      if (broken_) {
        result.next = Next::kBroken;
        break;
      }
    } else {
      // Also COPY data that comes after its COPY has failed: PostgreSQL drops it.
      if (!live) skip_piece(piece, out);
      live_from = end;
    }
    result.consumed = end;
  }
  if (retaining_ && result.consumed > live_from) {
    retain(bytes.substr(live_from, result.consumed - live_from));
  }
  if (!run.bytes().empty()) out.to_server(run.bytes());
  to_server_ = nullptr;
  return result;
}

std::optional<std::string_view> Session::prepared_sql(std::string_view name) const {
  std::string_view message = unnamed().message;
  if (!name.empty()) {
    const SessionMemory::Prepared* prepared = memory_ ? memory_->find(name) : nullptr;
    if (prepared == nullptr) return std::nullopt;
    if (prepared->statement) return prepared->statement->sql;
    message = prepared->message;
  } else if (unnamed_id_ == 0 && shares()) {
    return std::nullopt;
  }
  if (message.size() < pgwire::kFrameHeaderSize) return std::nullopt;
  const auto parse = pgwire::parse_parse(message.substr(pgwire::kFrameHeaderSize));
  if (!parse) return std::nullopt;
  return parse->sql;
}

void Session::retain(std::string_view bytes) {
  if (answered_ || retained_.size() + bytes.size() > limits_.retained_bytes) {
    retaining_ = false;
    return;
  }
  retained_.append(bytes);
}

void Session::live_piece(const Scan& piece) {
  touched_ = true;
  switch (piece.kind) {
    case ScanKind::kStart:
      front_type_ = piece.type;
      relay_ = Relay::kForward;
      if (shares()) {
        if (tracker_.quiescent()) prepare_server();
        if (rewrite(piece)) return;
      }
      to_server_->view(piece.bytes);
      tracker_.sent(piece.type);
      if (!tracker_.skipping_until_sync()) live_message(piece);
      break;
    case ScanKind::kContinue:
      if (relay_ == Relay::kForward) to_server_->view(piece.bytes);
      if (relay_ == Relay::kCollect) {
        parse_message_.append(piece.bytes);
        if (piece.ends) finish_parse();
        break;
      }
      if (text_ == Text::kNone) break;
      if (!text_over_) {
        scanner_.feed(until_nul(piece.payload()));
        text_over_ = piece.payload().find('\0') != std::string_view::npos;
      }
      if (!parse_message_.empty()) parse_message_.append(piece.bytes);
      if (piece.ends) end_text(piece, scanner_.finish());
      break;
    case ScanKind::kRun:
      front_type_ = 'd';
      to_server_->view(piece.bytes);
      if (piece.messages > 0) tracker_.sent('d');
      break;
    default:
      break;
  }
}

Session::Batch& Session::open_batch() {
  if (batches_.empty() || batches_.back().ended) {
    batches_.push_back({.effects = {}, .from_transaction = open_after_});
  }
  return batches_.back();
}

void Session::live_message(const Scan& piece) {
  switch (piece.type) {
    case 'Q':
      open_batch().ended = true;
      begin_text(piece);
      break;
    case 'F': {
      Batch& batch = open_batch();
      batch.ended = true;
      batch.effects.may_write = batch.effects.has_effect = true;
      if (pin_ == Pin::kNone && !calls_large_object(piece.payload())) pin_ = Pin::kUnclear;
      break;
    }
    case 'S':
      open_batch().ended = true;
      break;
    case 'P':
      open_batch();
      begin_text(piece);
      break;
    case 'B':
      open_batch().binds = true;
      if (!shares() && !names_unnamed_statement(piece.payload())) ++counts_->binds;
      on_bind(piece);
      break;
    case 'C':
      open_batch();
      if (const auto target = pgwire::parse_target(piece.payload());
          memory_ && target && target->target == pgwire::Target::kStatement) {
        memory_->close_sent(tracker_.sent_count() - 1, target->name);
      }
      break;
    case 'D':
      open_batch();
      break;
    case 'E':
      open_batch().binds = true;
      if (!bound_.empty()) on_execute(piece.payload());
      break;
    default:
      break;  // H, d, c, f
  }
}

void Session::begin_text(const Scan& piece) {
  std::string_view text = piece.payload();
  text_ = piece.type == 'Q' ? Text::kQuery : Text::kParse;
  text_over_ = false;
  parse_message_.clear();
  if (text_ == Text::kParse) {
    parse_name_ = until_nul(text);
    text.remove_prefix(std::min(text.size(), parse_name_.size() + 1));
    const bool keep = (!parse_name_.empty() || keeps_unnamed()) &&
                      piece.payload_length < limits_.memory.prepared_bytes;
    if (keep) parse_message_ = piece.bytes;
  }
  if (piece.ends) return end_text(piece, scan_statements(until_nul(text)));
  scanner_.begin();
  scanner_.feed(until_nul(text));
  text_over_ = text.find('\0') != std::string_view::npos;
}

// Whether the words of a text may change what is remembered.
bool Session::must_follow(const Effects& effects, Of of) const {
  if (effects.sets || effects.deallocates || effects.pin != Pin::kNone) return true;
  const bool later = of != Of::kQuery;  // it runs when more may have happened
  if (effects.executes) return shares();
  if (effects.undoes && (later || (memory_ && (memory_->pinned() || memory_->open())))) return true;
  const bool open = memory_ && memory_->open();
  if (effects.savepoints && (later || open)) return true;
  return effects.transaction != TransactionEffect::kNone && (of == Of::kNamed || open);
}

// What a text changes; it pins if that can't be told.
std::vector<StateChange> Session::changes_of(Effects& effects, std::optional<std::string_view> sql,
                                             Of of) {
  if (!must_follow(effects, of) || effects.pin == Pin::kUnclear) return {};
  if (sql && sql->size() <= kFollowedMax) {
    if (auto parsed = parse_state_changes(*sql)) {
      effects.pin = Pin::kNone;
      return std::move(*parsed);
    }
  }
  const bool changes = effects.sets || effects.deallocates || effects.savepoints;
  if (changes && effects.pin == Pin::kNone) effects.pin = Pin::kSettings;
  return {};
}

// `piece` is the last of its message, and the whole message if it is a kStart.
void Session::end_text(const Scan& piece, Effects effects) {
  const bool parse = std::exchange(text_, Text::kNone) == Text::kParse;
  if (tracker_.skipping_until_sync()) return;  // an error came amid the message
  std::optional<std::string_view> sql;
  if (piece.kind == ScanKind::kStart) {
    sql = piece.payload();
    if (parse) sql->remove_prefix(std::min(sql->size(), parse_name_.size() + 1));
    sql = until_nul(*sql);
  }
  const Of of = !parse ? Of::kQuery : parse_name_.empty() ? Of::kUnnamed : Of::kNamed;
  std::vector<StateChange> changes = changes_of(effects, sql, of);
  if (!parse) {
    apply(effects);
    if (changes.empty()) return;
    std::vector<NameAction> actions = names_as_sent(*sql, changes, effects);
    return follow(tracker_.sent_count() - 1, changes, actions);
  }
  if (!parse_name_.empty()) {
    ++counts_->client_parses;
    ++counts_->server_parses;
    memory().parse_sent(tracker_.sent_count() - 1, parse_name_,
                        {parse_message_.take(), effects, std::move(changes), nullptr});
    return;
  }
  Unnamed& statement = unnamed_to_change();
  statement.effects = effects;
  statement.changes = std::move(changes);
  if (keeps_unnamed()) statement.message = parse_message_.take();
}

void Session::on_bind(const Scan& piece, std::vector<NameAction> actions) {
  const auto bind = pgwire::parse_bind(piece.payload());
  if (bind && !bound_.empty()) unbind(bind->portal);
  const Effects* effects = nullptr;
  const std::vector<StateChange>* changes = nullptr;
  if (bind && bind->statement.empty()) {
    effects = &unnamed().effects;
    changes = &unnamed().changes;
  } else if (const auto* named = bind && memory_ ? memory_->find(bind->statement) : nullptr) {
    effects = &named->effects;
    changes = &named->changes;
  }
  if (effects == nullptr) {
    Effects unknown;
    unknown.may_write = unknown.has_effect = unknown.not_atomic = true;
    return apply(unknown);
  }
  apply(*effects);
  if (changes->empty()) return;
  std::optional<std::string_view> values;
  if (piece.ends) values = bind->rest;
  if (!shares()) {
    actions = names_as_sent(prepared_sql(bind->statement).value_or(""), *changes, *effects);
  }
  bound(bind->portal, *changes, std::move(actions), values);
}

void Session::apply(const Effects& effects) {
  Batch& batch = batches_.back();
  batch.effects.merge(effects);
  open_after_ = batch.opens();
  if (effects.deallocates && effects.pin != Pin::kNone && shares()) server_->statements.clear();
  if (pin_ == Pin::kNone) pin_ = effects.pin;
}

void Session::skip_piece(const Scan& piece, SessionOutput& out) {
  std::string reply;
  if (mode_ == Mode::kAborted) {
    if (aborted_->on_piece(piece, memory(), reply)) {
      mode_ = Mode::kLive;
      aborted_.reset();
    }
    if (!reply.empty()) out.to_client(reply);
    return;
  }
  if (piece.kind == ScanKind::kStart && std::exchange(skip_first_, false)) {
    skip_query_ = piece.type == 'Q' || piece.type == 'F';
  }
  const bool over = skip_query_ ? piece.ends : piece.kind == ScanKind::kStart && piece.type == 'S';
  if (!over) return;
  skip_query_ = false;
  mode_ = skip_opens_ ? Mode::kAborted : Mode::kLive;
  pgwire::append_ready_for_query(
      reply, skip_opens_ ? TransactionStatus::kFailed : TransactionStatus::kIdle);
  skip_opens_ = false;
  out.to_client(reply);
}

void Session::refuse(std::string_view sqlstate, std::string_view message, SessionOutput& out) {
  std::string reply;
  pgwire::append_error_response(reply, {.sqlstate = sqlstate, .message = message});
  out.to_client(reply);
  ++errors_;
  mode_ = Mode::kSkipping;
  skip_first_ = true;
  skip_query_ = skip_opens_ = false;
  if (retry_.empty()) return;
  const std::string statement = retry_.take();
  on_client(statement, Gate::kOpen, out);
}

}  // namespace bascule::proxy
