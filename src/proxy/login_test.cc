// Both halves of log-in, and both against each other.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "pgwire/messages.h"
#include "posix/tls_context.h"
#include "posix/tls_testing.h"
#include "proxy/client_login.h"
#include "proxy/server_login.h"

namespace bascule::proxy {
namespace {

using testing::HasSubstr;

class CountingEntropy : public env::Entropy {
 public:
  void fill(std::span<uint8_t> out) override {
    for (uint8_t& byte : out) byte = static_cast<uint8_t>(next_++ * 37);
  }

 private:
  int next_ = 1;
};

class LoginTest : public testing::Test {
 protected:
  // Lets in with these rules; without any, by SCRAM.
  std::shared_ptr<const Access> make_access(AccessConfig config = {}) {
    if (config.users.empty()) config.users = {{"app", "secret"}};
    auto made = Access::build(std::move(config), tls, entropy, nullptr);
    EXPECT_TRUE(made) << made.error().to_string();
    return *made;
  }
  ClientLogin make_login(std::shared_ptr<const Access> with,
                         ClientLogin::Room room = ClientLogin::Room::kFree,
                         std::string host = "10.0.0.1") {
    return ClientLogin(std::move(with), entropy, room,
                       ClientOrigin{std::move(host), [] { return std::string("osuser"); }});
  }
  static ServerLogin server_side(ServerCredential credential, std::string user = "app") {
    return ServerLogin({{"user", user}, {"database", "db"}}, std::move(credential), "nonce");
  }
  static ServerCredential password(std::string text) { return {{}, std::move(text), ""}; }
  // Lets the proxy's server half log in to the proxy's client half.
  static void converse(ServerLogin& client, ClientLogin& server) {
    std::string to_server = client.first({}, ServerLogin::Privacy::kNone), to_client;
    for (int i = 0; i < 10 && !(to_server.empty() && to_client.empty()); ++i) {
      to_server.erase(0, server.on_bytes(to_server, to_client));
      to_client.erase(0, client.on_bytes(to_client, to_server));
    }
  }

