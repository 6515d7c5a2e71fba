#include <gtest/gtest.h>

#include "env/guard_wire.h"
#include "node/guard_session.h"

namespace bascule::node {
namespace {

TEST(GuardWire, PacketsOfOthersAreRefused) {
  env::GuardRequest request;
  request.ask = env::GuardAsk::kArm;
  request.deadline_ns = 42;
  std::string packet = env::to_packet(request, "rest");
  const auto same = env::from_packet<env::GuardRequest>(packet);
  ASSERT_TRUE(same);
  EXPECT_EQ(same->deadline_ns, 42);
  EXPECT_FALSE(env::from_packet<env::GuardRequest>(packet.substr(0, 31)));
  packet[4] = 99;  // version
  EXPECT_FALSE(env::from_packet<env::GuardRequest>(packet));
  EXPECT_FALSE(env::from_packet<env::GuardReport>(""));
}

TEST(GuardWire, StartListsEndWithAnEmptyString) {
  EXPECT_EQ(env::encode_guard_start("/log", {"a", "b"}, {"X=1"}),
            std::string("/log\0a\0b\0\0X=1\0\0", 15));
}

TEST(WaitStatus, IsDescribed) {
  EXPECT_EQ(describe_wait_status(9), "signal 9");
  EXPECT_EQ(describe_wait_status(1 << 8), "exit 1");
  EXPECT_EQ(describe_wait_status(0), "exit 0");
}

}  // namespace
}  // namespace bascule::node
