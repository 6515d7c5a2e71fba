#include "pgwire/startup.h"

#include <gtest/gtest.h>

#include "pgwire/testing.h"

namespace bascule::pgwire {
namespace {

using testing::From;
using Parameters = std::vector<std::pair<std::string, std::string>>;

Result<StartupMessage> parse_message(const Parameters& parameters,
                                     ProtocolVersion version = kProtocol30) {
  std::string packet;
  append_startup(packet, version, parameters);
  auto parsed = parse_startup(packet);
  if (!parsed) return std::unexpected(parsed.error());
  return std::get<StartupMessage>(*parsed);
}

TEST(Startup, ReadsWhatLibpqSends) {
  const std::string bytes = testing::stream(testing::load("scram_simple"), From::kClient);
  const StartupFrame frame = peek_startup(bytes);
  ASSERT_EQ(frame.state, FrameState::kComplete);
  const auto parsed = parse_startup(std::string_view(bytes).substr(0, frame.size));
  ASSERT_TRUE(parsed.has_value());
  const auto& message = std::get<StartupMessage>(*parsed);
  EXPECT_EQ(message.version, kProtocol30);
  EXPECT_EQ(message.user(), "app");
  EXPECT_EQ(message.database(), "postgres");
  EXPECT_EQ(message.find("application_name"), "capture");
  EXPECT_EQ(message.replication, ReplicationMode::kNone);
  std::string built;
  append_startup(built, message.version, message.parameters);
  EXPECT_EQ(built, bytes.substr(0, frame.size));
}

TEST(Startup, ReadsTheCancelRequestOfPsql) {
  const std::string bytes = testing::stream(testing::load("cancel_request"), From::kClient);
  const auto parsed = parse_startup(bytes);
  ASSERT_TRUE(parsed.has_value());
  const CancelKey& key = std::get<CancelRequest>(*parsed).key;
  const auto key_data =
      testing::of_type(testing::messages(testing::load("cancel"), From::kServer), 'K');
  EXPECT_EQ(bytes.substr(8), key_data.at(0).payload) << "the key of BackendKeyData";
  EXPECT_EQ(key.secret.size(), 4U);
  std::string built;
  append_cancel_request(built, key);
  EXPECT_EQ(built, bytes);
}

TEST(Startup, IsIncompleteUntilTheLastByteIsThere) {
  std::string packet;
  append_startup(packet, kProtocol30, {{"user", "x"}});
  for (size_t n = 0; n < packet.size(); ++n) {
    const auto part = std::string_view(packet).substr(0, n);
    EXPECT_EQ(peek_startup(part).state, FrameState::kIncomplete);
    EXPECT_FALSE(parse_startup(part).has_value());
  }
  EXPECT_EQ(peek_startup(packet + "p").size, packet.size());
  EXPECT_FALSE(parse_startup(packet + "p").has_value());
}

TEST(Startup, RefusesImpossibleSizesByFourBytes) {
  EXPECT_EQ(peek_startup(std::string_view("\0\0\0\7", 4)).state, FrameState::kBad);
  EXPECT_EQ(peek_startup(std::string_view("\0\0\x27\x11", 4)).state, FrameState::kBad);
  EXPECT_EQ(peek_startup(std::string_view("\0\0\x27\x10", 4)).state, FrameState::kIncomplete);
  EXPECT_EQ(peek_startup("GET / HTTP/1.1").state, FrameState::kBad);
  EXPECT_TRUE(is_tls_hello("\x16\x03\x01"));
  EXPECT_FALSE(is_tls_hello(std::string_view("\0", 1)));
}

TEST(Startup, KnowsTheRequestsWithoutParameters) {
  std::string ssl, gss, cancel;
  append_ssl_request(ssl);
  append_gssenc_request(gss);
  append_cancel_request(cancel, {.pid = 7, .secret = std::string(256, 's')});
  EXPECT_TRUE(std::holds_alternative<SslRequest>(parse_startup(ssl).value()));
  EXPECT_TRUE(std::holds_alternative<GssEncRequest>(parse_startup(gss).value()));
  EXPECT_EQ(std::get<CancelRequest>(parse_startup(cancel).value()).key.secret.size(), 256U);
  for (const size_t size : {0, 3, 257}) {
    std::string bad;
    append_cancel_request(bad, {.pid = 7, .secret = std::string(size, 's')});
    EXPECT_FALSE(parse_startup(bad).has_value()) << size;
  }
}

TEST(Startup, TheUserIsTheDatabaseUnlessOneIsNamed) {
  EXPECT_EQ(parse_message({{"user", "alice"}})->database(), "alice");
  EXPECT_EQ(parse_message({{"user", "alice"}, {"database", ""}})->database(), "alice");
  EXPECT_EQ(parse_message({{"user", "alice"}, {"database", "app"}})->database(), "app");
}

TEST(Startup, TheLastOfARepeatedNameCounts) {
  EXPECT_EQ(parse_message({{"user", "a"}, {"user", "b"}})->user(), "b");
}

TEST(Startup, ProtocolOptionsAreSetApart) {
  const auto message = parse_message({{"user", "a"}, {"_pq_.x", "1"}, {"options", "-c a=b"}});
  EXPECT_EQ(message->protocol_options, std::vector<std::string>{"_pq_.x"});
  EXPECT_EQ(message->parameters.size(), 2U);
  EXPECT_EQ(message->find("options"), "-c a=b");
}

TEST(Startup, ReplicationIsReadAsPostgreSqlReadsIt) {
  for (const char* value : {"true", "TRUE", "t", "on", "yes", "y", "1"}) {
    EXPECT_EQ(parse_message({{"user", "a"}, {"replication", value}})->replication,
              ReplicationMode::kPhysical)
        << value;
  }
  for (const char* value : {"false", "f", "of", "off", "no", "n", "0"}) {
    EXPECT_EQ(parse_message({{"user", "a"}, {"replication", value}})->replication,
              ReplicationMode::kNone)
        << value;
  }
  EXPECT_EQ(parse_message({{"user", "a"}, {"replication", "database"}})->replication,
            ReplicationMode::kLogical);
  for (const char* value : {"", "o", "maybe", "truely", "Database"}) {
    EXPECT_FALSE(parse_message({{"user", "a"}, {"replication", value}}).has_value()) << value;
  }
}

TEST(Startup, RefusesWhatIsMalformedOrTooMuch) {
  EXPECT_FALSE(parse_message({}).has_value()) << "no user";
  EXPECT_FALSE(parse_message({{"user", ""}}).has_value());
  EXPECT_FALSE(parse_message({{"user", "a"}}, {2, 0}).has_value());
  EXPECT_FALSE(parse_message({{"user", "a"}}, {4, 0}).has_value());
  Parameters many{{"user", "a"}};
  for (int i = 0; i < 63; ++i) many.emplace_back("n" + std::to_string(i), "v");
  EXPECT_TRUE(parse_message(many).has_value());
  many.emplace_back("one", "more");
  EXPECT_FALSE(parse_message(many).has_value());

  const auto raw = [](std::string_view body) {
    std::string packet("\0\0\0\0\0\3\0\0", 8);
    packet += body;
    packet[3] = static_cast<char>(packet.size());
    return parse_startup(packet).has_value();
  };
  EXPECT_TRUE(raw(std::string_view("user\0a\0\0", 8)));
  EXPECT_FALSE(raw(std::string_view("user\0a\0", 7))) << "no terminator";
  EXPECT_FALSE(raw(std::string_view("user\0a\0\0x", 9))) << "bytes after it";
  EXPECT_FALSE(raw(std::string_view("user\0a\0\0\0", 9)));
  EXPECT_FALSE(raw(std::string_view("user\0a\0database\0", 16))) << "a name without a value";
  EXPECT_FALSE(raw("user"));
  EXPECT_FALSE(raw(""));
}

TEST(Negotiation, NewerMinorVersionsAndUnknownOptionsAreAnsweredWithTheNewestSupported) {
  StartupMessage startup;
  startup.version = kProtocol30;
  EXPECT_FALSE(negotiate(startup, kProtocol32).tell_client);
  EXPECT_EQ(negotiate(startup, kProtocol32).version, kProtocol30);
  startup.version = kProtocol32;
  EXPECT_FALSE(negotiate(startup, kProtocol32).tell_client);
  EXPECT_TRUE(negotiate(startup, kProtocol30).tell_client);
  EXPECT_EQ(negotiate(startup, kProtocol30).version, kProtocol30);
  startup.version = {3, 9999};
  EXPECT_TRUE(negotiate(startup, kProtocol32).tell_client);
  EXPECT_EQ(negotiate(startup, kProtocol32).version, kProtocol32);
  startup.version = kProtocol30;
  startup.protocol_options = {"_pq_.x"};
  EXPECT_TRUE(negotiate(startup, kProtocol32).tell_client);
}

TEST(Secrets, AreEqualOnlyIfAllBytesAre) {
  EXPECT_TRUE(secrets_equal("", ""));
  EXPECT_TRUE(secrets_equal("abcd", "abcd"));
  EXPECT_FALSE(secrets_equal("abcd", "abce"));
  EXPECT_FALSE(secrets_equal("abcd", "abc"));
}

}  // namespace
}  // namespace bascule::pgwire
