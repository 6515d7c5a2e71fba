#include "cli/local_cluster.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>

#include "cli/config.h"
#include "cli/secrets.h"
#include "posix/clock.h"
#include "posix/disk.h"
#include "posix/entropy.h"
#include "posix/process.h"
#include "posix/reactor.h"
#include "posix/worker_engine.h"

namespace bascule::cli {
namespace {

class LocalClusterTest : public testing::Test {
 protected:
  LocalClusterTest() {
    char name[] = "/tmp/bascule-local-XXXXXX";
    wanted_.dir = mkdtemp(name);
    wanted_.user = "postgres";
  }
  ~LocalClusterTest() override { std::filesystem::remove_all(wanted_.dir); }

  NewCluster wanted_;
  posix::SystemClock clock_;
  posix::PosixProcess process_;
  posix::PosixDisk disk_;
  posix::SystemEntropy entropy_;
  posix::WorkerEngineFactory engines_;
  const Platform platform_{
      [] { return std::make_unique<posix::Reactor>(); },
      {},
      {},
      clock_,
      process_,
      disk_,
      entropy_,
      engines_,
      [](const char*) { return std::nullopt; },
      {},
      2,
  };
};

TEST_F(LocalClusterTest, EveryFileThatUpWritesIsValid) {
  wanted_.defaults.sync_mode = control::SyncMode::kOff;
  const auto cluster = create_cluster(platform_, wanted_);
  ASSERT_TRUE(cluster) << cluster.error().to_string();
  for (const std::string& process : cluster->processes()) {
    const auto config = load_config(cluster->layout().config(process));
    ASSERT_TRUE(config) << config.error().message;
    EXPECT_EQ(config->store.path, cluster->layout().store());
    EXPECT_EQ(config->node.has_value(), process != kProxyProcess);
    if (config->node) {
      control::ClusterConfig read = config->defaults;
      EXPECT_TRUE(read.parameters.contains("max_connections"));  // sized for a laptop
      read.parameters = wanted_.defaults.parameters;
      EXPECT_EQ(read, wanted_.defaults);
    }
  }
  const auto again = load_cluster(platform_, wanted_.dir);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->nodes, cluster->nodes);
  EXPECT_EQ(again->writer, cluster->writer);
}

TEST_F(LocalClusterTest, WithAnEtcdOfItsOwnEveryPartUsesIt) {
  if (!disk_.exists("/usr/bin/etcd")) GTEST_SKIP() << "no etcd";
  wanted_.etcd_members = 3;
  const auto cluster = create_cluster(platform_, wanted_);
  ASSERT_TRUE(cluster) << cluster.error().to_string();
  for (const std::string& process : cluster->processes()) {
    const auto config = load_config(cluster->layout().config(process));
    ASSERT_TRUE(config) << config.error().message;
    ASSERT_TRUE(config->store.etcd.has_value());
    EXPECT_EQ(config->store.etcd->endpoints.size(), 3u);
  }
  const auto again = load_cluster(platform_, wanted_.dir);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->etcd, cluster->etcd);
  EXPECT_EQ(again->store(), cluster->store());
  // Started before those that need it.
  const auto processes = processes_of(platform_, *cluster);
  EXPECT_EQ(processes.front().name, "etcd1");
  EXPECT_EQ(processes.size(), 3u + cluster->nodes.size() + 1);
}

TEST_F(LocalClusterTest, SecretsAreForTheOwnerOnlyAndTheProxyKnowsNoPassword) {
  const auto cluster = create_cluster(platform_, wanted_);
  ASSERT_TRUE(cluster);
  for (const auto& entry : std::filesystem::directory_iterator(cluster->layout().secrets())) {
    struct stat info{};
    ASSERT_EQ(stat(entry.path().c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600u) << entry.path();
  }
  const auto password = read_secret(disk_, cluster->layout().secret("app"));
  const auto users = disk_.read(cluster->layout().secret("users"), 1 << 16);
  ASSERT_TRUE(password && users);
  EXPECT_EQ(users->find(*password), std::string::npos);
  EXPECT_NE(users->find("SCRAM-SHA-256$"), std::string::npos);
}

TEST_F(LocalClusterTest, TwoPortsInOneAreRefusedByName) {
  wanted_.base_port = 21500;
  wanted_.api_port = 21502;  // that of n2
  const auto cluster = create_cluster(platform_, wanted_);
  ASSERT_FALSE(cluster);
  EXPECT_NE(cluster.error().message.find("21502"), std::string::npos);
}

TEST_F(LocalClusterTest, ADirectoryTooDeepForASocketIsRefused) {
  wanted_.dir += "/" + std::string(80, 'x');
  const auto cluster = create_cluster(platform_, wanted_);
  ASSERT_FALSE(cluster);
  EXPECT_EQ(cluster.error().code, ErrorCode::kInvalid);
}

TEST_F(LocalClusterTest, OurOwnProcessIsNotOneOfTheClusters) {
  EXPECT_TRUE(processes_in(platform_, wanted_.dir).empty());
}

}  // namespace
}  // namespace bascule::cli
