#include "node/config.h"

#include <gtest/gtest.h>

namespace bascule::node {
namespace {

NodeConfig good() {
  NodeConfig config;
  config.agent.name = NodeName::parse("n1").value();
  config.agent.host = "127.0.0.1";
  config.agent.port = 5432;
  config.data_dir = "/var/lib/bascule/n1/data";
  config.run_dir = "/run/bascule/n1";
  config.replication_password = "secret";
  return config;
}

void expect_refused(const NodeConfig& config, const std::string& names) {
  const Status status = validate(config);
  ASSERT_FALSE(status) << names;
  EXPECT_NE(status.error().message.find(names), std::string::npos) << status.error().message;
  EXPECT_EQ(status.error().message.find("secret"), std::string::npos);
}

TEST(Validate, AcceptsAComplete) { EXPECT_TRUE(validate(good())); }

TEST(Validate, NamesTheSettingThatIsWrong) {
  NodeConfig config = good();
  config.data_dir = "relative";
  expect_refused(config, "data_dir");
  config = good();
  config.run_dir = "/" + std::string(100, 'x');
  expect_refused(config, "run_dir");
  config = good();
  config.run_dir = config.data_dir + "/run";  // would be wiped by a clone
  expect_refused(config, "run_dir");
  config = good();
  config.agent.port = 70000;
  expect_refused(config, "port");
  config = good();
  config.replication_password.clear();
  expect_refused(config, "replication_password");
}

TEST(Validate, ParametersThatBasculeManagesAreRefused) {
  for (const char* name : {"primary_conninfo", "synchronous_standby_names", "restart_after_crash",
                           "fsync", "recovery_target_lsn", "listen_addresses"}) {
    NodeConfig config = good();
    config.parameters[name] = "x";
    expect_refused(config, name);
  }
}

TEST(Validate, ParametersCannotSmuggleLinesIn) {
  NodeConfig config = good();
  config.parameters["work_mem"] = "5MB'\nfsync = 'off";
  expect_refused(config, "work_mem");
  config = good();
  config.parameters["work_mem = '1MB'\nfsync"] = "off";
  expect_refused(config, "parameters");
  config = good();
  config.hba = {"host all all all trust\nlocal all all trust"};
  expect_refused(config, "hba");
}

}  // namespace
}  // namespace bascule::node
