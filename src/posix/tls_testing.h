// For tests: certificates made on the spot.
#pragma once

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

namespace bascule::posix::testing {

struct KeyDeleter {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(X509* certificate) const { X509_free(certificate); }
};
using Key = std::unique_ptr<EVP_PKEY, KeyDeleter>;
using Cert = std::unique_ptr<X509, KeyDeleter>;

// A directory with an authority (ca.pem) and what it issues (NAME.pem, NAME.key).
class CertificateDir {
 public:
  CertificateDir() {
    char dir[] = "/tmp/bascule-tls-XXXXXX";
    if (::mkdtemp(dir) == nullptr) ADD_FAILURE() << "mkdtemp";
    path_ = dir;
    ca_key_ = Key(EVP_EC_gen("P-256"));
    ca_ = make("test authority", "", ca_key_.get(), nullptr);
    write("ca", ca_.get(), ca_key_.get());
  }
  ~CertificateDir() { std::filesystem::remove_all(path_); }

  // `names`: of subjectAltName, "DNS:db1.example,IP:127.0.0.1".
  void issue(const std::string& name, const std::string& common_name, const std::string& names) {
    const Key key(EVP_EC_gen("P-256"));
    const Cert certificate = make(common_name, names, key.get(), ca_.get());
    write(name, certificate.get(), key.get());
  }
  std::string certificate(const std::string& name) const { return path_ + "/" + name + ".pem"; }
  std::string key(const std::string& name) const { return path_ + "/" + name + ".key"; }
  std::string ca() const { return certificate("ca"); }

 private:
  Cert make(const std::string& common_name, const std::string& names, EVP_PKEY* key, X509* issuer) {
    Cert made(X509_new());
    X509* x = made.get();
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), ++serial_);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600 * 24);
    X509_set_pubkey(x, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_UTF8,
                               reinterpret_cast<const unsigned char*>(common_name.data()),
                               static_cast<int>(common_name.size()), -1, 0);
    X509* signer = issuer != nullptr ? issuer : x;
    X509_set_issuer_name(x, X509_get_subject_name(signer));
    X509V3_CTX context;
    X509V3_set_ctx(&context, signer, x, nullptr, nullptr, 0);
    const auto add = [&](int what, const char* value) {
      X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, what, value);
      X509_add_ext(x, extension, -1);
      X509_EXTENSION_free(extension);
    };
    if (issuer == nullptr) add(NID_basic_constraints, "critical,CA:TRUE");
    if (!names.empty()) add(NID_subject_alt_name, names.c_str());
    X509_sign(x, ca_key_.get(), EVP_sha256());
    return made;
  }
  void write(const std::string& name, X509* x, EVP_PKEY* key) {
    std::FILE* file = std::fopen(certificate(name).c_str(), "w");
    PEM_write_X509(file, x);
    std::fclose(file);
    file = std::fopen(this->key(name).c_str(), "w");
    PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr);
    std::fclose(file);
    std::filesystem::permissions(this->key(name), std::filesystem::perms(0600));
  }
  std::string path_;
  Key ca_key_;
  Cert ca_;
  int serial_ = 0;
};

}  // namespace bascule::posix::testing
