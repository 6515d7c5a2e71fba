// The API's certificate, key and authorities, as they are on disk when a client connects: whoever
// replaces the files needs to tell nobody.
#pragma once

#include <openssl/ssl.h>

#include <array>
#include <filesystem>
#include <memory>
#include <mutex>

#include "api/http_server.h"
#include "base/result.h"

namespace bascule::api {

class Certificates {
 public:
  explicit Certificates(HttpTls files) : files_(std::move(files)) {}
  Certificates(const Certificates&) = delete;
  Certificates& operator=(const Certificates&) = delete;

  // Every handshake of `server`'s connections uses the files. Lives as long as `server`.
  // kInvalid: they can't be used. Files that can't be used later (half replaced, say) leave what
  // was loaded before in use.
  Status serve(SSL_CTX* server);

 private:
  struct Free {
    void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  };
  using Context = std::unique_ptr<SSL_CTX, Free>;
  using Stamps = std::array<std::filesystem::file_time_type, 3>;

  static int on_handshake(SSL* connection, void* self);  // any thread
  Stamps stamps() const;
  Context load() const;  // null: not usable

  const HttpTls files_;
  std::mutex mutex_;
  Context context_;  // guarded by mutex_, as stamps_
  Stamps stamps_{};  // of the files that context_ was made from
};

}  // namespace bascule::api
