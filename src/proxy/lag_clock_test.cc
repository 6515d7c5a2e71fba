#include "proxy/lag_clock.h"

#include <gtest/gtest.h>

namespace bascule::proxy {
namespace {

MonoTime at(Nanos t) { return MonoTime(t); }

TEST(LagClock, AReplicaThatHasEverythingIsCurrent) {
  LagClock clock;
  EXPECT_EQ(clock.lag(Lsn{1}, at(1s)), 0s);
  clock.primary_at(Lsn{100}, at(1s));
  EXPECT_EQ(clock.lag(Lsn{100}, at(50s)), 0s);
  EXPECT_EQ(clock.lag(Lsn{200}, at(50s)), 0s);
}

TEST(LagClock, LagIsTheAgeOfTheLastStateThatTheReplicaHas) {
  LagClock clock;
  for (int i = 1; i <= 10; ++i) clock.primary_at(Lsn{uint64_t(i) * 100}, at(i * 1s));
  EXPECT_EQ(clock.lag(Lsn{750}, at(10s)), 3s);
  EXPECT_EQ(clock.lag(Lsn{50}, at(10s)), 9s);  // older than what is remembered
}

TEST(LagClock, AnIdlePrimaryKeepsItsReplicasCurrent) {
  LagClock clock;
  clock.primary_at(Lsn{100}, at(1s));
  clock.primary_at(Lsn{100}, at(60s));
  clock.primary_at(Lsn{200}, at(61s));
  EXPECT_EQ(clock.lag(Lsn{100}, at(61s)), 1s);
}

}  // namespace
}  // namespace bascule::proxy
