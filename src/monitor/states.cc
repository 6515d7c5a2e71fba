#include "monitor/states.h"

namespace bascule::monitor {
namespace {

using control::MonitorState;

constexpr StateRule kRules[] = {
    {MonitorState::kFailoverInProgress, [](const Facts& f) { return f.under_way; },
     "an operation is under way"},
    {MonitorState::kUnknown, [](const Facts& f) { return !f.knows_cluster || !f.any_answers; },
     "no primary has been found yet, the store is silent, or no endpoint answers"},
    {MonitorState::kRecoveryInProgress,
     [](const Facts& f) { return f.returning && f.primary_healthy; },
     "an endpoint that was lost answers again: fenced, being rebuilt or catching up"},
    {MonitorState::kFailoverComplete,
     [](const Facts& f) { return f.just_failed_over && f.primary_healthy; },
     "a failover ended lately"},
    {MonitorState::kHealthy, [](const Facts& f) { return f.primary_healthy && f.all_healthy; },
     "the primary and every other endpoint are in order"},
    {MonitorState::kDegraded, [](const Facts&) { return true; }, "anything else"},
};

}  // namespace

std::span<const StateRule> state_rules() { return kRules; }

MonitorState state_of(const Facts& facts) {
  for (const StateRule& rule : kRules) {
    if (rule.holds(facts)) return rule.state;
  }
  return MonitorState::kUnknown;
}

}  // namespace bascule::monitor
