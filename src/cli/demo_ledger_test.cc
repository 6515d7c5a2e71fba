#include "cli/demo_ledger.h"

#include <gtest/gtest.h>

namespace bascule::cli {
namespace {

MonoTime ms(int64_t value) { return MonoTime(Millis(value)); }

Ledger with_writes(std::initializer_list<std::pair<int, int64_t>> client_and_ms) {
  Ledger ledger;
  int64_t seq = 0;
  for (const auto& [client, at] : client_and_ms) ledger.add(Acknowledged{client, ++seq, ms(at)});
  return ledger;
}

TEST(Ledger, TheGapBeginsWithTheLastWriteBeforeTheWindow) {
  const Ledger ledger = with_writes({{0, 90}, {1, 98}, {0, 600}, {1, 610}});
  EXPECT_EQ(ledger.longest_gap({ms(100), ms(1000)}), Millis(502));
}

TEST(Ledger, AWindowThatEndsWithoutAWriteCountsToItsEnd) {
  const Ledger ledger = with_writes({{0, 98}, {0, 110}});
  EXPECT_EQ(ledger.longest_gap({ms(100), ms(1000)}), Millis(890));
}

TEST(Ledger, GapsOutsideTheWindowDoNotCount) {
  const Ledger ledger = with_writes({{0, 0}, {0, 5000}, {0, 5010}, {0, 5020}, {0, 9000}});
  EXPECT_EQ(ledger.longest_gap({ms(5000), ms(5020)}), Millis(10));
}

TEST(Ledger, OneClientsGapIsLongerThanThatOfAllTogether) {
  const Ledger ledger = with_writes({{0, 100}, {1, 100}, {0, 200}, {0, 300}, {1, 400}, {0, 400}});
  EXPECT_EQ(ledger.longest_gap({ms(100), ms(400)}), Millis(100));
  EXPECT_EQ(ledger.longest_client_gap({ms(100), ms(400)}), Millis(300));
}

TEST(Ledger, AnAcknowledgedRowThatIsMissingIsLost) {
  const Ledger ledger = with_writes({{0, 1}, {0, 2}, {1, 3}});
  const Verdict verdict = ledger.verdict({{{0, 1}, 1}, {{1, 3}, 1}});
  EXPECT_FALSE(verdict.ok());
  ASSERT_EQ(verdict.lost.size(), 1u);
  EXPECT_EQ(verdict.lost[0], std::make_pair(0, int64_t{2}));
}

TEST(Ledger, ARowThatIsThereTwiceIsADuplicateEvenWithoutAnAcknowledgement) {
  const Ledger ledger = with_writes({{0, 1}});
  const Verdict verdict = ledger.verdict({{{0, 1}, 1}, {{0, 2}, 2}});
  EXPECT_FALSE(verdict.ok());
  EXPECT_EQ(verdict.duplicated.size(), 1u);
  EXPECT_EQ(verdict.unacknowledged_present, 1u);
}

TEST(Ledger, AWriteThatEndedInAnErrorMayBeThereOnce) {
  const Ledger ledger = with_writes({{0, 1}});
  EXPECT_TRUE(ledger.verdict({{{0, 1}, 1}, {{0, 2}, 1}}).ok());
}

TEST(Statistics, MedianAndMaximum) {
  EXPECT_EQ(statistics({3, 1, 2}).median, 2);
  EXPECT_EQ(statistics({4, 1, 2, 3}).median, 2.5);
  EXPECT_EQ(statistics({4, 1, 2, 3}).maximum, 4);
  EXPECT_EQ(statistics({}).maximum, 0);
}

}  // namespace
}  // namespace bascule::cli
