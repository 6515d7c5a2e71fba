// Clients of sockets that several nets listen on: of one process or of two.
#include "posix/listener.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstdlib>
#include <filesystem>
#include <future>
#include <string>
#include <thread>
#include <tuple>
#include <utility>

#include "posix/engine_testing.h"
#include "posix/listening_sockets.h"
#include "posix/socket_address.h"

namespace bascule::posix {
namespace {

class Nobody : public env::StreamHandler {
 public:
  size_t on_data(std::string_view bytes) override { return bytes.size(); }
  void on_closed(int) override {}
};

// A net on a thread of its own. Everybody whom it accepts is greeted.
class Listening : public env::Acceptor {
 public:
  Listening(env::EngineKind kind, ListeningSockets& sockets, const env::Endpoint& endpoint)
      : loop_(make_loop(kind)), net_(make_net(kind, *loop_, nullptr, &sockets)) {
    EXPECT_TRUE(net_->listen(endpoint, *this));
    thread_ = std::thread([this] { loop_->run(); });
    on_loop([] {});
    on_loop([] {});  // a turn has ended since: what it watches is watched
  }
  ~Listening() override {
    loop_->stop();
    thread_.join();
    net_->close_listeners();
  }

  void on_accept(env::Stream& stream) override {
    ++accepted_;
    host_ = stream.peer_host();
    newest_ = &stream;
    stream.set_handler(nobody_);
    stream.send("x");
  }
  template <typename F>
  void on_loop(F what) {
    std::promise<void> done;
    loop_->post([&] {
      what();
      done.set_value();
    });
    done.get_future().wait();
  }
  int accepted() {
    int count = 0;
    on_loop([&] { count = accepted_; });
    return count;
  }
  // Where the newest client comes from: as it was said when it came, and as it is said now.
  std::pair<std::string, std::string> hosts() {
    std::pair<std::string, std::string> hosts;
    on_loop([&] { hosts = {host_, newest_->peer_host()}; });
    return hosts;
  }
  SocketNet& net() { return *net_; }

