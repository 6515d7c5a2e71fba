// TLS for streams, as an interface: who uses it never sees the library. A context is what files say
// (certificate, key, authorities), read once; it is immutable and may be used by any thread.
// Streams that have begun keep what they need of it: a context may be replaced at any time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"

namespace bascule::env {

enum class TlsVersion { k12, k13 };

// What both sides may set. Files are PEM.
struct TlsLimits {
  TlsVersion min_version = TlsVersion::k12;
  std::string ciphers;  // of TLS 1.2, in OpenSSL's syntax; empty: "HIGH:!aNULL:!MD5"
};

struct TlsServerOptions {
  std::string certificate_file;  // with its chain
  std::string key_file;
  // Not empty: clients are asked for a certificate. One that these authorities did not issue ends
  // the handshake; none at all does not: see TlsInfo::peer_verified.
  std::string ca_file;
  std::string crl_file;
  TlsLimits limits;
};

enum class ServerCheck { kNone, kChain, kChainAndName };

struct TlsClientOptions {
  ServerCheck check = ServerCheck::kNone;
  std::string ca_file;  // needed unless kNone; given with kNone it is not used
  std::string crl_file;
  std::string certificate_file;  // our own, if the server asks; with key_file
  std::string key_file;
  TlsLimits limits;
};

class TlsContext {
 public:
  virtual ~TlsContext() = default;
};

// Of one stream, after its handshake.
struct TlsInfo {
  std::string version;  // "TLSv1.3"
  std::string cipher;
  // Channel binding of type tls-server-end-point (RFC 5929); empty if the certificate's signature
  // has no hash to use (Ed25519).
  std::string server_end_point;
  bool postgresql_alpn = false;  // the peers agreed on the protocol "postgresql" (RFC 7301)
  bool peer_verified = false;    // it gave a certificate, issued by one of our authorities
  std::string peer_common_name;  // of a verified certificate; empty if it holds a NUL
  std::string peer_subject;      // likewise, as RFC 2253: "CN=app,O=Example"
};

class Tls {
 public:
  virtual ~Tls() = default;
  // Read files: not for a loop's thread. Errors name the file; a key that wants a passphrase is
  // one.
  virtual Result<std::unique_ptr<TlsContext>> server_context(const TlsServerOptions& options) = 0;
  virtual Result<std::unique_ptr<TlsContext>> client_context(const TlsClientOptions& options) = 0;
};

}  // namespace bascule::env
