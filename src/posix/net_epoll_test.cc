#include "posix/net_epoll.h"

#include <errno.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <functional>

namespace bascule::posix {
namespace {

// Records what it is told; what it does is set by the test.
class Peer : public env::StreamHandler {
 public:
  size_t on_data(std::string_view bytes) override {
    if (on_bytes) return on_bytes(bytes);
    received.append(bytes);
    return bytes.size();
  }
  void on_connected() override {
    connected = true;
    if (on_ready) on_ready();
  }
  void on_drained() override { ++drained; }
  void on_peer_gone() override {
    gone = true;
    if (on_gone) on_gone();
  }
  void on_closed(int error) override {
    closed = true;
    close_error = error;
    if (on_end) on_end();
  }
  std::function<size_t(std::string_view)> on_bytes;
  std::function<void()> on_ready, on_end, on_gone;
  std::string received;
  bool connected = false, closed = false, gone = false;
  int drained = 0, close_error = -1;
};

class EpollNetTest : public testing::Test, public env::Acceptor {
 public:
  void on_accept(env::Stream& stream) override {
    accepted = &stream;
    stream.set_handler(server);
    if (on_new) on_new();
  }
  void SetUp() override {
    char dir[] = "/tmp/proxy-net-XXXXXX";
    ASSERT_NE(::mkdtemp(dir), nullptr);
    endpoint = {dir, 5432};
    ASSERT_TRUE(net.listen(endpoint, *this));
    guard = loop.call_after(10s, [this] {
      ADD_FAILURE() << "time-out";
      loop.stop();
    });
  }
  void TearDown() override {
    ::unlink((endpoint.host + "/.s.PGSQL.5432").c_str());
    ::rmdir(endpoint.host.c_str());
  }

