// The contract of env::Net and env::Stream, held by both engines.
#include <errno.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <functional>

#include "posix/engine_testing.h"

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
  bool on_readable() override { return !on_input || on_input(); }
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
  std::function<bool()> on_input;
  std::function<void()> on_ready, on_end, on_gone;
  std::string received;
  bool connected = false, closed = false, gone = false;
  int drained = 0, close_error = -1;
};

class NetTest : public EngineTest, public env::Acceptor {
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

  std::unique_ptr<SocketNet> own_net = make_net(GetParam(), loop);
  SocketNet& net = *own_net;
  env::Endpoint endpoint;
  Peer client, server;
  env::Stream* accepted = nullptr;
  std::function<void()> on_new;
  env::TimerId guard{};
};

INSTANTIATE_TEST_SUITE_P(Engines, NetTest, testing::ValuesIn(engines_here()), engine_name);

TEST_P(NetTest, RefusedConnectionIsReportedAfterConnectReturned) {
  client.on_end = [&] { loop.stop(); };
  net.connect({endpoint.host, 5433}, client);
  EXPECT_FALSE(client.closed);
  loop.run();
  EXPECT_FALSE(client.connected);
  EXPECT_EQ(client.close_error, ENOENT);
}

TEST_P(NetTest, UnconsumedBytesComeAgainInFrontOfTheNext) {
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

TEST_P(NetTest, PausedStreamKeepsBytesUnreadAndOffersThemAfterResume) {
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

// Where the engine can leave it; else it comes at once.
TEST_P(NetTest, InputThatAHandlerLeavesForLaterComesAfterResume) {
  env::Stream* stream = nullptr;
  int asked = 0;
  bool left = false;
  server.on_input = [&] {
    ++asked;
    left = true;
    accepted->pause();
    loop.call_after(5ms, [&] {
      left = false;
      accepted->resume();
    });
    return false;
  };
  server.on_bytes = [&](std::string_view b) {
    EXPECT_FALSE(left);
    server.received.append(b);
    loop.stop();
    return b.size();
  };
  client.on_ready = [&] { loop.call_after(5ms, [&] { stream->send("hello"); }); };
  stream = &net.connect(endpoint, client);
  loop.run();
  EXPECT_EQ(server.received, "hello");
  EXPECT_EQ(asked, GetParam() == env::EngineKind::kEpoll ? 1 : 0);
}

TEST_P(NetTest, LargeOutputToASlowReaderIsKeptAndDrains) {
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

TEST_P(NetTest, LastWordsArriveEvenIfTheirReaderHasUnreadInputInTheWay) {
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

TEST_P(NetTest, ByteAndEndInOneEventAreBothSeen) {
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

TEST_P(NetTest, PausedHandlerLearnsThatItsPeerHasGone) {
  env::Stream* stream = nullptr;
  on_new = [&] { accepted->pause(); };
  client.on_ready = [&] { loop.call_after(5ms, [&] { stream->close(); }); };
  server.on_gone = [&] { loop.stop(); };
  stream = &net.connect(endpoint, client);
  loop.run();
  EXPECT_TRUE(server.gone);
  EXPECT_FALSE(server.closed);
}

TEST_P(NetTest, HandlerMayCloseItsStreamInsideOnData) {
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

// More than an engine keeps for a paused handler: the rest waits in the kernel, and comes in order.
TEST_P(NetTest, PausedReaderGetsEverythingInOrderHoweverOftenItPauses) {
  std::string big(3 << 20, 0);
  for (size_t i = 0; i < big.size(); ++i) big[i] = static_cast<char>(i * 7 + (i >> 12));
  env::Stream* stream = nullptr;
  int pauses = 0;
  server.on_bytes = [&](std::string_view b) {
    server.received.append(b);
    if (server.received.size() == big.size()) {
      loop.stop();
    } else if (++pauses % 3 == 0) {
      accepted->pause();
      loop.call_after(1ms, [&] { accepted->resume(); });
    }
    return b.size();
  };
  client.on_ready = [&] { stream->send(big); };
  stream = &net.connect(endpoint, client);
  loop.run();
  EXPECT_TRUE(server.received == big);
  EXPECT_GT(pauses, 3);
}

// By TCP, whose kernel's part it is; the other end is a plain socket.
TEST_P(NetTest, GatheredInputWakesNobodyBeforeItIsThereUnlessItEnds) {
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {}, .sin_zero = {}};
  address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  ASSERT_EQ(::bind(listener.get(), generic, size), 0);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  ASSERT_EQ(::getsockname(listener.get(), generic, &size), 0);

  env::Stream* stream = nullptr;
  UniqueFd peer;
  size_t early = 0;
  const auto say = [&](size_t bytes) {
    const std::string text(bytes, 'x');
    EXPECT_EQ(::send(peer.get(), text.data(), bytes, MSG_NOSIGNAL), static_cast<ssize_t>(bytes));
  };
  client.on_ready = [&] {
    peer = UniqueFd(::accept(listener.get(), nullptr, nullptr));
    say(1);
  };
  client.on_bytes = [&](std::string_view b) {
    client.received.append(b);
    const size_t now = client.received.size();
    if (now == 1) {
      stream->gather(50'000);
      say(8'000);
      loop.call_after(20ms, [&] {
        early = client.received.size();
        say(42'000);
      });
    } else if (now == 50'001) {
      say(8'000);  // it goes on as before
      peer.reset();
    }
    return b.size();
  };
  client.on_end = [&] { loop.stop(); };
  stream = &net.connect({"127.0.0.1", ::ntohs(address.sin_port)}, client);
  loop.run();
  EXPECT_EQ(early, 1U);
  EXPECT_EQ(client.received.size(), 58'001U);
  EXPECT_TRUE(client.closed);
}

TEST_P(NetTest, SmallPiecesToAReaderThatDoesNotReadBecomeCongestionAndStayInOrder) {
  env::Stream* stream = nullptr;
  std::string sent;
  on_new = [&] { accepted->pause(); };
  std::function<void()> feed = [&] {
    for (int i = 0; i < 16 && !stream->congested(); ++i) {
      const std::string piece = std::to_string(sent.size()) + std::string(1000, 'p');
      sent += piece;
      stream->send(piece);
    }
    if (stream->congested()) return accepted->resume();
    loop.post(feed);
  };
  server.on_bytes = [&](std::string_view b) {
    server.received.append(b);
    if (server.received.size() == sent.size()) loop.post([&] { loop.stop(); });
    return b.size();
  };
  client.on_ready = [&] { loop.call_after(1ms, [&] { feed(); }); };
  stream = &net.connect(endpoint, client);
  loop.run();
  EXPECT_TRUE(server.received == sent);
  EXPECT_LT(sent.size(), 16u << 20);
  EXPECT_EQ(client.drained, 1);
}

TEST_P(NetTest, PausedHandlerWithMuchUnreadInputLearnsThatItsPeerHasGone) {
  env::Stream* stream = nullptr;
  on_new = [&] { accepted->pause(); };
  client.on_ready = [&] {
    stream->send(std::string(100'000, 'q'));
    loop.call_after(5ms, [&] { stream->close(); });
  };
  server.on_gone = [&] { loop.stop(); };
  stream = &net.connect(endpoint, client);
  loop.run();
  EXPECT_TRUE(server.gone);
  EXPECT_FALSE(server.closed);
}

// All at once: shared buffers run out, and are used again while others still wait for theirs.
TEST_P(NetTest, ManyStreamsEchoAtOnceAndEachGetsItsOwn) {
  constexpr int kStreams = 200, kRounds = 20;
  struct Echo final : env::StreamHandler {
    env::Stream* stream = nullptr;
    size_t on_data(std::string_view bytes) override {
      stream->send(bytes);
      return bytes.size();
    }
    void on_closed(int) override {}
  };
  struct Caller final : env::StreamHandler {
    env::Stream* stream = nullptr;
    std::function<void()> done;
    std::string sent, received;
    int number = 0, rounds = 0;
    void say() {
      const size_t size = 1 + static_cast<size_t>((number * 7919 + rounds * 104729) % 20'000);
      sent = std::string(size, static_cast<char>('a' + (number + rounds) % 26));
      received.clear();
      stream->send(sent);
    }
    void on_connected() override { say(); }
    size_t on_data(std::string_view bytes) override {
      received.append(bytes);
      if (received.size() < sent.size()) return bytes.size();
      EXPECT_EQ(received, sent);
      ++rounds < kRounds ? say() : done();
      return bytes.size();
    }
    void on_closed(int) override { ADD_FAILURE(); }
  };
  std::vector<Echo> echoes(kStreams);
  std::vector<Caller> callers(kStreams);
  size_t next = 0;
  int left = kStreams;
  on_new = [&] {
    echoes[next].stream = accepted;
    accepted->set_handler(echoes[next++]);
  };
  for (int i = 0; i < kStreams; ++i) {
    Caller& caller = callers[static_cast<size_t>(i)];
    caller.number = i;
    caller.done = [&] {
      if (--left == 0) loop.stop();
    };
    caller.stream = &net.connect(endpoint, caller);
  }
  loop.run();
  EXPECT_EQ(left, 0);
}

// The descriptor's number is used again at once, while the kernel still answers for its last owner.
TEST_P(NetTest, StreamsThatComeAndGoQuicklyAreNotMixedUp) {
  env::Stream* stream = nullptr;
  int round = 0;
  server.on_bytes = [&](std::string_view b) {
    EXPECT_EQ(b, std::to_string(round));
    accepted->send("answer " + std::string(b));
    accepted->close();
    return b.size();
  };
  client.on_ready = [&] { stream->send(std::to_string(round)); };
  client.on_end = [&] {
    EXPECT_EQ(client.received, "answer " + std::to_string(round));
    client.received.clear();
    if (++round == 300) return loop.stop();
    stream = &net.connect(endpoint, client);
  };
  stream = &net.connect(endpoint, client);
  loop.run();
  EXPECT_EQ(round, 300);
}

class ResolverTest : public EngineTest {
 protected:
  Resolver resolver;
  std::unique_ptr<SocketNet> own_net = make_net(GetParam(), loop, &resolver);
  SocketNet& net = *own_net;
  Peer client;
};

INSTANTIATE_TEST_SUITE_P(Engines, ResolverTest, testing::ValuesIn(engines_here()), engine_name);

TEST_P(ResolverTest, UnknownNameFailsTheConnectionOnly) {
  client.on_end = [&] { loop.stop(); };
  net.connect({"no-such-host.invalid", 5432}, client);
  EXPECT_FALSE(client.closed);
  loop.run();
  EXPECT_NE(client.close_error, 0);
}

TEST_P(ResolverTest, StreamClosedBeforeItsNameIsKnownIsForgotten) {
  net.connect({"no-such-host.invalid", 5432}, client).close();
  resolver.lookup("no-such-host.invalid", loop, [&](const std::string&) { loop.stop(); });
  loop.run();
  EXPECT_FALSE(client.closed);
}

TEST_P(ResolverTest, AnswerIsGivenOnTheLoopAndRemembered) {
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
