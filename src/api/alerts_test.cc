#include "api/alerts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "api/tally.h"
#include "api/testing.h"

namespace bascule::api {
namespace {

using namespace testing;

class AlertBookTests : public ::testing::Test {
 protected:
  void see(Nanos at) {
    snapshot.wall = WallTime{Millis(10'000'000 + to_ms(at))};
    snapshot.store_seen_at = store_answers ? kNow + at : kNow;
    book.observe(snapshot, lag, kNow + at);
  }
  std::vector<std::string> active() {
    std::vector<std::string> out;
    for (const Alert& a : book.list()) {
      if (!a.resolved_at) out.push_back(a.type + " " + a.endpoint + " " + a.severity);
    }
    return out;
  }
  size_t resolved() {
    return static_cast<size_t>(std::ranges::count_if(
        book.list(), [](const Alert& a) { return a.resolved_at.has_value(); }));
  }

  Snapshot snapshot = snapshot_of(std::nullopt);
  std::map<NodeName, Nanos> lag;
  AlertBook book;
  bool store_answers = true;
};

TEST_F(AlertBookTests, APrimaryThatIsGoneForTenSecondsIsOneCriticalAlertThatResolvesItself) {
  see(0s);
  EXPECT_TRUE(active().empty());
  snapshot.view.leader->value.phase = control::LeaderPhase::kVacant;
  snapshot.view.leader->value.holder = {};
  for (int s = 1; s <= 10; ++s) see(std::chrono::seconds(s));
  EXPECT_TRUE(active().empty()) << "not for a moment";
  see(11s);
  EXPECT_EQ(active(), std::vector<std::string>{"endpoint_down  critical"});
  EXPECT_EQ(book.list()[0].since, WallTime{Millis(10'001'000)});
  see(12s);
  EXPECT_EQ(book.list().size(), 1u) << "raised once";
  snapshot.view = healthy_view();
  see(13s);
  EXPECT_EQ(active().size(), 1u) << "a moment is not the end either";
  see(17s);
  EXPECT_TRUE(active().empty());
  EXPECT_EQ(resolved(), 1u);
}

TEST_F(AlertBookTests, AFullDiskIsAnAlertThePrimarysACriticalOne) {
  auto& members = snapshot.view.members;
  for (auto& [name, member] : members) member.disk_full = control::DiskFull::kWal;
  const std::string leader = snapshot.view.leader->value.holder.str();
  for (int s = 0; s <= 3; ++s) see(std::chrono::seconds(s));
  const auto seen = active();
  EXPECT_EQ(seen.size(), members.size());
  EXPECT_THAT(seen, ::testing::Contains("disk_full " + leader + " critical"));
}

TEST_F(AlertBookTests, LagRisesFromMediumToCriticalInOneAlert) {
  for (int s = 0; s <= 20; ++s) {
    lag[name("n3")] = std::chrono::seconds(40 + s);
    see(std::chrono::seconds(s));
  }
  EXPECT_EQ(active(), std::vector<std::string>{"replication_lag n3 medium"});
  lag[name("n3")] = 400s;
  see(21s);
  EXPECT_EQ(active(), std::vector<std::string>{"replication_lag n3 critical"});
}

TEST_F(AlertBookTests, AStoreThatIsSilentHidesWhatIsOld) {
  see(0s);
  store_answers = false;
  snapshot.view.members[name("n2")].state = "stopped";
  see(11s);
  EXPECT_EQ(active(), std::vector<std::string>{"store_unreachable  critical"});
}

TEST_F(AlertBookTests, AFailoverIsNotedOnceAndAPlannedOneIsLow) {
  see(0s);
  auto& record = snapshot.view.history[Epoch{3}];
  record.epoch = Epoch{3};
  record.parent_epoch = Epoch{2};
  record.leader = name("n2");
  record.trigger = "switchover";
  snapshot.view.leader->value.epoch = Epoch{3};
  see(1s);
  see(2s);
  ASSERT_EQ(resolved(), 1u);
  EXPECT_EQ(book.list().back().type, "failover_completed");
  EXPECT_EQ(book.list().back().severity, "low");
}

TEST_F(AlertBookTests, AStoreThatWasNotReadYetAtTheStartIsNoAlert) {
  snapshot.store_seen_at.reset();
  book.observe(snapshot, lag, kNow);
  EXPECT_TRUE(active().empty());
  for (int s = 1; s <= 10; ++s) book.observe(snapshot, lag, kNow + std::chrono::seconds(s));
  EXPECT_EQ(active(), std::vector<std::string>{"store_unreachable  critical"});
}

TEST(TallySamples, OneEveryTenSecondsAndNoMoreThanAnHour) {
  Tally tally;
  auto snapshot = snapshot_of(std::nullopt);
  TallyCounts counts;
  for (int s = 0; s < 5000; ++s) counts = tally.observe(snapshot, kNow + std::chrono::seconds(s));
  EXPECT_EQ(counts.samples.at(name("n2")).size(), 360u);
  EXPECT_TRUE(counts.samples.at(name("n2")).back().healthy);
}

}  // namespace
}  // namespace bascule::api
