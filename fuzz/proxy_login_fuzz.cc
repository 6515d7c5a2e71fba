// A client that may say anything, in pieces of any size, never gets in without its password; what
// it is answered is bounded; a log-in that ended takes nothing more.
// Input: one byte of options, then pieces: a length byte and the bytes.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "fuzz/check.h"
#include "proxy/client_login.h"

using namespace bascule;
using namespace bascule::proxy;

namespace {

class NoTls final : public env::Tls {
 public:
  Result<std::unique_ptr<env::TlsContext>> server_context(const env::TlsServerOptions&) override {
    return std::make_unique<env::TlsContext>();
  }
  Result<std::unique_ptr<env::TlsContext>> client_context(const env::TlsClientOptions&) override {
    return std::make_unique<env::TlsContext>();
  }
};

class Counter final : public env::Entropy {
 public:
  void fill(std::span<uint8_t> out) override {
    for (uint8_t& byte : out) byte = next_++;
  }

 private:
  uint8_t next_ = 1;
};

std::shared_ptr<const Access> make_access(unsigned options) {
  NoTls tls;
  Counter entropy;
  AccessConfig config;
  config.users = {{"app",
                   "SCRAM-SHA-256$4096:MDEyMzQ1Njc4OWFiY2RlZg==$"
                   "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:"
                   "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="},
                  {"md", "md5" + std::string(32, 'a')}};
  constexpr SslMode kModes[] = {SslMode::kDisable, SslMode::kAllow, SslMode::kRequire,
                                SslMode::kVerifyFull};
  config.client_tls = kModes[options & 3];
  config.client_tls_files.ca_file = "ca";
  config.auth_type = (options & 4) != 0 ? AuthMethod::kMd5 : AuthMethod::kScram;
  if ((options & 8) != 0) config.proxy_protocol_from = {"10.0.0.0/8"};
  if ((options & 16) != 0) config.auth_query.user = "app";
  if ((options & 32) != 0) {
    config.hba_file = "hba";
    if (config.client_tls != SslMode::kDisable) config.hba = "hostssl all md all cert\n";
    config.hba +=
        "host all md 10.0.0.0/8 md5\nhost db all all reject\n"
        "host all all all scram-sha-256\n";
  }
  auto access = Access::build(std::move(config), tls, entropy, nullptr);
  BASCULE_FUZZ_CHECK(access.has_value());
  return *access;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static std::shared_ptr<const Access> known[64];
  if (size == 0) return 0;
  const unsigned options = data[0] & 63u;
  if (!known[options]) known[options] = make_access(options);
  Counter entropy;
  ClientLogin login(known[options], entropy, ClientLogin::Room::kFree,
                    {"10.1.2.3", [] { return std::string("nobody"); }});
  using State = ClientLogin::State;
  std::string unread, reply;
  for (size_t at = 1; at < size;) {
    const size_t n = std::min<size_t>(data[at], size - at - 1);
    unread.append(reinterpret_cast<const char*>(data) + at + 1, n);
    at += n + 1;
    const bool ended = login.state() == State::kFailed || login.state() == State::kCancel;
    const size_t done = login.on_bytes(unread, reply);
    BASCULE_FUZZ_CHECK(done <= unread.size() && !(ended && done > 0));
    unread.erase(0, done);
    if (login.state() == State::kStartTls) {
      login.tls_started();
      env::TlsInfo info;
      info.server_end_point = "end point";
      info.postgresql_alpn = n % 2 == 0;
      login.on_secured(std::move(info), reply);
    }
    if (login.state() == State::kLookup) login.on_answer({}, reply);
    BASCULE_FUZZ_CHECK(login.state() != State::kAuthenticated);
  }
  // Names and options of the client's own choice come back in messages.
  BASCULE_FUZZ_CHECK(reply.size() < 64 * 1024);
  return 0;
}
