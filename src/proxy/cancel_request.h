// Opens a connection of its own, says what to cancel, and waits for the server to close it:
// https://www.postgresql.org/docs/15/protocol-flow.html (canceling requests in progress)
#pragma once

#include "pgwire/startup.h"
#include "proxy/server_dial.h"
#include "proxy/slot_map.h"

namespace bascule::proxy {

class ServerConnection;
class Worker;

// Of one worker, on its thread. Dispatcher::cancel_ended() is called when it is over, and then
// `done`.
class CancelRequest final : public env::StreamHandler, public ServerDial::Owner {
 public:
  CancelRequest(Worker& worker, ServerConnection& server, env::Callback done);
  ~CancelRequest() override;
  size_t on_data(std::string_view bytes) override { return bytes.size(); }
  void on_closed(int error) override;
  bool done() const { return done_; }

 private:
  void end();
  void on_dialed(env::Stream& stream) override;
  void on_dial_failed(const ServerDial::Failure&) override { end(); }

  Worker& worker_;
  env::Callback on_end_;
  Handle server_;
  pgwire::CancelKey key_;
  ServerDial dial_;
  env::Stream* stream_ = nullptr;
  env::TimerId timer_ = env::TimerId::kNone;
  bool done_ = false;
};

}  // namespace bascule::proxy
