#include "posix/handover.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
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
    events.prepare = [this] { said += "prepare "; };
    events.taken = [this] {
      said += "taken ";
      loop.stop();
    };
    events.aborted = [this] {
      said += "aborted ";
      loop.stop();
    };
    events.cancel = [this](uint32_t pid, const std::string& secret) {
      said += "cancel " + std::to_string(pid) + " " + secret;
      loop.stop();
    };
    return from.offer(loop, folder + "/take", std::move(events));
  }

  std::string folder, said;
  env::Endpoint unix_endpoint;
  Reactor loop;
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
    to.accepted();
    EXPECT_GE(::accept(fds->front().get(), nullptr, nullptr), 0);
    new_sockets.close(unix_endpoint, fds->front().get());
  });
  loop.run();
  successor.join();
  EXPECT_EQ(said, "prepare taken ");
  to.pass_cancel(7, "s:\n");
  loop.run();
  EXPECT_EQ(said, "prepare taken cancel 7 s:\n");
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
