// A connection of the proxy's own to a server: for questions that are nobody's session (catalogs,
// roles of servers). Logs in when first asked, asks one thing at a time, stays connected. On one
// loop; never calls back before the function that began it has returned.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "env/net.h"
#include "pgwire/frames.h"
#include "proxy/server_dial.h"
#include "proxy/server_login.h"

namespace bascule::proxy {

class OwnConnection final : public env::StreamHandler, private ServerDial::Owner {
 public:
  struct Server {
    env::Endpoint endpoint;
    Parameters startup;  // user, database, application_name, ...
    ServerCredential credential;
    std::shared_ptr<const Access> access;  // how to reach servers; kept as ServerDial keeps it
  };
  using Row = std::vector<std::optional<std::string_view>>;
  // An error ends the query with it, and the connection. Views are valid during the call.
  using OnRow = std::move_only_function<Status(const Row&)>;
  // Once for each query(), unless the connection is destroyed before. May destroy it.
  using OnDone = std::move_only_function<void(Status)>;

  OwnConnection(env::Loop& loop, env::Net& net, env::Entropy& entropy, Server server);
  ~OwnConnection() override;

  // Text of one statement or more. `timeout`: for everything, connecting included. kUnavailable:
  // not reached or lost; kTimeout; kInvalid: an answer that isn't one, or an ErrorResponse.
  void query(std::string_view sql, Nanos timeout, OnRow on_row, OnDone on_done);
  // Called with each NotificationResponse (the whole message), and when the connection is lost
  // while nothing is asked. Neither may destroy it.
  using OnNotification = std::move_only_function<void(std::string_view)>;
  void watch(OnNotification on_notification, env::Callback on_lost) {
    on_notification_ = std::move(on_notification);
    on_lost_ = std::move(on_lost);
  }
  bool busy() const { return on_done_ != nullptr; }
  // From sending the last query to its ReadyForQuery.
  Nanos round_trip() const { return round_trip_; }

  size_t on_data(std::string_view bytes) override;
  void on_closed(int error) override;

 private:
  enum class Phase { kClosed, kConnecting, kLogin, kIdle, kRunning };
  void on_dialed(env::Stream& stream) override;
  void on_dial_failed(const ServerDial::Failure& failure) override;
  void send_query();
  size_t on_login_data(std::string_view bytes);
  // False: it has ended, `this` may be gone.
  bool on_message(const pgwire::Scan& message);
  void close();
  void finish(Status status);

  env::Loop& loop_;
  env::Net& net_;
  env::Entropy& entropy_;
  const Server server_;
  Phase phase_ = Phase::kClosed;
  std::unique_ptr<ServerDial> dial_;
  env::Stream* stream_ = nullptr;
  std::unique_ptr<ServerLogin> login_;
  pgwire::FrameScanner scanner_;
  env::TimerId deadline_ = env::TimerId::kNone;
  std::string sql_;
  OnRow on_row_;
  OnDone on_done_;
  OnNotification on_notification_;
  env::Callback on_lost_;
  std::optional<Error> error_;  // of the running query; told at ReadyForQuery
  MonoTime sent_{};
  Nanos round_trip_{0};
};

}  // namespace bascule::proxy
