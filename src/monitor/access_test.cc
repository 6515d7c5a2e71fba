#include "monitor/access.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "monitor/database.h"

namespace bascule::monitor {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

std::vector<std::string> names(const std::vector<Source>& sources) {
  std::vector<std::string> out;
  for (const Source& s : sources) out.push_back(s.config.name.str());
  return out;
}

TEST(SourcesFromEnvironment, RegionsWithReplicasAndTheirSettings) {
  const auto sources = sources_from_environment({
      {"DB_US_EAST_URL", "postgresql://app:secret@east.example:5433/game"},
      {"DB_US_EAST_REPLICA1_URL", "postgresql://app:secret@east-r1.example/game"},
      {"DB_US_EAST_HEALTH_INTERVAL", "2000"},
      {"DB_US_EAST_FAILOVER_TIMEOUT", "60000"},
      {"DB_US_EAST_PRIORITY", "10"},
      {"DB_US_EAST_SSL", "true"},
      {"DB_EU_URL", "postgresql://app:secret@eu.example/game"},
      {"HOME", "/root"},
      {"DB_EMPTY_URL", ""},
  });
  ASSERT_TRUE(sources) << sources.error().message;
  EXPECT_THAT(names(*sources), ElementsAre("eu", "us-east", "us-east-replica1"));
  const Source& east = (*sources)[1];
  EXPECT_EQ(east.config.host, "east.example");
  EXPECT_EQ(east.config.port, 5433);
  EXPECT_EQ(east.config.region, "us-east");
  EXPECT_EQ(east.config.health_interval, 2s);
  EXPECT_EQ(east.config.failover_timeout, 60s);
  EXPECT_THAT(east.access.parameters,
              testing::Contains(std::pair<std::string, std::string>("sslmode", "require")));
  EXPECT_EQ((*sources)[2].config.region, "us-east");
  EXPECT_EQ((*sources)[2].config.health_interval, 2s);
  EXPECT_EQ((*sources)[0].config.health_interval, 30s);
}

TEST(SourcesFromEnvironment, OneDatabaseAndItsReplica) {
  const auto sources = sources_from_environment({
      {"DATABASE_URL", "postgres://u:p@a/x"},
      {"DATABASE_REPLICA_URL", "postgres://u:p@b/x"},
      {"DB_HOST", "ignored"},
      {"FAILOVER_HEALTH_CHECK_INTERVAL", "1500"},
  });
  ASSERT_TRUE(sources) << sources.error().message;
  EXPECT_THAT(names(*sources), ElementsAre("primary", "replica"));
  EXPECT_EQ((*sources)[0].config.host, "a");
  EXPECT_EQ((*sources)[0].config.health_interval, 1500ms);
}

TEST(SourcesFromEnvironment, PartsOfOneDatabase) {
  const auto sources = sources_from_environment({{"DB_HOST", "db.example"},
                                                 {"DB_PORT", "6000"},
                                                 {"DB_NAME", "game"},
                                                 {"DB_USER", "o'brien"},
                                                 {"DB_PASSWORD", "a'b\\c d"}});
  ASSERT_TRUE(sources) << sources.error().message;
  ASSERT_EQ(sources->size(), 1u);
  EXPECT_EQ((*sources)[0].config.port, 6000);
  EXPECT_EQ((*sources)[0].access.user, "o'brien");
  EXPECT_THAT((*sources)[0].access.parameters,
              testing::Contains(std::pair<std::string, std::string>("password", "a'b\\c d")));
  EXPECT_EQ((*sources)[0].config.health_interval, 10s);
}

TEST(SourcesFromEnvironment, NothingIsShownOfASecret) {
  for (const auto& [variable, value] : Environment{
           {"DATABASE_URL", "postgres://u:hunter2@a:notaport/x"},
           {"DB_EU_URL", "hunter2"},
           {"DB_US_URL", "postgres://u:hunter2@a,b/x"},
           {"DB_ZZ_URL", "postgres://u:hunter2@/x"},
       }) {
    const auto sources = sources_from_environment({{variable, value}});
    ASSERT_FALSE(sources) << variable;
    EXPECT_THAT(sources.error().to_string(), Not(HasSubstr("hunter2")));
    EXPECT_THAT(sources.error().to_string(), HasSubstr(variable));
  }
  const auto good = parse_url("postgres://u:hunter2@a/x", Ssl::kAsUrl);
  ASSERT_TRUE(good);
  EXPECT_EQ(good->access.shown, "postgresql://u@a:5432/x");
}

TEST(SourcesFromEnvironment, BadNumbersAreNamed) {
  const auto sources = sources_from_environment(
      {{"DB_EU_URL", "postgres://a/x"}, {"DB_EU_HEALTH_INTERVAL", "soon"}});
  ASSERT_FALSE(sources);
  EXPECT_THAT(sources.error().message, HasSubstr("DB_EU_HEALTH_INTERVAL"));
}

TEST(AnswerOf, AServerThatRefusesLives) {
  const auto answer = [](const char* text) {
    return answer_of({ErrorCode::kUnavailable, text, ""});
  };
  EXPECT_EQ(answer("connection to server failed: FATAL:  53300: sorry, too many clients already"),
            Answer::kRefused);
  EXPECT_EQ(answer("failed: FATAL:  28P01: password authentication failed"), Answer::kRefused);
  EXPECT_EQ(answer("failed: FATAL:  57P03: the database system is starting up"), Answer::kDown);
  EXPECT_EQ(answer("Connection refused"), Answer::kDown);
}

}  // namespace
}  // namespace bascule::monitor
