#include "cli/access_section.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "cli/config.h"
#include "cli/password_commands.h"
#include "posix/clock.h"
#include "posix/disk.h"
#include "posix/entropy.h"
#include "posix/process.h"
#include "posix/tls_context.h"
#include "posix/tls_testing.h"

namespace bascule::cli {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class AccessSectionTest : public testing::Test {
 protected:
  void SetUp() override {
    char dir[] = "/tmp/access-section-XXXXXX";
    ASSERT_NE(::mkdtemp(dir), nullptr);
    dir_ = dir;
    certificates_.issue("proxy", "proxy", "DNS:x");
    write("users", "\"app\" \"secret\"\n");
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  void write(const std::string& name, const std::string& text, mode_t mode = 0600) {
    std::ofstream(dir_ + "/" + name) << text;
    ::chmod((dir_ + "/" + name).c_str(), mode);
  }
  // The section `proxy` with these lines; relative paths are in dir_.
  Result<DaemonConfig> parse(const std::string& lines) {
    return parse_config(
        "cluster: {name: c}\nstore: file:s.db\nproxy:\n  writer: 127.0.0.1:6432\n"
        "  userlist_file: users\n" +
            lines,
        dir_ + "/bascule.yaml");
  }
  AccessSection section(const std::string& lines) {
    auto config = parse(lines);
    EXPECT_TRUE(config) << config.error().message;
    return config ? config->proxy->access : AccessSection{};
  }
  std::vector<std::string> check(const std::string& lines) {
    AccessCheck all_of = check_access(section(lines), disk_, tls_, entropy_);
    all_of.errors.insert(all_of.errors.end(), all_of.notes.begin(), all_of.notes.end());
    return all_of.errors;
  }
  std::string client_tls(const std::string& key) {
    return "  client_tls: {mode: require, certificate_file: " + certificates_.certificate("proxy") +
           ", key_file: " + key + "}\n";
  }

  std::string dir_;
  posix::PosixDisk disk_;
  posix::OpenSslTls tls_;
  posix::SystemEntropy entropy_;
  posix::testing::CertificateDir certificates_;
};

TEST_F(AccessSectionTest, EveryKeyIsReadAndPathsAreResolved) {
  const AccessSection s = section(
      "  client_tls: {mode: verify-full, certificate_file: c, key_file: k, ca_file: ca, crl_file: "
      "/r, min_version: 1.3, ciphers: ECDHE}\n"
      "  server_tls: {mode: verify-ca, ca_file: sca, certificate_file: sc, key_file: sk}\n"
      "  auth_type: md5\n  hba_file: hba\n  ident_file: ident\n"
      "  auth_query: {user: l, database: d, query: \"select f($1)\", ttl: 5s, ttl_unknown: 1s}\n"
      "  password_in_clear: true\n  proxy_protocol_from: [10.0.0.0/8]\n"
      "  password_commands:\n    - {user: u, command: [/bin/x, -y], lifetime: 1h, timeout: 3s}\n"
      "  socket_dir: sockets\n");
  EXPECT_EQ(s.config.client_tls, proxy::SslMode::kVerifyFull);
  EXPECT_EQ(s.config.client_tls_files.certificate_file, dir_ + "/c");
  EXPECT_EQ(s.config.client_tls_files.crl_file, "/r");
  EXPECT_EQ(s.config.client_tls_files.limits.min_version, env::TlsVersion::k13);
  EXPECT_EQ(s.config.server_tls, proxy::SslMode::kVerifyCa);
  EXPECT_EQ(s.config.server_tls_files.key_file, dir_ + "/sk");
  EXPECT_EQ(s.config.auth_type, proxy::AuthMethod::kMd5);
  EXPECT_EQ(s.config.hba_file, dir_ + "/hba");
  EXPECT_EQ(s.config.auth_query.user, "l");
  EXPECT_EQ(s.config.auth_query.ttl, 5s);
  EXPECT_TRUE(s.config.password_in_clear);
  EXPECT_THAT(s.config.proxy_protocol_from, ElementsAre("10.0.0.0/8"));
  ASSERT_EQ(s.password_commands.size(), 1u);
  EXPECT_EQ(s.password_commands[0].lifetime, 1h);
  EXPECT_EQ(s.socket_dir, dir_ + "/sockets");
}

TEST_F(AccessSectionTest, WhatDoesNotFitTogetherIsAProblem) {
  const std::pair<const char*, const char*> cases[] = {
      {"  client_tls: {mode: require}\n", "certificate_file"},
      {"  client_tls: {mode: verify-ca, certificate_file: c, key_file: k}\n", "ca_file"},
      {"  server_tls: {mode: verify-full}\n", "ca_file"},
      {"  server_tls: {certificate_file: c}\n", "go together"},
      {"  auth_query: {user: u, query: select 1}\n", "$1"},
      {"  auth_query: {}\n", "user"},
      {"  auth_type: ldap\n", "auth_type"},
      {"  password_commands: [{user: u, command: [x]}]\n", "path of a program"},
      {"  client_tls: {mode: disable, certificat_file: c}\n", "certificat_file"}};
  for (const auto& [lines, what] : cases) {
    const auto parsed = parse(lines);
    ASSERT_FALSE(parsed) << lines;
    EXPECT_THAT(parsed.error().message, HasSubstr(what)) << lines;
  }
}

TEST_F(AccessSectionTest, WhatCanNotStartIsAnErrorAndWhatIsOpenToOthersIsANote) {
  write("users", "\"app\" \"secret\"\n", 0644);
  write("hba", "host all all all ident\n");
  const AccessCheck checked = check_access(section("  hba_file: hba\n"), disk_, tls_, entropy_);
  EXPECT_THAT(checked.errors, ElementsAre(HasSubstr("method ident")));
  EXPECT_THAT(checked.notes, ElementsAre(HasSubstr("readable by others")));
}

TEST_F(AccessSectionTest, GoodFilesAreNoProblem) {
  write("hba", "hostssl all all all scram-sha-256\n");
  EXPECT_THAT(check("  hba_file: hba\n" + client_tls(certificates_.key("proxy"))), IsEmpty());
}

TEST_F(AccessSectionTest, ValidationFindsWhatTheDaemonWouldStumbleOver) {
  EXPECT_THAT(check(client_tls("/nowhere/key")), Contains(HasSubstr("/nowhere/key: No such file")));
  EXPECT_THAT(check(client_tls(certificates_.key("ca"))),
              Contains(HasSubstr("key values mismatch")));
  write("users", "\"app\" \"secret\"\n", 0644);
  EXPECT_THAT(check(""), Contains(HasSubstr("users is readable by others")));
  write("hba", "host all all all ident\n");
  EXPECT_THAT(check("  hba_file: hba\n"), Contains(HasSubstr("hba:1: method ident")));
  EXPECT_THAT(check("  hba_file: gone\n"), Contains(HasSubstr("gone")));
  EXPECT_THAT(check("  auth_query: {user: nobody}\n"), Contains(HasSubstr("not in userlist_file")));
  EXPECT_THAT(check("  password_commands: [{user: u, command: [/nowhere/x]}]\n"),
              Contains(HasSubstr("/nowhere/x: No such file")));
  write("users", "\"app\" \"SCRAM-SHA-256$geheim\"\n");
  const auto notes = check("");
  EXPECT_THAT(notes, Contains(HasSubstr("proxy user 'app'")));
  for (const std::string& note : notes) EXPECT_THAT(note, Not(HasSubstr("geheim")));
}

// ---- Passwords from programs -------------------------------------------------------------------

class PasswordCommandTest : public testing::Test {
 protected:
  Result<std::string> run(const std::string& script, Millis timeout = 10s) {
    PasswordCommandSection section{"u", {"/bin/sh", "-c", script}, 1h, timeout};
    return run_password_command(process_, clock_, section, [] { return false; });
  }
  posix::PosixProcess process_;
  posix::SystemClock clock_;
};

TEST_F(PasswordCommandTest, FirstLineOfTheOutputIsThePassword) {
  EXPECT_EQ(run("echo token; echo more; echo noise >&2").value(), "token");
  EXPECT_EQ(run("printf 'a b'").value(), "a b");
}

TEST_F(PasswordCommandTest, ErrorsShowHowItEndedAndNeverItsOutput) {
  const auto failed = run("echo geheim; printf 'no\\033 access\\nsecond' >&2; exit 3");
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().message, "/bin/sh: exit 3: no? access");
  for (const char* script :
       {"echo", "true", "head -c 9000 /dev/zero | tr '\\0' x", "printf 'geheim\\000x'"}) {
    const auto empty = run(script);
    ASSERT_FALSE(empty) << script;
    EXPECT_THAT(empty.error().message, HasSubstr("no password"));
    EXPECT_THAT(empty.error().message, Not(HasSubstr("geheim")));
  }
  EXPECT_THAT(run("echo geheim; sleep 20", 200ms).error().message, HasSubstr("in time"));
}

}  // namespace
}  // namespace bascule::cli
