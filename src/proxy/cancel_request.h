// A client's cancel request on its way to the client's server.
//
// Why it hits what it was meant for, or nothing, and never another client:
//   - It is meant for what its client had sent when it came (Worker::cancel()), and what was in the
//     kernel by then has been read. It is not sent if that has been answered meanwhile: looked at
//     again just before, when the connection stands.
//   - A client that waits for its server, or for the server to be set up for it, has a statement
//     that has not begun: it is refused here, and nothing is sent. While a setting of the proxy's
//     stands in front of the statement it waits: that SET would be hit in its place.
//   - The server goes to nobody else before this is over (ServerConnection::cancel_begins()).
//     PostgreSQL closes after it has sent the signal, and a backend that has nothing to do forgets
//     the signal before it reads its next message. Where it is not known whether the signal was
//     sent (time-out, a broken connection), the server is closed once its client gives it back.
// As with PostgreSQL, a client's own next statement can be hit if it is sent before the connection
// that brought the cancel has been closed.
#pragma once

#include <optional>

#include "proxy/cancel_delivery.h"
#include "proxy/slot_map.h"

namespace bascule::proxy {

class ServerConnection;
class Worker;

// Of one worker, on its thread. Dispatcher::cancel_ended() is called when it is over, and then
// `done`.
class CancelRequest {
 public:
  // kAbandoned: the server is about to be dropped; whatever it does is to end.
  enum class Aim { kSent, kAbandoned };
  CancelRequest(Worker& worker, ServerConnection& server, Aim aim, env::Callback done);
  CancelRequest(const CancelRequest&) = delete;
  CancelRequest& operator=(const CancelRequest&) = delete;
  // Goes on, or ends, as far as the state of the server says. After each of its answers.
  void look();
  Handle server() const { return server_; }
  bool done() const { return done_; }

 private:
  bool answered() const;  // nothing is left to be cancelled
  void end();

  Worker& worker_;
  env::Callback on_end_;
  const Handle server_;
  std::optional<uint64_t> aim_;  // Session::sent_count(); none: whatever it does
  CancelDelivery delivery_;
  bool dialed_ = false, done_ = false;
};

}  // namespace bascule::proxy
