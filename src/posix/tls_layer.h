// TLS of one stream without its socket: bytes in, bytes out. Any engine can put it between its
// receiving and its handler.
#pragma once

#include <openssl/ssl.h>

#include <memory>
#include <string>
#include <string_view>

#include "env/net.h"
#include "posix/tls_context.h"

namespace bascule::posix {

class TlsLayer {
 public:
  TlsLayer(const OpenSslContext& context, env::Stream::TlsSide side,
           const std::string& server_name);
  TlsLayer(const TlsLayer&) = delete;
  TlsLayer& operator=(const TlsLayer&) = delete;

  // A client's first words. Appends to `out`.
  bool begin(std::string& out);

  // Takes bytes of the peer, all of them; appends what they say to `plain` and what has to be
  // answered to `out`. kClosed: the peer says that it ends here. kFailed: see error(); `out` may
  // hold an alert.
  enum class Outcome { kOpen, kClosed, kFailed };
  Outcome open(std::string_view sealed, std::string& plain, std::string& out);
  // `plain` can be larger than `sealed` by the part of a record that came before.
  static constexpr size_t kRecordMax = 16 * 1024;

  // Only if established(). Appends records.
  void seal(std::string_view plain, std::string& out);
  void end(std::string& out);  // tells the peer that nothing follows

  bool established() const { return established_; }
  bool ended() const { return ended_; }  // kClosed has been returned
  const std::string& error() const { return error_; }
  env::TlsInfo info() const;

  // Bytes of the peer that came with those which made the handler start TLS.
  std::string backlog;

 private:
  // Well-behaved handshakes take 2 to 10 KB; chains of certificates may take more.
  static constexpr size_t kHandshakeBytesMax = 128 * 1024;
  struct SslDeleter {
    void operator()(SSL* ssl) const { SSL_free(ssl); }
  };
  static const BIO_METHOD* bio_method();
  static int bio_read(BIO* bio, char* to, int size);
  static int bio_write(BIO* bio, const char* from, int size);

  bool handshake();
  bool expect_name(const std::string& name, env::ServerCheck check);
  void set_error();

  std::unique_ptr<SSL, SslDeleter> ssl_;
  bool established_ = false;
  bool ended_ = false;
  size_t handshake_bytes_ = 0;
  // For the time of one call.
  std::string_view in_;
  std::string* out_ = nullptr;
  std::string error_;
};

}  // namespace bascule::posix
