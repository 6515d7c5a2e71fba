// Monitors through disasters drawn from seeds, and mutations that prove the checkers awake.
#include <gtest/gtest.h>

#include <cstdlib>

#include "sim/monitor_cluster.h"

namespace bascule::sim {
namespace {

std::string text_of(const MonitorRunResult& result) {
  std::string out;
  for (const auto& v : result.violations) {
    out += fmt::format("{:.3f} s: {}: {}\n", static_cast<double>(v.at.count()) / 1e9, v.checker,
                       v.what);
  }
  return out;
}

uint64_t seeds() {
  const char* text = std::getenv("BASCULE_MONITOR_SEEDS");
  return text == nullptr ? 300 : std::strtoull(text, nullptr, 10);
}

TEST(MonitorSeeds, NoPromiseIsBroken) {
  std::map<std::string, uint64_t, std::less<>> counts;
  const char* one = std::getenv("BASCULE_MONITOR_SEED");
  if (one != nullptr) {
    const auto result =
        MonitorCluster(draw_monitor_plan(std::strtoull(one, nullptr, 10)), true).run();
    EXPECT_EQ(text_of(result), "");
    return;
  }
  for (uint64_t seed = 1; seed <= seeds(); ++seed) {
    const auto result = MonitorCluster(draw_monitor_plan(seed)).run();
    EXPECT_EQ(text_of(result), "") << "repeat: BASCULE_MONITOR_SEED=" << seed;
    for (const auto& [name, n] : result.counts) counts[name] += n;
  }
  for (const auto& [name, n] : counts) RecordProperty(name, std::to_string(n));
  // The seeds must reach what they are to test.
  for (const char* reached :
       {"begun.automatic", "begun.manual", "begun.switchover", "opened.automatic", "opened.manual",
        "opened.switchover", "opened.manual of a living primary", "note.failover given up",
        "note.lease taken", "note.lease lost", "cloud.rebuilt", "note.fence done",
        "note.unfence done", "note.another candidate"}) {
    EXPECT_GT(counts[reached], 0u) << reached;
  }
}

TEST(MonitorSeeds, RunsRepeatExactly) {
  for (const uint64_t seed : {3, 4, 5}) {
    EXPECT_EQ(MonitorCluster(draw_monitor_plan(seed)).run().hash,
              MonitorCluster(draw_monitor_plan(seed)).run().hash);
  }
}

struct Mutation {
  const char* name;
  bool monitor::UnsafeMutations::* flag;
};
class MonitorMutations : public testing::TestWithParam<Mutation> {};

TEST_P(MonitorMutations, IsCaught) {
  for (uint64_t seed = 1; seed <= 800; ++seed) {
    MonitorPlan plan = draw_monitor_plan(seed);
    plan.unsafe.*GetParam().flag = true;
    const auto result = MonitorCluster(plan).run();
    if (result.violations.empty()) continue;
    RecordProperty("seed", static_cast<int>(seed));
    RecordProperty("checker", result.violations[0].checker);
    return;
  }
  FAIL() << GetParam().name << " was not noticed";
}

INSTANTIATE_TEST_SUITE_P(
    All, MonitorMutations,
    testing::Values(Mutation{"skip_permit_wait", &monitor::UnsafeMutations::skip_permit_wait},
                    Mutation{"ignore_threshold", &monitor::UnsafeMutations::ignore_threshold},
                    Mutation{"act_without_lease", &monitor::UnsafeMutations::act_without_lease},
                    Mutation{"ignore_lag", &monitor::UnsafeMutations::ignore_lag},
                    Mutation{"skip_catch_up", &monitor::UnsafeMutations::skip_catch_up}),
    [](const auto& param) { return param.param.name; });

}  // namespace
}  // namespace bascule::sim
