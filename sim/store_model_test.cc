#include "sim/store_model.h"

#include <gtest/gtest.h>

namespace bascule::sim {
namespace {

using store::TxnOutcome;

store::Txn put(const std::string& key, const std::string& value, store::Revision expected) {
  return store::Txn{{{key, expected}}, {{key, value}}};
}

struct StoreModelTest : testing::Test {
  World world{3};
  StoreModel model{world};
  ProcessId caller = world.spawn(0);
};

TEST_F(StoreModelTest, CompareAndSetSucceedsOnceForOneRevision) {
  std::vector<TxnOutcome> outcomes;
  for (int i = 0; i < 2; ++i) {
    model.commit(0, caller, put("k", "v", 0),
                 [&](const store::TxnResult& r) { outcomes.push_back(r.outcome); });
  }
  world.run_until(millis(1500));
  ASSERT_EQ(outcomes.size(), 2u);
  EXPECT_NE(outcomes[0], outcomes[1]);
  EXPECT_EQ(model.revision_of("k"), 1u);
}

TEST_F(StoreModelTest, LostReplyIsUnknownAndTheWriteIsThere) {
  model.faults().lose_reply = 1;
  TxnOutcome outcome = TxnOutcome::kCommitted;
  model.commit(0, caller, put("k", "v", 0),
               [&](const store::TxnResult& r) { outcome = r.outcome; });
  world.run_until(millis(1500));
  EXPECT_EQ(outcome, TxnOutcome::kUnknown);
  EXPECT_NE(model.value("k"), nullptr);
}

TEST_F(StoreModelTest, LateRequestIsAppliedAfterItsSenderWasToldUnknown) {
  model.faults().apply_late = 1;
  model.faults().client_timeout = millis(1);
  TxnOutcome outcome = TxnOutcome::kCommitted;
  model.commit(0, caller, put("k", "v", 0),
               [&](const store::TxnResult& r) { outcome = r.outcome; });
  world.run_until(millis(2));
  EXPECT_EQ(outcome, TxnOutcome::kUnknown);
  EXPECT_EQ(model.value("k"), nullptr);
  world.run_until(millis(9000));
  EXPECT_NE(model.value("k"), nullptr);
}

TEST_F(StoreModelTest, OutageAnswersNothingAndAppliesNothing) {
  model.set_outage(true);
  bool unavailable = false;
  model.read(0, caller, [&](const Result<SnapshotPtr>& r) { unavailable = !r.has_value(); });
  model.commit(0, caller, put("k", "v", 0), [](const store::TxnResult&) {});
  world.run_until(millis(1500));
  EXPECT_TRUE(unavailable);
  EXPECT_EQ(model.value("k"), nullptr);
}

TEST_F(StoreModelTest, WatchIsCalledAfterAChangeWithinASecondOrSo) {
  int calls = 0;
  model.watch(0, caller, [&] { ++calls; });
  model.faults().watch_late = 1;
  model.apply(put("k", "v", 0), 0);
  world.run_until(millis(1100));
  EXPECT_EQ(calls, 1);
}

TEST_F(StoreModelTest, WipeChangesTheIdentityAndRollbackDoesNot) {
  for (store::Revision i = 0; i < 3; ++i) model.apply(put("k", std::to_string(i), i), 0);
  model.rollback(1);
  EXPECT_EQ(*model.value("k"), "1");
  EXPECT_EQ(model.snapshot()->identity, "store-1");
  model.wipe();
  EXPECT_EQ(model.value("k"), nullptr);
  EXPECT_EQ(model.snapshot()->identity, "store-2");
}

TEST_F(StoreModelTest, RollbackBringsBackWhatWasDeletedAndTakesAwayWhatWasNew) {
  model.apply(put("old", "1", 0), 0);
  model.apply({{}, {{"old", std::nullopt}, {"new", "2"}, {"new", "3"}}}, 0);
  model.apply(put("new", "4", 2), 0);
  model.rollback(2);
  EXPECT_EQ(model.revision(), 1u);
  ASSERT_NE(model.value("old"), nullptr);
  EXPECT_EQ(*model.value("old"), "1");
  EXPECT_EQ(model.revision_of("old"), 1u);
  EXPECT_EQ(model.value("new"), nullptr);
}

}  // namespace
}  // namespace bascule::sim
