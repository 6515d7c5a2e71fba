#include "proxy/console_command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace bascule::proxy {
namespace {

ConsoleCommand parsed(std::string_view text) {
  auto command = parse_console_command(text);
  EXPECT_TRUE(command) << text << ": " << (command ? "" : command.error().message);
  return command ? *command : ConsoleCommand{};
}

TEST(ConsoleCommand, ShowIsReadWithoutRegardToCaseSpaceAndSemicolon) {
  for (const char* text :
       {"SHOW POOLS", "show pools;", "  Show\n\tPoolS ; ", "select pools", "SHOW POOLS;;"}) {
    const ConsoleCommand command = parsed(text);
    EXPECT_EQ(command.verb, ConsoleVerb::kShow) << text;
    EXPECT_EQ(command.show, ConsoleShow::kPools) << text;
  }
}

TEST(ConsoleCommand, DatabasesAreTakenAsTheyAreWrittenAndUnquoted) {
  EXPECT_EQ(parsed("PAUSE").argument, "");
  EXPECT_EQ(parsed("pause Shop;").argument, "Shop");
  EXPECT_EQ(parsed("pause shop-2").argument, "shop-2");
  EXPECT_EQ(parsed("PAUSE \"a \"\"b; c\"").argument, "a \"b; c");
}

TEST(ConsoleCommand, SetTakesWordsAndStringsWithEqualsOrTo) {
  for (const char* text : {"SET Query_Timeout = 5", "set query_timeout to 5;",
                           "set query_timeout='5'", "SET \"query_timeout\"=5"}) {
    const ConsoleCommand command = parsed(text);
    EXPECT_EQ(command.verb, ConsoleVerb::kSet) << text;
    EXPECT_EQ(command.argument, "query_timeout") << text;
    EXPECT_EQ(command.value, "5") << text;
  }
  EXPECT_EQ(parsed("set server_check_query = 'select ''x'''").value, "select 'x'");
  EXPECT_EQ(parsed("set server_check_query = ''").value, "");
}

TEST(ConsoleCommand, KillClientNeedsANumber) {
  EXPECT_EQ(parsed("KILL_CLIENT 16777217").id, 16'777'217u);
  EXPECT_FALSE(parse_console_command("KILL_CLIENT"));
  EXPECT_FALSE(parse_console_command("KILL_CLIENT -1"));
  EXPECT_FALSE(parse_console_command("KILL_CLIENT 99999999999999999999999"));
  EXPECT_FALSE(parse_console_command("KILL_CLIENT 1x"));
}

TEST(ConsoleCommand, ShutdownHasThreeWays) {
  EXPECT_EQ(parsed("shutdown").shutdown, ShutdownMode::kNow);
  EXPECT_EQ(parsed("shutdown wait_for_clients").shutdown, ShutdownMode::kWaitForClients);
  EXPECT_EQ(parsed("SHUTDOWN WAIT_FOR_SERVERS;").shutdown, ShutdownMode::kWaitForServers);
  EXPECT_FALSE(parse_console_command("shutdown now"));
}

TEST(ConsoleCommand, WhatItDoesNotKnowIsAnErrorThatNamesIt) {
  for (const char* text : {"select 1", "SHOW", "SHOW POOLS x", "begin", "PAUSE a b", "reload x",
                           "set a", "set a 5", "set = 5", "set 'a' = 5", "PAUSE 'a'", "pause \"a",
                           "show pools; show pools", "= =", "\""}) {
    const auto command = parse_console_command(text);
    ASSERT_FALSE(command) << text;
    EXPECT_THAT(command.error().message, testing::HasSubstr("use SHOW HELP")) << text;
  }
  EXPECT_EQ(parse_console_command("disable").error().message, "a database is required");
}

TEST(ConsoleCommand, NothingIsNothing) {
  EXPECT_EQ(parsed("").verb, ConsoleVerb::kNothing);
  EXPECT_EQ(parsed(" ;").verb, ConsoleVerb::kNothing);
}

TEST(ConsoleCommand, WhoMayOnlyLookMayNotChange) {
  EXPECT_FALSE(needs_admin(parsed("show pools")));
  EXPECT_FALSE(needs_admin(parsed("show client_encoding")));
  EXPECT_FALSE(needs_admin(parsed("set client_encoding = 'UTF8'")));
  EXPECT_TRUE(needs_admin(parsed("show fds")));
  for (const char* text :
       {"pause", "resume", "kill", "kill_client 1", "reload", "set a = 1", "shutdown", "suspend",
        "reconnect", "disable a", "enable a", "wait_close"}) {
    EXPECT_TRUE(needs_admin(parsed(text))) << text;
  }
}

}  // namespace
}  // namespace bascule::proxy
