// TLS over the nets of both engines: both sides are ours; interworking with libpq and PostgreSQL is
// tested in tests/integration/proxy_tls_test.py.
#include <errno.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <functional>
#include <utility>

#include "posix/engine_testing.h"
#include "posix/tls_testing.h"

namespace bascule::posix {
namespace {

using ::testing::HasSubstr;
using Side = env::Stream::TlsSide;

class Peer : public env::StreamHandler {
 public:
  size_t on_data(std::string_view bytes) override {
    if (on_bytes) return on_bytes(bytes);
    received.append(bytes);
    return bytes.size();
  }
  void on_connected() override {
    if (on_ready) on_ready();
  }
  void on_secured() override {
    secured = true;
    info = stream->tls_info();
    if (on_safe) on_safe();
  }
  void on_closed(int error) override {
    closed = true;
    close_error = error;
    why = stream->tls_error();
    if (on_end) on_end();
  }
  std::function<size_t(std::string_view)> on_bytes;
  std::function<void()> on_ready, on_safe, on_end;
  env::Stream* stream = nullptr;
  env::TlsInfo info;
  std::string received, why;
  bool secured = false, closed = false;
  int close_error = -1;
};

class TlsTest : public EngineTest, public env::Acceptor {
 protected:
  void on_accept(env::Stream& stream) override {
    server.stream = &stream;
    stream.set_handler(server);
    if (on_new) on_new();
  }
  void SetUp() override {
    files.issue("server", "db1", "DNS:db1.example,IP:127.0.0.1");
    files.issue("app", "app", "");
    char dir[] = "/tmp/tls-net-XXXXXX";
    ASSERT_NE(::mkdtemp(dir), nullptr);
    endpoint = {dir, 5432};
    ASSERT_TRUE(net.listen(endpoint, *this));
    guard = loop.call_after(10s, [this] {
      ADD_FAILURE() << "time-out";
      loop.stop();
    });
    // As after an SSLRequest: one byte in clear each way.
    server.on_bytes = [this](std::string_view bytes) -> size_t {
      if (server.secured) {
        server.received.append(bytes);
        return bytes.size();
      }
      server.stream->send("S");
      server.stream->start_tls(*server_context(), Side::kServer, "");
      return 1;
    };
    client.on_ready = [this] { client.stream->send("?"); };
    client.on_bytes = [this](std::string_view bytes) -> size_t {
      if (!client.secured) {
        client.stream->start_tls(*client_context(), Side::kClient, name);
        return bytes.size();
      }
      client.received.append(bytes);
      return bytes.size();
    };
    client.on_end = server.on_end = [this] { loop.stop(); };
  }
  void TearDown() override { std::filesystem::remove_all(endpoint.host); }

  // Made anew for each handshake, and gone while the stream lives: as after a reload.
  std::unique_ptr<env::TlsContext> server_context() {
    auto context = tls.server_context(server_options());
    EXPECT_TRUE(context) << context.error().to_string();
    return std::move(*context);
  }
  std::unique_ptr<env::TlsContext> client_context() {
    auto context = tls.client_context(client_options);
    EXPECT_TRUE(context) << context.error().to_string();
    return std::move(*context);
  }
  env::TlsServerOptions server_options() {
    env::TlsServerOptions o;
    o.certificate_file = files.certificate("server");
    o.key_file = files.key("server");
    o.ca_file = client_ca;
    return o;
  }
  void run() {
    client.stream = &net.connect(endpoint, client);
    loop.run();
  }

