#include "proxy/shared.h"

#include <gtest/gtest.h>

#include "proxy/slot_map.h"

namespace bascule::proxy {
namespace {

MonoTime at(int64_t n) { return MonoTime(Nanos(n)); }

TEST(ServerLimit, FreePlaceGoesToTheWorkerThatWaitsLongest) {
  ServerLimit limit(1);
  EXPECT_TRUE(limit.acquire(0, at(0)));
  EXPECT_FALSE(limit.acquire(1, at(20)));
  EXPECT_FALSE(limit.acquire(2, at(10)));
  EXPECT_EQ(limit.waiting_since(), at(10));
  EXPECT_EQ(limit.release(), 2);
  EXPECT_FALSE(limit.acquire(1, at(20)));  // the place is kept for worker 2
  EXPECT_TRUE(limit.acquire(2, at(10)));
}

TEST(ServerLimit, DeclinedPlaceGoesToTheNext) {
  ServerLimit limit(1);
  EXPECT_TRUE(limit.acquire(0, at(0)));
  EXPECT_FALSE(limit.acquire(1, at(1)));
  EXPECT_FALSE(limit.acquire(2, at(2)));
  EXPECT_EQ(limit.release(), 1);
  EXPECT_EQ(limit.decline(1), 2);
  EXPECT_EQ(limit.decline(1), std::nullopt);
  EXPECT_TRUE(limit.acquire(2, at(2)));
}

TEST(ServerLimit, WithdrawnClaimIsForgotten) {
  ServerLimit limit(1);
  EXPECT_TRUE(limit.acquire(0, at(0)));
  EXPECT_FALSE(limit.acquire(1, at(1)));
  limit.claim(1, MonoTime::max());
  EXPECT_EQ(limit.waiting_since(), MonoTime::max());
  EXPECT_EQ(limit.release(), std::nullopt);
  EXPECT_TRUE(limit.acquire(2, at(5)));
}

struct Thing {
  Thing(int v, Handle h) : value(v), self(h) {}
  int value;
  Handle self;
};

TEST(SlotMap, HandleOfARemovedObjectFindsNothingEvenIfTheSlotIsReused) {
  SlotMap<Thing> map;
  const Handle first = map.emplace(1).self;
  map.remove(first);
  const Handle second = map.emplace(2).self;
  EXPECT_EQ(first.index, second.index);
  EXPECT_EQ(map.find(first), nullptr);
  EXPECT_EQ(map.find(second)->value, 2);
  EXPECT_EQ(map.size(), 1u);
}

TEST(SlotMap, RemovedObjectLivesUntilItIsBuried) {
  SlotMap<Thing> map;
  Thing& thing = map.emplace(1);
  map.remove(thing.self);
  EXPECT_EQ(thing.value, 1);
  EXPECT_TRUE(map.has_dead());
  map.bury();
  EXPECT_FALSE(map.has_dead());
}

}  // namespace
}  // namespace bascule::proxy
