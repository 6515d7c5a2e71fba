#include "cli/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "cli/role_configs.h"

namespace bascule::cli {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr std::string_view kWhole = R"(
cluster: {name: main}
store: file:/var/lib/bascule/store.db
user: postgres
log: {level: debug, format: json}
node:
  name: n1
  data_dir: data
  run_dir: /run/bascule/n1
  port: 5433
  region: eu-west
  priority: 10
  postgresql:
    version: 15
    parameters: {shared_buffers: 128MB, max_connections: 200}
    hba: ["host all all 10.0.0.0/8 scram-sha-256"]
  superuser: {password_file: secrets/superuser}
  replication: {user: rep, password_file: secrets/replication}
  client_users: [{name: app, password_file: secrets/app, database: app}]
proxy:
  writer: 127.0.0.1:6432
  reader: 127.0.0.1:6433
  hold_timeout: 10s
  userlist_file: users
api: {listen: "127.0.0.1:8008"}
defaults: {timing: fast, sync: off, on_crash: restart, maximum_lag: 1MB}
)";

std::string problems_of(std::string_view yaml) {
  const auto config = parse_config(yaml, "/etc/b.yaml");
  return config ? "" : config.error().message;
}
// The whole file with one line added to the node section, as line 20.
std::string with_node_line(const std::string& line) {
  std::string text(kWhole);
  return text.insert(text.find("proxy:"), "  " + line + "\n");
}

TEST(Config, AWholeFileIsRead) {
  const auto config = parse_config(kWhole, "/etc/bascule/b.yaml");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->cluster, "main");
  EXPECT_EQ(config->store.path, "/var/lib/bascule/store.db");
  EXPECT_EQ(config->log.level, LogLevel::kDebug);
  ASSERT_TRUE(config->node && config->proxy && config->api);
  EXPECT_EQ(config->node->name.str(), "n1");
  EXPECT_EQ(config->node->data_dir, "/etc/bascule/data");
  EXPECT_EQ(config->node->run_dir, "/run/bascule/n1");
  EXPECT_EQ(config->node->superuser.user, "postgres");
  EXPECT_EQ(config->node->superuser.password_file, "/etc/bascule/secrets/superuser");
  EXPECT_EQ(config->node->parameters.at("max_connections"), "200");
  EXPECT_EQ(config->node->hba.size(), 1u);
  ASSERT_EQ(config->node->client_users.size(), 1u);
  EXPECT_EQ(config->node->client_users[0].database, "app");
  EXPECT_EQ(config->proxy->reader->port, 6433);
  EXPECT_EQ(config->proxy->hold_timeout, 10s);
  EXPECT_EQ(config->defaults.ttl, 2s);
  EXPECT_EQ(config->defaults.sync_mode, control::SyncMode::kOff);
  EXPECT_EQ(config->defaults.on_crash, control::OnCrash::kRestart);
  EXPECT_EQ(config->defaults.maximum_lag_bytes, 1u << 20);
}

std::string with_store(const std::string& store) {
  std::string text(kWhole);
  const size_t at = text.find("store:");
  return text.replace(at, text.find('\n', at) - at, store);
}

TEST(Config, AnEtcdIsReadAndRenderedTheSame) {
  const std::string given =
      "store: {type: etcd, endpoints: [\"https://a:2379\", \"https://b:2379\"], prefix: /pg/, "
      "user: u, password_file: pw, ca: ca.pem, cert: c.pem, key: /k.pem, timeout: 2s}";
  const auto config = parse_config(with_store(given), "/etc/bascule/b.yaml");
  ASSERT_TRUE(config) << config.error().message;
  ASSERT_TRUE(config->store.etcd.has_value());
  const EtcdAt& etcd = *config->store.etcd;
  EXPECT_EQ(etcd.endpoints, (std::vector<std::string>{"https://a:2379", "https://b:2379"}));
  EXPECT_EQ(etcd.password_file, "/etc/bascule/pw");
  EXPECT_EQ(etcd.key_file, "/k.pem");
  EXPECT_EQ(etcd.timeout, 2s);
  const auto again = parse_config(with_store(render_store(config->store)), "/etc/bascule/b.yaml");
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->store, config->store);
}

