// Who may come in, how clients prove who they are, and how the proxy proves itself to servers: the
// part of the configuration that can be replaced while the proxy runs. Plain data; secrets inside:
// never logged.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/time.h"
#include "env/tls.h"

namespace bascule::proxy {

// libpq's levels, in order of what they demand.
// Of clients: allow and prefer take TLS and clear text; require, TLS; verify-ca, a certificate that
// was issued by one of our authorities; verify-full, one whose common name is the user's.
// Of servers: as libpq's sslmode.
enum class SslMode { kDisable, kAllow, kPrefer, kRequire, kVerifyCa, kVerifyFull };

enum class AuthMethod { kTrust, kReject, kScram, kMd5, kPassword, kCert, kPeer };

// Who may log in. `secret`: as in pg_authid.rolpassword (SCRAM-SHA-256 verifier, or "md5" and 32
// hexadecimal digits), or a password. A verifier that equals the server's (same salt) logs in to
// servers with the keys that the client's own login yields: no password is needed then.
struct ProxyUser {
  std::string name;
  std::string secret;
};

// Users that are not listed are looked up in the cluster itself.
struct AuthQuery {
  std::string user;  // logs in to servers for it; its secret is among the users. Empty: no look-ups
  std::string database = "postgres";
  std::string query = "SELECT usename, passwd FROM pg_catalog.pg_shadow WHERE usename = $1";
  Nanos ttl = 60s;         // how long an answer counts
  Nanos ttl_unknown = 5s;  // and the answer that there is no such user
};

struct AccessConfig {
  // ---- Clients -------------------------------------------------------------------------------
  SslMode client_tls = SslMode::kDisable;
  env::TlsServerOptions client_tls_files;
  AuthMethod auth_type = AuthMethod::kScram;  // unless there are rules
  // pg_hba.conf and pg_ident.conf: their text, and their names for messages. A file of rules
  // without any lets nobody in.
  std::string hba_file, hba;
  std::string ident_file, ident;
  std::vector<ProxyUser> users;
  AuthQuery auth_query;
  bool password_in_clear = false;  // method "password" also without TLS and unix socket
  // Addresses and networks ("10.0.0.0/8") whose connections begin with a PROXY protocol header.
  std::vector<std::string> proxy_protocol_from;
  // Users of the admin console: who may order, and who may only look. Both empty: there is none,
  // and its names are those of ordinary databases.
  std::vector<std::string> console_admins, console_stats;

  // ---- Servers -------------------------------------------------------------------------------
  SslMode server_tls = SslMode::kPrefer;
  env::TlsClientOptions server_tls_files;
};

}  // namespace bascule::proxy
