#include "cli/import_pgbouncer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/config.h"

namespace bascule::cli {
namespace {

Result<std::string> no_files(const std::string& path) {
  return fail(ErrorCode::kNotFound, "cannot read " + path);
}
Ini ini(std::string_view text) { return parse_pgbouncer_ini(text, "/etc/pgbouncer.ini", no_files); }
Import import(std::string_view text) { return import_pgbouncer(ini(text)); }

const ImportNote& note_of(const Import& import, const std::string& setting) {
  for (const ImportNote& note : import.notes) {
    if (note.setting == setting) return note;
  }
  static const ImportNote kNone;
  ADD_FAILURE() << "no note about " << setting;
  return kNone;
}

DaemonConfig read(const Import& import) {
  auto config = parse_config(import.yaml, "bascule.yaml");
  EXPECT_TRUE(config.has_value()) << config.error().message << "\n" << import.yaml;
  return config ? std::move(*config) : DaemonConfig{};
}

// The lines of Debian's file that are not commented out.
constexpr std::string_view kDebian = R"(
;;; comment
[databases]
[users]
[pgbouncer]
logfile = /var/log/postgresql/pgbouncer.log
pidfile = /var/run/postgresql/pgbouncer.pid
listen_addr = localhost
listen_port = 6432
unix_socket_dir = /var/run/postgresql
auth_type = md5
auth_file = /etc/pgbouncer/userlist.txt
)";

TEST(ImportPgbouncer, DebiansFileIsCarriedOverWhole) {
  const Import result = import(kDebian);
  EXPECT_TRUE(result.complete()) << render_import(result);
  const DaemonConfig config = read(result);
  ASSERT_TRUE(config.proxy);
  EXPECT_EQ(config.proxy->writer, (HostPort{"127.0.0.1", 6432}));
  EXPECT_EQ(config.proxy->clients_max, 100);
  EXPECT_EQ(config.proxy->default_pool_size, 20);
  EXPECT_EQ(config.proxy->access.userlist_file, "/etc/pgbouncer/userlist.txt");
  EXPECT_EQ(config.proxy->access.socket_dir, "/var/run/postgresql");
  EXPECT_EQ(config.proxy->access.config.auth_type, proxy::AuthMethod::kMd5);
  EXPECT_TRUE(config.standalone());
}

TEST(ImportPgbouncer, ATypicalTransactionPoolerBecomesTheSame) {
  const Import result = import(R"([databases]
shop = host=10.0.0.5 port=5433 dbname=shop
stock = host=10.0.0.5 port=5433
[pgbouncer]
listen_addr = *
pool_mode = transaction
max_client_conn = 2000
default_pool_size = 25
max_prepared_statements = 200
query_wait_timeout = 10
server_idle_timeout = 300
server_connect_timeout = 1.5
auth_type = scram-sha-256
auth_file = users.txt
auth_user = lookup
auth_query = SELECT * FROM lookup($1)
client_tls_sslmode = require
client_tls_key_file = /k.pem
client_tls_cert_file = /c.pem
server_tls_sslmode = verify-full
server_tls_ca_file = /ca.pem
server_tls_protocols = tlsv1.3
ignore_startup_parameters = extra_float_digits
so_reuseport = 1
)");
  EXPECT_TRUE(result.complete()) << render_import(result);
  const DaemonConfig config = read(result);
  ASSERT_TRUE(config.proxy);
  const ProxySection& proxy = *config.proxy;
  EXPECT_EQ(proxy.writer.host, "0.0.0.0");
  EXPECT_EQ(proxy.pool_mode, static_cast<int>(proxy::PoolMode::kTransaction));
  EXPECT_EQ(proxy.default_pool_size, 25);
  ASSERT_EQ(proxy.databases.size(), 2u);
  EXPECT_EQ(proxy.databases[0].rule.name, "shop");
  EXPECT_TRUE(proxy.databases[0].rule.hosts.empty()) << "it is the proxy's own server";
  EXPECT_EQ(proxy.hold_timeout, 10s);
  EXPECT_EQ(proxy.connect_timeout, 1500ms);
  EXPECT_EQ(proxy.access.config.auth_query.user, "lookup");
  EXPECT_EQ(proxy.access.config.client_tls, proxy::SslMode::kRequire);
  EXPECT_EQ(proxy.access.config.server_tls, proxy::SslMode::kVerifyFull);
  ASSERT_EQ(proxy.routing.monitor.servers.size(), 1u);
  EXPECT_EQ(proxy.routing.monitor.servers[0].endpoint, (env::Endpoint{"10.0.0.5", 5433}));
}

TEST(ImportPgbouncer, WhatIsLostIsSaidWithItsLineAndWithoutSecrets) {
  const Import result = import(
      "[databases]\n"
      "a = host=x user=forced password=geheim pool_size=3\n"
      "b = host=y\n"
      "[users]\n"
      "joe = pool_mode=session max_user_connections=3\n"
      "[pgbouncer]\n"
      "auth_file = u\n"
      "query_timeout = 30\n"
      "peer_id = 3\n"
      "pool_mod = session\n"
      "listen_port = 70000\n"
      "[nonsense]\n"
      "a = b\n"
      "rubbish\n");
  EXPECT_FALSE(result.complete());
  EXPECT_EQ(note_of(result, "databases.a").fate, Fate::kLost);
  EXPECT_NE(note_of(result, "databases.a").note.find("password_file"), std::string::npos);
  EXPECT_EQ(note_of(result, "databases.b").fate, Fate::kKept);
  EXPECT_EQ(note_of(result, "users.joe").fate, Fate::kKept);
  EXPECT_EQ(note_of(result, "pgbouncer.query_timeout").fate, Fate::kKept);
  EXPECT_EQ(note_of(result, "pgbouncer.query_timeout").line, 8);
  EXPECT_EQ(note_of(result, "pgbouncer.peer_id").fate, Fate::kNoNeed);
  EXPECT_EQ(note_of(result, "pgbouncer.pool_mod").fate, Fate::kUnknown);
  EXPECT_NE(note_of(result, "pgbouncer.pool_mod").note.find("pool_mode"), std::string::npos);
  EXPECT_EQ(note_of(result, "pgbouncer.listen_port").fate, Fate::kLost);
  EXPECT_EQ(note_of(result, "nonsense.a").fate, Fate::kUnknown);
  const std::string all = render_import(result) + import_json(result);
  EXPECT_EQ(all.find("geheim"), std::string::npos);
  EXPECT_NE(all.find("/etc/pgbouncer.ini:14: unknown"), std::string::npos) << all;
  EXPECT_TRUE(nlohmann::json::accept(import_json(result)));
  read(result);
}

TEST(ImportPgbouncer, DatabasesAndUsersKeepWhatIsTheirs) {
  const Import result = import(R"([databases]
shop = host=10.0.0.5
ro = host=10.0.0.6,10.0.0.7 port=5432,5433 dbname=shop load_balance_hosts=disable
forced = host=10.0.0.5 dbname='sh op' user=svc pool_size=3 min_pool_size=1 pool_mode=session connect_query='set x to ''y'''
socket = host=/run/pg port=5440 max_db_connections=9 server_lifetime=60 timezone=UTC application_name=a
* = host=10.0.0.5 auth_user=joe
[users]
joe = pool_mode=session max_user_connections=3
)");
  const DaemonConfig config = read(result);
  const auto& databases = config.proxy->databases;
  ASSERT_EQ(databases.size(), 5u);
  const proxy::DatabaseRule& ro = databases[1].rule;
  ASSERT_EQ(ro.hosts.size(), 2u);
  EXPECT_EQ(ro.hosts[1], (env::Endpoint{"10.0.0.7", 5433}));
  EXPECT_EQ(ro.dbname, "shop");
  EXPECT_EQ(ro.balance, proxy::DatabaseRule::Balance::kFirst);
  const proxy::DatabaseRule& forced = databases[2].rule;
  EXPECT_TRUE(forced.hosts.empty());
  EXPECT_EQ(forced.dbname, "sh op");
  EXPECT_EQ(forced.user, "svc");
  EXPECT_EQ(forced.pool_size, 3);
  EXPECT_EQ(forced.min_pool_size, 1);
  EXPECT_EQ(forced.mode, proxy::PoolMode::kSession);
  EXPECT_EQ(forced.connect_query, "set x to 'y'");
  const proxy::DatabaseRule& socket = databases[3].rule;
  EXPECT_EQ(socket.hosts, (std::vector<env::Endpoint>{{"/run/pg", 5440}}));
  EXPECT_EQ(socket.max_connections, 9);
  EXPECT_EQ(socket.server_lifetime, 60s);
  ASSERT_EQ(socket.settings.size(), 2u);
  EXPECT_EQ(databases[4].rule.name, "*");
  EXPECT_EQ(note_of(result, "databases.*").fate, Fate::kLost);
  EXPECT_EQ(note_of(result, "databases.shop").fate, Fate::kKept);
  ASSERT_EQ(config.proxy->pools.size(), 1u);
  EXPECT_EQ(config.proxy->pools[0].user, "joe");
  EXPECT_EQ(config.proxy->pools[0].max_user_connections, 3);
}

TEST(ImportPgbouncer, LimitsAndTimeOutsAreKeptWithTheirUnits) {
  const Import result = import(R"([pgbouncer]
auth_file = u
admin_users = root, ops
stats_users = exporter
client_idle_timeout = 1.5
idle_transaction_timeout = 60
query_timeout = 30
transaction_timeout = 90
server_lifetime = 1200
reserve_pool_size = 5
reserve_pool_timeout = 3
max_user_connections = 7
max_db_connections = 50
max_db_client_connections = 500
max_user_client_connections = 70
min_pool_size = 2
server_reset_query = RESET ALL
server_reset_query_always = 1
server_check_query = select 1
server_check_delay = 10
)");
  EXPECT_TRUE(result.complete()) << render_import(result);
  const DaemonConfig config = read(result);
  const ProxySection& proxy = *config.proxy;
  EXPECT_EQ(proxy.client_idle_timeout, 1500ms);
  EXPECT_EQ(proxy.idle_transaction_timeout, 60s);
  EXPECT_EQ(proxy.query_timeout, 30s);
  EXPECT_EQ(proxy.transaction_timeout, 90s);
  EXPECT_EQ(proxy.server_lifetime, 1200s);
  EXPECT_EQ(proxy.reserve_pool_size, 5);
  EXPECT_EQ(proxy.reserve_pool_timeout, 3s);
  EXPECT_EQ(proxy.max_user_connections, 7);
  EXPECT_EQ(proxy.max_db_connections, 50);
  EXPECT_EQ(proxy.max_db_client_connections, 500);
  EXPECT_EQ(proxy.max_user_client_connections, 70);
  EXPECT_EQ(proxy.min_pool_size, 2);
  EXPECT_EQ(proxy.server_reset_query, "RESET ALL");
  EXPECT_TRUE(proxy.server_reset_query_always);
  EXPECT_EQ(proxy.server_check_query, "select 1");
  EXPECT_EQ(proxy.server_check_delay, 10s);
  EXPECT_EQ(proxy.access.config.console_admins, (std::vector<std::string>{"root", "ops"}));
  EXPECT_EQ(proxy.access.config.console_stats, (std::vector<std::string>{"exporter"}));
}

TEST(ImportPgbouncer, PeersOnOtherHostsAreCarriedOver) {
  const Import result = import(
      "[databases]\n[peers]\n1 = host=10.0.0.1 port=6432\n2 = host=10.0.0.2 port=6433 "
      "pool_size=5\n3 = host=/tmp/sockets port=6434\n[pgbouncer]\npeer_id = 1\n");
  const DaemonConfig config = read(result);
  ASSERT_TRUE(config.proxy);
  EXPECT_EQ(config.proxy->peers, (std::vector<HostPort>{{"10.0.0.1", 6432}, {"10.0.0.2", 6433}}));
}

TEST(ImportPgbouncer, AnEmptyResetQueryStaysEmpty) {
  EXPECT_EQ(
      read(import("[pgbouncer]\nauth_file = a\nserver_reset_query =\n")).proxy->server_reset_query,
      "");
}

TEST(ImportPgbouncer, OfOneKeyTheLastCounts) {
  const Import result = import("[pgbouncer]\nauth_file = a\nlisten_port = 1\nlisten_port = 6500\n");
  EXPECT_EQ(read(result).proxy->writer.port, 6500);
  EXPECT_EQ(note_of(result, "pgbouncer.listen_port").fate, Fate::kNoNeed);
}

TEST(ImportPgbouncer, TextsThatLookLikeYamlStayTexts) {
  const Import result = import(
      "[pgbouncer]\nauth_file = {a: [\"b\n auth_user = x\nauth_query = select ': #' \\ $1\n"
      "logfile = a\"b: c\n");
  const DaemonConfig config = read(result);
  EXPECT_EQ(config.proxy->access.config.auth_query.query, "select ': #' \\ $1");
}

TEST(ImportPgbouncer, EverySettingIsKnownOnce) {
  std::vector<std::string> names = known_pgbouncer_settings();
  EXPECT_GT(names.size(), 95u);
  std::ranges::sort(names);
  EXPECT_EQ(std::ranges::adjacent_find(names), names.end());
}

TEST(PgbouncerIni, SectionsQuotesAndCommentsAreRead) {
  const Ini result = ini(
      "; c\n# c\n[ databases ]\n\"a \"\"b\"\"\" = host=1\n* = \n[pgbouncer]\n x_1.y = a ; b \r\n");
  ASSERT_EQ(result.entries.size(), 3u);
  EXPECT_EQ(result.entries[0].key, "a \"b\"");
  EXPECT_EQ(result.entries[0].section, "databases");
  EXPECT_EQ(result.entries[1].key, "*");
  EXPECT_EQ(result.entries[2].value, "a ; b");
  EXPECT_EQ(result.entries[2].line, 7);
  EXPECT_TRUE(result.problems.empty());
}

TEST(PgbouncerIni, IncludedFilesStandWhereTheyAreIncluded) {
  const auto files = [](const std::string& path) -> Result<std::string> {
    if (path == "/etc/sub/b.ini") return "x = 2\n%include c.ini\n";
    if (path == "/etc/sub/c.ini") return "y = 3\n";
    return fail(ErrorCode::kNotFound, "cannot read " + path);
  };
  const Ini result = parse_pgbouncer_ini(
      "[pgbouncer]\n%include sub/b.ini\n%include gone\n%other\nz = 4\n", "/etc/a.ini", files);
  ASSERT_EQ(result.entries.size(), 3u);
  EXPECT_EQ(result.entries[1].file, "/etc/sub/c.ini");
  EXPECT_EQ(result.entries[2].section, "pgbouncer");
  ASSERT_EQ(result.problems.size(), 2u);
  EXPECT_EQ(result.problems[0].line, 3);
}

TEST(PgbouncerIni, IncludesInACircleEnd) {
  const auto files = [](const std::string&) -> Result<std::string> { return "%include a\n"; };
  EXPECT_FALSE(parse_pgbouncer_ini("%include a\n", "/a", files).problems.empty());
}

TEST(PgbouncerIni, ConnectStringsAreReadAsPgbouncerDoes) {
  const auto pairs = parse_connect_string(" host = a  port=1 connect_query='select ''x''' e='' ");
  ASSERT_TRUE(pairs);
  ASSERT_EQ(pairs->size(), 4u);
  EXPECT_EQ((*pairs)[2].second, "select 'x'");
  EXPECT_EQ((*pairs)[3].second, "");
  using Pairs = std::vector<std::pair<std::string, std::string>>;
  EXPECT_EQ(parse_connect_string("dbname=a port=1 dbname=b"),
            (Pairs{{"dbname", "b"}, {"port", "1"}}));
  EXPECT_FALSE(parse_connect_string("host"));
  EXPECT_FALSE(parse_connect_string("host='a"));
  EXPECT_FALSE(parse_connect_string("=a"));
}

}  // namespace
}  // namespace bascule::cli