TEST(Config, AWrongEtcdIsRefusedByTheKeyThatIsWrong) {
  const auto problem = [](const std::string& rest) {
    return problems_of(with_store("store: {type: etcd" + rest + "}"));
  };
  const std::string good = ", endpoints: [\"https://a:2379\"]";
  EXPECT_EQ(problem(good), "");
  EXPECT_THAT(problem(""), HasSubstr("store.endpoints: is missing"));
  EXPECT_THAT(problem(", endpoints: [a]"), HasSubstr("store.endpoints: "));
  EXPECT_THAT(problem(good + ", user: u"), HasSubstr("password_file"));
  EXPECT_THAT(problem(good + ", cert: c"), HasSubstr("store.cert"));
  EXPECT_THAT(problem(good + ", timeout: 1ms"), HasSubstr("store.timeout"));
  EXPECT_THAT(problem(good + ", endpoint: x"), HasSubstr("endpoints"));
  EXPECT_THAT(problem(", endpoints: [\"http://a:1\"], ca: x"), HasSubstr("https"));
  EXPECT_THAT(problems_of(with_store("store: {endpoints: [\"http://a:1\"]}")),
              HasSubstr("store.type"));
}

TEST(Config, AnUnknownKeyNamesItsLineAndTheNearestKnownOne) {
  EXPECT_EQ(problems_of(with_node_line("no_failover: true")),
            "/etc/b.yaml:20: node.no_failover: unknown key; did you mean \"nofailover\"?");
  EXPECT_THAT(
      problems_of(with_node_line("xyzzy: 1")),
      AllOf(HasSubstr("node.xyzzy: unknown key; known here: bootstrap, client_users, clonefrom"),
            Not(HasSubstr("did you mean"))));
}

TEST(Config, AKeyThatIsThereTwiceIsRefused) {
  EXPECT_EQ(problems_of(with_node_line("port: 5434")), "/etc/b.yaml:20: node.port: is there twice");
}

TEST(Config, EveryProblemIsReportedAtOnce) {
  const std::string problems = problems_of(R"(cluster: {name: Main}
store: redis://x
node: {name: n1, data_dir: d, run_dir: r, port: 70000, superuser: {}, priority: high}
proxy: {writer: 6432, hold_timeout: 5, userlist_file: u}
defaults: {timing: fats}
)");
  EXPECT_THAT(problems, HasSubstr("/etc/b.yaml:1: cluster.name: expected 1 to 40"));
  EXPECT_THAT(problems, HasSubstr("/etc/b.yaml:2: store: expected file:/path"));
  EXPECT_THAT(problems, HasSubstr(":3: node.port: expected a whole number from 1 to 65535"));
  EXPECT_THAT(problems, HasSubstr(":3: node.priority: expected a whole number from 0 to 1000, "
                                  "found \"high\""));
  EXPECT_THAT(problems, HasSubstr("node.replication.password_file: is missing"));
  EXPECT_THAT(problems, HasSubstr(":4: proxy.writer: expected an address and a port"));
  EXPECT_THAT(problems, HasSubstr(":4: proxy.hold_timeout: \"5\" has no unit"));
  EXPECT_THAT(problems, HasSubstr("did you mean \"fast\"?"));
}

TEST(Config, ASyntaxErrorNamesLineAndColumn) {
  EXPECT_THAT(problems_of("cluster: {name: main\nstore: x"), HasSubstr("/etc/b.yaml:2:"));
}

TEST(Config, AFileWithoutARoleIsRefused) {
  EXPECT_THAT(problems_of("cluster: {name: main}\nstore: file:/x\n"), HasSubstr("nothing to run"));
  EXPECT_THAT(problems_of(""), HasSubstr("cluster.name: is missing"));
  EXPECT_THAT(problems_of("- a\n- b\n"), HasSubstr("expected keys and values, found a list"));
}

TEST(Config, TwoListenersOnOnePortAreRefused) {
  EXPECT_THAT(problems_of("cluster: {name: main}\nstore: file:/x\napi: {listen: '127.0.0.1:1'}\n"
                          "proxy: {writer: '127.0.0.1:1', userlist_file: u}\n"),
              HasSubstr("api.listen: port 1 is also that of proxy.writer"));
}

