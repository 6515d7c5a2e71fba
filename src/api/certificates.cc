#include "api/certificates.h"

#include <fmt/format.h>
#include <openssl/err.h>

#include <system_error>

namespace bascule::api {

Status Certificates::serve(SSL_CTX* server) {
  stamps_ = stamps();
  context_ = load();
  if (!context_ || server == nullptr) {
    return fail(ErrorCode::kInvalid,
                fmt::format("api.tls: {} and {} can't be used as certificate and key",
                            files_.cert_file, files_.key_file),
                "Both as PEM; the key must be the certificate's and readable by this user");
  }
  SSL_CTX_set_cert_cb(server, &Certificates::on_handshake, this);
  return {};
}

int Certificates::on_handshake(SSL* connection, void* self) {
  auto& certificates = *static_cast<Certificates*>(self);
  const std::lock_guard lock(certificates.mutex_);
  if (const Stamps now = certificates.stamps(); now != certificates.stamps_) {
    if (Context fresh = certificates.load()) {
      certificates.context_ = std::move(fresh);
      certificates.stamps_ = now;
    }
  }
  // The connection takes a reference of its own.
  return SSL_set_SSL_CTX(connection, certificates.context_.get()) != nullptr ? 1 : 0;
}

Certificates::Stamps Certificates::stamps() const {
  const auto stamp = [](const std::string& file) {
    std::error_code missing;
    return file.empty() ? std::filesystem::file_time_type{}
                        : std::filesystem::last_write_time(file, missing);
  };
  return {stamp(files_.cert_file), stamp(files_.key_file), stamp(files_.client_ca_file)};
}

Certificates::Context Certificates::load() const {
  Context context(SSL_CTX_new(TLS_server_method()));
  SSL_CTX* c = context.get();
  const bool usable =
      c != nullptr && SSL_CTX_use_certificate_chain_file(c, files_.cert_file.c_str()) == 1 &&
      SSL_CTX_use_PrivateKey_file(c, files_.key_file.c_str(), SSL_FILETYPE_PEM) == 1 &&
      SSL_CTX_check_private_key(c) == 1 &&
      (files_.client_ca_file.empty() ||
       SSL_CTX_load_verify_locations(c, files_.client_ca_file.c_str(), nullptr) == 1);
  ERR_clear_error();
  return usable ? std::move(context) : nullptr;
}

}  // namespace bascule::api