  testing::CertificateDir files;
  OpenSslTls tls;
  std::unique_ptr<SocketNet> own_net = make_net(GetParam(), loop);
  SocketNet& net = *own_net;
  env::Endpoint endpoint;
  Peer client, server;
  std::string client_ca;
  std::string name = "db1.example";
  env::TlsClientOptions client_options;
  std::function<void()> on_new;
  env::TimerId guard{};
};

INSTANTIATE_TEST_SUITE_P(Engines, TlsTest, ::testing::ValuesIn(engines_here()), engine_name);

TEST_P(TlsTest, BytesOfEverySizePassBothWays) {
  std::string sent;
  for (int i = 0; i < 300'000; ++i) sent.push_back(static_cast<char>(i * 7 + i / 1000));
  client.on_safe = [&] {
    for (size_t at = 0, size = 1; at < sent.size(); at += size, size = size * 3 + 1) {
      client.stream->send(std::string_view(sent).substr(at, size));
    }
  };
  server.on_bytes = [this, begin = server.on_bytes, &sent](std::string_view bytes) -> size_t {
    if (!server.secured) return begin(bytes);
    server.received.append(bytes);
    if (server.received.size() == sent.size()) server.stream->send(server.received);
    return bytes.size();
  };
  client.on_bytes = [this, begin = client.on_bytes, &sent](std::string_view bytes) -> size_t {
    const size_t done = begin(bytes);
    if (client.received.size() == sent.size()) loop.stop();
    return done;
  };
  run();
  EXPECT_EQ(server.received, sent);
  EXPECT_EQ(client.received, sent);
  EXPECT_EQ(client.info.version, "TLSv1.3");
  EXPECT_TRUE(client.info.postgresql_alpn && server.info.postgresql_alpn);
  EXPECT_EQ(client.info.server_end_point.size(), 32u);
  EXPECT_EQ(client.info.server_end_point, server.info.server_end_point);
}

TEST_P(TlsTest, BytesThatComeWithTheOneThatStartsTlsBelongToTheHandshake) {
  // Clear text in front of a handshake breaks it: nothing of it reaches the handler.
  client.on_ready = [this] { client.stream->send("?select 1"); };
  run();
  EXPECT_FALSE(server.secured);
  EXPECT_EQ(server.close_error, EPROTO);
  EXPECT_EQ(server.received, "");
}

TEST_P(TlsTest, DirectTlsTakesTheUnconsumedHello) {
  client.on_ready = [this] { client.stream->start_tls(*client_context(), Side::kClient, name); };
  server.on_bytes = [this](std::string_view bytes) -> size_t {
    if (server.secured) {
      server.received.append(bytes);
      loop.stop();
      return bytes.size();
    }
    EXPECT_EQ(bytes[0], 0x16);
    server.stream->start_tls(*server_context(), Side::kServer, "");
    return 0;
  };
  client.on_safe = [this] { client.stream->send("hello"); };
  run();
  EXPECT_EQ(server.received, "hello");
}

TEST_P(TlsTest, PausedStreamKeepsWhatWasDecryptedAndHowItEnded) {
  client.on_safe = [this] {
    client.stream->send(std::string(100'000, 'x'));
    client.stream->close_after_flush();
  };
  bool paused = false;
  server.on_bytes = [this, begin = server.on_bytes, &paused](std::string_view bytes) -> size_t {
    if (server.secured && !std::exchange(paused, true)) {
      server.stream->pause();
      loop.call_after(20ms, [this] { server.stream->resume(); });
      return 0;
    }
    return begin(bytes);
  };
  run();
  EXPECT_EQ(server.received.size(), 100'000u);
  EXPECT_TRUE(server.closed);
  EXPECT_EQ(server.close_error, 0);
}

TEST_P(TlsTest, NameAndAuthorityOfTheServerAreChecked) {
  client_options.check = env::ServerCheck::kChainAndName;
  client_options.ca_file = files.ca();
  client.on_safe = [this] { loop.stop(); };
  run();
  EXPECT_TRUE(client.secured) << client.why;
}

TEST_P(TlsTest, AddressIsFoundInTheCertificate) {
  client_options.check = env::ServerCheck::kChainAndName;
  client_options.ca_file = files.ca();
  name = "127.0.0.1";
  client.on_safe = [this] { loop.stop(); };
  run();
  EXPECT_TRUE(client.secured) << client.why;
}

TEST_P(TlsTest, ServerOfAnotherNameIsRefused) {
  client_options.check = env::ServerCheck::kChainAndName;
  client_options.ca_file = files.ca();
  name = "db2.example";
  run();
  EXPECT_FALSE(client.secured);
  EXPECT_EQ(client.close_error, EPROTO);
  EXPECT_THAT(client.why, HasSubstr("mismatch"));
}

TEST_P(TlsTest, ServerOfAnotherAuthorityIsRefused) {
  testing::CertificateDir others;
  client_options.check = env::ServerCheck::kChain;
  client_options.ca_file = others.ca();
  server.on_end = nullptr;
  run();
  EXPECT_FALSE(client.secured);
  EXPECT_THAT(client.why, HasSubstr("certificate verify failed"));
}

TEST_P(TlsTest, ClientCertificateIsVerifiedAndNamed) {
  client_ca = files.ca();
  client_options.certificate_file = files.certificate("app");
  client_options.key_file = files.key("app");
  server.on_safe = [this] { loop.stop(); };
  run();
  EXPECT_TRUE(server.info.peer_verified);
  EXPECT_EQ(server.info.peer_common_name, "app");
  EXPECT_EQ(server.info.peer_subject, "CN=app");
}

TEST_P(TlsTest, ClientCertificateOfAnotherAuthorityEndsTheHandshake) {
  testing::CertificateDir others;
  others.issue("app", "app", "");
  client_ca = files.ca();
  client_options.certificate_file = others.certificate("app");
  client_options.key_file = others.key("app");
  client.on_end = nullptr;
  run();
  EXPECT_FALSE(server.secured);
  EXPECT_EQ(server.close_error, EPROTO);
}

TEST_P(TlsTest, ClientWithoutCertificateIsLetInUnverified) {
  client_ca = files.ca();
  server.on_safe = [this] { loop.stop(); };
  run();
  EXPECT_TRUE(server.secured);
  EXPECT_FALSE(server.info.peer_verified);
}

TEST_P(TlsTest, EndlessHandshakeIsCutOff) {
  client.on_bytes = [this](std::string_view bytes) -> size_t {
    // The begin of a handshake message of 16 MB, in records of 16 KB.
    const std::string record = std::string("\x16\x03\x01\x40\x00", 5) + std::string(16384, '\1');
    for (int i = 0; i < 20; ++i) client.stream->send(record);
    return bytes.size();
  };
  run();
  EXPECT_FALSE(server.secured);
  EXPECT_TRUE(server.closed);
}

TEST_P(TlsTest, UnusableFilesAreNamed) {
  auto options = server_options();
  options.key_file = files.key("app");
  EXPECT_THAT(tls.server_context(options).error().to_string(), HasSubstr("key values mismatch"));
  options.key_file = "/nowhere/key";
  EXPECT_THAT(tls.server_context(options).error().to_string(), HasSubstr("/nowhere/key: No such"));
  options = server_options();
  options.limits.ciphers = "no-such-cipher";
  EXPECT_THAT(tls.server_context(options).error().to_string(), HasSubstr("TLS ciphers"));
  options = server_options();
  options.ca_file = files.key("app");
  EXPECT_FALSE(tls.server_context(options));
}

// Both ends without a net, so that one may do what a stream would not.
TEST(TlsLayer, EndOfThePeersBytesIsToldApartFromTheEndOfItsConnection) {
  testing::CertificateDir files;
  files.issue("server", "db1", "");
  OpenSslTls tls;
  env::TlsServerOptions options;
  options.certificate_file = files.certificate("server");
  options.key_file = files.key("server");
  const auto server_context = *tls.server_context(options);
  const auto client_context = *tls.client_context({});
  TlsLayer server(static_cast<const OpenSslContext&>(*server_context), Side::kServer, "");
  TlsLayer client(static_cast<const OpenSslContext&>(*client_context), Side::kClient, "");
  std::string to_server, to_client, plain;
  ASSERT_TRUE(client.begin(to_server));
  for (int i = 0; i < 4 && !(client.established() && server.established()); ++i) {
    server.open(std::exchange(to_server, {}), plain, to_client);
    client.open(std::exchange(to_client, {}), plain, to_server);
  }
  ASSERT_TRUE(client.established() && server.established());
  client.seal("last", to_server);
  client.end(to_server);
  EXPECT_EQ(server.open(to_server, plain, to_client), TlsLayer::Outcome::kClosed);
  EXPECT_EQ(plain, "last");
  EXPECT_TRUE(server.ended());
  EXPECT_FALSE(client.ended());
}

}  // namespace
}  // namespace bascule::posix
