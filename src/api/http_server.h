// The API on a socket: cpp-httplib in front of Routes. The accept loop occupies one thread of
// `pool` for the server's life; requests run on a few threads of httplib's own, so that neither a
// slow client nor a slow store is felt by the agent.
//
//   HttpServer server({.host = "127.0.0.1", .port = 8008}, clock, pool, handler);
//   auto port = server.start();
//   server.publish(std::move(snapshot));   // whenever something changed, at least every ttl / 2
//
// Bounds: body 64 KiB, 2 s for each read or write, one request a connection (so that nobody parks
// on a thread, and stopping takes no longer than a request). The destructor stops and waits.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "api/rate_limit.h"
#include "api/routes.h"
#include "api/snapshot.h"
#include "api/tally.h"
#include "base/network.h"
#include "base/result.h"
#include "env/clock.h"
#include "env/loop.h"

namespace httplib {
struct Request;
struct Response;
}  // namespace httplib

namespace bascule::api {

struct HttpTls {
  std::string cert_file;
  std::string key_file;
  std::string client_ca_file;  // not empty: every client must show a certificate signed by it
};

struct HttpOptions {
  std::string host = "127.0.0.1";
  int port = 8008;  // 0: any free one
  int threads = 8;  // requests at a time
  std::optional<HttpTls> tls = {};
  std::vector<Token> tokens = {};
  int requests_per_second = 200;            // of one address; 0: no limit
  std::vector<Network> allow = {};          // whose requests are heard; empty: everybody's
  std::optional<Anonymous> anonymous = {};  // default: kRead on loopback, else kHealth
  // Answers POST /peer, what agents ask each other, on a thread of the server; it checks itself who
  // asks. Empty: there is no agent here.
  std::function<Result<std::string>(std::string body)> peers = {};
  RefusalHandler refused = {};  // hears of commands that are not carried out; empty: nobody
};

// 127.0.0.0/8, ::1, localhost: only processes of this host reach it.
bool is_loopback(std::string_view host);

class HttpServer {
 public:
  HttpServer(HttpOptions options, const env::Clock& clock, env::BlockingPool& pool,
             CommandHandler handler);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Binds and begins to serve; the port. kUnavailable: the address is taken or not of this host.
  // kInvalid: certificate or key can't be used.
  Result<int> start();
  void publish(Snapshot snapshot);  // thread-safe
  void set_tokens(std::vector<Token> tokens) { routes_.set_tokens(std::move(tokens)); }  // likewise

 private:
  struct Listener;

  void serve(const httplib::Request& request, httplib::Response& response) const;
  Response answer(const httplib::Request& request) const;
  bool is_allowed(const httplib::Request& request) const;
  bool within_rate(const httplib::Request& request) const;
  std::shared_ptr<const Snapshot> current() const;

  const HttpOptions options_;
  const env::Clock& clock_;
  env::BlockingPool& pool_;
  Routes routes_;
  // Shared with the job that listens, which the pool may start only after this object is gone.
  std::shared_ptr<Listener> listener_;
  mutable std::mutex mutex_;
  // Shared with the requests that began with it: they end with the value they began with.
  std::shared_ptr<const Snapshot> snapshot_;  // guarded by mutex_
  Tally tally_;                               // guarded by mutex_
  mutable RateLimit rate_;                    // guarded by mutex_
};

}  // namespace bascule::api