  CountingEntropy entropy;
  posix::OpenSslTls tls;
  std::shared_ptr<const Access> access = make_access();
  ClientLogin login = make_login(access);
};

TEST_F(LoginTest, PasswordProvesItselfAndYieldsKeysThatLogInAgain) {
  ServerLogin first = server_side(password("secret"));
  converse(first, login);
  ASSERT_EQ(login.state(), ClientLogin::State::kAuthenticated);
  ASSERT_TRUE(first.derived_keys());
  EXPECT_EQ(login.server_keys(), nullptr) << "a verifier made here is no server's";
  ClientLogin again = make_login(access);
  ServerLogin with_keys = server_side({first.derived_keys(), "", ""});
  converse(with_keys, again);
  EXPECT_EQ(again.state(), ClientLogin::State::kAuthenticated);
}

TEST_F(LoginTest, WrongPasswordAndUnknownUserGetTheSameAnswer) {
  for (const char* user : {"app", "nobody"}) {
    ClientLogin each = make_login(access);
    ServerLogin client = server_side(password("wrong"), user);
    converse(client, each);
    EXPECT_EQ(each.state(), ClientLogin::State::kFailed);
    EXPECT_EQ(client.failure().sqlstate, "28P01");
    EXPECT_THAT(client.failure().message, HasSubstr("password authentication failed"));
  }
}

TEST_F(LoginTest, FullProxyRefusesTheStartupPacketNotTheTlsRequest) {
  ClientLogin full = make_login(access, ClientLogin::Room::kFull);
  std::string request, reply;
  pgwire::append_ssl_request(request);
  full.on_bytes(request, reply);
  EXPECT_EQ(reply, "N");
  reply.clear();
  request.clear();
  pgwire::append_startup(request, pgwire::kProtocol30, {{"user", "app"}});
  full.on_bytes(request, reply);
  EXPECT_EQ(full.state(), ClientLogin::State::kFailed);
  EXPECT_THAT(reply, HasSubstr("C53300"));
}

TEST_F(LoginTest, EndlessTlsRequestsEnd) {
  std::string request, reply;
  for (int i = 0; i < 3; ++i) pgwire::append_ssl_request(request);
  login.on_bytes(request, reply);
  EXPECT_EQ(login.state(), ClientLogin::State::kFailed);
}

TEST_F(LoginTest, QueryBeforeAuthenticationIsRefused) {
  std::string request, reply;
  pgwire::append_startup(request, pgwire::kProtocol30, {{"user", "app"}});
  pgwire::append_query(request, "select 1");
  login.on_bytes(request, reply);
  EXPECT_EQ(login.state(), ClientLogin::State::kFailed);
}

TEST_F(LoginTest, NewerProtocolIsNegotiatedDown) {
  std::string request, reply;
  pgwire::append_startup(request, pgwire::kProtocol32, {{"user", "app"}, {"_pq_.x", "1"}});
  login.on_bytes(request, reply);
  EXPECT_EQ(reply.front(), 'v');
  EXPECT_EQ(login.state(), ClientLogin::State::kExchange);
}

TEST_F(LoginTest, CancelRequestNeedsNoAuthentication) {
  std::string request, reply;
  pgwire::append_cancel_request(request, {7, "abcd"});
  login.on_bytes(request, reply);
  EXPECT_EQ(login.state(), ClientLogin::State::kCancel);
  EXPECT_EQ(login.cancel_key().pid, 7u);
  EXPECT_EQ(reply, "");
}

TEST_F(LoginTest, ServerThatSkipsItsProofIsRefused) {
  ServerLogin client = server_side(password("secret"));
  std::string sasl, reply;
  static constexpr std::array<std::string_view, 1> kMechanisms = {pgwire::kScramSha256};
  pgwire::append_authentication_sasl(sasl, kMechanisms);
  pgwire::append_authentication_ok(sasl);
  client.on_bytes(sasl, reply);
  EXPECT_EQ(client.state(), ServerLogin::State::kFailed);
}

// https://www.postgresql.org/docs/18/protocol-message-formats.html (BackendKeyData)
TEST_F(LoginTest, ServersOfBothVersionsAreUnderstood) {
  for (const size_t key_size : {4, 256}) {
    ServerLogin client = server_side(password("secret"));
    const std::string startup = client.first({}, ServerLogin::Privacy::kNone);
    const auto sent = pgwire::parse_startup(startup);
    ASSERT_TRUE(sent);
    EXPECT_EQ(std::get<pgwire::StartupMessage>(*sent).version, pgwire::kProtocol32);
    std::string answer, reply;
    if (key_size == 4) {
      pgwire::append_negotiate_protocol_version(answer, pgwire::kProtocol30, {});
    }
    pgwire::append_authentication_ok(answer);
    pgwire::append_backend_key_data(answer, {7, std::string(key_size, 'k')});
    pgwire::append_ready_for_query(answer, pgwire::TransactionStatus::kIdle);
    client.on_bytes(answer, reply);
    EXPECT_EQ(client.state(), ServerLogin::State::kReady);
    EXPECT_EQ(client.cancel_key().secret.size(), key_size);
  }
}

TEST_F(LoginTest, ServerThatNegotiatesANewerVersionIsRefused) {
  ServerLogin client = server_side(password("secret"));
  std::string answer, reply;
  pgwire::append_negotiate_protocol_version(answer, {3, 9}, {});
  client.on_bytes(answer, reply);
  EXPECT_EQ(client.state(), ServerLogin::State::kFailed);
}

TEST_F(LoginTest, StartingServerIsWorthAnotherTry) {
  EXPECT_TRUE((ServerLogin::Failure{"57P03", ""}.transient()));
  EXPECT_TRUE((ServerLogin::Failure{"53300", ""}.transient()));
  EXPECT_FALSE((ServerLogin::Failure{"28P01", ""}.transient()));
  EXPECT_FALSE((ServerLogin::Failure{"3D000", ""}.transient()));
}

// ---- TLS ---------------------------------------------------------------------------------------

class TlsLoginTest : public LoginTest {
 protected:
  TlsLoginTest() { certificates.issue("proxy", "proxy", ""); }
  AccessConfig with_tls(SslMode mode) {
    AccessConfig config;
    config.client_tls = mode;
    config.client_tls_files.certificate_file = certificates.certificate("proxy");
    config.client_tls_files.key_file = certificates.key("proxy");
    config.client_tls_files.ca_file = certificates.ca();
    return config;
  }
  static std::string startup(const std::string& user = "app") {
    std::string packet;
    pgwire::append_startup(packet, pgwire::kProtocol30, {{"user", user}});
    return packet;
  }
  static std::string ssl_request() {
    std::string packet;
    pgwire::append_ssl_request(packet);
    return packet;
  }
  static env::TlsInfo info(bool verified = false, const std::string& name = "") {
    env::TlsInfo i;
    i.server_end_point = "end point";
    i.peer_verified = verified;
    i.peer_common_name = name;
    return i;
  }
  // Through the request and the handshake.
  void secure(ClientLogin& l, env::TlsInfo tls_info) {
    std::string reply;
    EXPECT_EQ(l.on_bytes(ssl_request(), reply), 8u);
    EXPECT_EQ(reply, "S");
    ASSERT_EQ(l.state(), ClientLogin::State::kStartTls);
    l.tls_started();
    l.on_secured(std::move(tls_info), reply);
  }
  posix::testing::CertificateDir certificates;
};

TEST_F(TlsLoginTest, NothingIsTakenFromClearTextBehindTheRequest) {
  ClientLogin l = make_login(make_access(with_tls(SslMode::kAllow)));
  std::string reply;
  l.on_bytes(ssl_request() + startup(), reply);
  EXPECT_EQ(l.state(), ClientLogin::State::kFailed);
  EXPECT_THAT(reply, HasSubstr("unencrypted data"));
}

TEST_F(TlsLoginTest, SecondRequestInsideTlsIsRefused) {
  ClientLogin l = make_login(make_access(with_tls(SslMode::kAllow)));
  secure(l, info());
  std::string reply;
  l.on_bytes(ssl_request(), reply);
  EXPECT_EQ(l.state(), ClientLogin::State::kFailed);
}

TEST_F(TlsLoginTest, PlusIsOfferedOnTlsOnly) {
  const auto with = make_access(with_tls(SslMode::kAllow));
  ClientLogin secured = make_login(with), clear = make_login(with);
  secure(secured, info());
  std::string offered, plain;
  secured.on_bytes(startup(), offered);
  clear.on_bytes(startup(), plain);
  EXPECT_THAT(offered, HasSubstr("SCRAM-SHA-256-PLUS"));
  EXPECT_THAT(plain, testing::Not(HasSubstr("PLUS")));
}

TEST_F(TlsLoginTest, ServerHalfBindsToTheSameChannelOrNotAtAll) {
  const auto with = make_access(with_tls(SslMode::kAllow));
  for (const char* seen : {"end point", "another", ""}) {
    ClientLogin l = make_login(with);
    secure(l, info());
    ServerLogin client = server_side(password("secret"));
    std::string to_client;
    std::string to_server = client.first({.data = seen}, ServerLogin::Privacy::kPrivate);
    for (int i = 0; i < 10 && !(to_server.empty() && to_client.empty()); ++i) {
      to_server.erase(0, l.on_bytes(to_server, to_client));
      to_client.erase(0, client.on_bytes(to_client, to_server));
    }
    EXPECT_EQ(l.state() == ClientLogin::State::kAuthenticated, std::string(seen) != "another");
  }
}

TEST_F(TlsLoginTest, LevelsDemandWhatTheySay) {
  const auto outcome = [&](SslMode mode, std::optional<env::TlsInfo> tls_info) {
    ClientLogin l = make_login(make_access(with_tls(mode)));
    if (tls_info) secure(l, *tls_info);
    std::string reply;
    l.on_bytes(startup(), reply);
    return l.state() == ClientLogin::State::kExchange;
  };
  EXPECT_TRUE(outcome(SslMode::kAllow, {}));
  EXPECT_FALSE(outcome(SslMode::kRequire, {}));
  EXPECT_TRUE(outcome(SslMode::kRequire, info()));
  EXPECT_FALSE(outcome(SslMode::kVerifyCa, info()));
  EXPECT_TRUE(outcome(SslMode::kVerifyCa, info(true, "other")));
  EXPECT_FALSE(outcome(SslMode::kVerifyFull, info(true, "other")));
  EXPECT_TRUE(outcome(SslMode::kVerifyFull, info(true, "app")));
}

TEST_F(TlsLoginTest, UnixSocketsNeedNoTls) {
  ClientLogin l =
      make_login(make_access(with_tls(SslMode::kVerifyFull)), ClientLogin::Room::kFree, "");
  std::string reply;
  l.on_bytes(ssl_request(), reply);
  EXPECT_EQ(reply, "N");
  l.on_bytes(startup(), reply);
  EXPECT_EQ(l.state(), ClientLogin::State::kExchange);
}

TEST_F(TlsLoginTest, CertificatesWithoutTlsAreAMistakeOfTheConfiguration) {
  AccessConfig config;
  config.auth_type = AuthMethod::kCert;
  EXPECT_FALSE(Access::build(config, tls, entropy, nullptr));
  config = with_tls(SslMode::kRequire);
  config.auth_type = AuthMethod::kCert;
  config.client_tls_files.ca_file.clear();
  EXPECT_FALSE(Access::build(config, tls, entropy, nullptr));
}

// ---- Look-ups ----------------------------------------------------------------------------------

TEST_F(LoginTest, UserThatIsNotListedIsLookedUpAndAMadeUpOneIsAskedAllTheSame) {
  AccessConfig config;
  config.auth_query.user = "lookup";
  const auto with = make_access(std::move(config));
  for (const bool exists : {true, false}) {
    ClientLogin l = make_login(with);
    ServerLogin client = server_side(password("found"), "someone");
    std::string to_client;
    std::string to_server = client.first({}, ServerLogin::Privacy::kNone);
    to_server.erase(0, l.on_bytes(to_server, to_client));
    ASSERT_EQ(l.state(), ClientLogin::State::kLookup);
    EXPECT_TRUE(l.question().secret);
    EXPECT_EQ(to_client, "");
    UserAnswer answer;
    if (exists) answer.secret = *UserSecret::parse("found");
    l.on_answer(std::move(answer), to_client);
    ASSERT_EQ(l.state(), ClientLogin::State::kExchange);
    for (int i = 0; i < 10 && !(to_server.empty() && to_client.empty()); ++i) {
      to_client.erase(0, client.on_bytes(to_client, to_server));
      to_server.erase(0, l.on_bytes(to_server, to_client));
    }
    EXPECT_EQ(l.state() == ClientLogin::State::kAuthenticated, exists);
    EXPECT_EQ(l.doubts_answer(), !exists);
  }
}

TEST_F(LoginTest, KeysThatLogInToServersComeFromAGivenVerifierOnly) {
  AccessConfig config;
  config.users = {{"app", pgwire::make_verifier("secret", "0123456789abcdef")->to_string()}};
  ClientLogin l = make_login(make_access(std::move(config)));
  ServerLogin client = server_side(password("secret"));
  converse(client, l);
  ASSERT_EQ(l.state(), ClientLogin::State::kAuthenticated);
  EXPECT_NE(l.server_keys(), nullptr);
}

TEST_F(LoginTest, ServerHalfGivesNoPasswordInClearWhereItCouldBeRead) {
  std::string request, reply;
  pgwire::append_authentication_cleartext(request);
  for (const auto privacy : {ServerLogin::Privacy::kNone, ServerLogin::Privacy::kPrivate}) {
    ServerLogin client = server_side(password("secret"));
    (void)client.first({}, privacy);
    reply.clear();
    client.on_bytes(request, reply);
    EXPECT_EQ(reply.find("secret") != std::string::npos, privacy == ServerLogin::Privacy::kPrivate);
  }
}

}  // namespace
}  // namespace bascule::proxy
