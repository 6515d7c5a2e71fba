#include "posix/tls_context.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string_view>
#include <utility>

#include "base/log.h"

namespace bascule::posix {
namespace {

constexpr std::string_view kAlpn = "\x0apostgresql";  // with its length, as on the wire
constexpr const char* kDefaultCiphers = "HIGH:!aNULL:!MD5";

std::unexpected<Error> bad_file(const std::string& file, const std::string& what,
                                std::string hint = {}) {
  return fail(ErrorCode::kInvalid, file + ": " + what, std::move(hint));
}

// Before the library opens it: its own message would be "system lib".
Status readable(const std::string& file) {
  if (::access(file.c_str(), R_OK) != 0) return bad_file(file, ::strerror(errno));
  return {};
}

int no_passphrase(char*, int, int, void*) { return 0; }

// A client that knows ALPN must mean PostgreSQL: else it was lured here by somebody who redirects
// connections of another protocol.
int select_alpn(SSL*, const unsigned char** out, unsigned char* out_size, const unsigned char* in,
                unsigned in_size, void*) {
  unsigned char* found = nullptr;
  const int result =
      SSL_select_next_proto(&found, out_size, reinterpret_cast<const unsigned char*>(kAlpn.data()),
                            static_cast<unsigned>(kAlpn.size()), in, in_size);
  *out = found;
  return result == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

Result<SslCtx> new_context(const SSL_METHOD* method, const env::TlsLimits& limits) {
  ERR_clear_error();
  SslCtx ctx(SSL_CTX_new(method));
  if (!ctx) return fail(ErrorCode::kInternal, "TLS can't be set up: " + openssl_reason());
  // No resumption: as PostgreSQL. It would keep state for each client.
  SSL_CTX_set_options(ctx.get(), SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION |
                                     SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_session_cache_mode(ctx.get(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(ctx.get(), 0);
  SSL_CTX_set_mode(ctx.get(), SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_dh_auto(ctx.get(), 1);
  SSL_CTX_set_default_passwd_cb(ctx.get(), no_passphrase);
  const int version = limits.min_version == env::TlsVersion::k13 ? TLS1_3_VERSION : TLS1_2_VERSION;
  SSL_CTX_set_min_proto_version(ctx.get(), version);
  const char* ciphers = limits.ciphers.empty() ? kDefaultCiphers : limits.ciphers.c_str();
  if (SSL_CTX_set_cipher_list(ctx.get(), ciphers) != 1) {
    return fail(ErrorCode::kInvalid, "TLS ciphers: " + openssl_reason(),
                "See `openssl ciphers` for what is understood");
  }
  return ctx;
}

void warn_if_readable_by_others(const std::string& key_file) {
  struct stat info{};
  if (::stat(key_file.c_str(), &info) != 0) return;
  // root's key may be lent to a group, as PostgreSQL allows it.
  const mode_t others = info.st_uid == 0 ? S_IRWXO | S_IWGRP : S_IRWXG | S_IRWXO;
  if ((info.st_mode & others) == 0) return;
  log(LogLevel::kWarn, "tls", "private key is readable by others",
      {{"file", key_file}, {"do", "chmod 600"}});
}

Status use_certificate(SSL_CTX* ctx, const std::string& certificate, const std::string& key) {
  for (const std::string& file : {certificate, key}) {
    if (auto s = readable(file); !s) return s;
  }
  if (SSL_CTX_use_certificate_chain_file(ctx, certificate.c_str()) != 1) {
    return bad_file(certificate, "no usable certificate: " + openssl_reason());
  }
  if (SSL_CTX_use_PrivateKey_file(ctx, key.c_str(), SSL_FILETYPE_PEM) != 1) {
    return bad_file(key, "no usable private key: " + openssl_reason(),
                    "It must belong to the certificate, and have no passphrase");
  }
  warn_if_readable_by_others(key);
  return {};
}

Status use_authorities(SSL_CTX* ctx, const std::string& ca, const std::string& crl) {
  if (auto s = readable(ca); !s) return s;
  if (SSL_CTX_load_verify_file(ctx, ca.c_str()) != 1) {
    return bad_file(ca, "no usable certificates of authorities: " + openssl_reason());
  }
  if (crl.empty()) return {};
  if (auto s = readable(crl); !s) return s;
  X509_STORE* store = SSL_CTX_get_cert_store(ctx);
  if (X509_STORE_load_file(store, crl.c_str()) != 1) {
    return bad_file(crl, "no usable revocation list: " + openssl_reason());
  }
  X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
  return {};
}

}  // namespace

std::string openssl_reason() {
  const unsigned long code = ERR_peek_last_error();
  const char* reason = code != 0 ? ERR_reason_error_string(code) : nullptr;
  ERR_clear_error();
  return reason != nullptr ? reason : "unknown reason";
}

Result<std::unique_ptr<env::TlsContext>> OpenSslTls::server_context(
    const env::TlsServerOptions& options) {
  auto ctx = new_context(TLS_server_method(), options.limits);
  if (!ctx) return std::unexpected(ctx.error());
  if (auto s = use_certificate(ctx->get(), options.certificate_file, options.key_file); !s) {
    return std::unexpected(s.error());
  }
  if (!options.ca_file.empty()) {
    if (auto s = use_authorities(ctx->get(), options.ca_file, options.crl_file); !s) {
      return std::unexpected(s.error());
    }
    SSL_CTX_set_client_CA_list(ctx->get(), SSL_load_client_CA_file(options.ca_file.c_str()));
    SSL_CTX_set_verify(ctx->get(), SSL_VERIFY_PEER | SSL_VERIFY_CLIENT_ONCE, nullptr);
  }
  SSL_CTX_set_alpn_select_cb(ctx->get(), select_alpn, nullptr);
  return std::make_unique<OpenSslContext>(std::move(*ctx), env::ServerCheck::kNone);
}

Result<std::unique_ptr<env::TlsContext>> OpenSslTls::client_context(
    const env::TlsClientOptions& options) {
  auto ctx = new_context(TLS_client_method(), options.limits);
  if (!ctx) return std::unexpected(ctx.error());
  if (options.check != env::ServerCheck::kNone) {
    if (auto s = use_authorities(ctx->get(), options.ca_file, options.crl_file); !s) {
      return std::unexpected(s.error());
    }
    SSL_CTX_set_verify(ctx->get(), SSL_VERIFY_PEER, nullptr);
  }
  if (!options.certificate_file.empty()) {
    if (auto s = use_certificate(ctx->get(), options.certificate_file, options.key_file); !s) {
      return std::unexpected(s.error());
    }
  }
  SSL_CTX_set_alpn_protos(ctx->get(), reinterpret_cast<const unsigned char*>(kAlpn.data()),
                          static_cast<unsigned>(kAlpn.size()));
  return std::make_unique<OpenSslContext>(std::move(*ctx), options.check);
}

}  // namespace bascule::posix
