#include "cli/leader_lease.h"

#include <gtest/gtest.h>

namespace bascule::cli {
namespace {

TEST(LeaderLease, ReadsWhatTheHolderOfTheEpochSays) {
  const auto word =
      lease_in(R"({"lease": {"epoch": 4, "clockMs": 9000, "provedMs": 8500, "deadlineMs": 11500}})",
               Epoch{4});
  ASSERT_TRUE(word);
  EXPECT_EQ(word->clock, MonoTime(Millis{9000}));
  EXPECT_EQ(word->proved, MonoTime(Millis{8500}));
  EXPECT_EQ(word->deadline, MonoTime(Millis{11500}));
}

TEST(LeaderLease, BelievesNobodyElse) {
  for (const char* body :
       {R"({"lease": {"epoch": 3, "clockMs": 9000, "provedMs": 8500, "deadlineMs": 11500}})",
        R"({"lease": {"epoch": 4, "clockMs": 9000, "provedMs": 9500, "deadlineMs": 11500}})",
        R"({"lease": {"epoch": 4, "clockMs": 9000, "provedMs": 8500, "deadlineMs": 9000}})",
        R"({"lease": {"epoch": 4, "clockMs": 9000, "provedMs": 8500, "deadlineMs": 99999999}})",
        R"({"lease": {"epoch": 4, "clockMs": -9000, "provedMs": -9500, "deadlineMs": -1}})",
        R"({"lease": {"epoch": 4, "clockMs": 9223372036854775807, "provedMs": 8500,
            "deadlineMs": 9223372036854775807}})",
        R"({"lease": {"epoch": "4", "clockMs": "9000", "provedMs": "1", "deadlineMs": "11500"}})",
        R"({"lease": {"epoch": 4}})", R"({"lease": []})", R"({"lease": 4})", R"({"epoch": 4})", "",
        "[]", "not json"}) {
    EXPECT_FALSE(lease_in(body, Epoch{4})) << body;
  }
}

}  // namespace
}  // namespace bascule::cli