 private:
  std::unique_ptr<LoopCore> loop_;
  std::unique_ptr<SocketNet> net_;
  Nobody nobody_;
  int accepted_ = 0;  // these are the loop's
  env::Stream* newest_ = nullptr;
  std::string host_;
  std::thread thread_;
};

// With something said: see TCP_DEFER_ACCEPT in listen_socket().
UniqueFd call(const env::Endpoint& endpoint) {
  ConnectAttempt attempt = start_connect(endpoint);
  EXPECT_EQ(attempt.error, 0);
  pollfd ready{attempt.fd.get(), POLLOUT, 0};
  EXPECT_EQ(::poll(&ready, 1, 10'000), 1);
  EXPECT_EQ(::send(attempt.fd.get(), "x", 1, MSG_NOSIGNAL), 1);
  return std::move(attempt.fd);
}

bool is_greeted(const UniqueFd& client) {
  char byte;
  pollfd ready{client.get(), POLLIN, 0};
  return ::poll(&ready, 1, 5'000) == 1 && ::recv(client.get(), &byte, 1, 0) == 1;
}

enum class Family { kTcp, kUnix };

class ListenerTest : public testing::TestWithParam<std::tuple<env::EngineKind, Family>> {
 protected:
  void SetUp() override {
    char name[] = "/tmp/listener-XXXXXX";
    folder = ::mkdtemp(name);
    // TCP: a port that the kernel chose, and whose socket is handed over.
    endpoint = {folder, 5432};
    if (std::get<1>(GetParam()) == Family::kTcp) endpoint = {"127.0.0.1", 0};
    auto fd = listen_socket(endpoint);
    ASSERT_TRUE(fd);
    socket = std::move(*fd);
    if (endpoint.port == 0) endpoint.port = local_port(socket.get());
  }
  void TearDown() override { std::filesystem::remove_all(folder); }

  static uint16_t local_port(int fd) {
    sockaddr_in address{};
    socklen_t size = sizeof address;
    EXPECT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
    return ntohs(address.sin_port);
  }
  // What a process has: the same socket, in its own table of descriptors.
  void pass_to(ListeningSockets& sockets) {
    std::vector<ListeningSockets::Socket> passed;
    passed.emplace_back(endpoint, UniqueFd(::fcntl(socket.get(), F_DUPFD_CLOEXEC, 0)));
    sockets.adopt(std::move(passed));
    sockets.expect_net();
  }
  env::EngineKind kind() const { return std::get<0>(GetParam()); }

  std::string folder;
  env::Endpoint endpoint;
  UniqueFd socket;
};

INSTANTIATE_TEST_SUITE_P(Engines, ListenerTest,
                         testing::Combine(testing::ValuesIn(engines_here()),
                                          testing::Values(Family::kTcp, Family::kUnix)),
                         [](const auto& given) {
                           const std::string engine =
                               std::get<0>(given.param) == env::EngineKind::kUring ? "uring"
                                                                                   : "epoll";
                           return engine +
                                  (std::get<1>(given.param) == Family::kTcp ? "_tcp" : "_unix");
                         });

TEST_P(ListenerTest, ClientsWhoComeAsTheOldProcessEndsListeningAreHeard) {
  ListeningSockets old_sockets, new_sockets;
  pass_to(old_sockets);
  pass_to(new_sockets);
  Listening old(kind(), old_sockets, endpoint);
  Listening next(kind(), new_sockets, endpoint);
  UniqueFd client;
  old.on_loop([&] {
    client = call(endpoint);  // the old process is told, and closes before it has looked
    old.net().close_listeners();
  });
  EXPECT_TRUE(is_greeted(client));
}

TEST_P(ListenerTest, ClientsAreHeardThoughTheOldProcessHangs) {
  if (std::get<1>(GetParam()) == Family::kUnix) GTEST_SKIP() << "the first is not";
  ListeningSockets old_sockets, new_sockets;
  pass_to(old_sockets);
  pass_to(new_sockets);
  Listening old(kind(), old_sockets, endpoint);
  Listening next(kind(), new_sockets, endpoint);
  old.on_loop([&] {
    EXPECT_TRUE(is_greeted(call(endpoint)));
    EXPECT_TRUE(is_greeted(call(endpoint)));
  });
}

TEST_P(ListenerTest, ClientsOfAUnixSocketAreSpreadOverTheNets) {
  if (std::get<1>(GetParam()) == Family::kTcp) GTEST_SKIP() << "the kernel does (SO_REUSEPORT)";
  ListeningSockets sockets;
  pass_to(sockets);
  Listening one(kind(), sockets, endpoint);
  Listening other(kind(), sockets, endpoint);
  // Not evenly: who happens to be awake takes clients at once.
  for (int i = 0; i < 100; ++i) {
    EXPECT_TRUE(is_greeted(call(endpoint)));
    one.on_loop([] {});
    other.on_loop([] {});
  }
  EXPECT_GE(one.accepted(), 5);
  EXPECT_GE(other.accepted(), 5);
}

TEST_P(ListenerTest, WhereAClientComesFromIsSaidAtOnceAndLater) {
  ListeningSockets sockets;
  pass_to(sockets);
  Listening one(kind(), sockets, endpoint);
  const UniqueFd client = call(endpoint);
  EXPECT_TRUE(is_greeted(client));
  const std::string host = std::get<1>(GetParam()) == Family::kTcp ? "127.0.0.1" : "";
  EXPECT_EQ(one.hosts(), std::pair(host, host));
}

TEST_P(ListenerTest, ManyClientsAtOnceAreAllHeard) {
  ListeningSockets sockets;
  pass_to(sockets);
  Listening one(kind(), sockets, endpoint);
  std::vector<UniqueFd> clients;
  one.on_loop([&] {
    for (int i = 0; i < 100; ++i) clients.push_back(call(endpoint));
  });
  for (const UniqueFd& client : clients) EXPECT_TRUE(is_greeted(client));
}

}  // namespace
}  // namespace bascule::posix
