// The part of the contract (contract_test.h) that needs several processes on one store.
#pragma once

#include <array>
#include <list>

#include "store/contract_test.h"

namespace bascule::store::contract {

template <typename Backend>
class SharedStoreContract : public ::testing::Test {
 public:
  Backend backend;
};
TYPED_TEST_SUITE_P(SharedStoreContract);

TYPED_TEST_P(SharedStoreContract, ProcessesThatStartTogetherCreateOneStore) {
  constexpr int kProcesses = 4;
  Shared<std::array<char, 64>> identities(kProcesses);
  std::vector<pid_t> children;
  for (int i = 0; i < kProcesses; ++i) {
    children.push_back(spawn([&, i] {
      Harness h;
      auto store = this->backend.open(h);
      const auto snapshot = h.read(*store, "");
      if (!snapshot) return 1;
      snapshot->identity.copy(identities[i].data(), 63);
      return 0;
    }));
  }
  for (const pid_t child : children) EXPECT_EQ(exit_status(child), 0);
  for (int i = 1; i < kProcesses; ++i) {
    EXPECT_STREQ(identities[i].data(), identities[0].data());
  }
}

TYPED_TEST_P(SharedStoreContract, WatchWakesInAnotherProcess) {
  Gate watching;
  const pid_t child = spawn([&] {
    Harness h;
    auto store = this->backend.open(h);
    bool called = false, seen = false;
    store->watch("w/", [&] {
      called = true;
      store->read("w/k", [&](Result<Snapshot> result) {
        seen = result && !result->entries.empty();
        h.loop.stop();
      });
    });
    if (!h.read(*store, "")) return 1;
    watching.open();
    return h.await([&] { return seen; }, 1500ms) && called ? 0 : 2;
  });
  watching.pass();
  Harness h;
  auto store = this->backend.open(h);
  EXPECT_EQ(h.commit(*store, put("w/k", "v")).outcome, TxnOutcome::kCommitted);
  EXPECT_EQ(exit_status(child), 0);
}

// One operation on the counter as its process saw it.
struct Observed {
  int64_t start = 0, end = 0;  // same clock in every process
  int64_t value = 0;           // 0: never ran
  bool increment = false;
};

// Real-time order: whatever ended before another began must not show a later value, and two
// increments never show the same one.
inline void expect_linearizable(std::vector<Observed> log) {
  std::ranges::sort(log, {}, &Observed::end);
  for (const auto& later : log) {
    for (const auto& earlier : log) {
      if (earlier.end >= later.start) break;
      if (later.increment) {
        ASSERT_GT(later.value, earlier.value);
      } else {
        ASSERT_GE(later.value, earlier.value);
      }
    }
  }
}

inline int64_t value_of(const Result<Snapshot>& snapshot) {
  return snapshot && !snapshot->entries.empty() ? std::stoll(snapshot->entries[0].value) : 0;
}

// Increments by compare-and-set `times` times; returns 0 when each is known to have happened.
inline int increment(Harness& h, Store& store, int times, Observed* log) {
  for (int done = 0; done < times;) {
    const auto start = h.loop.now().time_since_epoch().count();
    const auto snapshot = h.read(store, "counter");
    if (!snapshot) return 1;
    const int64_t value = value_of(snapshot);
    *log++ = {start, h.loop.now().time_since_epoch().count(), value, false};
    const Revision revision = snapshot->entries.empty() ? 0 : snapshot->entries[0].revision;
    const auto begin = h.loop.now().time_since_epoch().count();
    const auto result =
        h.commit(store, compare_and_put("counter", revision, std::to_string(value + 1)));
    if (result.outcome == TxnOutcome::kUnknown) {
      fprintf(stderr, "%s\n", result.error.c_str());
      return 2;
    }
    if (result.outcome == TxnOutcome::kConflict) {
      --log;  // keep the log within its bound
      continue;
    }
    *log++ = {begin, h.loop.now().time_since_epoch().count(), value + 1, true};
    ++done;
  }
  return 0;
}

TYPED_TEST_P(SharedStoreContract, NoIncrementIsLostAmongFourProcesses) {
  constexpr int kProcesses = 4, kTimes = 250;
  Shared<Observed> log(kProcesses * kTimes * 2);
  std::vector<pid_t> children;
  for (int i = 0; i < kProcesses; ++i) {
    children.push_back(spawn([&, i] {
      Harness h;
      auto store = this->backend.open(h);
      return increment(h, *store, kTimes, &log[i * kTimes * 2]);
    }));
  }
  for (const pid_t child : children) EXPECT_EQ(exit_status(child), 0);
  Harness h;
  auto store = this->backend.open(h);
  EXPECT_EQ(value_of(h.read(*store, "counter")), kProcesses * kTimes);
  std::vector<Observed> all;
  for (size_t i = 0; i < log.size(); ++i) all.push_back(log[i]);
  expect_linearizable(std::move(all));
}

TYPED_TEST_P(SharedStoreContract, WatchLosesNoChangeUnderLoad) {
  constexpr int kProcesses = 2, kTimes = 100;
  Gate watching;
  const pid_t watcher = spawn([&] {
    Harness h;
    auto store = this->backend.open(h);
    int64_t seen = 0;
    store->watch("counter", [&] {
      store->read("counter", [&](Result<Snapshot> result) {
        seen = std::max(seen, value_of(result));
        h.loop.stop();
      });
    });
    if (!h.read(*store, "")) return 1;
    watching.open();
    // The last change has no later one that would make up for a lost wake-up.
    return h.await([&] { return seen == kProcesses * kTimes; }, 30s) ? 0 : 2;
  });
  watching.pass();
  std::vector<pid_t> children;
  std::list<Shared<Observed>> logs;
  for (int i = 0; i < kProcesses; ++i) {
    auto& log = logs.emplace_back(kTimes * 2);
    children.push_back(spawn([&] {
      Harness h;
      auto store = this->backend.open(h);
      return increment(h, *store, kTimes, &log[0]);
    }));
  }
  for (const pid_t child : children) EXPECT_EQ(exit_status(child), 0);
  EXPECT_EQ(exit_status(watcher), 0);
}

REGISTER_TYPED_TEST_SUITE_P(SharedStoreContract, ProcessesThatStartTogetherCreateOneStore,
                            WatchWakesInAnotherProcess, NoIncrementIsLostAmongFourProcesses,
                            WatchLosesNoChangeUnderLoad);

}  // namespace bascule::store::contract
