#include "posix/tls_layer.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/objects.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <string.h>

#include <algorithm>
#include <array>
#include <utility>

namespace bascule::posix {
namespace {

struct X509Deleter {
  void operator()(X509* certificate) const { X509_free(certificate); }
};
using Certificate = std::unique_ptr<X509, X509Deleter>;

bool is_address(const std::string& name) {
  std::array<unsigned char, 16> bytes{};
  return ::inet_pton(AF_INET, name.c_str(), bytes.data()) == 1 ||
         ::inet_pton(AF_INET6, name.c_str(), bytes.data()) == 1;
}

// RFC 5929, section 4.1: the hash of the certificate's signature, SHA-256 instead of MD5 and SHA-1.
std::string end_point(X509* certificate) {
  int digest_id = NID_undef;
  if (certificate == nullptr ||
      X509_get_signature_info(certificate, &digest_id, nullptr, nullptr, nullptr) != 1) {
    return {};
  }
  const EVP_MD* digest =
      digest_id == NID_md5 || digest_id == NID_sha1 ? EVP_sha256() : EVP_get_digestbynid(digest_id);
  std::array<unsigned char, EVP_MAX_MD_SIZE> hash{};
  unsigned size = 0;
  if (digest == nullptr || X509_digest(certificate, digest, hash.data(), &size) != 1) return {};
  return {reinterpret_cast<const char*>(hash.data()), size};
}

std::string common_name(X509* certificate) {
  const X509_NAME* subject = X509_get_subject_name(certificate);
  const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (at < 0) return {};
  unsigned char* text = nullptr;
  const int size =
      ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
  if (size < 0) return {};
  std::string name(reinterpret_cast<const char*>(text), static_cast<size_t>(size));
  OPENSSL_free(text);
  // "root\0.example.com": whoever signed it and whoever compares it must not see different names.
  if (name.find('\0') != std::string::npos) return {};
  return name;
}

std::string subject_of(X509* certificate) {
  BIO* bio = BIO_new(BIO_s_mem());
  if (bio == nullptr) return {};
  X509_NAME_print_ex(bio, X509_get_subject_name(certificate), 0,
                     XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB);
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio, &text);
  std::string subject(text, static_cast<size_t>(std::max(size, 0L)));
  BIO_free(bio);
  if (subject.find('\0') != std::string::npos) return {};
  return subject;
}

long bio_control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

}  // namespace

const BIO_METHOD* TlsLayer::bio_method() {
  static const BIO_METHOD* const method = [] {
    BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "bascule");
    BIO_meth_set_read(m, bio_read);
    BIO_meth_set_write(m, bio_write);
    BIO_meth_set_ctrl(m, bio_control);
    return m;
  }();
  return method;
}

int TlsLayer::bio_read(BIO* bio, char* to, int size) {
  auto& self = *static_cast<TlsLayer*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  if (self.in_.empty()) {
    BIO_set_retry_read(bio);
    return -1;
  }
  const size_t n = std::min(self.in_.size(), static_cast<size_t>(size));
  ::memcpy(to, self.in_.data(), n);
  self.in_.remove_prefix(n);
  return static_cast<int>(n);
}

int TlsLayer::bio_write(BIO* bio, const char* from, int size) {
  auto& self = *static_cast<TlsLayer*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  if (self.out_ == nullptr) return -1;
  self.out_->append(from, static_cast<size_t>(size));
  return size;
}

TlsLayer::TlsLayer(const OpenSslContext& context, env::Stream::TlsSide side,
                   const std::string& server_name)
    : ssl_(SSL_new(context.ctx())) {
  BIO* bio = ssl_ ? BIO_new(bio_method()) : nullptr;
  if (bio == nullptr) {
    ssl_.reset();
    error_ = "out of memory";
    return;
  }
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_.get(), bio, bio);
  if (side == env::Stream::TlsSide::kServer) {
    SSL_set_accept_state(ssl_.get());
    return;
  }
  SSL_set_connect_state(ssl_.get());
  if (!expect_name(server_name, context.check())) {
    ssl_.reset();
    error_ = "the server's name can't be checked against a certificate";
  }
}

