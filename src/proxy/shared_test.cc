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

ProxyConfig pools_of(int each, int of_database, int of_user) {
  ProxyConfig config;
  config.default_pool_size = each;
  config.max_db_connections = of_database;
  config.max_user_connections = of_user;
  return config;
}

TEST(Caps, APlaceIsTakenBelowEachLimitOrBelowNone) {
  Caps caps;
  const ProxyConfig config = pools_of(2, 3, 0);
  const auto a = caps.of(config, "a", "shop"), b = caps.of(config, "b", "shop");
  EXPECT_EQ(Caps::take(a, Caps::Reserve::kKeep, 0), nullptr);
  EXPECT_EQ(Caps::take(a, Caps::Reserve::kKeep, 0), nullptr);
  const Cap* full = Caps::take(a, Caps::Reserve::kKeep, 0);
  ASSERT_NE(full, nullptr);
  EXPECT_EQ(full->what, "pool \"a\"/\"shop\"");
  EXPECT_EQ(Caps::take(b, Caps::Reserve::kKeep, 1), nullptr);
  full = Caps::take(b, Caps::Reserve::kKeep, 1);
  ASSERT_NE(full, nullptr);
  EXPECT_EQ(full->what, "database \"shop\"");
  EXPECT_EQ(b.front()->used.load(), 1);  // the place below the other limit was given back
  EXPECT_EQ(Caps::give(a), Caps::bit(0) | Caps::bit(1));
  EXPECT_EQ(Caps::give(a), 0u);  // whoever waited has been told
}

TEST(Caps, TheReserveIsOnlyForThoseWhoMayUseIt) {
  Caps caps;
  ProxyConfig config = pools_of(1, 0, 0);
  config.reserve_pool_size = 1;
  const auto pool = caps.of(config, "a", "shop");
  EXPECT_EQ(Caps::take(pool, Caps::Reserve::kKeep, 0), nullptr);
  EXPECT_NE(Caps::take(pool, Caps::Reserve::kKeep, 0), nullptr);
  EXPECT_EQ(Caps::take(pool, Caps::Reserve::kUse, 0), nullptr);
  EXPECT_NE(Caps::take(pool, Caps::Reserve::kUse, 0), nullptr);
}

TEST(Caps, AChangedConfigurationChangesTheLimitsThatAreInUse) {
  Caps caps;
  const auto before = caps.of(pools_of(1, 0, 0), "a", "shop");
  EXPECT_EQ(Caps::take(before, Caps::Reserve::kKeep, 0), nullptr);
  ProxyConfig config = pools_of(1, 0, 0);
  config.pools.emplace_back().user = "a";
  config.pools.back().pool_size = 2;
  EXPECT_EQ(caps.of(config, "a", "shop"), before);
  EXPECT_EQ(Caps::take(before, Caps::Reserve::kKeep, 0), nullptr);
}

TEST(ClientLimits, AnEntryForADatabaseOrUserCountsBeforeTheGeneralOne) {
  ProxyConfig config;
  config.max_db_client_connections = 10;
  config.max_user_client_connections = 20;
  config.databases.emplace_back().name = "shop";
  config.databases.back().max_clients = 1;
  config.pools.emplace_back().user = "a";
  config.pools.back().max_clients = 0;
  EXPECT_EQ(max_db_clients(config, "shop"), 1);
  EXPECT_EQ(max_db_clients(config, "other"), 10);
  EXPECT_EQ(max_user_clients(config, "a", "shop"), 0);
  EXPECT_EQ(max_user_clients(config, "b", "shop"), 20);
}

TEST(NameCounts, PlacesAreCountedByName) {
  NameCounts counts;
  EXPECT_TRUE(counts.enter("a", 1));
  EXPECT_FALSE(counts.enter("a", 1));
  EXPECT_TRUE(counts.enter("b", 1));
  EXPECT_TRUE(counts.enter("a", 0));  // no limit
  counts.leave("a");
  counts.leave("a");
  EXPECT_TRUE(counts.enter("a", 1));
}

TEST(ParsedTexts, ATextIsKnownUntilATableMayHaveChanged) {
  ParsedTexts texts;
  const uint64_t key = ParsedTexts::key(1, "select 1", "");
  EXPECT_NE(key, ParsedTexts::key(2, "select 1", ""));
  EXPECT_NE(key, ParsedTexts::key(1, "select 1", "x"));
  EXPECT_FALSE(texts.has(key, 7));
  texts.add(key, 7);
  EXPECT_TRUE(texts.has(key, 7));
  EXPECT_FALSE(texts.has(key, 8));
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