TEST(Config, NetworksOfTheApiAreChecked) {
  const std::string head = "cluster: {name: main}\nstore: file:/x\n";
  EXPECT_THAT(problems_of(head + "api: {allow: [10.0.0.0/8, 'fe80::/10', 192.0.2.7]}\n"),
              Not(HasSubstr("api.allow")));
  EXPECT_THAT(problems_of(head + "api: {allow: [10.0.0.0/33]}\n"),
              HasSubstr("api.allow: \"10.0.0.0/33\" is no network"));
}

TEST(Config, RenderedDynamicConfigurationReadsBackTheSame) {
  control::ClusterConfig config;
  config.ttl = 2500ms;
  config.sync_strict = true;
  config.on_crash = control::OnCrash::kRestartThenFailover;
  config.maximum_lag_bytes = 12345;
  Problems problems;
  MapReader reader(problems, YAML::Load(render_cluster_config(config)), "defaults");
  control::ClusterConfig again;
  read_cluster_config(reader, again);
  reader.finish();
  EXPECT_TRUE(problems.list.empty());
  EXPECT_EQ(again, config);
}

DaemonConfig parsed(const std::string& yaml, const std::string& file = "/etc/bascule/b.yaml") {
  auto config = parse_config("cluster: {name: main}\n" + yaml, file);
  EXPECT_TRUE(config) << config.error().to_string();
  return std::move(*config);
}

TEST(Config, EventsOfTheProxyAreWrittenWhereTheDaemonMayWrite) {
  const std::string proxy = "proxy: {writer: \"127.0.0.1:6432\", userlist_file: /u}\n";
  EXPECT_EQ(proxy_events_file(parsed(proxy + "store: file:/s/store.db\npid_file: /run/b/b.pid\n")),
            "/run/b/events.jsonl");
  EXPECT_EQ(proxy_events_file(parsed(proxy + "store: file:/s/store.db\n")), "/s/events.jsonl");
  EXPECT_EQ(proxy_events_file(parsed(proxy + "store: file:/s/store.db\n", "environment")),
            "/s/events.jsonl");
  const std::string etcd = "store: {type: etcd, endpoints: [\"http://h:2379\"]}\n";
  EXPECT_EQ(proxy_events_file(parsed(proxy + etcd)), "/etc/bascule/events.jsonl");
  const auto here = std::filesystem::current_path() / "events.jsonl";
  EXPECT_EQ(proxy_events_file(parsed(proxy + etcd, "b.yaml")), here.string()) << "not /";
}

TEST(Config, WeakCommitsBesideAnEarlyTakeOverAreSaid) {
  const auto said = [](const std::string& defaults, const std::string& rules) {
    return weaker_than_early_takeover(parsed(
        "store: file:/s\nproxy: {writer: \"127.0.0.1:6432\", userlist_file: /u, durability: [" +
        rules + "]}\ndefaults: {" + defaults + "}\n"));
  };
  const std::string weak = "{user: a, synchronous_commit: remote_write}";
  EXPECT_THAT(said("early_takeover: true", weak), HasSubstr("a rule of proxy.durability makes"));
  EXPECT_THAT(said("early_takeover: true", weak + ", " + weak), HasSubstr("2 rules"));
  EXPECT_EQ(said("early_takeover: true", "{user: a, synchronous_commit: remote_apply}"), "");
  EXPECT_EQ(said("early_takeover: true, sync: false", weak), "") << "it is for synchronous modes";
  EXPECT_EQ(said("", weak), "");
}

TEST(Config, EveryExampleIsValid) {
  const auto examples = std::filesystem::path(__FILE__).parent_path() / "../../examples";
  int seen = 0;
  for (const auto& entry : std::filesystem::directory_iterator(examples)) {
    if (entry.path().extension() != ".yaml") continue;
    ++seen;
    const auto config = load_config(entry.path().string());
    EXPECT_TRUE(config) << config.error().message;
  }
  EXPECT_GE(seen, 3);
}

TEST(Config, EveryTimingPresetPassesTheTimingRules) {
  for (const std::string& preset : kTimingPresets) {
    control::ClusterConfig config;
    apply_timing(preset, config);
    const auto status = control::validate(config);
    EXPECT_TRUE(status) << preset << ": " << status.error().to_string();
  }
}

}  // namespace
}  // namespace bascule::cli
