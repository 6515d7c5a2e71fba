// Answers a client whose transaction died with its server, as PostgreSQL answers in a failed
// transaction: every statement fails until ROLLBACK or COMMIT. To say "idle" at once would be
// wrong: a client that has not looked at the error yet would go on with the second half of its
// transaction, outside of any. Pure.
#pragma once

#include <string>
#include <string_view>

#include "pgwire/frames.h"
#include "proxy/session_memory.h"
#include "proxy/statement_scanner.h"

namespace bascule::proxy {

class AbortedTransaction {
 public:
  // kPending: the client does not know yet that its transaction is lost; `loss` is the message.
  enum class Told { kYes, kPending };
  void begin(Told told, std::string loss);

  // One piece of a message of the client. Appends what to answer to `reply`. True: the transaction
  // is over, and the client has been told so.
  bool on_piece(const pgwire::Scan& piece, SessionMemory& memory, std::string& reply);

 private:
  void on_message(const pgwire::Scan& piece, SessionMemory& memory, std::string& reply);
  void on_parse(const pgwire::Scan& piece, SessionMemory& memory, std::string& reply);
  void on_bind(const pgwire::Scan& piece, const SessionMemory& memory, std::string& reply);
  void finish_query(std::string& reply);
  void execute(const Effects& effects, std::string& reply);
  void refuse(std::string& reply);
  void ready(std::string& reply);

  std::string loss_;
  bool told_ = true;
  bool over_ = false;
  bool skipping_ = false;  // until Sync
  bool in_query_ = false;
  StatementScanner scanner_;
  Effects unnamed_, bound_;
};

}  // namespace bascule::proxy
