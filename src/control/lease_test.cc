#include "control/lease.h"

#include <gtest/gtest.h>

namespace bascule::control {
namespace {

using namespace std::chrono_literals;

constexpr MonoTime kProxy{1000s};  // two clocks that have nothing in common
constexpr MonoTime kLeader{77s};
constexpr Nanos kFence = 3s;

LeaseWord word(Nanos clock, Nanos proved, Epoch epoch = Epoch{4}) {
  return {epoch, kLeader + clock, kLeader + proved, kLeader + proved + kFence};
}

TEST(LeaseReader, BelievesNothingThatWasProvedBeforeItAsked) {
  LeaseReader reader;
  EXPECT_EQ(reader.heard(kProxy, word(0ms, -100ms)), std::nullopt);
  EXPECT_EQ(reader.heard(kProxy + 500ms, word(500ms, -100ms)), std::nullopt);
}

TEST(LeaseReader, CountsFromTheNewestQuestionThatWasAnsweredBeforeTheProofWasBegun) {
  LeaseReader reader;
  reader.heard(kProxy, word(0ms, -100ms));
  reader.heard(kProxy + 500ms, word(500ms, -100ms));
  EXPECT_EQ(reader.heard(kProxy + 1000ms, word(1000ms, 400ms)), kProxy + kFence * 9 / 10);
  EXPECT_EQ(reader.heard(kProxy + 1500ms, word(1500ms, 600ms)), kProxy + 500ms + kFence * 9 / 10);
}

// Asked again and again while the host is paused, with its clock: the answers all come at its
// resume, and all rest on what was proved before.
TEST(LeaseReader, GivesAPausedLeaderWithAClockThatStoodStillNothing) {
  LeaseReader reader;
  reader.heard(kProxy, word(0ms, -100ms));
  ASSERT_TRUE(reader.heard(kProxy + 500ms, word(500ms, 400ms)));
  for (Nanos later = 1s; later < 12s; later += 500ms) {
    const auto until = reader.heard(kProxy + later, word(501ms + later / 1000, 400ms));
    EXPECT_LE(until.value_or(kProxy), kProxy + kFence * 9 / 10);
  }
}

TEST(LeaseReader, GivesNothingAfterTheDeadline) {
  LeaseReader reader;
  reader.heard(kProxy, word(0ms, -100ms));
  EXPECT_EQ(reader.heard(kProxy + 4s, word(4s, 400ms)), std::nullopt);
}

TEST(LeaseReader, BeginsAnewInAnotherEpochAndAfterAReboot) {
  LeaseReader reader;
  reader.heard(kProxy, word(0ms, -100ms));
  EXPECT_EQ(reader.heard(kProxy + 1s, word(1s, 500ms, Epoch{5})), std::nullopt);
  EXPECT_TRUE(reader.heard(kProxy + 2s, word(2s, 1500ms, Epoch{5})));
  EXPECT_EQ(reader.heard(kProxy + 3s, word(-60s, -61s, Epoch{5})), std::nullopt);
}

}  // namespace
}  // namespace bascule::control
