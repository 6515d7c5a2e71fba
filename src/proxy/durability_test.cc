#include "proxy/durability.h"

#include <gtest/gtest.h>

namespace bascule::proxy {
namespace {

const std::vector<DurabilityRule> kRules = {
    {"", "", "", "remote_apply", false, "ledger"},  // no rule for a client
    {"", "", "payments", "remote_apply", false, ""},
    {"analytics", "", "", "off", false, ""},
    {"", "loader", "", "local", true, ""},
};

std::string_view level(std::string_view database, std::string_view user,
                       const Parameters& startup = {}, Demands demands = Demands::kNothing) {
  return durability_of(kRules, database, user, startup, demands);
}

TEST(DurabilityTest, TheFirstRuleThatFitsCounts) {
  EXPECT_EQ(level("analytics", "ann"), "off");
  EXPECT_EQ(level("analytics", "ann", {{"application_name", "payments"}}), "remote_apply");
  EXPECT_EQ(level("app", "loader"), "local");
  EXPECT_EQ(level("app", "ann"), "");
}

TEST(DurabilityTest, AClientThatSaysItselfWhatItWantsGetsThat) {
  EXPECT_EQ(level("analytics", "ann", {{"synchronous_commit", "on"}}), "");
  EXPECT_EQ(level("analytics", "ann", {{"options", "-c synchronous_commit=on"}}), "");
}

TEST(DurabilityTest, AStrictClusterIsNotWeakenedUnlessTheRuleSaysSo) {
  EXPECT_EQ(level("analytics", "ann", {}, Demands::kStandby), "");
  EXPECT_EQ(level("app", "loader", {}, Demands::kStandby), "local");
  EXPECT_EQ(level("x", "y", {{"application_name", "payments"}}, Demands::kStandby), "remote_apply");
}

}  // namespace
}  // namespace bascule::proxy
