// Secrets, exchanges, the passwords for servers, and the text of look-ups.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "pgwire/md5.h"
#include "pgwire/messages.h"
#include "posix/tls_context.h"
#include "proxy/auth_exchange.h"
#include "proxy/auth_lookup.h"
#include "proxy/server_credentials.h"

namespace bascule::proxy {
namespace {

using testing::HasSubstr;
using testing::Not;

class FixedEntropy : public env::Entropy {
 public:
  void fill(std::span<uint8_t> out) override {
    for (uint8_t& byte : out) byte = 7;
  }
};

const std::string kVerifier = pgwire::make_verifier("secret", "0123456789abcdef")->to_string();

Users make_users(std::vector<ProxyUser> list) { return *Users::build(list, "installation"); }

std::string payload(const std::string& message) { return message.substr(5); }
std::string password_message(std::string_view text) {
  std::string message;
  pgwire::append_password(message, text);
  return payload(message);
}

TEST(Users, SecretsAreWhatTheyLookLike) {
  EXPECT_EQ(UserSecret::parse(kVerifier)->kind(), UserSecret::Kind::kScram);
  EXPECT_EQ(UserSecret::parse("md5" + std::string(32, 'a'))->kind(), UserSecret::Kind::kMd5);
  EXPECT_EQ(UserSecret::parse("md5" + std::string(31, 'a'))->kind(), UserSecret::Kind::kPassword);
  EXPECT_EQ(UserSecret::parse("md5" + std::string(32, 'A'))->kind(), UserSecret::Kind::kPassword);
  EXPECT_FALSE(UserSecret::parse(""));
  EXPECT_FALSE(UserSecret::parse("SCRAM-SHA-256$nonsense"));
}

TEST(Users, ErrorsNameTheUserAndNotTheSecret) {
  const auto bad = Users::build({{"eve", "SCRAM-SHA-256$geheim"}}, "x");
  ASSERT_FALSE(bad);
  EXPECT_THAT(bad.error().to_string(), HasSubstr("eve"));
  EXPECT_THAT(bad.error().to_string(), Not(HasSubstr("geheim")));
}

TEST(Users, ListedAndMadeUpUsersShowTheSameSaltEachTime) {
  const Users users = make_users({{"app", "secret"}});
  EXPECT_EQ(users.verifier("app", *users.find("app")).salt, users.mock("app").salt);
  EXPECT_EQ(users.mock("nobody").salt, users.mock("nobody").salt);
  EXPECT_NE(users.mock("nobody").salt, users.mock("somebody").salt);
}

TEST(Users, RememberedPasswordIsOnlyThatOfItsVerifier) {
  const Users users = make_users({{"a", kVerifier}, {"b", "other"}});
  const UserSecret& a = *users.find("a");
  EXPECT_TRUE(users.matches("a", a, "secret"));
  EXPECT_TRUE(users.matches("a", a, "secret"));  // from memory
  EXPECT_FALSE(users.matches("a", a, "secrex"));
  const UserSecret changed =
      *UserSecret::parse(pgwire::make_verifier("new", "0123456789abcdef")->to_string());
  EXPECT_FALSE(users.matches("a", changed, "secret"));
  EXPECT_TRUE(users.matches("b", *users.find("b"), "other"));
  EXPECT_FALSE(users.matches("b", *users.find("b"), "secret"));
}

class ExchangeTest : public testing::Test {
 protected:
  AuthExchange exchange(const std::string& user, AuthMethod method) {
    std::optional<UserSecret> secret;
    if (const UserSecret* known = users.find(user)) secret = *known;
    return AuthExchange(users, user, std::move(secret), method, {}, entropy);
  }
  static char asks_for(AuthExchange& e) {
    std::string reply;
    e.begin(reply);
    return reply[8];  // the code of the request
  }
  FixedEntropy entropy;
  Users users = make_users(
      {{"plain", "secret"}, {"hashed", *pgwire::md5_secret("hashed", "secret")}, {"v", kVerifier}});
};

TEST_F(ExchangeTest, Md5IsScramWhereTheSecretIsAVerifier) {
  AuthExchange plain = exchange("plain", AuthMethod::kMd5),
               verifier = exchange("v", AuthMethod::kMd5);
  EXPECT_EQ(asks_for(plain), 5);
  EXPECT_EQ(asks_for(verifier), 10);
  AuthExchange hashed = exchange("hashed", AuthMethod::kScram);
  EXPECT_EQ(asks_for(hashed), 10) << "fails at its end, as in PostgreSQL";
}

TEST_F(ExchangeTest, Md5ProvesThePasswordOfAListOrItsHash) {
  const std::array<uint8_t, 4> salt = {7, 7, 7, 7};
  for (const char* user : {"plain", "hashed"}) {
    std::string reply;
    const auto answer = pgwire::md5_response(*pgwire::md5_secret(user, "secret"), salt);
    AuthExchange right = exchange(user, AuthMethod::kMd5);
    EXPECT_EQ(right.on_message(password_message(*answer), reply), AuthExchange::State::kDone);
    AuthExchange wrong = exchange(user, AuthMethod::kMd5);
    EXPECT_EQ(wrong.on_message(password_message("md5" + std::string(32, '0')), reply),
              AuthExchange::State::kRefused);
  }
}

TEST_F(ExchangeTest, UnknownUserIsRefusedByEveryMethod) {
  for (const AuthMethod method : {AuthMethod::kMd5, AuthMethod::kPassword}) {
    std::string reply;
    AuthExchange e = exchange("nobody", method);
    e.begin(reply);
    const auto state = e.on_message(password_message("secret"), reply);
    EXPECT_TRUE(state == AuthExchange::State::kRefused || state == AuthExchange::State::kBroken);
  }
}

TEST_F(ExchangeTest, EmptyPasswordIsNone) {
  std::string reply;
  AuthExchange e = exchange("plain", AuthMethod::kPassword);
  EXPECT_EQ(e.on_message(password_message(""), reply), AuthExchange::State::kRefused);
}

TEST(AuthLookup, NameIsALiteralWhateverItHolds) {
  EXPECT_EQ(with_user("select f($1)", "app"), "select f( E'app')");
  EXPECT_EQ(with_user("f($1, $10)", "a'b\\c"), "f( E'a''b\\\\c', $10)");
  EXPECT_EQ(with_user("no parameter", "app"), "no parameter");
  EXPECT_EQ(with_user("$", "app"), "$");
  EXPECT_FALSE(with_user("$1", std::string(64, 'x'))) << "PostgreSQL has no such names";
  EXPECT_FALSE(with_user("$1", std::string("a\0b", 3)));
}

class CredentialsTest : public testing::Test {
 protected:
  CredentialsTest() {
    AccessConfig config;
    config.users = {{"plain", "secret"}, {"v", kVerifier}, {"m", "md5" + std::string(32, 'a')}};
    access = *Access::build(config, tls, entropy, nullptr);
  }
  posix::OpenSslTls tls;
  FixedEntropy entropy;
  std::shared_ptr<const Access> access;
  ServerPasswords fetched;
  ServerCredentials credentials{fetched};
};

TEST_F(CredentialsTest, ListGivesPasswordsAndHashesOnly) {
  EXPECT_EQ(credentials.get(*access, "plain").password, "secret");
  EXPECT_EQ(credentials.get(*access, "m").md5_secret, "md5" + std::string(32, 'a'));
  EXPECT_FALSE(credentials.get(*access, "v").keys);
  pgwire::ScramKeys keys;
  credentials.learn("v", &keys, "", nullptr);
  EXPECT_TRUE(credentials.get(*access, "v").keys);
  EXPECT_FALSE(credentials.refused(*access, "v")) << "nothing else is known";
  EXPECT_FALSE(credentials.get(*access, "v").keys);
}

TEST_F(CredentialsTest, RefusedKeysGiveWayToThePassword) {
  credentials.derived("plain", {});
  EXPECT_TRUE(credentials.refused(*access, "plain"));
  EXPECT_FALSE(credentials.refused(*access, "plain")) << "the password has been tried now";
}

TEST_F(CredentialsTest, FetchedPasswordIsTheOnlyOne) {
  fetched.set("plain", fail(ErrorCode::kUnavailable, "not yet"));
  EXPECT_EQ(credentials.get(*access, "plain").unavailable, "not yet");
  EXPECT_EQ(credentials.get(*access, "plain").password, "");
  fetched.set("plain", "token");
  credentials.derived("plain", {});
  EXPECT_EQ(credentials.get(*access, "plain").password, "token");
  EXPECT_FALSE(credentials.get(*access, "plain").keys);
}

}  // namespace
}  // namespace bascule::proxy
