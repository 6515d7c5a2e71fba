#include "posix/handover.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <future>
#include <thread>

#include "posix/reactor.h"
#include "posix/socket_address.h"

namespace bascule::posix {
namespace {

class HandOverTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/handover-XXXXXX";
    folder = ::mkdtemp(name);
    unix_endpoint = {folder, 1234};
    old_sockets.expect_net();
    auto fds = old_sockets.open(unix_endpoint);
    ASSERT_TRUE(fds);
    listeners = std::move(*fds);
  }
  void TearDown() override { std::filesystem::remove_all(folder); }

  Status offer(HandOverSocket& from) {
    env::HandOverEvents events;
    events.prepare = [this](const auto& done) {
      said += "prepare ";
      done(patience);
    };
    events.taken = [this] {
      said += "taken ";
      loop.stop();
    };
    events.aborted = [this] {
      said += "aborted ";
      loop.stop();
    };
    events.cancel = [this](uint32_t pid, const std::string& secret, env::Callback done) {
      said += "cancel " + std::to_string(pid) + " " + secret;
      delivered = std::move(done);
      loop.stop();
    };
    return from.offer(loop, folder + "/take", std::move(events));
  }

  std::string folder, said;
  Result<Nanos> patience = 60s;
  env::Callback delivered;
  std::promise<void> aborted;
  env::Endpoint unix_endpoint;
  Reactor loop, new_loop;
  ListeningSockets old_sockets, new_sockets;
  std::vector<UniqueFd> listeners;
};

TEST_F(HandOverTest, ClientsThatWaitToBeAcceptedAreAcceptedByTheNewProcess) {
  HandOverSocket from(old_sockets), to(new_sockets);
  ASSERT_TRUE(offer(from));
  const ConnectAttempt waiting = start_connect(unix_endpoint);
  ASSERT_EQ(waiting.error, 0);
  std::thread successor([&] {
    const auto taken = to.take(folder + "/take");
    ASSERT_TRUE(taken && *taken);
    new_sockets.expect_net();
    const auto fds = new_sockets.open(unix_endpoint);
    ASSERT_TRUE(fds);
    ASSERT_TRUE(to.accepted(new_loop));
    EXPECT_GE(::accept(fds->front().get(), nullptr, nullptr), 0);
    new_sockets.close(unix_endpoint, fds->front().get());
  });
  loop.run();
  successor.join();
  EXPECT_EQ(said, "prepare taken ");
  bool confirmed = false;
  to.pass_cancel(7, "s:\n", [&] {
    confirmed = true;
    new_loop.stop();
  });
  loop.run();
  EXPECT_EQ(said, "prepare taken cancel 7 s:\n");
  EXPECT_FALSE(confirmed) << "it has not been delivered";
  delivered();
  new_loop.run();
  EXPECT_TRUE(confirmed);

  bool given_up = false;
  to.pass_cancel(8, "s", [&] {
    given_up = true;
    new_loop.stop();
  });
  from.withdraw();
  new_loop.run();
  EXPECT_TRUE(given_up) << "the old process has ended";
}

TEST_F(HandOverTest, WhoIsBusySaysWhyAndGoesOn) {
  HandOverSocket from(old_sockets);
  patience = fail(ErrorCode::kConflict, "an operation is running");
  ASSERT_TRUE(offer(from));
  std::thread successor([&] {
    HandOverSocket to(new_sockets);
    const auto taken = to.take(folder + "/take");
    ASSERT_FALSE(taken);
    EXPECT_THAT(taken.error().message, testing::HasSubstr("an operation is running"));
    loop.stop();
  });
  loop.run();
  successor.join();
  EXPECT_EQ(said, "prepare ");
}

TEST_F(HandOverTest, WhoIsLateIsToldToEnd) {
  HandOverSocket from(old_sockets);
  patience = Nanos(20ms);
  ASSERT_TRUE(offer(from));
  std::thread successor([&] {
    HandOverSocket to(new_sockets);
    EXPECT_TRUE(to.take(folder + "/take").value_or(false));
    aborted.get_future().wait();
    const Status accepted = to.accepted(new_loop);
    ASSERT_FALSE(accepted);
    EXPECT_EQ(accepted.error().code, ErrorCode::kConflict);
  });
  loop.run();
  aborted.set_value();
  successor.join();
  EXPECT_EQ(said, "prepare aborted ");
}

TEST_F(HandOverTest, WhoGoesAwayTakesNothingOver) {
  HandOverSocket from(old_sockets);
  ASSERT_TRUE(offer(from));
  std::thread successor([&] {
    HandOverSocket to(new_sockets);
    EXPECT_TRUE(to.take(folder + "/take").value_or(false));
  });
  loop.run();
  successor.join();
  EXPECT_EQ(said, "prepare aborted ");
}

TEST_F(HandOverTest, WhoComesWhileItIsPreparedForSomebodyElseGetsNothing) {
  HandOverSocket from(old_sockets);
  std::function<void(Result<Nanos>)> prepared;
  env::HandOverEvents events;
  events.prepare = [&](auto done) {
    prepared = std::move(done);
    loop.stop();
  };
  events.aborted = [] {};
  ASSERT_TRUE(from.offer(loop, folder + "/take", std::move(events)));
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  (folder + "/take").copy(address.sun_path, sizeof address.sun_path - 1);
  const auto connect = [&] {
    UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET, 0));
    const auto* generic = reinterpret_cast<const sockaddr*>(&address);
    EXPECT_EQ(::connect(fd.get(), generic, sizeof address), 0);
    return fd;
  };
  const auto take = [](const UniqueFd& fd) { ::send(fd.get(), "take 2", 6, MSG_NOSIGNAL); };
  {
    const UniqueFd first = connect();
    take(first);
    loop.run();
  }
  const UniqueFd second = connect();
  loop.call_after(20ms, [&] {
    prepared(Nanos(60s));
    loop.stop();
  });
  loop.run();
  char bytes[100] = "";
  EXPECT_LE(::recv(second.get(), bytes, sizeof bytes - 1, 0), 0) << bytes;
}

TEST_F(HandOverTest, NobodyToTakeOverFromIsNoError) {
  HandOverSocket to(new_sockets);
  const auto taken = to.take(folder + "/nothing");
  ASSERT_TRUE(taken);
  EXPECT_FALSE(*taken);
  EXPECT_FALSE(to.take(std::string(200, 'x')));
}

TEST(ListeningSockets, WhatIsAdoptedIsSpreadOverTheNets) {
  ListeningSockets sockets;
  const env::Endpoint endpoint{"127.0.0.1", 4};
  std::vector<ListeningSockets::Socket> passed;
  for (int i = 0; i < 5; ++i) {
    passed.emplace_back(endpoint, UniqueFd(::socket(AF_INET, SOCK_STREAM, 0)));
  }
  sockets.adopt(std::move(passed));
  for (int i = 0; i < 2; ++i) sockets.expect_net();
  const auto first = sockets.open(endpoint), second = sockets.open(endpoint);
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->size() + second->size(), 5u);
  EXPECT_EQ(second->size(), 2u);
}

}  // namespace
}  // namespace bascule::posix
