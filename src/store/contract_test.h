// What every implementation of Store must do, as typed gtest suites. An implementation instantiates
//   StoreContract        with a Backend:  std::unique_ptr<Store> open(Harness&); each Backend
//   object
//                        is one store, created by its first open(); void wipe() removes it, so that
//                        the next open() creates it anew
//   SharedStoreContract  also, when several processes can open the same Backend after a fork
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "posix/blocking_pool.h"
#include "posix/file_watch.h"
#include "posix/reactor.h"
#include "store/store.h"

namespace bascule::store::contract {

// A loop, a pool, and calls that wait for their answer. Has threads: fork before making one.
struct Harness {
  posix::Reactor loop;
  posix::InotifyHint hint{loop};
  posix::ThreadPool pool{2};

  // Runs the loop until `done`; callbacks call loop.stop() to have it asked again.
  bool await(const std::function<bool()>& done, Millis limit = 20s) {
    bool late = false;
    const auto timer = loop.call_after(limit, [&] {
      late = true;
      loop.stop();
    });
    while (!done() && !late) loop.run();
    loop.cancel(timer);
    return done();
  }

  Result<Snapshot> read(Store& store, std::string prefix) {
    std::optional<Result<Snapshot>> got;
    store.read(std::move(prefix), [&](Result<Snapshot> result) {
      got = std::move(result);
      loop.stop();
    });
    EXPECT_FALSE(got.has_value()) << "called back inside the call";
    if (!await([&] { return got.has_value(); })) return fail(ErrorCode::kTimeout, "never answered");
    return std::move(*got);
  }

  TxnResult commit(Store& store, Txn txn) {
    std::optional<TxnResult> got;
    store.commit(std::move(txn), [&](TxnResult result) {
      got = std::move(result);
      loop.stop();
    });
    EXPECT_FALSE(got.has_value()) << "called back inside the call";
    if (!await([&] { return got.has_value(); })) return {TxnOutcome::kUnknown, 0, "never answered"};
    return std::move(*got);
  }

