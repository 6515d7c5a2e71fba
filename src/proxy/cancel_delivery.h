// One cancel request on a connection of its own, until the other side closes it:
// https://www.postgresql.org/docs/15/protocol-flow.html (canceling requests in progress)
#pragma once

#include <functional>

#include "pgwire/startup.h"
#include "proxy/server_dial.h"

namespace bascule::proxy {

class Worker;

// Of one worker, on its thread.
class CancelDelivery final : public env::StreamHandler, public ServerDial::Owner {
 public:
  // kUnknown: it was sent, and may still be acted upon.
  enum class Outcome { kNotSent, kDelivered, kUnknown };
  // `wanted` is asked when the connection stands; empty: it is. `done` is called once, never before
  // dial() returns, and must not destroy this object.
  CancelDelivery(Worker& worker, env::Endpoint endpoint, pgwire::CancelKey key,
                 std::function<bool()> wanted, std::function<void(Outcome)> done);
  ~CancelDelivery() override;
  void dial();

  size_t on_data(std::string_view bytes) override { return bytes.size(); }
  void on_closed(int error) override;

 private:
  static constexpr Nanos kPatience = 5s;

  void end(Outcome outcome);
  void on_dialed(env::Stream& stream) override;
  void on_dial_failed(const ServerDial::Failure&) override { end(Outcome::kNotSent); }

  Worker& worker_;
  const pgwire::CancelKey key_;
  const std::function<bool()> wanted_;
  const std::function<void(Outcome)> done_;
  ServerDial dial_;
  env::Stream* stream_ = nullptr;  // the request is on its way
  env::TimerId timer_ = env::TimerId::kNone;
  bool over_ = false;
};

}  // namespace bascule::proxy
