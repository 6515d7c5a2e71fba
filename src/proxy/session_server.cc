// The server's half of Session.
#include <utility>

#include "pgwire/messages.h"
#include "proxy/session.h"

namespace bascule::proxy {

using pgwire::Scan;
using pgwire::ScanKind;
using pgwire::TransactionStatus;

namespace {

// Above this an idle session gives its copy of the last statement back.
constexpr size_t kKeepCapacity = 512;

SessionMemory::Block block(TransactionStatus status) {
  return status == TransactionStatus::kIdle ? SessionMemory::Block::kNone
                                            : SessionMemory::Block::kOpen;
}

}  // namespace

void Session::attach(SessionOutput& out) {
  attached_ = true;
  touched_ = false;
  if (retry_.empty()) return;
  const std::string statement = std::exchange(retry_, {});
  on_client(statement, Gate::kOpen, out);
}

SessionMemory::Script Session::script() const {
  return memory_ ? memory_->script() : SessionMemory::Script{};
}

void Session::detach() { forget_server(); }

Session::Relayed Session::on_server(std::string_view bytes, pgwire::FrameScanner& scanner,
                                    Permit permit, Writable writable, SessionOutput& out) {
  Relayed result;
  while (result.consumed < bytes.size()) {
    const Scan piece = scanner.next(bytes.substr(result.consumed));
    if (piece.kind == ScanKind::kNeedMore) break;
    if (piece.kind == ScanKind::kBad) {
      result.lost = Loss::kProtocol;
      break;
    }
    if (piece.kind == ScanKind::kStart) {
      result.lost = server_message(piece, permit, writable, out);
      if (result.lost) break;
    } else {
      answered_ = true;
    }
    client_mid_message_ = !scanner.at_boundary();
    result.consumed += piece.bytes.size();
  }
  if (result.consumed > 0) out.to_client(bytes.substr(0, result.consumed));
  return result;
}

std::optional<Loss> Session::server_message(const Scan& piece, Permit permit, Writable writable,
                                            SessionOutput& out) {
  const bool claims = piece.type == 'Z' || piece.type == 'C';
  if (claims && permit == Permit::kExpired) return Loss::kPermit;
  if (piece.type == 'E') {
    if (auto loss = server_error(piece, writable)) return loss;
  }
  if (tracker_.received(piece.type, piece.payload()) ==
      pgwire::SessionTracker::Verdict::kViolation) {
    return Loss::kProtocol;
  }
  if (piece.type != 'S') answered_ = true;
  switch (piece.type) {
    case 'Z':
      on_ready();
      // The end of a statement that has not been sent to its end.
      if (text_ != Text::kNone && batches_.empty()) return Loss::kProtocol;
      break;
    case 'C':
      if (memory_) {
        if (const auto tag = pgwire::parse_command_complete(piece.payload())) {
          memory_->on_tag(*tag);
        }
      }
      // DISCARD ALL undoes whatever pinned the session.
      if (pin_ != Pin::kNone && piece.payload() == std::string_view("DISCARD ALL\0", 12)) {
        pin_ = Pin::kNone;
      }
      break;
    case '1':
      if (memory_) memory_->parse_completed();
      break;
    case 'S':
      if (const auto parameter = pgwire::parse_parameter_status(piece.payload())) {
        out.on_parameter(parameter->name, parameter->value);
      }
      break;
    default:
      break;
  }
  return std::nullopt;
}

std::optional<Loss> Session::server_error(const Scan& piece, Writable writable) {
  const pgwire::ErrorView error = pgwire::parse_error_prefix(piece.payload());
  if (error.fatal()) {
    if (error.sqlstate == "57P01" || error.sqlstate == "57P03") return Loss::kShutdown;
    if (error.sqlstate == "57P02") return Loss::kCrash;
    fatal_forwarded_ = true;
  } else if (error.sqlstate == "25006" && writable == Writable::kNo && port_ == PortKind::kWriter &&
             may_retry(Loss::kReadOnly)) {
    return Loss::kReadOnly;
  }
  error_forwarded_ = true;
  if (memory_) memory_->on_error(block(tracker_.transaction()));
  return std::nullopt;
}

void Session::on_ready() {
  const TransactionStatus status = tracker_.transaction();
  const bool last = tracker_.ready_outstanding() == 0;
  if (status == TransactionStatus::kIdle) ++transactions_;
  ++answered_batches_;
  if (!batches_.empty()) batches_.pop_front();
  // A Sync that a COPY swallowed left a batch that nothing will answer.
  while (last && !batches_.empty() && batches_.front().ended) {
    batches_.pop_front();
    ++answered_batches_;
  }
  if (memory_) memory_->on_ready(answered_batches_, block(status), last && batches_.empty());
  error_forwarded_ = false;
  if (batches_.empty()) open_after_ = status != TransactionStatus::kIdle;
  retaining_ = false;
  retained_.clear();
  if (retained_.capacity() > kKeepCapacity) std::string().swap(retained_);
}

}  // namespace bascule::proxy
