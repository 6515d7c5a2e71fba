#include "cli/leader_lease.h"

#include <gtest/gtest.h>

namespace bascule::cli {
namespace {

TEST(LeaderLease, BelievesTheHolderOfTheEpochForNineTenthsOfWhatItSays) {
  EXPECT_EQ(lease_in(R"({"epoch": 4, "validForMs": 1000, "role": "primary"})", Epoch{4}),
            Millis{900});
}

TEST(LeaderLease, BelievesNobodyElse) {
  for (const char* body :
       {R"({"epoch": 3, "validForMs": 1000})", R"({"validForMs": 1000})", R"({"epoch": 4})",
        R"({"epoch": 4, "validForMs": -5})", R"({"epoch": 4, "validForMs": 99999999})",
        R"({"epoch": "4", "validForMs": "1000"})", "", "[]", "not json"}) {
    EXPECT_EQ(lease_in(body, Epoch{4}), Nanos{0}) << body;
  }
}

}  // namespace
}  // namespace bascule::cli
