// AccessConfig from a file of "key=value" lines, for proxy_harness: who may come in, and TLS.
// Keys: user (NAME:SECRET, repeated), auth_type, hba, ident (files), auth_user, auth_query,
// auth_db, auth_ttl_ms, password_in_clear, proxy_from (repeated), client_tls, client_cert,
// client_key, client_ca, client_min, client_ciphers, server_tls, server_ca, server_cert,
// server_key.
#pragma once

#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>

#include "proxy/access_config.h"

namespace bascule {

inline std::string whole_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

template <size_t N>
int index_of(const std::string& word, const char* const (&words)[N]) {
  for (size_t i = 0; i < N; ++i) {
    if (word == words[i]) return static_cast<int>(i);
  }
  throw std::runtime_error("unknown word " + word);
}

inline proxy::SslMode ssl_mode(const std::string& word) {
  return static_cast<proxy::SslMode>(
      index_of(word, {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}));
}

inline void set_client_access(proxy::AccessConfig& c, const std::string& key,
                              const std::string& value) {
  if (key == "user") {
    const size_t at = value.find(':');
    c.users.push_back({value.substr(0, at), value.substr(at + 1)});
  }
  if (key == "auth_type") {
    c.auth_type = static_cast<proxy::AuthMethod>(
        index_of(value, {"trust", "reject", "scram-sha-256", "md5", "password", "cert", "peer"}));
  }
  if (key == "hba") c.hba_file = value, c.hba = whole_file(value);
  if (key == "ident") c.ident_file = value, c.ident = whole_file(value);
  if (key == "auth_user") c.auth_query.user = value;
  if (key == "auth_query") c.auth_query.query = value;
  if (key == "auth_db") c.auth_query.database = value;
  if (key == "auth_ttl_ms") {
    c.auth_query.ttl = c.auth_query.ttl_unknown = Millis(std::stoi(value));
  }
  if (key == "password_in_clear") c.password_in_clear = value == "1";
  if (key == "proxy_from") c.proxy_protocol_from.push_back(value);
  if (key == "console_admin") c.console_admins.push_back(value);
  if (key == "console_stats") c.console_stats.push_back(value);
  if (key == "client_tls") c.client_tls = ssl_mode(value);
  if (key == "client_cert") c.client_tls_files.certificate_file = value;
  if (key == "client_key") c.client_tls_files.key_file = value;
  if (key == "client_ca") c.client_tls_files.ca_file = value;
  if (key == "client_ciphers") c.client_tls_files.limits.ciphers = value;
  if (key == "client_min" && value == "1.3") {
    c.client_tls_files.limits.min_version = env::TlsVersion::k13;
  }
}

inline proxy::AccessConfig read_access(const std::string& path) {
  proxy::AccessConfig c;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    const size_t at = line.find('=');
    if (at == std::string::npos) continue;
    const std::string key = line.substr(0, at), value = line.substr(at + 1);
    set_client_access(c, key, value);
    if (key == "server_tls") c.server_tls = ssl_mode(value);
    if (key == "server_ca") c.server_tls_files.ca_file = value;
    if (key == "server_cert") c.server_tls_files.certificate_file = value;
    if (key == "server_key") c.server_tls_files.key_file = value;
  }
  return c;
}

}  // namespace bascule