bool TlsLayer::expect_name(const std::string& name, env::ServerCheck check) {
  const bool address = is_address(name);
  // RFC 6066: no addresses in SNI.
  if (!address && !name.empty() && SSL_set_tlsext_host_name(ssl_.get(), name.c_str()) != 1) {
    return false;
  }
  if (check != env::ServerCheck::kChainAndName) return true;
  if (name.empty()) return false;
  if (address) return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl_.get()), name.c_str()) == 1;
  SSL_set_hostflags(ssl_.get(), X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  return SSL_set1_host(ssl_.get(), name.c_str()) == 1;
}

void TlsLayer::set_error() {
  const long verified = SSL_get_verify_result(ssl_.get());
  std::string reason = openssl_reason();
  if (verified != X509_V_OK) {
    reason += ": ";
    reason += X509_verify_cert_error_string(verified);
  }
  error_ = std::move(reason);
}

bool TlsLayer::handshake() {
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_.get());
  if (result == 1) {
    established_ = true;
    return true;
  }
  if (SSL_get_error(ssl_.get(), result) == SSL_ERROR_WANT_READ) return true;
  set_error();
  return false;
}

bool TlsLayer::begin(std::string& out) {
  if (!ssl_) return false;
  out_ = &out;
  const bool ok = handshake();
  out_ = nullptr;
  return ok;
}

TlsLayer::Outcome TlsLayer::open(std::string_view sealed, std::string& plain, std::string& out) {
  if (!ssl_) return Outcome::kFailed;
  in_ = sealed;
  out_ = &out;
  const auto finish = [this](Outcome outcome) {
    in_ = {};
    out_ = nullptr;
    return outcome;
  };
  if (!established_) {
    handshake_bytes_ += sealed.size();
    if (!handshake()) return finish(Outcome::kFailed);
    if (!established_ && handshake_bytes_ > kHandshakeBytesMax) {
      error_ = "handshake too long";
      return finish(Outcome::kFailed);
    }
    if (!established_) return finish(Outcome::kOpen);
  }
  for (;;) {
    const size_t before = plain.size();
    size_t n = 0;
    int result = 0;
    ERR_clear_error();
    plain.resize_and_overwrite(before + kRecordMax, [&](char* data, size_t) {
      result = SSL_read_ex(ssl_.get(), data + before, kRecordMax, &n);
      return before + n;
    });
    if (result == 1) continue;
    switch (SSL_get_error(ssl_.get(), result)) {
      case SSL_ERROR_WANT_READ:
        return finish(Outcome::kOpen);
      case SSL_ERROR_ZERO_RETURN:
        ended_ = true;
        return finish(Outcome::kClosed);
      default:
        set_error();
        return finish(Outcome::kFailed);
    }
  }
}

void TlsLayer::seal(std::string_view plain, std::string& out) {
  out_ = &out;
  ERR_clear_error();
  size_t written = 0;
  // The sink takes everything: it is written as a whole, or the connection is broken, which the
  // next read tells.
  if (SSL_write_ex(ssl_.get(), plain.data(), plain.size(), &written) != 1) ERR_clear_error();
  out_ = nullptr;
}

void TlsLayer::end(std::string& out) {
  if (!established_) return;
  out_ = &out;
  SSL_shutdown(ssl_.get());
  ERR_clear_error();
  out_ = nullptr;
}

env::TlsInfo TlsLayer::info() const {
  env::TlsInfo info;
  if (!established_) return info;
  SSL* ssl = ssl_.get();
  info.version = SSL_get_version(ssl);
  info.cipher = SSL_get_cipher_name(ssl);
  const Certificate peer(SSL_get1_peer_certificate(ssl));
  info.server_end_point =
      SSL_is_server(ssl) != 0 ? end_point(SSL_get_certificate(ssl)) : end_point(peer.get());
  const unsigned char* protocol = nullptr;
  unsigned size = 0;
  SSL_get0_alpn_selected(ssl, &protocol, &size);
  info.postgresql_alpn =
      std::string_view(reinterpret_cast<const char*>(protocol), size) == "postgresql";
  const bool asked = (SSL_get_verify_mode(ssl) & SSL_VERIFY_PEER) != 0;
  if (peer && asked && SSL_get_verify_result(ssl) == X509_V_OK) {
    info.peer_verified = true;
    info.peer_common_name = common_name(peer.get());
    info.peer_subject = subject_of(peer.get());
  }
  return info;
}

}  // namespace bascule::posix
