#include "proxy/aborted_transaction.h"

#include <utility>

#include "pgwire/messages.h"

namespace bascule::proxy {

using pgwire::Scan;
using pgwire::ScanKind;

void AbortedTransaction::begin(Told told, std::string loss) {
  *this = AbortedTransaction();
  told_ = told == Told::kYes;
  loss_ = std::move(loss);
}

bool AbortedTransaction::on_piece(const Scan& piece, SessionMemory& memory, std::string& reply) {
  if (piece.kind == ScanKind::kContinue) {
    if (in_query_) scanner_.feed(piece.payload());
  } else if (piece.kind == ScanKind::kStart) {
    if (skipping_ && piece.type != 'S') return false;
    on_message(piece, memory, reply);
  }
  if (in_query_ && piece.ends) finish_query(reply);
  return over_ && !skipping_ && (piece.type == 'S' || piece.type == 'Q') && piece.ends;
}

void AbortedTransaction::on_message(const Scan& piece, SessionMemory& memory, std::string& reply) {
  switch (piece.type) {
    case 'Q':
      in_query_ = true;
      scanner_.begin();
      scanner_.feed(piece.payload());
      break;
    case 'P':
      on_parse(piece, memory, reply);
      break;
    case 'B':
      on_bind(piece, memory, reply);
      break;
    case 'D':
      if (!piece.payload().empty() && piece.payload()[0] == 'S') {
        reply += std::string_view("t\0\0\0\6\0\0", 7);  // ParameterDescription of none
      }
      pgwire::append_no_data(reply);
      break;
    case 'E':
      execute(bound_, reply);
      break;
    case 'C':
      if (const auto target = pgwire::parse_target(piece.payload());
          target && target->target == pgwire::Target::kStatement) {
        memory.forget(target->name);
      }
      pgwire::append_close_complete(reply);
      break;
    case 'S':
      ready(reply);
      break;
    case 'F':
      refuse(reply);
      skipping_ = false;
      ready(reply);
      break;
    default:
      break;
  }
}

void AbortedTransaction::finish_query(std::string& reply) {
  in_query_ = false;
  const Effects effects = scanner_.finish();
  if (effects.statements == 0) {
    pgwire::append_empty_query_response(reply);
  } else {
    execute(effects, reply);
  }
  skipping_ = false;
  ready(reply);
}

void AbortedTransaction::on_parse(const Scan& piece, SessionMemory& memory, std::string& reply) {
  const auto parse = pgwire::parse_parse(piece.payload());
  if (!piece.ends || !parse) return refuse(reply);
  const Effects effects = scan_statements(parse->sql);
  if (!effects.ends_failed) return refuse(reply);
  if (parse->statement.empty()) {
    unnamed_ = effects;
  } else {
    // Exists on no server yet: it is made there with the others.
    memory.remember(parse->statement, {std::string(piece.bytes), effects, {}, nullptr});
  }
  pgwire::append_parse_complete(reply);
}

void AbortedTransaction::on_bind(const Scan& piece, const SessionMemory& memory,
                                 std::string& reply) {
  const auto bind = pgwire::parse_bind(piece.payload());
  if (!bind) return refuse(reply);
  const SessionMemory::Prepared* named = memory.find(bind->statement);
  bound_ = bind->statement.empty() ? unnamed_ : named != nullptr ? named->effects : Effects{};
  if (!bound_.ends_failed) return refuse(reply);
  pgwire::append_bind_complete(reply);
}

void AbortedTransaction::execute(const Effects& effects, std::string& reply) {
  if (!effects.ends_failed || over_) return refuse(reply);
  over_ = true;
  if (effects.rolls_back || told_) {
    pgwire::append_command_complete(reply, "ROLLBACK");
  } else {
    refuse(reply);  // a COMMIT must not look as if it had worked
  }
}

void AbortedTransaction::refuse(std::string& reply) {
  if (!told_) {
    pgwire::append_error_response(
        reply, {.sqlstate = "40001", .message = loss_, .hint = "Run the whole transaction again."});
    told_ = true;
  } else {
    pgwire::append_error_response(
        reply, {.sqlstate = "25P02",
                .message = "current transaction is aborted, commands ignored until end of "
                           "transaction block"});
  }
  skipping_ = true;
}

void AbortedTransaction::ready(std::string& reply) {
  skipping_ = false;
  pgwire::append_ready_for_query(
      reply, over_ ? pgwire::TransactionStatus::kIdle : pgwire::TransactionStatus::kFailed);
}

}  // namespace bascule::proxy
