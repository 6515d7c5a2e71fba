// What the loss of the server means to a Session.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "pgwire/messages.h"
#include "proxy/session.h"

namespace bascule::proxy {

using pgwire::TransactionStatus;

std::string_view describe(Loss loss) {
  switch (loss) {
    case Loss::kConnection:
      return "its connection broke";
    case Loss::kShutdown:
      return "it was shut down";
    case Loss::kCrash:
      return "one of its processes crashed";
    case Loss::kEpoch:
      return "another primary took over";
    case Loss::kPermit:
      return "its time as primary ran out";
    case Loss::kProtocol:
      return "it broke the protocol";
    case Loss::kReadOnly:
      return "it is no primary any more";
    case Loss::kSettings:
      return "it refused a setting of the session";
  }
  return "";
}

// Nothing of the statement can have happened, or its repetition makes no difference.
bool Session::may_retry(Loss loss) const {
  if (!retaining_ || answered_ || retained_.empty() || !front_.at_boundary()) return false;
  if (pin_before_ != Pin::kNone || batches_.size() != 1) return false;
  const Effects& effects = batches_.front().effects;
  if (!effects.has_effect) return true;
  switch (loss) {
    // Refused before it ran.
    case Loss::kReadOnly:
      return true;
    // As the first answer to an autocommit statement: the backend read it after the signal, or the
    // signal ended it. A backend that has committed says so before it looks at signals again
    // (exec_simple_query); one that is stopped while it waits for a synchronous replica closes
    // without a word (SyncRepWaitForLSN), which is kConnection here.
    case Loss::kShutdown:
      return !effects.not_atomic;
    default:
      return false;
  }
}

void Session::begin_retry() {
  std::string statement = std::move(retained_);
  pin_ = Pin::kNone;
  forget_server();
  retry_ = std::move(statement);
}

// The usual way, many times a second: nothing is left to forget.
bool Session::release() {
  attached_ = touched_ = retaining_ = false;
  server_ = nullptr;
  return tracker_.reusable();
}

void Session::forget_server() {
  attached_ = false;
  touched_ = false;
  server_ = nullptr;
  retaining_ = answered_ = error_forwarded_ = client_mid_message_ = false;
  again_ = sent_again_ = synced_ = unreplicated_ = false;
  verifying_ = stale_bind_ = changes_plans_ = false;
  open_after_ = false;
  text_ = Text::kNone;
  reply_ = Reply::kRelay;
  retained_.clear();
  batches_.clear();
  edits_.clear();
  failed_.clear();
  used_.clear();
  doomed_.clear();
  observed_.clear();
  bound_.clear();
  own_error_.clear();
  doubted_ = 0;
  server_listens_ = false;
  tracker_ = pgwire::SessionTracker();
  if (shares()) {
    unnamed_sent_ = unnamed_touched_ = injected_ = 0;
    older_unnamed_.clear();
  } else {
    unnamed_ = std::make_unique<Unnamed>();
    Effects& unknown = unnamed_->effects;
    unknown.may_write = unknown.has_effect = unknown.not_atomic = true;
  }
  if (memory_) memory_->forget_unconfirmed();
}

Session::After Session::on_lost(Loss loss, std::string_view who, SessionOutput& out) {
  if (!attached_) return After::kKeep;
  if (client_mid_message_ || fatal_forwarded_) return After::kClose;
  if (mode_ != Mode::kLive) {
    forget_server();
    return After::kKeep;
  }
  if (tracker_.quiescent() && batches_.empty() && front_.at_boundary()) {
    return lose_quiet(loss, who, out);
  }
  if (may_retry(loss)) {
    begin_retry();
    return After::kKeep;
  }
  if (!movable()) return close_pinned(loss, who, out);
  report_lost(loss, who, out);
  return After::kKeep;
}

Session::After Session::lose_quiet(Loss loss, std::string_view who, SessionOutput& out) {
  const TransactionStatus status = tracker_.transaction();
  if (!movable()) return close_pinned(loss, who, out);
  if (status != TransactionStatus::kIdle) {
    const bool told = status == TransactionStatus::kFailed;
    aborted_ = std::make_unique<AbortedTransaction>();
    aborted_->begin(
        told ? AbortedTransaction::Told::kYes : AbortedTransaction::Told::kPending,
        fmt::format("the transaction was lost with its server ({}): {}", who, describe(loss)));
    mode_ = Mode::kAborted;
  }
  forget_server();
  return After::kKeep;
}

void Session::append_loss(std::string& reply, const Batch& batch, Whole whole, Loss loss,
                          std::string_view who) {
  const Effects& effects = batch.effects;
  // A Query that was not sent to its end has not begun; a batch without its Sync has not committed.
  const bool not_run = !effects.commits && !effects.not_atomic &&
                       (whole == Whole::kNo || (loss == Loss::kShutdown && !answered_));
  const bool inside = batch.from_transaction || batch.opens();
  std::string_view sqlstate = "08006";
  std::string_view what = "the server was lost while it ran a statement that reads";
  std::string_view hint = "Run the statement again.";
  if (port_ == PortKind::kReader) {
    // On a replica nothing can have been written.
  } else if (effects.commits) {
    sqlstate = "08007";
    what = "the server was lost during a commit: whether it took effect is unknown";
    hint = "Look whether it did before running the transaction again.";
  } else if (inside) {
    sqlstate = "40001";
    what = "the transaction was rolled back because its server was lost";
    hint = "Run the whole transaction again.";
  } else if (not_run) {
    sqlstate = "40001";
    what = "the statement was not carried out because its server was lost";
  } else if (effects.may_write) {
    sqlstate = "08007";
    what =
        "the server was lost while it ran a statement outside of a transaction: whether it took "
        "effect is unknown";
    hint = "Look whether it did before running it again.";
  }
  const std::string message = fmt::format("{} ({}: {})", what, who, describe(loss));
  pgwire::append_error_response(reply, {.sqlstate = sqlstate, .message = message, .hint = hint});
  ++errors_;
}

void Session::report_lost(Loss loss, std::string_view who, SessionOutput& out) {
  uint32_t owed = tracker_.ready_outstanding();
  for (size_t i = 0; i < edits_.size(); ++i) {
    if (edits_[i].own() && edits_[i].kind != EditKind::kOwnParse) --owed;
  }
  const bool half_query = !front_.at_boundary() && (front_type_ == 'Q' || front_type_ == 'F');
  if (half_query && owed > 0) --owed;
  if (batches_.empty()) open_batch();
  std::string reply;
  size_t next = 0;
  bool open = tracker_.transaction() != TransactionStatus::kIdle;
  for (; owed > 0; --owed) {
    const Batch& batch = batches_[std::min(next, batches_.size() - 1)];
    if (next > 0 || !error_forwarded_) append_loss(reply, batch, Whole::kYes, loss, who);
    open = batch.opens();
    pgwire::append_ready_for_query(reply,
                                   open ? TransactionStatus::kFailed : TransactionStatus::kIdle);
    ++next;
  }
  // What is left has no end yet: the rest of a Query, or all up to a Sync.
  if (next == 0 || next < batches_.size() || half_query) {
    const Batch& batch = batches_[std::min(next, batches_.size() - 1)];
    if (next > 0 || !error_forwarded_) append_loss(reply, batch, Whole::kNo, loss, who);
    open = batch.opens();
    mode_ = Mode::kSkipping;
    skip_query_ = half_query;
    skip_first_ = false;
    skip_opens_ = open;
  } else {
    mode_ = open ? Mode::kAborted : Mode::kLive;
  }
  if (open) {
    aborted_ = std::make_unique<AbortedTransaction>();
    aborted_->begin(AbortedTransaction::Told::kYes, {});
  }
  forget_server();
  out.to_client(reply);
}

Session::After Session::close_pinned(Loss loss, std::string_view who, SessionOutput& out) {
  std::string reply;
  const bool quiet = tracker_.quiescent() && batches_.empty() && front_.at_boundary();
  const bool unknown = !quiet && !batches_.empty() && batches_.front().effects.may_write;
  const std::string message =
      fmt::format("the session was lost with its server ({}: {}) and can't be moved because {}{}",
                  who, describe(loss), describe(pin()),
                  unknown ? "; whether the statement in flight took effect is unknown" : "");
  pgwire::append_error_response(reply, {.severity = "FATAL",
                                        .sqlstate = unknown ? "08007" : "57P01",
                                        .message = message,
                                        .hint = "Connect again."});
  ++errors_;
  forget_server();
  out.to_client(reply);
  return After::kClose;
}

}  // namespace bascule::proxy
