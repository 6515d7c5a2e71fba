#include "posix/http_curl.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <optional>
#include <thread>

#include "posix/reactor.h"

namespace bascule::posix {
namespace {

using ::testing::HasSubstr;

// One listening socket, and a thread that plays the server.
class Server {
 public:
  explicit Server(std::function<void(Server&)> script) {
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    ::bind(fd_, reinterpret_cast<sockaddr*>(&address), size);
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    ::listen(fd_, 8);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this, script = std::move(script)] { script(*this); });
  }
  ~Server() {
    ::shutdown(fd_, SHUT_RDWR);
    thread_.join();
    ::close(fd_);
  }
  int accept() { return ::accept(fd_, nullptr, nullptr); }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_) + "/x"; }

  // Until the body's end as Content-Length says; empty: closed.
  static std::string read_request(int fd) {
    std::string text;
    char buffer[4096];
    for (;;) {
      const size_t head = text.find("\r\n\r\n");
      if (head != std::string::npos) {
        const size_t at = text.find("Content-Length: ");
        const size_t body = at == std::string::npos ? 0 : std::stoul(text.substr(at + 16));
        if (text.size() >= head + 4 + body) return text;
      }
      const ssize_t n = ::recv(fd, buffer, sizeof buffer, 0);
      if (n <= 0) return "";
      text.append(buffer, static_cast<size_t>(n));
    }
  }
  static void send(int fd, std::string_view text) {
    (void)!::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
  }
  static void answer(int fd, const std::string& body, const char* status = "200 OK") {
    send(fd, std::string("HTTP/1.1 ") + status +
                 "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  }

 private:
  int fd_ = -1;
  int port_ = 0;
  std::thread thread_;
};

class CurlHttpTest : public ::testing::Test {
 protected:
  env::HttpAnswer post(CurlHttp& http, env::HttpRequest request) {
    std::optional<env::HttpAnswer> got;
    http.send(std::move(request), [&](env::HttpAnswer answer) {
      got = std::move(answer);
      loop.stop();
    });
    EXPECT_FALSE(got.has_value()) << "called back inside the call";
    while (!got) loop.run();
    return *got;
  }
  env::HttpRequest request(const std::string& url) {
    env::HttpRequest out;
    out.url = url;
    out.body = "{\"a\":1}";
    out.headers = {"Authorization: secret"};
    out.timeout = 2s;
    return out;
  }
  Reactor loop;
};

TEST_F(CurlHttpTest, PostsAndReadsTheAnswerOverOneConnection) {
  std::vector<std::string> seen;
  int connections = 0;
  {
    Server server([&](Server& s) {
      const int fd = s.accept();
      ++connections;
      for (int i = 0; i < 2; ++i) {
        seen.push_back(Server::read_request(fd));
        Server::answer(fd, "hello", i == 0 ? "200 OK" : "503 Busy");
      }
      ::close(fd);
    });
    CurlHttp http(loop, {});
    const auto first = post(http, request(server.url()));
    EXPECT_EQ(first.status, 200);
    EXPECT_EQ(first.body, "hello");
    EXPECT_EQ(post(http, request(server.url())).status, 503);
  }
  EXPECT_EQ(connections, 1);
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_THAT(seen[0], HasSubstr("POST /x HTTP/1.1"));
  EXPECT_THAT(seen[0], HasSubstr("Content-Type: application/json"));
  EXPECT_THAT(seen[0], HasSubstr("Authorization: secret"));
  EXPECT_THAT(seen[0], HasSubstr("{\"a\":1}"));
}

// libcurl by itself sends it again on a new connection: a transaction would be carried out twice.
TEST_F(CurlHttpTest, ARequestOnAKeptConnectionThatBreaksIsNotSentASecondTime) {
  std::atomic<int> requests{0};
  {
    Server server([&](Server& s) {
      int fd = s.accept();
      if (!Server::read_request(fd).empty()) ++requests;
      Server::answer(fd, "first");
      if (!Server::read_request(fd).empty()) ++requests;
      ::close(fd);  // read, perhaps carried out, never answered
      while ((fd = s.accept()) >= 0) {
        if (!Server::read_request(fd).empty()) {
          ++requests;
          Server::answer(fd, "again");
        }
        ::close(fd);
      }
    });
    CurlHttp http(loop, {});
    EXPECT_EQ(post(http, request(server.url())).status, 200);
    const auto second = post(http, request(server.url()));
    EXPECT_EQ(second.status, 0);
    EXPECT_EQ(second.sent, env::HttpAnswer::Sent::kPerhaps);
    EXPECT_FALSE(second.error.empty());
  }
  EXPECT_EQ(requests, 2);
}

TEST_F(CurlHttpTest, ARefusedConnectionWasNotSent) {
  std::string url;
  {
    url = Server([](Server&) {}).url();
  }
  CurlHttp http(loop, {});
  const auto answer = post(http, request(url));
  EXPECT_EQ(answer.status, 0);
  EXPECT_EQ(answer.sent, env::HttpAnswer::Sent::kNo);
}

TEST_F(CurlHttpTest, SilenceEndsWithTheTimeoutAndCountsAsPerhapsSent) {
  Server server([](Server& s) {
    const int fd = s.accept();
    Server::read_request(fd);
    Server::read_request(fd);  // until the client closes
    ::close(fd);
  });
  CurlHttp http(loop, {});
  auto with = request(server.url());
  with.timeout = 100ms;
  const auto answer = post(http, std::move(with));
  EXPECT_EQ(answer.status, 0);
  EXPECT_EQ(answer.sent, env::HttpAnswer::Sent::kPerhaps);
}

TEST_F(CurlHttpTest, AnAnswerBeyondTheBoundIsAnError) {
  Server server([](Server& s) {
    const int fd = s.accept();
    Server::read_request(fd);
    Server::answer(fd, std::string(100'000, 'x'));
    ::close(fd);
  });
  CurlHttp http(loop, {});
  auto with = request(server.url());
  with.answer_bytes_max = 50'000;
  const auto answer = post(http, std::move(with));
  EXPECT_EQ(answer.status, 0);
  EXPECT_THAT(answer.error, HasSubstr("too large"));
}

TEST_F(CurlHttpTest, StreamsComeInPiecesAndCanBeCancelledFromWithin) {
  Server server([](Server& s) {
    const int fd = s.accept();
    Server::read_request(fd);
    Server::send(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na\n\r\n");
    Server::send(fd, "2\r\nb\n\r\n");
    Server::read_request(fd);  // until the client closes
    ::close(fd);
  });
  CurlHttp http(loop, {});
  std::string got;
  bool done = false;
  uint64_t id = 0;
  auto with = request(server.url());
  with.timeout = 0ms;
  id = http.stream(
      std::move(with),
      [&](std::string_view bytes) {
        got += bytes;
        if (got.size() < 4) return;
        http.cancel(id);
        loop.stop();
      },
      [&](env::HttpAnswer) { done = true; });
  loop.run();
  EXPECT_EQ(got, "a\nb\n");
  loop.call_after(50ms, [&] { loop.stop(); });
  loop.run();
  EXPECT_FALSE(done) << "no callback after cancel()";
}

}  // namespace
}  // namespace bascule::posix
