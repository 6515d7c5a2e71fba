#include "monitor/selection.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

namespace bascule::monitor {
namespace {

uint64_t behind(Lsn ahead, Lsn position) {
  return ahead > position ? ahead.value - position.value : 0;
}

std::string why_not_data(const Endpoint& e, const Choice& choice, const MonitorConfig& config) {
  const Sample& s = *e.sample;
  if (!s.received.valid()) return "its WAL position is not known";
  if (!choice.unknown.empty()) return choice.unknown;
  const uint64_t bytes = behind(choice.written_by(e.begun), s.received);
  if (bytes > config.maximum_lag_bytes) {
    return fmt::format("{} bytes behind, more than maximum_lag_bytes ({})", bytes,
                       config.maximum_lag_bytes);
  }
  // Age says something about lost time only where bytes are missing: an idle primary ages too.
  if (bytes > 0 && s.lag && *s.lag > config.maximum_lag) {
    return fmt::format("{} ms behind, more than maximum_lag ({} ms)", s.lag->count(),
                       config.maximum_lag.count());
  }
  return "";
}

std::string why_not(const Endpoint& e, const Choice& choice, const MonitorConfig& config, Lag lag) {
  if (e.config.name == choice.primary) return "is the primary that is to be replaced";
  if (e.config.nofailover) return "is configured as nofailover";
  if (e.verdict == Verdict::kUnknown) return "not checked yet";
  if (e.down()) return e.error.empty() ? "is down" : "is down: " + e.error;
  if (!e.ok()) return "the last health check failed: " + e.error;
  const Sample& s = *e.sample;
  if (!s.in_recovery) return "is not a standby";
  if (s.replay_paused) return "its replay is paused";
  if (s.system_id != 0 && choice.system_id != 0 && s.system_id != choice.system_id) {
    return fmt::format("is of another database system ({})", s.system_id);
  }
  if (s.timeline.value != 0 && choice.timeline.value != 0 && s.timeline != choice.timeline) {
    return fmt::format("is on timeline {}, the primary's is {}", s.timeline.value,
                       choice.timeline.value);
  }
  return lag == Lag::kAccepted ? "" : why_not_data(e, choice, config);
}

}  // namespace

Lsn Choice::written_by(MonoTime when) const {
  Lsn out;
  for (const auto& [begun, lsn] : written) {
    if (begun <= when) out = lsn;
  }
  return out;
}

Candidate judge(const Endpoint& endpoint, const Choice& choice, const MonitorConfig& config,
                Lag lag) {
  std::string reason = why_not(endpoint, choice, config, lag);
  const bool eligible = reason.empty();
  return {endpoint.config.name, eligible, std::move(reason)};
}

std::vector<Candidate> rank(const std::map<NodeName, Endpoint>& endpoints, const Choice& choice,
                            const MonitorConfig& config, Lag lag) {
  std::vector<Candidate> out;
  Lsn newest;
  for (const auto& [name, endpoint] : endpoints) {
    out.push_back(judge(endpoint, choice, config, lag));
    if (out.back().eligible) newest = std::max(newest, endpoint.sample->received);
  }
  const auto key = [&](const Candidate& c) {
    if (!c.eligible) return std::tuple(true, uint64_t{0}, true, 0);
    const Endpoint& e = endpoints.at(c.name);
    const uint64_t missing = behind(newest, e.sample->received);
    return std::tuple(false, missing <= config.loss_tolerance_bytes ? 0 : missing,
                      e.config.region != choice.region, -e.config.priority);
  };
  std::ranges::stable_sort(out, {}, key);  // by name before: the map's order
  return out;
}

std::string why_nobody(const std::vector<Candidate>& candidates) {
  std::string out;
  for (const Candidate& c : candidates) {
    if (c.eligible) continue;
    out += fmt::format("{}{}: {}", out.empty() ? "" : "; ", c.name.str(), c.why_not);
  }
  return out.empty() ? "there is no other endpoint" : out;
}

}  // namespace bascule::monitor
