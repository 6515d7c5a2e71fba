#include "api/http_server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <atomic>

#include "api/testing.h"
#include "posix/blocking_pool.h"
#include "posix/clock.h"
#include "posix/http_curl.h"
#include "posix/reactor.h"
#include "posix/tls_testing.h"
#include "posix/unique_fd.h"

namespace bascule::api {
namespace {

using namespace testing;
using ::testing::HasSubstr;
using ::testing::StartsWith;

posix::UniqueFd connect_to(int port) {
  posix::UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const timeval limit{10, 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  return fd;
}

std::string read_all(int fd) {
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = ::read(fd, buffer, sizeof buffer)) > 0;) text.append(buffer, n);
  return text;
}

// Sends `request` as it is; everything until the server closes.
std::string ask(int port, const std::string& request) {
  const auto fd = connect_to(port);
  EXPECT_EQ(::send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(request.size()));
  return read_all(fd.get());
}

std::string get(int port, const std::string& path, const std::string& method = "GET") {
  return ask(port, method + " " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n");
}

std::string post(int port, const std::string& path, const std::string& body) {
  return ask(port, "POST " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: " +
                       std::to_string(body.size()) + "\r\n\r\n" + body);
}

class HttpServerTest : public ::testing::Test {
 protected:
  // A snapshot that is healthy by the real clock.
  Snapshot live() {
    auto local = leading_member();
    local.taken_at = clock.now();
    local.deadline = clock.now() + 60s;
    auto snapshot = snapshot_of(local);
    snapshot.taken_at = clock.now();
    snapshot.store_seen_at = clock.now();
    return snapshot;
  }

  HttpServer make(HttpOptions options = {.host = "127.0.0.1", .port = 0, .threads = 4}) {
    return HttpServer(std::move(options), clock, pool,
                      [this](Command command) -> Result<std::string> {
                        ++commands;
                        asked_by = command.by;
                        return "op-1";
                      });
  }

  posix::SystemClock clock;
  posix::ThreadPool pool{2};
  std::atomic<int> commands{0};
  std::string asked_by;  // of the last one: looked at once it is answered
};

TEST_F(HttpServerTest, AnswersFromTheNewestSnapshot) {
  auto server = make();
  const int port = server.start().value();
  EXPECT_THAT(get(port, "/primary"), StartsWith("HTTP/1.1 503"));
  server.publish(live());
  EXPECT_THAT(get(port, "/primary"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(get(port, "/cluster"), HasSubstr("\"scope\":\"demo\""));
  auto snapshot = live();
  snapshot.view.leader->value.phase = control::LeaderPhase::kVacant;
  server.publish(snapshot);
  EXPECT_THAT(get(port, "/primary"), StartsWith("HTTP/1.1 503"));
}

TEST_F(HttpServerTest, ARegionsNameIsFreeTextInAPath) {
  auto server = make();
  const int port = server.start().value();
  auto snapshot = live();
  snapshot.view.members.at(name("n2")).region = "EU-West.1 b";
  server.publish(snapshot);
  EXPECT_THAT(post(port, "/api/database/failover/EU-West.1%20b", ""), StartsWith("HTTP/1.1 202"));
  EXPECT_THAT(post(port, "/api/database/reconnect/EU-West.1%20b", ""), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(post(port, "/api/database/failover/EU-East", ""), HasSubstr("is in that region"));
}

env::HttpAnswer ask_over_tls(env::HttpTls tls, int port, const std::string& token,
                             const std::string& method = "GET",
                             const std::string& path = "/cluster") {
  posix::Reactor loop;
  posix::CurlHttp http(loop, std::move(tls));
  env::HttpRequest request;
  request.method = method;
  request.url = "https://127.0.0.1:" + std::to_string(port) + path;
  if (!token.empty()) request.headers = {"Authorization: Bearer " + token};
  request.timeout = 5s;
  env::HttpAnswer got;
  http.send(std::move(request), [&](env::HttpAnswer answer) {
    got = std::move(answer);
    loop.stop();
  });
  loop.run();
  return got;
}

TEST_F(HttpServerTest, OverTlsATokenIsAskedForAndAClientCertificateIsOne) {
  posix::testing::CertificateDir files;
  files.issue("api", "api", "IP:127.0.0.1");
  files.issue("ops", "ops", "");
  HttpOptions options{.host = "127.0.0.1", .port = 0, .threads = 4};
  options.tls = HttpTls{files.certificate("api"), files.key("api"), ""};
  options.tokens = {{"ops", Role::kViewer, sha256_hex("word")}};
  options.anonymous = Anonymous::kHealth;
  {
    auto server = make(options);
    const int port = server.start().value();
    server.publish(live());
    EXPECT_EQ(ask_over_tls({files.ca(), "", ""}, port, "").status, 401);
    EXPECT_EQ(ask_over_tls({files.ca(), "", ""}, port, "word").status, 200);
    EXPECT_EQ(ask_over_tls({}, port, "word").status, 0) << "an authority that nobody trusts";
  }
  options.tls->client_ca_file = files.ca();
  auto server = make(options);
  const int port = server.start().value();
  server.publish(live());
  EXPECT_EQ(ask_over_tls({files.ca(), files.certificate("ops"), files.key("ops")}, port, "").status,
            200);
  EXPECT_EQ(ask_over_tls({files.ca(), "", ""}, port, "").status, 0) << "without a certificate";
  const env::HttpTls ops{files.ca(), files.certificate("ops"), files.key("ops")};
  EXPECT_EQ(ask_over_tls(ops, port, "", "POST", "/pause").status, 200);
  EXPECT_EQ(asked_by, "api certificate CN=ops 127.0.0.1") << "the audit says whose it was";
}

TEST_F(HttpServerTest, FilesThatWereReplacedAreUsedForTheNextClient) {
  posix::testing::CertificateDir before, after;
  for (auto* authority : {&before, &after}) {
    authority->issue("api", "api", "IP:127.0.0.1");
    authority->issue("ops", "ops", "");
  }
  const env::HttpTls ops_before{before.ca() + ".old", before.certificate("ops"), before.key("ops")};
  const env::HttpTls ops_after{after.ca(), after.certificate("ops"), after.key("ops")};
  std::filesystem::copy_file(before.ca(), ops_before.ca_file);
  HttpOptions options{.host = "127.0.0.1", .port = 0, .threads = 4};
  options.tls = HttpTls{before.certificate("api"), before.key("api"), before.ca()};
  auto server = make(options);
  const int port = server.start().value();
  server.publish(live());
  EXPECT_EQ(ask_over_tls(ops_before, port, "").status, 200);
  const auto replace = [](const std::string& file, const std::string& by) {
    std::filesystem::copy_file(by, file, std::filesystem::copy_options::overwrite_existing);
  };
  replace(options.tls->cert_file, after.certificate("api"));
  EXPECT_EQ(ask_over_tls(ops_before, port, "").status, 200) << "the key is not there yet";
  replace(options.tls->key_file, after.key("api"));
  replace(options.tls->client_ca_file, after.ca());
  EXPECT_EQ(ask_over_tls(ops_after, port, "").status, 200);
  EXPECT_EQ(
      ask_over_tls({after.ca(), before.certificate("ops"), before.key("ops")}, port, "").status, 0)
      << "of an authority that is not believed any more";
}

TEST_F(HttpServerTest, AKeyThatIsNotTheCertificatesIsRefusedAtTheStart) {
  posix::testing::CertificateDir files;
  files.issue("a", "a", "");
  files.issue("b", "b", "");
  HttpOptions options{.host = "127.0.0.1", .port = 0, .threads = 1};
  options.tls = HttpTls{files.certificate("a"), files.key("b"), ""};
  const auto port = make(options).start();
  ASSERT_FALSE(port.has_value());
  EXPECT_EQ(port.error().code, ErrorCode::kInvalid);
}

TEST_F(HttpServerTest, HeadAndOptionsHaveNoBody) {
  auto server = make();
  const int port = server.start().value();
  server.publish(live());
  for (const char* method : {"HEAD", "OPTIONS"}) {
    const auto answer = get(port, "/primary", method);
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 200")) << method;
    EXPECT_TRUE(answer.ends_with("\r\n\r\n")) << answer;
  }
}

TEST_F(HttpServerTest, QueryAndMetricsAndErrorsPassThroughHttp) {
  auto server = make();
  const int port = server.start().value();
  server.publish(live());
  EXPECT_THAT(get(port, "/failover/history?limit=x"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(get(port, "/metrics"), HasSubstr("Content-Type: text/plain; version=0.0.4"));
  const auto missing = get(port, "/nowhere");
  EXPECT_THAT(missing, StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(missing, HasSubstr("\"code\":\"not_found\""));
}

TEST_F(HttpServerTest, CommandReachesTheHandler) {
  auto server = make();
  const int port = server.start().value();
  server.publish(live());
  EXPECT_THAT(post(port, "/switchover", R"({"candidate": "n2"})"), StartsWith("HTTP/1.1 202"));
  EXPECT_EQ(commands, 1);
  EXPECT_THAT(post(port, "/nowhere", "{}"), StartsWith("HTTP/1.1 404"));
  EXPECT_EQ(commands, 1);
}

TEST_F(HttpServerTest, CommandBeyondLoopbackIsRefused) {
  auto server = make({.host = "0.0.0.0", .port = 0, .threads = 4});
  const int port = server.start().value();
  server.publish(live());
  EXPECT_THAT(get(port, "/primary"), StartsWith("HTTP/1.1 200"));
  const auto answer = post(port, "/switchover", "{}");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 403"));
  EXPECT_THAT(answer, HasSubstr("without a token"));
  EXPECT_EQ(commands, 0);
}

TEST_F(HttpServerTest, OnlyNetworksOfTheListAreHeard) {
  const auto answers_to = [&](std::vector<std::string> networks) {
    HttpOptions options{.host = "127.0.0.1", .port = 0, .threads = 4};
    for (const auto& text : networks) options.allow.push_back(Network::parse(text).value());
    options.peers = [](std::string) -> Result<std::string> { return "pledged"; };
    auto server = make(std::move(options));
    const int port = server.start().value();
    server.publish(live());
    EXPECT_THAT(post(port, "/peer", "{}"), StartsWith("HTTP/1.1 200")) << "members are no callers";
    return std::pair(get(port, "/primary"), post(port, "/switchover", "{}"));
  };
  const auto [read, commanded] = answers_to({"10.0.0.0/8", "::1"});
  EXPECT_THAT(read, StartsWith("HTTP/1.1 403"));
  EXPECT_THAT(read, HasSubstr("api.allow"));
  EXPECT_THAT(commanded, StartsWith("HTTP/1.1 403"));
  EXPECT_EQ(commands, 0);
  EXPECT_THAT(answers_to({"10.0.0.0/8", "127.0.0.0/8"}).first, StartsWith("HTTP/1.1 200"));
}

TEST_F(HttpServerTest, LargeOrMalformedRequestsAreRefused) {
  auto server = make();
  const int port = server.start().value();
  server.publish(live());
  EXPECT_THAT(post(port, "/switchover", std::string(65 << 10, ' ')), StartsWith("HTTP/1.1 413"));
  EXPECT_THAT(ask(port, "GET\r\n\r\n"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(get(port, "/" + std::string(7000, 'a')), StartsWith("HTTP/1.1 404"));
  EXPECT_EQ(commands, 0);
  EXPECT_THAT(get(port, "/primary"), StartsWith("HTTP/1.1 200")) << "still serves";
}

TEST_F(HttpServerTest, SilentClientsDelayNobodyForLong) {
  auto server = make();
  const int port = server.start().value();
  server.publish(live());
  std::vector<posix::UniqueFd> silent;
  for (int i = 0; i < 4; ++i) silent.push_back(connect_to(port));  // every thread is taken
  const auto begin = clock.now();
  EXPECT_THAT(get(port, "/primary"), StartsWith("HTTP/1.1 200"));
  EXPECT_LT(clock.now() - begin, 4s);
}

TEST_F(HttpServerTest, TakenPortIsAnErrorThatSaysSo) {
  auto first = make();
  const int port = first.start().value();
  auto second = make({.host = "127.0.0.1", .port = port, .threads = 1});
  const auto result = second.start();
  ASSERT_FALSE(result.has_value());
  EXPECT_THAT(result.error().message, HasSubstr(std::to_string(port)));
}

TEST_F(HttpServerTest, StopsWhileClientsAreConnected) {
  const auto begin = clock.now();
  posix::UniqueFd idle;
  {
    auto server = make();
    idle = connect_to(server.start().value());
  }
  EXPECT_LT(clock.now() - begin, 4s);
  // And without ever having listened.
  auto unused = make();
}

TEST(IsLoopback, KnowsAddressesOfThisHostOnly) {
  for (const char* host : {"127.0.0.1", "127.9.9.9", "::1", "localhost"}) {
    EXPECT_TRUE(is_loopback(host)) << host;
  }
  for (const char* host : {"0.0.0.0", "::", "10.0.0.1", "", "localhost.evil.example", "*"}) {
    EXPECT_FALSE(is_loopback(host)) << host;
  }
}

}  // namespace
}  // namespace bascule::api
