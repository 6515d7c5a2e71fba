// The checkers are worth what they catch: each mutation of the agent removes one safety and must be
// reported within the standard seeds; and the standard seeds must reach what they are to test.
#include <gtest/gtest.h>

#include "sim/cluster.h"

namespace bascule::sim {
namespace {

constexpr uint64_t kStandardSeeds = 2000;

class Mutations : public testing::TestWithParam<std::string> {};

TEST_P(Mutations, IsCaughtWithinTheStandardSeeds) {
  for (uint64_t seed = 1; seed <= kStandardSeeds; ++seed) {
    Plan plan = draw_plan(seed);
    ASSERT_EQ(apply_mutation(plan, GetParam()), "");
    Cluster cluster(plan);
    const RunResult result = cluster.run_standard();
    if (result.violations.empty()) continue;
    RecordProperty("seed", static_cast<int>(seed));
    RecordProperty("checker", result.violations[0].checker);
    return;
  }
  FAIL() << GetParam() << " was not noticed in " << kStandardSeeds << " seeds";
}

INSTANTIATE_TEST_SUITE_P(All, Mutations, testing::ValuesIn(mutation_names()),
                         [](const auto& param) { return param.param; });

// By the harm that is done, not by the act: the checkers of single steps are not listened to.
TEST(Mutations, ShorterLogLosesAcknowledgedCommits) {
  for (uint64_t seed = 1; seed <= kStandardSeeds; ++seed) {
    Plan plan = draw_plan(seed);
    plan.only_checkers = {"durability"};
    apply_mutation(plan, "promote_shorter_log");
    if (!Cluster(plan).run_standard().violations.empty()) return;
  }
  FAIL();
}

TEST(Mutations, WithoutAFenceTwoPrimariesAcknowledge) {
  for (uint64_t seed = 1; seed <= kStandardSeeds; ++seed) {
    Plan plan = draw_plan(seed);
    plan.only_checkers = {"one_writer"};
    apply_mutation(plan, "skip_fence");
    if (!Cluster(plan).run_standard().violations.empty()) return;
  }
  FAIL();
}

TEST(StandardRun, RepeatsExactlyFromItsSeed) {
  for (const uint64_t seed : {3, 4, 5}) {
    const RunResult first = Cluster(draw_plan(seed)).run_standard();
    const RunResult second = Cluster(draw_plan(seed)).run_standard();
    EXPECT_EQ(first.hash, second.hash);
    EXPECT_EQ(first.events, second.events);
  }
}

// Each found something when somebody promoted a member by hand in it (ADR 0027).
TEST(StandardRun, SeedsInWhichPromotionsByHandDidHarmAreKept) {
  for (const uint64_t seed :
       {13, 23, 167, 171, 399, 406, 437, 555, 597, 1089, 1247, 1754, 3270, 3959, 4076}) {
    Plan plan = draw_plan(seed);
    plan.by_hand = true;
    const RunResult result = Cluster(plan).run_standard();
    EXPECT_TRUE(result.violations.empty()) << seed << ": " << result.violations[0].what;
  }
}

TEST(StandardRun, ReachesEveryFaultEveryOperationAndEveryPhase) {
  std::map<std::string, uint64_t, std::less<>> counts;
  for (uint64_t seed = 1; seed <= 250; ++seed) {
    for (const auto& [name, n] : Cluster(draw_plan(seed)).run_standard().counts) counts[name] += n;
  }
  for (const char* fault : {"kill_postmaster",
                            "stop_postmaster",
                            "kill_agent",
                            "stop_agent",
                            "kill_guard",
                            "stop_guard",
                            "kill_agent_and_guard",
                            "kill_processes",
                            "terminate_agent",
                            "power_loss",
                            "power_loss_everywhere",
                            "suspend",
                            "hypervisor_pause",
                            "cut_from_everything",
                            "cut_from_store",
                            "cut_from_members",
                            "split",
                            "one_way",
                            "cut_proxy",
                            "stale_leader",
                            "lossy",
                            "slow_disk",
                            "hung_disk",
                            "store_outage",
                            "store_flaky",
                            "store_late",
                            "lagging_standby",
                            "blocked_replay",
                            "slow_reload",
                            "slow_shutdown",
                            "kill_twice",
                            "standby_then_primary",
                            "lag_then_primary",
                            "switchover",
                            "failover",
                            "forced_in_failsafe",
                            "pause",
                            "configuration",
                            "by_hand",
                            "remove_member"}) {
    EXPECT_GT(counts[std::string("fault.") + fault], 0u) << fault;
  }
  EXPECT_GT(counts["model.added_again"], 0u);
  for (const char* op :
       {"init_db", "start_primary", "start_standby", "set_upstream", "stop_receiver", "promote",
        "kill", "checkpoint", "clean_stop", "verify_received", "set_sync", "ensure_slots",
        "terminate_senders", "rewind", "clone"}) {
    EXPECT_GT(counts[std::string("op.") + op], 0u) << op;
  }
  for (int phase = 1; phase < static_cast<int>(control::Phase::kRefused); ++phase) {
    const auto name = std::string(to_string(static_cast<control::Phase>(phase)));
    EXPECT_GT(counts["phase." + name], 0u) << name;
  }
}

}  // namespace
}  // namespace bascule::sim
