// Answers that the client does not get as they come, because the message was not its own or was
// changed on its way (Session::Edit); and errors, which speak of statements by the server's names.
#include <charconv>
#include <utility>

#include "base/hash.h"
#include "pgwire/messages.h"
#include "proxy/session.h"

namespace bascule::proxy {

using pgwire::Scan;

namespace {

void put_length(std::string& m) {
  for (size_t i = 0; i < 4; ++i) m[1 + i] = static_cast<char>((m.size() - 1) >> (24 - 8 * i));
}

// asyncpg and pgJDBC know by the function that a statement is to be prepared again.
void name_routine(std::string& error) {
  error.insert(error.size() - 1, "RRevalidateCachedQuery").insert(error.size() - 1, 1, '\0');
  put_length(error);
}

uint64_t hash_of(std::string_view bytes) { return std::max<uint64_t>(fnv1a(bytes), 1); }

}  // namespace

// To a message of our own: nothing of it is for the client.
std::optional<Loss> Session::own_reply(const Scan& piece, Writable writable, SessionOutput& out) {
  const EditKind kind = edits_.front().kind;
  if (piece.type != 'A' || (shares() && movable())) {
    reply_ = Reply::kSwallow;
  } else {
    on_notification(piece, out);
  }
  if (piece.type == 'E') {
    if (kind == EditKind::kSettings) return Loss::kSettings;
    if (pgwire::parse_error_prefix(piece.payload()).fatal()) {
      reply_ = Reply::kRelay;
      return server_error(piece, writable);
    }
    if (piece.ends) own_error_ = piece.bytes;
  }
  if (tracker_.received(piece.type, piece.payload()) ==
      pgwire::SessionTracker::Verdict::kViolation) {
    return Loss::kProtocol;
  }
  if (piece.type == 'S') on_parameter(piece.payload(), out);
  if (piece.type == 'E') {
    // Not there. The first edit of an exchange stays until it is over: see drop_edits().
    Edit& edit = edits_.front();
    server_->statements.remove_serial(edit.serial);
    server_->closing.push_back(std::exchange(edit.serial, 0));
    if (kind == EditKind::kOwnParse) edits_.pop_front();
  } else if (piece.type == 'Z' || (piece.type == '1' && kind == EditKind::kOwnParse)) {
    synced_ |= kind == EditKind::kSettings;
    edits_.pop_front();
  }
  return std::nullopt;
}

// The first answer to the message of the first edit.
void Session::edit_reply(const Scan& piece) {
  if (piece.type == 'S' || piece.type == 'A') return;
  Edit& edit = edits_.front();
  if (edit.kind == EditKind::kDescribed || edit.kind == EditKind::kOwnDescribe) {
    return on_described(piece);
  }
  if (piece.type == 'E') {
    if (edit.kind == EditKind::kRefused) {
      replacement_.clear();
      pgwire::append_error_response(replacement_,
                                    {.sqlstate = std::string_view(edit.text).substr(0, 5),
                                     .message = std::string_view(edit.text).substr(6)});
      if (edit.text.starts_with("0A000:cached plan")) name_routine(replacement_);
      reply_ = Reply::kReplace;
    }
    return;  // drop_edits() goes on
  }
  switch (edit.kind) {
    case EditKind::kPrepared:
      return;  // see on_tag()
    case EditKind::kInjected:
    case EditKind::kInjectedParse:
    case EditKind::kInjectedClose:
      reply_ = Reply::kSwallow;
      break;
    case EditKind::kParsedBefore:  // counts as a '1' below
      replacement_.clear();
      pgwire::append_parse_complete(replacement_);
      reply_ = Reply::kReplace;
      break;
    case EditKind::kParse:
    case EditKind::kParseTaken:
      // Also of a name that was thought to be taken: the server has another text there now.
      if (const uint32_t before = server_->statements.rename(edit.serial, edit.statement->id)) {
        server_->closing.push_back(before);
      }
      if (parsed_ != nullptr) parsed_->add(edit.statement->text, *workspace_.plans);
      break;
    default:
      break;
  }
  edits_.pop_front();
}

// ParameterDescription, then RowDescription or NoData.
void Session::on_described(const Scan& piece) {
  const Edit& edit = edits_.front();
  const bool own = edit.kind == EditKind::kOwnDescribe;
  if (piece.type == 'E') return;
  if (own) reply_ = Reply::kSwallow;
  if (piece.type == 't') return;
  // What has not arrived as a whole is not compared.
  const uint64_t columns = piece.ends ? hash_of(piece.payload()) : 0;
  const uint64_t seen = columns == 0 && own ? kUnseenColumns : columns;
  if (edit.statement == nullptr) {  // the unnamed one, unless it has been replaced meanwhile
    const bool is_it = unnamed_sent_ <= edit.message && unnamed_id_ != 0;
    if (is_it && own) unnamed_to_change().seen = seen;
    if (is_it && !own) {
      unnamed_to_change().told = seen;
      unnamed_to_change().told_at = meanings_now();
      described_ = true;
    }
    return edits_.pop_front();
  }
  server_->statements.set_columns(edit.statement->id, seen);
  if (SessionMemory::Prepared* named = own || !memory_ ? nullptr : memory_->find(edit.text)) {
    if (named->statement == edit.statement) named->columns = columns;
    described_ = true;
  }
  edits_.pop_front();
}

// What was sent before `next` and has not been confirmed did not happen.
void Session::drop_edits(uint64_t next) {
  while (!edits_.empty() && edits_.front().message < next) {
    const Edit& edit = edits_.front();
    if (edit.serial != 0 && edit.kind != EditKind::kParseTaken) {
      if (tracker_.in_flight() && failed_.size() < kFailedMax) {
        const uint32_t id = server_->statements.id_of(edit.serial);
        failed_.emplace_back(edit.serial, edit.text.empty() && memory_
                                              ? std::string(memory_->name_of(id))
                                              : edit.text);
      }
      server_->statements.remove_serial(edit.serial);
      server_->closing.push_back(edit.serial);  // in case that it is there
    }
    edits_.pop_front();
  }
}

// The client did not see that its statement could not be prepared again.
void Session::tell_own_error(std::string_view sqlstate) {
  if (sqlstate != "26000" && sqlstate != "25P02") return;
  replacement_ = own_error_.take();
  reply_ = Reply::kReplace;
}

// Messages speak of statements by the names that they have on the server.
void Session::name_as_client(const Scan& piece) {
  const std::string_view payload = piece.payload();
  const size_t at = payload.find(kServerNamePrefix);
  if (at == std::string_view::npos) return;
  uint32_t serial = 0;
  const char* digits = payload.data() + at + kServerNamePrefix.size();
  const char* end = std::from_chars(digits, payload.data() + payload.size(), serial).ptr;
  std::string_view name;
  if (end == digits && payload.substr(at).starts_with(kTemporaryName)) {
    name = temporary_for_;
    end = payload.data() + at + kTemporaryName.size();
  }
  for (const UsedName& used : used_) {
    if (used.serial == serial && used.from <= tracker_.answered_count()) name = used.name;
  }
  if (name.empty() && memory_ && serial != 0) {
    name = memory_->name_of(server_->statements.id_of(serial));
  }
  for (const auto& [failed, its_name] : failed_) {
    if (name.empty() && failed == serial) name = its_name;
  }
  replacement_.assign("E\0\0\0\0", 5).append(payload.substr(0, at)).append(name);
  replacement_.append(end, payload.data() + payload.size());
  put_length(replacement_);
  reply_ = Reply::kReplace;
}

}  // namespace bascule::proxy
