// Follows the query flow of one server connection from the types of the messages in both
// directions: is a statement in flight, a transaction open, a COPY running, may the connection go
// back to the pool. https://www.postgresql.org/docs/15/protocol-flow.html
//
// Begins after the first ReadyForQuery of the connection. Types of a FrameScanner with
// kBackendPolicy (kStart pieces) are exactly what received() needs; relayed types may be fed or
// not.
//
// How it counts: every Query, FunctionCall and Sync that the server *processes* earns one
// ReadyForQuery. Not processed are: anything but Sync after an error in an extended-query message;
// Sync while the server reads COPY data. Every extended-query message (P, B, D, E, C) earns one
// reply, so the tracker knows which message an ErrorResponse belongs to. Memory: 8 bytes for each
// change of kind in what is outstanding; a client could pipeline without end, so the caller stops
// reading it while pending() is at its limit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "pgwire/messages.h"

namespace bascule::pgwire {

enum class CopyState { kNone, kIn, kOut, kBoth };

class SessionTracker {
 public:
  // A message is on its way to the server: call before a reply to it can be read, at its header.
  void sent(char type);

  // A message came from the server. `payload`: needed for 'Z' only. kViolation: a reply that
  // nothing earned or a status that does not exist; the stream can't be trusted, close both sides.
  enum class Verdict { kOk, kViolation };
  Verdict received(char type, std::string_view payload);

  // As of the last ReadyForQuery.
  TransactionStatus transaction() const { return transaction_; }
  CopyState copy() const { return copy_; }

  // Something was sent that the server has not answered in full (a statement may be running).
  bool in_flight() const { return head_ < tokens_.size(); }
  // How many ReadyForQuery are still to come for what was sent.
  uint32_t ready_outstanding() const { return ready_outstanding_; }
  // Numbers for messages that earn a reply: the next one to be sent gets sent_count(); the reply
  // that comes next belongs to answered_count(). What the server threw away counts as answered.
  uint64_t sent_count() const { return sent_; }
  uint64_t answered_count() const { return sent_ - pending_; }
  // Messages sent and not answered; for the caller's limit on pipelining.
  uint32_t pending() const { return pending_; }
  // The server throws away everything until the client sends Sync.
  bool skipping_until_sync() const { return skipping_; }
  // What is sent now will be run in its turn: it is neither thrown away nor read as COPY data.
  bool takes_statements() const {
    const bool reads = copy_ == CopyState::kBoth || (copy_ == CopyState::kIn && !copy_end_sent_);
    return !skipping_ && !reads;
  }
  // Nothing outstanding, no extended-query batch that lacks its Sync, no COPY: the server waits for
  // the next statement. A transaction may be open.
  bool quiescent() const {
    return !in_flight() && !skipping_ && !batch_open_ && copy_ == CopyState::kNone;
  }
  // quiescent() and no transaction open. To give the connection to somebody else, both scanners
  // must also be at a message boundary with no unread bytes, and reusable() must hold.
  bool idle() const { return quiescent() && transaction_ == TransactionStatus::kIdle; }
  // False once Terminate was sent, the server sent an error that nothing asked for (it is about
  // to close), a violation was seen, or it can't be known how many ReadyForQuery are to come: a
  // COPY FROM failed, and a Sync was sent before its end (libpq does that with PQexecParams). The
  // server forgot that Sync if it met it before it gave up, else not. Then there are no further
  // violations, but in_flight() and the like are guesses.
  bool reusable() const { return reusable_; }

 private:
  // kLostSync: read amid COPY data. It keeps its number, so that those of later messages stay true;
  // kCopyEnd, which earns no reply, has none.
  enum class Kind : uint8_t { kExtended, kSync, kLostSync, kQuery, kCopyEnd };
  struct Token {
    Kind kind;
    uint32_t count;
  };
  void push(Kind kind);
  void drop(size_t position, uint32_t count);  // of the token at this place
  void drop_unanswered();
  bool front_is(Kind kind) const { return in_flight() && tokens_[head_].kind == kind; }
  bool take_extended_reply();
  void sent_in_copy(char type);
  void begin_copy_in();
  void on_error();
  Verdict on_reply(char type);
  Verdict on_ready(std::string_view payload);
  Verdict violation();

  std::vector<Token> tokens_;  // from head_ on: in the order in which the server will meet them
  size_t head_ = 0;
  uint32_t ready_outstanding_ = 0;
  uint32_t pending_ = 0;
  uint64_t sent_ = 0;
  TransactionStatus transaction_ = TransactionStatus::kIdle;
  CopyState copy_ = CopyState::kNone;
  bool copy_end_sent_ = false;    // CopyDone or CopyFail of the current COPY FROM was sent
  bool copy_syncs_lost_ = false;  // ... Syncs before that
  bool unsure_ = false;           // such a COPY failed: whether before or after them is not known
  bool batch_open_ = false;       // extended-query messages were answered since the last 'Z'
  bool skipping_ = false;
  bool reusable_ = true;
};

}  // namespace bascule::pgwire
