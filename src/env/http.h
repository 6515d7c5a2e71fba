// HTTP/1.1 requests to the APIs of other programs, as an interface: one document out, the answer
// as a whole or, for streams, as it comes. Implemented by posix/ (libcurl). Connections are
// kept and used again. Redirects and proxies of the environment are not followed.
//
// Loop thread only. Callbacks run on the loop, never inside the call itself, and none comes after
// cancel() or the destruction of the client.
//
// A request goes out at most once: when a kept connection breaks under it, it fails as kPerhaps and
// is not sent again (other clients do that silently, and would carry out a transaction twice).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"

namespace bascule::env {

struct HttpTls {
  std::string ca_file;    // empty: the system's authorities
  std::string cert_file;  // of ours, with key_file; empty: none
  std::string key_file;
};

struct HttpRequest {
  std::string method = "POST";       // GET: without a body
  std::string url;                   // "https://10.0.0.1:2379/v3/kv/txn"
  std::vector<std::string> headers;  // "Name: value"; may be secret, never logged
  std::string body;                  // application/json
  Millis connect_timeout{1000};
  Millis timeout{0};  // of everything; 0: none
  size_t answer_bytes_max = 1 << 20;
};

struct HttpAnswer {
  // Whether the server can have seen the whole request.
  enum class Sent { kNo, kPerhaps };

  int status = 0;  // 0: there is no (complete) answer
  std::string body;
  Sent sent = Sent::kNo;   // when status is 0
  std::string error;       // then: why, for people; names no secret
  bool refused = false;    // then: the host says that nobody listens there
  bool connected = false;  // on a connection that was made for it
};

class HttpClient {
 public:
  using DoneCallback = std::move_only_function<void(HttpAnswer)>;
  using DataCallback = std::move_only_function<void(std::string_view)>;

  virtual ~HttpClient() = default;
  virtual uint64_t send(HttpRequest request, DoneCallback done) = 0;
  // The body of an answer with status 200 goes to `data`, piece by piece and without an end;
  // answer_bytes_max then bounds what waits for the loop. Other answers are as send()'s.
  virtual uint64_t stream(HttpRequest request, DataCallback data, DoneCallback done) = 0;
  virtual void cancel(uint64_t id) = 0;  // the request may have been, or be, carried out
};

}  // namespace bascule::env
