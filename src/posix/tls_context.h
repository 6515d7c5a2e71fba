// env::Tls over OpenSSL.
#pragma once

#include <openssl/ssl.h>

#include <memory>
#include <string>

#include "env/tls.h"

namespace bascule::posix {

struct SslCtxDeleter {
  void operator()(SSL_CTX* ctx) const { SSL_CTX_free(ctx); }
};
using SslCtx = std::unique_ptr<SSL_CTX, SslCtxDeleter>;

class OpenSslContext final : public env::TlsContext {
 public:
  OpenSslContext(SslCtx ctx, env::ServerCheck check) : ctx_(std::move(ctx)), check_(check) {}
  SSL_CTX* ctx() const { return ctx_.get(); }
  env::ServerCheck check() const { return check_; }

 private:
  SslCtx ctx_;
  env::ServerCheck check_;  // of a client's context
};

class OpenSslTls final : public env::Tls {
 public:
  Result<std::unique_ptr<env::TlsContext>> server_context(
      const env::TlsServerOptions& options) override;
  Result<std::unique_ptr<env::TlsContext>> client_context(
      const env::TlsClientOptions& options) override;
};

// The library's last reason, without anything of a peer's; empties its queue.
std::string openssl_reason();

}  // namespace bascule::posix
