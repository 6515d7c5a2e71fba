// Both halves of log-in, and both against each other.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "pgwire/messages.h"
#include "posix/tls_context.h"
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

TEST_F(LoginTest, StartingServerIsWorthAnotherTry) {
  EXPECT_TRUE((ServerLogin::Failure{"57P03", ""}.transient()));
  EXPECT_TRUE((ServerLogin::Failure{"53300", ""}.transient()));
  EXPECT_FALSE((ServerLogin::Failure{"28P01", ""}.transient()));
  EXPECT_FALSE((ServerLogin::Failure{"3D000", ""}.transient()));
}

}  // namespace
}  // namespace bascule::proxy