  Reactor loop;
  EpollNet net{loop};
  env::Endpoint endpoint;
  Peer client, server;
  env::Stream* accepted = nullptr;
  std::function<void()> on_new;
  env::TimerId guard{};
};

TEST_F(EpollNetTest, RefusedConnectionIsReportedAfterConnectReturned) {
  client.on_end = [&] { loop.stop(); };
  net.connect({endpoint.host, 5433}, client);
  EXPECT_FALSE(client.closed);
  loop.run();
  EXPECT_FALSE(client.connected);
  EXPECT_EQ(client.close_error, ENOENT);
}

TEST_F(EpollNetTest, UnconsumedBytesComeAgainInFrontOfTheNext) {
  std::vector<std::string> offers;
  env::Stream* stream = nullptr;
  server.on_bytes = [&](std::string_view b) -> size_t {
    offers.emplace_back(b);
    if (b.size() < 6) {
      stream->send(b.size() == 3 ? "de" : "f");
      return 0;
    }
    loop.stop();
    return b.size();
  };
  client.on_ready = [&] { stream->send("abc"); };
  stream = &net.connect(endpoint, client);
  loop.run();
  EXPECT_EQ(offers, (std::vector<std::string>{"abc", "abcde", "abcdef"}));
}

TEST_F(EpollNetTest, PausedStreamKeepsBytesUnreadAndOffersThemAfterResume) {
  env::Stream* stream = nullptr;
  int calls = 0;
  server.on_bytes = [&](std::string_view b) -> size_t {
    if (++calls == 1) {
      accepted->pause();
      loop.call_after(5ms, [&] { accepted->resume(); });
      return 0;
    }
    server.received.append(b);
    loop.stop();
    return b.size();
  };
  client.on_ready = [&] { stream->send("hello"); };
  stream = &net.connect(endpoint, client);
  loop.run();
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(server.received, "hello");
}

TEST_F(EpollNetTest, LargeOutputToASlowReaderIsKeptAndDrains) {
  const std::string big(8 << 20, 'x');
  env::Stream* stream = nullptr;
  on_new = [&] {
    accepted->pause();
    loop.call_after(5ms, [&] {
      EXPECT_TRUE(stream->congested());
      accepted->resume();
    });
  };
  server.on_bytes = [&](std::string_view b) {
    server.received.append(b);
    if (server.received.size() == big.size()) loop.stop();
    return b.size();
  };
  client.on_ready = [&] { stream->send(big); };
  stream = &net.connect(endpoint, client);
  loop.run();
  EXPECT_EQ(server.received.size(), big.size());
  EXPECT_EQ(client.drained, 1);
  EXPECT_FALSE(stream->congested());
}

TEST_F(EpollNetTest, LastWordsArriveEvenIfTheirReaderHasUnreadInputInTheWay) {
  env::Stream* stream = nullptr;
  server.on_bytes = [&](std::string_view b) {
    accepted->send("goodbye");
    accepted->close_after_flush();
    return b.size();
  };
  client.on_ready = [&] { stream->send(std::string(300000, 'q')); };
  client.on_end = [&] { loop.stop(); };
  stream = &net.connect(endpoint, client);
  loop.run();
  EXPECT_EQ(client.received, "goodbye");
  EXPECT_EQ(client.close_error, 0);
}

TEST_F(EpollNetTest, ByteAndEndInOneEventAreBothSeen) {
  env::Stream* stream = nullptr;
  client.on_ready = [&] {
    stream->send("last");
    stream->close();
  };
  server.on_end = [&] { loop.stop(); };
  stream = &net.connect(endpoint, client);
  loop.run();
  EXPECT_EQ(server.received, "last");
  EXPECT_EQ(server.close_error, 0);
}

TEST_F(EpollNetTest, PausedHandlerLearnsThatItsPeerHasGone) {
  env::Stream* stream = nullptr;
  on_new = [&] { accepted->pause(); };
  client.on_ready = [&] { loop.call_after(5ms, [&] { stream->close(); }); };
  server.on_gone = [&] { loop.stop(); };
  stream = &net.connect(endpoint, client);
  loop.run();
  EXPECT_TRUE(server.gone);
  EXPECT_FALSE(server.closed);
}

TEST_F(EpollNetTest, HandlerMayCloseItsStreamInsideOnData) {
  env::Stream* stream = nullptr;
  server.on_bytes = [&](std::string_view b) {
    accepted->close();
    return b.size();
  };
  client.on_ready = [&] { stream->send("x"); };
  client.on_end = [&] { loop.stop(); };
  stream = &net.connect(endpoint, client);
  loop.run();
  EXPECT_TRUE(client.closed);
  EXPECT_FALSE(server.closed);  // who closes is not told
}

class ResolverTest : public testing::Test {
 protected:
  Resolver resolver;
  Reactor loop;
  EpollNet net{loop, &resolver};
  Peer client;
};

TEST_F(ResolverTest, UnknownNameFailsTheConnectionOnly) {
  client.on_end = [&] { loop.stop(); };
  net.connect({"no-such-host.invalid", 5432}, client);
  EXPECT_FALSE(client.closed);
  loop.run();
  EXPECT_NE(client.close_error, 0);
}

TEST_F(ResolverTest, StreamClosedBeforeItsNameIsKnownIsForgotten) {
  net.connect({"no-such-host.invalid", 5432}, client).close();
  resolver.lookup("no-such-host.invalid", loop, [&](const std::string&) { loop.stop(); });
  loop.run();
  EXPECT_FALSE(client.closed);
}

TEST_F(ResolverTest, AnswerIsGivenOnTheLoopAndRemembered) {
  std::string first, second;
  resolver.lookup("ip6-localhost", loop, [&](const std::string& a) {
    first = a;
    resolver.lookup("ip6-localhost", loop, [&](const std::string& b) {
      second = b;
      loop.stop();
    });
  });
  loop.run();
  EXPECT_EQ(first, second);
}

}  // namespace
}  // namespace bascule::posix
