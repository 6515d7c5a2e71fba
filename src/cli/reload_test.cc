#include "cli/reload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace bascule::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

DaemonConfig monitoring(const std::string& keys) {
  auto config =
      parse_config("cluster: {name: main}\nstore: file:/s\nmonitor: {" + keys + "}\n", "f");
  EXPECT_TRUE(config) << config.error().to_string();
  return std::move(*config);
}

std::vector<std::string> named(const std::string& before, const std::string& after) {
  return changes_that_need_a_restart(monitoring(before), monitoring(after));
}

TEST(Reload, EveryKeyOfAMonitorThatHasChangedIsNamed) {
  EXPECT_THAT(named("", ""), IsEmpty());
  struct Row {
    const char *key, *value;
  };
  constexpr Row kRows[] = {{"name", "m2"},
                           {"environment", "false"},
                           {"automatic", "false"},
                           {"health_interval", "7s"},
                           {"failover_timeout", "77s"},
                           {"failure_threshold", "7"},
                           {"recovery_threshold", "7"},
                           {"probe_timeout", "777ms"},
                           {"action_timeout", "7s"},
                           {"lease_ttl", "7s"},
                           {"permit", "7s"},
                           {"drain_timeout", "7s"},
                           {"catch_up_timeout", "7s"},
                           {"promote_timeout", "7s"},
                           {"cooldown", "7s"},
                           {"maximum_lag", "7MB"},
                           {"maximum_lag_time", "7s"},
                           {"loss_tolerance", "7MB"},
                           {"notify_command", "[/bin/true]"},
                           {"endpoints", "[{name: a, url: \"postgres://h/d\"}]"}};
  for (const Row& row : kRows) {
    EXPECT_THAT(named("", std::string(row.key) + ": " + row.value),
                ElementsAre(std::string("monitor.") + row.key));
  }
  // Whoever adds a key to the section adds it here and to the comparison.
  size_t keys = 0;
  for (const KeyFact& fact : config_keys()) {
    keys += fact.path.starts_with("monitor.") && fact.path.find('.', 8) == std::string::npos;
  }
  EXPECT_EQ(keys, std::size(kRows));
}

TEST(Reload, OfAnEndpointThePasswordsAreNotNamed) {
  const std::string before = "endpoints: [{name: a, url: \"postgres://u:old@h/d\"}]";
  const std::string after = "endpoints: [{name: a, url: \"postgres://u:new@h/d\"}]";
  EXPECT_THAT(named(before, after), ElementsAre("monitor.endpoints"));
}

}  // namespace
}  // namespace bascule::cli
