// `bascule run` without a file: the databases and addresses that the environment names.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "cli/config.h"
#include "posix/clock.h"
#include "posix/disk.h"
#include "posix/entropy.h"
#include "posix/process.h"
#include "posix/worker_engine.h"

namespace bascule::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class EnvironmentConfigTest : public ::testing::Test {
 protected:
  Result<DaemonConfig> config() { return config_from_environment(platform_); }

  // "primary postgresql://app@db1:5433/shop sslmode=require": what the monitor would watch.
  std::vector<std::string> watched() {
    const auto parsed = config();
    if (!parsed) return {parsed.error().to_string()};
    const auto resolved = resolve_monitor(platform_, parsed->cluster, *parsed->monitor);
    if (!resolved) return {resolved.error().to_string()};
    std::vector<std::string> out;
    for (const auto& [endpoint, access] : resolved->access) {
      out.push_back(endpoint.str() + " " + access.shown);
    }
    return out;
  }

  std::map<std::string, std::string> variables_;
  posix::SystemClock clock_;
  posix::PosixProcess process_;
  posix::PosixDisk disk_;
  posix::SystemEntropy entropy_;
  posix::WorkerEngineFactory engines_;
  const Platform platform_{
      {},
      {},
      {},
      clock_,
      process_,
      disk_,
      entropy_,
      engines_,
      [this](const char* name) -> std::optional<std::string> {
        const auto found = variables_.find(name);
        return found == variables_.end() ? std::nullopt : std::optional(found->second);
      },
      {},
      1,
      1024,
      {},
      [this] {
        std::vector<std::string> names;
        for (const auto& [name, value] : variables_) names.push_back(name);
        return names;
      },
  };
};

TEST_F(EnvironmentConfigTest, WithoutADatabaseItSaysWhatToSet) {
  const auto none = config();
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().to_string(), HasSubstr("DATABASE_URL"));
}

TEST_F(EnvironmentConfigTest, AUrlIsEnoughForAMonitorWithAnApi) {
  variables_ = {{"DATABASE_URL", "postgres://app:secret@db1/shop"}};
  const auto parsed = config();
  ASSERT_TRUE(parsed) << parsed.error().to_string();
  EXPECT_EQ(parsed->cluster, "databases");
  EXPECT_EQ(parsed->store.path, "/var/lib/bascule/monitor/store.db");
  EXPECT_TRUE(parsed->monitor && !parsed->node && !parsed->proxy);
  EXPECT_EQ(parsed->api->listen.to_string(), "127.0.0.1:8008");
  EXPECT_THAT(watched(), testing::ElementsAre(AllOf(HasSubstr("primary "), HasSubstr("db1"),
                                                    Not(HasSubstr("secret")))));
}

TEST_F(EnvironmentConfigTest, AddressesAndNamesCanBeChosen) {
  variables_ = {
      {"DATABASE_URL", "postgres://app@db1/shop"}, {"BASCULE_CLUSTER", "shop"},
      {"BASCULE_STORE", "file:/tmp/shop.db"},      {"BASCULE_API_LISTEN", "127.0.0.1:9008"},
      {"BASCULE_PROXY_LISTEN", "127.0.0.1:7432"},  {"BASCULE_USERLIST_FILE", "/tmp/users"}};
  const auto parsed = config();
  ASSERT_TRUE(parsed) << parsed.error().to_string();
  EXPECT_EQ(parsed->cluster, "shop");
  EXPECT_EQ(parsed->store.path, "/tmp/shop.db");
  EXPECT_EQ(parsed->api->listen.to_string(), "127.0.0.1:9008");
  ASSERT_TRUE(parsed->proxy);
  EXPECT_EQ(parsed->proxy->writer.to_string(), "127.0.0.1:7432");
  variables_["BASCULE_API_LISTEN"] = "nowhere";
  ASSERT_FALSE(config());
  EXPECT_THAT(config().error().to_string(), HasSubstr("api.listen"));
}

TEST_F(EnvironmentConfigTest, PartsStandForAUrl) {
  variables_ = {{"DB_HOST", "db1"},         {"DB_PORT", "5433"},
                {"DB_NAME", "shop"},        {"DB_USER", "app"},
                {"DB_PASSWORD", "secret"},  {"DB_SSL", "true"},
                {"DB_EU_WEST_SSL", "true"}, {"DB_EU_WEST_URL", "postgres://app@db2/shop"}};
  const auto parsed = config();
  ASSERT_TRUE(parsed) << parsed.error().to_string();
  const auto resolved = resolve_monitor(platform_, parsed->cluster, *parsed->monitor);
  ASSERT_TRUE(resolved) << resolved.error().to_string();
  ASSERT_EQ(resolved->access.size(), 2u);
  for (const char* endpoint : {"primary", "eu-west"}) {
    const auto& access = resolved->access.at(*NodeName::parse(endpoint));
    EXPECT_THAT(access.parameters,
                testing::Contains(std::pair<std::string, std::string>("sslmode", "require")))
        << endpoint;
    EXPECT_THAT(access.shown, Not(HasSubstr("secret")));
  }
  EXPECT_THAT(resolved->access.at(*NodeName::parse("primary")).shown,
              AllOf(HasSubstr("db1:5433"), HasSubstr("shop"), HasSubstr("app")));
}

}  // namespace
}  // namespace bascule::cli
