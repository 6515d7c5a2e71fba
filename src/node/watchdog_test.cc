#include "node/watchdog.h"

#include <gtest/gtest.h>

#include "control/records.h"

namespace bascule::node {
namespace {

TEST(WatchdogTimesTest, TheMachineIsGoneBeforeTheRecordExpiresAndAfterTheGuardHadItsTurn) {
  for (Millis ttl = 1000ms; ttl <= 120s; ttl += 50ms) {
    const auto times = watchdog_times(ttl);
    if (!times) continue;
    const Millis deadline = control::ClusterConfig::fence_after(ttl);
    EXPECT_LT(deadline + times->reset_after, ttl) << ttl.count();
    // A guard that pats until it may not any more is reset at that very time, not before.
    EXPECT_GE(times->reset_after, ttl * 3 / 10) << ttl.count();
    EXPECT_GE(deadline + times->reset_after - times->timeout, ttl / 4) << ttl.count();
  }
}

TEST(WatchdogTimesTest, PresetsHaveOne) {
  EXPECT_EQ(watchdog_times(5s), (WatchdogTimes{2s, 1750ms}));
  EXPECT_EQ(watchdog_times(2s), (WatchdogTimes{1s, 700ms}));
  EXPECT_EQ(watchdog_times(30s), (WatchdogTimes{12s, 10500ms}));
}

TEST(WatchdogTimesTest, ATtlThatIsTooShortForWholeSecondsHasNone) {
  EXPECT_FALSE(watchdog_times(1s));
  EXPECT_FALSE(watchdog_times(1400ms));
  EXPECT_TRUE(watchdog_times(1500ms));
}

}  // namespace
}  // namespace bascule::node