  std::vector<std::string> keys(Store& store, std::string prefix) {
    std::vector<std::string> keys;
    const auto snapshot = read(store, std::move(prefix));
    EXPECT_TRUE(snapshot.has_value()) << snapshot.error().to_string();
    if (!snapshot) return keys;
    for (const auto& entry : snapshot->entries) keys.push_back(entry.key);
    return keys;
  }
};

inline Txn put(std::string key, std::string value) {
  return {{}, {{std::move(key), std::move(value)}}};
}
inline Txn compare_and_put(std::string key, Revision revision, std::string value) {
  return {{{key, revision}}, {{key, std::move(value)}}};
}
inline Txn erase(std::string key) { return {{}, {{std::move(key), std::nullopt}}}; }

// Runs `body` in a child process; its result is the exit status.
inline pid_t spawn(const std::function<int()>& body) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::alarm(60);  // never outlive a test that died
    ::_exit(body());
  }
  return pid;
}
inline int exit_status(pid_t pid) {
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// One byte from process to process: "go on".
class Gate {
 public:
  Gate() { EXPECT_EQ(::pipe(fds_), 0); }
  ~Gate() {
    ::close(fds_[0]);
    ::close(fds_[1]);
  }
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;
  void open() { EXPECT_EQ(::write(fds_[1], "x", 1), 1); }
  void pass() {
    char byte;
    EXPECT_EQ(::read(fds_[0], &byte, 1), 1);
  }

 private:
  int fds_[2];
};

// Memory that children share with the test.
template <typename T>
class Shared {
 public:
  explicit Shared(size_t count) : count_(count) {
    data_ = static_cast<T*>(::mmap(nullptr, sizeof(T) * count, PROT_READ | PROT_WRITE,
                                   MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  }
  ~Shared() { ::munmap(data_, sizeof(T) * count_); }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  T& operator[](size_t i) { return data_[i]; }
  size_t size() const { return count_; }

 private:
  T* data_;
  size_t count_;
};

template <typename Backend>
class StoreContract : public ::testing::Test {
 public:
  Backend backend;
  Harness h;
};
TYPED_TEST_SUITE_P(StoreContract);

TYPED_TEST_P(StoreContract, NewStoreIsEmptyAndHasAnIdentity) {
  auto store = this->backend.open(this->h);
  const auto snapshot = this->h.read(*store, "");
  ASSERT_TRUE(snapshot.has_value()) << snapshot.error().to_string();
  EXPECT_TRUE(snapshot->entries.empty());
  EXPECT_FALSE(snapshot->identity.empty());
}

TYPED_TEST_P(StoreContract, RevisionsGrowWithEveryCommit) {
  auto store = this->backend.open(this->h);
  Revision last = 0;
  for (int i = 0; i < 5; ++i) {
    const auto result = this->h.commit(*store, put(i % 2 ? "a" : "b", std::to_string(i)));
    ASSERT_EQ(result.outcome, TxnOutcome::kCommitted) << result.error;
    EXPECT_GT(result.revision, last);
    last = result.revision;
  }
  const auto snapshot = this->h.read(*store, "");
  ASSERT_TRUE(snapshot.has_value());
  EXPECT_EQ(snapshot->revision, last);
  ASSERT_EQ(snapshot->entries.size(), 2u);
  EXPECT_EQ(snapshot->entries[0], (Entry{"a", "3", last - 1}));
  EXPECT_EQ(snapshot->entries[1], (Entry{"b", "4", last}));
}

TYPED_TEST_P(StoreContract, CompareWithAbsentKey) {
  auto store = this->backend.open(this->h);
  EXPECT_EQ(this->h.commit(*store, compare_and_put("k", 0, "1")).outcome, TxnOutcome::kCommitted);
  EXPECT_EQ(this->h.commit(*store, compare_and_put("k", 0, "2")).outcome, TxnOutcome::kConflict);
  EXPECT_EQ(this->h.read(*store, "k")->entries[0].value, "1");
}

TYPED_TEST_P(StoreContract, CompareWithRevision) {
  auto store = this->backend.open(this->h);
  const auto first = this->h.commit(*store, put("k", "1"));
  const auto second = this->h.commit(*store, compare_and_put("k", first.revision, "2"));
  EXPECT_EQ(second.outcome, TxnOutcome::kCommitted);
  EXPECT_EQ(this->h.commit(*store, compare_and_put("k", first.revision, "3")).outcome,
            TxnOutcome::kConflict);
  EXPECT_EQ(this->h.commit(*store, compare_and_put("absent", first.revision, "3")).outcome,
            TxnOutcome::kConflict);
  EXPECT_EQ(this->h.read(*store, "")->entries, (std::vector<Entry>{{"k", "2", second.revision}}));
}

TYPED_TEST_P(StoreContract, CompareAloneCommitsNothing) {
  auto store = this->backend.open(this->h);
  const auto written = this->h.commit(*store, put("k", "1"));
  const auto same = this->h.commit(*store, {{{"k", written.revision}}, {}});
  EXPECT_EQ(same.outcome, TxnOutcome::kCommitted);
  EXPECT_EQ(this->h.commit(*store, {{{"k", 0}}, {}}).outcome, TxnOutcome::kConflict);
  EXPECT_EQ(this->h.read(*store, "k")->entries[0].revision, written.revision);
}

TYPED_TEST_P(StoreContract, AllWritesOfATransactionHaveOneRevision) {
  auto store = this->backend.open(this->h);
  const auto old = this->h.commit(*store, put("gone", "x"));
  const Txn txn{{{"gone", old.revision}, {"b", 0}},
                {{"a", "1"}, {"b", "2"}, {"gone", std::nullopt}}};
  const auto result = this->h.commit(*store, txn);
  ASSERT_EQ(result.outcome, TxnOutcome::kCommitted) << result.error;
  EXPECT_EQ(this->h.read(*store, "")->entries,
            (std::vector<Entry>{{"a", "1", result.revision}, {"b", "2", result.revision}}));
}

TYPED_TEST_P(StoreContract, ConflictLeavesNothing) {
  auto store = this->backend.open(this->h);
  const auto old = this->h.commit(*store, put("k", "1"));
  const Txn txn{{{"k", old.revision}, {"b", 7}}, {{"a", "1"}, {"k", std::nullopt}}};
  const auto result = this->h.commit(*store, txn);
  EXPECT_EQ(result.outcome, TxnOutcome::kConflict);
  const auto snapshot = this->h.read(*store, "");
  EXPECT_EQ(snapshot->revision, old.revision);
  EXPECT_EQ(snapshot->entries, (std::vector<Entry>{{"k", "1", old.revision}}));
}

TYPED_TEST_P(StoreContract, DeletedKeyIsAbsentAndItsRevisionsAreNotReused) {
  auto store = this->backend.open(this->h);
  const auto first = this->h.commit(*store, put("k", "1"));
  EXPECT_EQ(this->h.commit(*store, erase("k")).outcome, TxnOutcome::kCommitted);
  EXPECT_TRUE(this->h.read(*store, "k")->entries.empty());
  EXPECT_EQ(this->h.commit(*store, erase("k")).outcome, TxnOutcome::kCommitted) << "absent already";
  const auto again = this->h.commit(*store, compare_and_put("k", 0, "1"));
  EXPECT_EQ(again.outcome, TxnOutcome::kCommitted);
  EXPECT_GT(again.revision, first.revision);
  EXPECT_EQ(this->h.commit(*store, compare_and_put("k", first.revision, "2")).outcome,
            TxnOutcome::kConflict);
}

TYPED_TEST_P(StoreContract, PrefixReadsAreExactAndSorted) {
  using ::testing::ElementsAre;
  auto store = this->backend.open(this->h);
  const std::string top = "\xff\xff";
  const std::vector<std::string> all = {"a/2", "a0",     "a/",   "a", "a/1",         "a.z",
                                        "A/1", "a/\xff", "\xff", top, "\xff\xff\x01"};
  ASSERT_EQ(this->h.commit(*store, put(std::string("a/\0x", 4), "v")).outcome,
            TxnOutcome::kCommitted);
  for (const auto& key : all) {
    ASSERT_EQ(this->h.commit(*store, put(key, "v")).outcome, TxnOutcome::kCommitted);
  }
  EXPECT_THAT(this->h.keys(*store, "a/"),
              ElementsAre("a/", std::string("a/\0x", 4), "a/1", "a/2", "a/\xff"));
  EXPECT_THAT(this->h.keys(*store, "a0"), ElementsAre("a0"));
  EXPECT_THAT(this->h.keys(*store, "a/\xff"), ElementsAre("a/\xff"));
  EXPECT_THAT(this->h.keys(*store, "\xff"), ElementsAre("\xff", top, "\xff\xff\x01"));
  EXPECT_THAT(this->h.keys(*store, top), ElementsAre(top, "\xff\xff\x01"));
  EXPECT_THAT(this->h.keys(*store, "b"), ElementsAre());
  EXPECT_EQ(this->h.keys(*store, "").size(), 12u);
}

TYPED_TEST_P(StoreContract, ValuesAreAnyBytesUpToTheBound) {
  auto store = this->backend.open(this->h);
  std::string every_byte;
  for (int i = 0; i < 512; ++i) every_byte.push_back(static_cast<char>(i));
  const std::string large(kValueBytesMax, '\0');
  const Txn txn{{}, {{"bytes", every_byte}, {"empty", ""}, {"large", large}}};
  ASSERT_EQ(this->h.commit(*store, txn).outcome, TxnOutcome::kCommitted);
  const auto snapshot = this->h.read(*store, "");
  ASSERT_TRUE(snapshot.has_value());
  ASSERT_EQ(snapshot->entries.size(), 3u);
  EXPECT_EQ(snapshot->entries[0].value, every_byte);
  EXPECT_EQ(snapshot->entries[1].value, "");
  EXPECT_TRUE(snapshot->entries[2].value == large);
}

TYPED_TEST_P(StoreContract, BoundsAreEnforcedAndNothingIsApplied) {
  auto store = this->backend.open(this->h);
  Txn too_many;
  for (size_t i = 0; i <= kTxnItemsMax; ++i) too_many.writes.push_back({std::to_string(i), "v"});
  const Txn bad[] = {
      put("", "empty key"),
      put(std::string(kKeyBytesMax + 1, 'k'), "long key"),
      {{{"ok", 0}}, {{"ok", "x"}, {"big", std::string(kValueBytesMax + 1, 'v')}}},
      {{{std::string(kKeyBytesMax + 1, 'k'), 0}}, {{"ok", "x"}}},
      {{}, {{"twice", "1"}, {"twice", "2"}}},
      too_many,
  };
  for (const auto& txn : bad) {
    const auto result = this->h.commit(*store, txn);
    EXPECT_EQ(result.outcome, TxnOutcome::kUnknown);
    EXPECT_THAT(result.error, ::testing::HasSubstr("not applied"));
  }
  const auto wide = this->h.read(*store, std::string(kKeyBytesMax + 1, 'k'));
  ASSERT_FALSE(wide.has_value());
  EXPECT_EQ(wide.error().code, ErrorCode::kInvalid);
  EXPECT_TRUE(this->h.read(*store, "")->entries.empty());

  Txn largest;
  for (size_t i = 0; i < kTxnItemsMax; ++i) largest.writes.push_back({std::to_string(i), "v"});
  largest.writes[0].key = std::string(kKeyBytesMax, 'k');
  EXPECT_EQ(this->h.commit(*store, largest).outcome, TxnOutcome::kCommitted);
  EXPECT_EQ(this->h.keys(*store, "").size(), kTxnItemsMax);
}

TYPED_TEST_P(StoreContract, IdentityAndContentSurviveReopening) {
  auto store = this->backend.open(this->h);
  const auto result = this->h.commit(*store, put("k", "v"));
  const auto before = this->h.read(*store, "");
  store.reset();
  store = this->backend.open(this->h);
  const auto after = this->h.read(*store, "");
  ASSERT_TRUE(before.has_value() && after.has_value());
  EXPECT_EQ(after->identity, before->identity);
  EXPECT_EQ(after->entries, (std::vector<Entry>{{"k", "v", result.revision}}));
}

TYPED_TEST_P(StoreContract, IdentityChangesWhenTheStoreIsCreatedAnew) {
  auto store = this->backend.open(this->h);
  const auto before = this->h.read(*store, "");
  store.reset();
  this->backend.wipe();
  store = this->backend.open(this->h);
  const auto after = this->h.read(*store, "");
  ASSERT_TRUE(before.has_value() && after.has_value());
  EXPECT_NE(after->identity, before->identity);
}

TYPED_TEST_P(StoreContract, ReadShowsEveryCommitAnsweredBeforeIt) {
  auto a = this->backend.open(this->h);
  auto b = this->backend.open(this->h);
  for (int i = 0; i < 50; ++i) {
    auto& writer = i % 2 ? *a : *b;
    auto& reader = i % 2 ? *b : *a;
    const auto result = this->h.commit(writer, put("k", std::to_string(i)));
    ASSERT_EQ(result.outcome, TxnOutcome::kCommitted) << result.error;
    EXPECT_EQ(this->h.read(reader, "k")->entries,
              (std::vector<Entry>{{"k", std::to_string(i), result.revision}}));
  }
}

TYPED_TEST_P(StoreContract, CommitsInFlightTogetherAreAppliedInOrder) {
  auto store = this->backend.open(this->h);
  std::vector<TxnResult> results;
  for (int i = 0; i < 200; ++i) {
    store->commit(put("k", std::to_string(i)), [&](TxnResult result) {
      results.push_back(std::move(result));
      this->h.loop.stop();
    });
  }
  ASSERT_TRUE(this->h.await([&] { return results.size() == 200; }));
  for (size_t i = 0; i < results.size(); ++i) {
    ASSERT_EQ(results[i].outcome, TxnOutcome::kCommitted) << results[i].error;
    if (i == 0) continue;
    EXPECT_GT(results[i].revision, results[i - 1].revision);
  }
  EXPECT_EQ(this->h.read(*store, "k")->entries[0].value, "199");
}

TYPED_TEST_P(StoreContract, WatchWakesForItsPrefixInBothInstances) {
  auto a = this->backend.open(this->h);
  auto b = this->backend.open(this->h);
  int local = 0, remote = 0, other = 0;
  const auto count = [this](int& counter) {
    return [this, &counter] {
      ++counter;
      this->h.loop.stop();
    };
  };
  a->watch("w/", count(local));
  b->watch("w/", count(remote));
  b->watch("other/", count(other));
  for (int i = 0; i < 3; ++i) {
    local = remote = 0;
    // Created, changed, deleted.
    const auto txn = i < 2 ? put("w/k", std::to_string(i)) : erase("w/k");
    ASSERT_EQ(this->h.commit(*a, txn).outcome, TxnOutcome::kCommitted);
    EXPECT_TRUE(this->h.await([&] { return local > 0 && remote > 0; }, 1s)) << "round " << i;
  }
}

TYPED_TEST_P(StoreContract, AWatchedPrefixReadsAsOneThatIsNot) {
  auto writer = this->backend.open(this->h);
  auto watcher = this->backend.open(this->h);
  watcher->watch("w/", [] {});
  std::mt19937 random(7);
  for (int i = 0; i < 150; ++i) {
    Txn txn;
    for (unsigned n = 1 + random() % 3; n > 0; --n) {
      const std::string key = "w/" + std::to_string(random() % 8);
      if (std::ranges::find(txn.writes, key, &Write::key) != txn.writes.end()) continue;
      std::optional<std::string> value;
      if (random() % 3 != 0) value = std::to_string(i);
      txn.writes.push_back({key, std::move(value)});
    }
    ASSERT_EQ(this->h.commit(*writer, std::move(txn)).outcome, TxnOutcome::kCommitted);
    if (random() % 2 == 0) continue;  // several changes between two reads
    const auto watched = this->h.read(*watcher, "w/");
    const auto fresh = this->h.read(*writer, "w/");
    ASSERT_TRUE(watched && fresh);
    ASSERT_EQ(watched->entries, fresh->entries) << "round " << i;
    ASSERT_EQ(watched->revision, fresh->revision);
  }
}

TYPED_TEST_P(StoreContract, UnwatchedCallbackIsNotCalledAgain) {
  auto store = this->backend.open(this->h);
  int removed = 0, kept = 0;
  uint64_t id = 0;
  id = store->watch("", [&] {
    ++removed;
    store->unwatch(id);  // from inside itself
  });
  store->watch("", [&] {
    ++kept;
    this->h.loop.stop();
  });
  for (int i = 1; i <= 3; ++i) {
    const int before = kept;
    ASSERT_EQ(this->h.commit(*store, put("k", std::to_string(i))).outcome, TxnOutcome::kCommitted);
    EXPECT_TRUE(this->h.await([&] { return kept > before; }, 1s));
  }
  EXPECT_EQ(removed, 1);
}

TYPED_TEST_P(StoreContract, DestroyedWithRequestsInFlightCallsNobodyBack) {
  auto store = this->backend.open(this->h);
  int called = 0;
  store->commit(put("k", "v"), [&](TxnResult) { ++called; });
  store->read("", [&](Result<Snapshot>) { ++called; });
  store->watch("", [&] { ++called; });
  store.reset();
  store = this->backend.open(this->h);
  ASSERT_TRUE(this->h.read(*store, "").has_value());
  EXPECT_EQ(called, 0);
}

REGISTER_TYPED_TEST_SUITE_P(
    StoreContract, NewStoreIsEmptyAndHasAnIdentity, RevisionsGrowWithEveryCommit,
    CompareWithAbsentKey, CompareWithRevision, CompareAloneCommitsNothing,
    AllWritesOfATransactionHaveOneRevision, ConflictLeavesNothing,
    DeletedKeyIsAbsentAndItsRevisionsAreNotReused, PrefixReadsAreExactAndSorted,
    ValuesAreAnyBytesUpToTheBound, BoundsAreEnforcedAndNothingIsApplied,
    IdentityAndContentSurviveReopening, IdentityChangesWhenTheStoreIsCreatedAnew,
    ReadShowsEveryCommitAnsweredBeforeIt, CommitsInFlightTogetherAreAppliedInOrder,
    WatchWakesForItsPrefixInBothInstances, AWatchedPrefixReadsAsOneThatIsNot,
    UnwatchedCallbackIsNotCalledAgain, DestroyedWithRequestsInFlightCallsNobodyBack);

}  // namespace bascule::store::contract
