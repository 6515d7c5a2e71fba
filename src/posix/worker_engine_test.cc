#include "posix/worker_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "posix/engine_testing.h"

namespace bascule::posix {
namespace {

using env::EngineKind;
using ::testing::HasSubstr;

TEST(WorkerEngine, WhereIoUringIsForbiddenAutoMeansEpollAndAskingForItIsAnError) {
  WorkerEngineFactory factory([] { return "Operation not permitted"; });
  EXPECT_EQ(factory.choose(EngineKind::kAuto), EngineKind::kEpoll);
  EXPECT_EQ(factory.choose(EngineKind::kEpoll), EngineKind::kEpoll);
  const auto asked = factory.choose(EngineKind::kUring);
  ASSERT_FALSE(asked);
  EXPECT_THAT(asked.error().message, HasSubstr("Operation not permitted"));
}

TEST(WorkerEngine, WhereIoUringIsThereAutoMeansIt) {
  WorkerEngineFactory factory([] { return ""; });
  EXPECT_EQ(factory.choose(EngineKind::kAuto), EngineKind::kUring);
  EXPECT_EQ(factory.choose(EngineKind::kEpoll), EngineKind::kEpoll);
}

class WorkerEngineTest : public testing::TestWithParam<EngineKind> {};
INSTANTIATE_TEST_SUITE_P(Engines, WorkerEngineTest, testing::ValuesIn(engines_here()), engine_name);

TEST_P(WorkerEngineTest, LoopAndNetMayBeUsedBeforeTheThreadStartsAndAfterItHasEnded) {
  WorkerEngineFactory factory;
  auto engine = factory.create("test", GetParam());
  std::promise<void> ran;
  engine->loop().call_after(1ms, [&] { ran.set_value(); });
  engine->start();
  EXPECT_EQ(ran.get_future().wait_for(10s), std::future_status::ready);
  engine->loop().stop();
  engine->join();
  engine->net().close_listeners();
  EXPECT_GT(engine->stats().turns, 0u);
}

}  // namespace
}  // namespace bascule::posix
