#include "pgwire/scram.h"

#include <gtest/gtest.h>

#include "pgwire/messages.h"
#include "pgwire/testing.h"

namespace bascule::pgwire {
namespace {

using testing::From;

constexpr std::string_view kPassword = "correct horse";
constexpr std::string_view kSalt = "0123456789abcdef";
constexpr uint32_t kIterations = 16;  // quick: only the exchange is tested

ScramVerifier verifier(std::string_view password = kPassword) {
  return make_verifier(password, kSalt, kIterations).value();
}

// The whole exchange; what the server's last step said.
Result<std::string> exchange(ScramClient& client, ScramServer& server) {
  const auto first = client.first();
  if (!first) return first;
  const auto server_first = server.on_first(client.mechanism(), *first);
  if (!server_first) return server_first;
  const auto final = client.on_continue(*server_first);
  if (!final) return final;
  auto server_final = server.on_final(*final);
  if (!server_final) return server_final;
  const Status ok = client.on_final(*server_final);
  if (!ok) return std::unexpected(ok.error());
  return server_final;
}

// RFC 7677, section 3.
constexpr std::string_view kRfcFirst = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
constexpr std::string_view kRfcFinal =
    "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

ScramServer rfc_server() {
  const auto salt = base64_decode("W22ZaJ0SNY7soEsUEjb6gQ==").value();
  return ScramServer(make_verifier("pencil", salt, 4096).value(), "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
}

TEST(ScramServer, PassesTheTestVectorOfRfc7677) {
  ScramServer server = rfc_server();
  EXPECT_EQ(server.on_first(kScramSha256, kRfcFirst).value(),
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,"
            "i=4096");
  EXPECT_EQ(server.on_final(kRfcFinal).value(), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
  EXPECT_TRUE(server.done());
}

// The strings of a captured SCRAM login, in order: first, server-first, final, server-final.
struct Login {
  std::string client_first, server_first, client_final, server_final;
};

Login login(const std::string& name) {
  const auto capture = testing::load(name);
  const auto client = testing::of_type(testing::messages(capture, From::kClient), 'p');
  const auto server = testing::of_type(testing::messages(capture, From::kServer), 'R');
  const auto data = [&](size_t i) {
    return i < server.size() ? std::string(parse_authentication(server[i].payload)->data) : "";
  };
  return {std::string(parse_sasl_initial_response(client.at(0).payload)->data), data(1),
          client.at(1).payload, data(2)};
}

std::string client_nonce(const Login& login) {
  return login.client_first.substr(std::string_view("n,,n=,r=").size());
}

TEST(ScramClient, SaysByteForByteWhatLibpqSaidToPostgreSql) {
  const Login real = login("scram_simple");
  ScramClient client(std::string(kPassword), client_nonce(real));
  EXPECT_EQ(client.first().value(), real.client_first);
  EXPECT_EQ(client.on_continue(real.server_first).value(), real.client_final);
  EXPECT_TRUE(client.on_final(real.server_final).has_value());
  EXPECT_TRUE(client.done());
}

TEST(ScramServer, SaysByteForByteWhatPostgreSqlSaidToLibpq) {
  const Login real = login("scram_simple");
  const size_t salt_at = real.server_first.find(",s=") + 3;
  const size_t salt_end = real.server_first.find(",i=");
  const auto salt = base64_decode(real.server_first.substr(salt_at, salt_end - salt_at)).value();
  const std::string nonce = real.server_first.substr(2, salt_at - 5);
  ScramServer server(make_verifier(kPassword, salt, 4096).value(),
                     nonce.substr(client_nonce(real).size()));
  EXPECT_EQ(server.on_first(kScramSha256, real.client_first).value(), real.server_first);
  EXPECT_EQ(server.on_final(real.client_final).value(), real.server_final);
}

TEST(ScramServer, RefusesTheWrongPasswordThatPostgreSqlRefused) {
  const Login wrong = login("scram_wrong_password");
  ASSERT_EQ(wrong.server_final, "") << "an ErrorResponse came instead";
  const size_t salt_at = wrong.server_first.find(",s=") + 3;
  const size_t salt_end = wrong.server_first.find(",i=");
  const auto salt = base64_decode(wrong.server_first.substr(salt_at, salt_end - salt_at)).value();
  const std::string nonce = wrong.server_first.substr(2, salt_at - 5);
  ScramServer server(make_verifier(kPassword, salt, 4096).value(),
                     nonce.substr(client_nonce(wrong).size()));
  ASSERT_EQ(server.on_first(kScramSha256, wrong.client_first).value(), wrong.server_first);
  EXPECT_FALSE(server.on_final(wrong.client_final).has_value());
  EXPECT_EQ(server.failure(), ScramFailure::kRefused);
}

TEST(Scram, ClientAndServerAgreeAndTheServerRecoversTheClientsKeys) {
  ScramClient client(std::string(kPassword), "client");
  ScramServer server(verifier(), "server");
  ASSERT_TRUE(exchange(client, server).has_value());
  EXPECT_TRUE(client.done());
  EXPECT_TRUE(server.done());
  const ScramKeys keys = derive_keys(kPassword, kSalt, kIterations).value();
  EXPECT_EQ(server.keys().client_key, keys.client_key);
  EXPECT_EQ(server.keys().server_key, keys.server_key);
  EXPECT_EQ(client.keys().client_key, keys.client_key);
}

TEST(Scram, RecoveredKeysLogInToAServerWithTheSameVerifier) {
  ScramClient client(std::string(kPassword), "client");
  ScramServer server(verifier(), "server");
  ASSERT_TRUE(exchange(client, server).has_value());
  ScramClient second(server.keys(), "other");
  ScramServer target(verifier(), "target");
  EXPECT_TRUE(exchange(second, target).has_value());
  EXPECT_TRUE(second.done());

  ScramClient third(server.keys(), "other");
  ScramServer other_salt(make_verifier(kPassword, "another salt", kIterations).value(), "target");
  EXPECT_FALSE(exchange(third, other_salt).has_value());
}

TEST(Scram, AWrongPasswordAndAnUnknownUserFailAlike) {
  std::vector<std::string> errors;
  for (const ScramVerifier& v : {verifier("right"), mock_verifier("who", "installation", 16)}) {
    ScramClient client("wrong", "client");
    ScramServer server(v, "server");
    const auto result = exchange(client, server);
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(server.failure(), ScramFailure::kRefused);
    EXPECT_FALSE(server.done());
    errors.push_back(result.error().message);
  }
  EXPECT_EQ(errors[0], errors[1]);
}

TEST(Scram, AMockVerifierIsStableForAUserAndDiffersBetweenUsersAndInstallations) {
  const auto a = mock_verifier("a", "secret");
  EXPECT_EQ(a.to_string(), mock_verifier("a", "secret").to_string());
  EXPECT_NE(a.salt, mock_verifier("b", "secret").salt);
  EXPECT_NE(a.salt, mock_verifier("a", "other").salt);
  EXPECT_EQ(a.salt.size(), 16U);
}

TEST(Scram, NoChangedByteOfAnyMessageGetsThrough) {
  ScramClient reference_client(std::string(kPassword), "client");
  ScramServer reference_server(verifier(), "server");
  const std::string first = reference_client.first().value();
  const std::string server_first = reference_server.on_first(kScramSha256, first).value();
  const std::string final = reference_client.on_continue(server_first).value();
  const std::string server_final = reference_server.on_final(final).value();

  for (size_t i = 0; i < final.size(); ++i) {
    std::string bent = final;
    bent[i] = bent[i] == 'A' ? 'B' : 'A';
    ScramServer server(verifier(), "server");
    ASSERT_TRUE(server.on_first(kScramSha256, first).has_value());
    EXPECT_FALSE(server.on_final(bent).has_value()) << bent;
    EXPECT_FALSE(server.done());
    EXPECT_NE(server.failure(), ScramFailure::kNone);
  }
  for (size_t i = 0; i < server_final.size(); ++i) {
    std::string bent = server_final;
    bent[i] = bent[i] == 'A' ? 'B' : 'A';
    ScramClient client(std::string(kPassword), "client");
    ASSERT_TRUE(client.first() && client.on_continue(server_first));
    EXPECT_FALSE(client.on_final(bent).has_value()) << bent;
    EXPECT_FALSE(client.done());
  }
  for (size_t i = 0; i < first.size(); ++i) {
    std::string bent = first;
    bent[i] = bent[i] == 'A' ? 'B' : 'A';
    ScramServer server(verifier(), "server");
    if (!server.on_first(kScramSha256, bent)) continue;
    EXPECT_FALSE(server.on_final(final).has_value()) << bent;
  }
}

TEST(ScramClient, RefusesAServerThatDoesNotKnowTheVerifier) {
  ScramClient client(std::string(kPassword), "client");
  ASSERT_TRUE(client.first().has_value());
  ASSERT_TRUE(client.on_continue("r=clientX,s=c2FsdA==,i=16").has_value());
  EXPECT_FALSE(client.done());
  const Status status = client.on_final("v=" + base64_encode(std::string(32, 'x')));
  EXPECT_FALSE(status.has_value());
  EXPECT_FALSE(client.done());
}

TEST(ScramClient, RefusesMalformedAndOverlongServerMessages) {
  for (const std::string message :
       {"", "r=client,s=c2FsdA==,i=16", "r=other,s=c2FsdA==,i=16", "m=x,r=clientX,s=c2FsdA==,i=16",
        "r=clientX,s=c2FsdA==,i=0", "r=clientX,s=c2FsdA==,i=-1", "r=clientX,s=c2FsdA==,i=1000001",
        "r=clientX,s=c2FsdA==,i=99999999999", "r=clientX,s=c2FsdA==,i=4096x",
        "r=clientX,s=c2FsdA==", "r=clientX,s=,i=16", "r=clientX,s=c2FsdA,i=16", "r=clientX,i=16",
        "r=client X,s=c2FsdA==,i=16", "r=clientX;s=c2FsdA==,i=16", "e=other-error"}) {
    ScramClient client(std::string(kPassword), "client");
    ASSERT_TRUE(client.first().has_value());
    EXPECT_FALSE(client.on_continue(message).has_value()) << message;
    EXPECT_FALSE(client.on_continue("r=clientX,s=c2FsdA==,i=16").has_value()) << "failed for good";
  }
  ScramClient client(std::string(kPassword), "client");
  ASSERT_TRUE(client.first().has_value());
  EXPECT_FALSE(
      client.on_continue("r=client" + std::string(600, 'x') + ",s=c2FsdA==,i=16").has_value());
}

TEST(ScramClient, StepsOutOfTurnFail) {
  ScramClient client(std::string(kPassword), "client");
  EXPECT_FALSE(client.on_final("v=x").has_value());
  ScramClient bad_nonce(std::string(kPassword), "a,b");
  EXPECT_FALSE(bad_nonce.first().has_value());
  ScramClient no_nonce(std::string(kPassword), "");
  EXPECT_FALSE(no_nonce.first().has_value());
}

TEST(ScramServer, RefusesMalformedClientMessagesAsProtocolErrors) {
  for (const std::string message :
       {"", "n", "n,,", "n,,n=", "n,,n=,r=", "n,,r=x", "n,,n=,r=a b", "n,,m=x,n=,r=x", "x,,n=,r=x",
        "n,a=user,n=,r=x", "y,a=user,n=,r=x", "n,,n=,r=x,", "n,,n=,r=x,1=2", "p=tls-unique,,n=,r=x",
        "p=tls-server-end-point,,n=,r=x"}) {
    ScramServer server(verifier(), "server");
    EXPECT_FALSE(server.on_first(kScramSha256, message).has_value()) << message;
    EXPECT_EQ(server.failure(), ScramFailure::kProtocol);
  }
  for (const std::string message :
       {"", "c=biws", "c=biws,r=xserver", "c=biws,r=xserver,p=", "c=biws,r=xserver,p=AAAA",
        "r=xserver,c=biws,p=AAAA", "c=biws,r=xserver,q"}) {
    ScramServer server(verifier(), "server");
    ASSERT_TRUE(server.on_first(kScramSha256, "n,,n=,r=x").has_value());
    EXPECT_FALSE(server.on_final(message).has_value()) << message;
    EXPECT_EQ(server.failure(), ScramFailure::kProtocol) << message;
  }
  ScramServer server(verifier(), "server");
  EXPECT_FALSE(server.on_final("c=biws,r=xserver,p=x").has_value()) << "before the first";
  ScramServer sha1(verifier(), "server");
  EXPECT_FALSE(sha1.on_first("SCRAM-SHA-1", "n,,n=,r=x").has_value());
}

TEST(ScramServer, IgnoresOptionalExtensions) {
  ScramServer server(verifier(), "server");
  EXPECT_TRUE(server.on_first(kScramSha256, "n,,n=,r=x,e=some,f=thing").has_value());
}

TEST(ScramChannelBinding, BothSidesMustSeeTheSameCertificate) {
  const ChannelBinding binding{.data = "hash of the certificate"};
  ScramClient client(std::string(kPassword), "client", binding);
  EXPECT_EQ(client.mechanism(), kScramSha256Plus);
  ScramServer server(verifier(), "server", binding);
  EXPECT_TRUE(exchange(client, server).has_value());

  ScramClient victim(std::string(kPassword), "client", {.data = "certificate of the attacker"});
  ScramServer real(verifier(), "server", binding);
  EXPECT_FALSE(exchange(victim, real).has_value());
}

TEST(ScramChannelBinding, DowngradesAreNoticed) {
  const ChannelBinding binding{.data = "hash"};
  const ChannelBinding could{.support = ChannelBinding::Support::kClientSupports};
  // "y,,": I could bind but you did not offer it. True of a server without binding ...
  ScramClient honest(std::string(kPassword), "client", could);
  ScramServer plain(verifier(), "server");
  EXPECT_TRUE(exchange(honest, plain).has_value());
  // ... but not of one with it: somebody between removed the offer.
  ScramClient tricked(std::string(kPassword), "client", could);
  ScramServer offering(verifier(), "server", binding);
  EXPECT_FALSE(exchange(tricked, offering).has_value());
  // A client that can't bind is fine with both.
  ScramClient simple(std::string(kPassword), "client");
  ScramServer also_offering(verifier(), "server", binding);
  EXPECT_TRUE(exchange(simple, also_offering).has_value());
  // -PLUS with "n,," and a binding without -PLUS.
  ScramServer mixed(verifier(), "server", binding);
  EXPECT_FALSE(mixed.on_first(kScramSha256Plus, "n,,n=,r=x").has_value());
  ScramServer mixed_too(verifier(), "server", binding);
  EXPECT_FALSE(mixed_too.on_first(kScramSha256, "p=tls-server-end-point,,n=,r=x").has_value());
  // A changed header shows in "c=".
  ScramServer changed(verifier(), "server");
  ASSERT_TRUE(changed.on_first(kScramSha256, "n,,n=,r=x").has_value());
  EXPECT_FALSE(changed.on_final("c=eSws,r=xserver,p=" + base64_encode(std::string(32, 'p'))));
}

TEST(ScramVerifier, ReadsAndWritesTheFormatOfPgAuthid) {
  const auto salt = base64_decode("W22ZaJ0SNY7soEsUEjb6gQ==").value();
  const std::string text =
      "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
      "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
  EXPECT_EQ(make_verifier("pencil", salt, 4096)->to_string(), text);
  const auto parsed = ScramVerifier::parse(text);
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(parsed->to_string(), text);
  EXPECT_TRUE(password_matches(*parsed, "pencil"));
  EXPECT_FALSE(password_matches(*parsed, "pencils"));
  for (size_t n = 0; n < text.size(); ++n) {
    EXPECT_FALSE(ScramVerifier::parse(text.substr(0, n)).has_value()) << n;
  }
  EXPECT_FALSE(ScramVerifier::parse(text + "x").has_value());
  EXPECT_FALSE(ScramVerifier::parse("md5" + std::string(32, '0')).has_value());
  EXPECT_FALSE(ScramVerifier::parse("SCRAM-SHA-256$0" + text.substr(18)).has_value());
}

TEST(Scram, NonAsciiPasswordsAreUsedAsRawBytes) {
  ScramClient client("p\xc3\xa4ss\xff", "client");
  ScramServer server(verifier("p\xc3\xa4ss\xff"), "server");
  EXPECT_TRUE(exchange(client, server).has_value());
}

TEST(Base64, RoundTripsAndIsStrict) {
  for (size_t n = 0; n < 40; ++n) {
    const std::string bytes(n, static_cast<char>(200 + n));
    EXPECT_EQ(base64_decode(base64_encode(bytes)).value(), bytes);
  }
  EXPECT_EQ(base64_encode("hello"), "aGVsbG8=");
  for (const char* bad : {"a", "aGVsbG8", "aGVsbG9=", "aG=sbG8=", "====", "aGVs bG8=", "a===",
                          "aGVsbG8=aGVs", "\xff\xff\xff\xff"}) {
    EXPECT_FALSE(base64_decode(bad).has_value()) << bad;
  }
}

}  // namespace
}  // namespace bascule::pgwire
