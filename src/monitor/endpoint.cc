#include "monitor/endpoint.h"

#include <algorithm>

namespace bascule::monitor {

std::string_view to_string(ActionKind kind) {
  switch (kind) {
    case ActionKind::kPromote:
      return "promote";
    case ActionKind::kFence:
      return "fence";
    case ActionKind::kUnfence:
      return "unfence";
  }
  return "?";
}

void Endpoint::begin_anew() {
  probe_id = 0;
  failures = successes = in_recovery = 0;
  failing_since.reset();
  writable_since.reset();
}

Endpoint::Change Endpoint::on_check(const event::Probed& check, MonoTime check_begun, MonoTime now,
                                    WallTime wall, const MonitorConfig& limits) {
  const Verdict before = verdict;
  answer = check.answer;
  begun = check_begun;
  checked_at = wall;
  took = check.took;
  error = check.answer == Answer::kOk ? "" : check.error;
  switch (check.answer) {
    case Answer::kOk:
      // Without a receiver the server tells the timeline of its last checkpoint only, which may be
      // an older one than it has replayed since.
      if (sample && sample->in_recovery && check.sample.in_recovery && !check.sample.streaming &&
          sample->system_id == check.sample.system_id) {
        const Timeline known = sample->timeline;
        sample = check.sample;
        sample->timeline = std::max(known, sample->timeline);
      } else {
        sample = check.sample;
      }
      in_recovery = check.sample.in_recovery ? in_recovery + 1 : 0;
      failures = 0;
      failing_since.reset();
      ++successes;
      if (verdict == Verdict::kUnknown || successes >= limits.recovery_threshold) {
        verdict = Verdict::kUp;
        down_since = {};
      }
      break;
    case Answer::kRefused:
      failures = 0;
      failing_since.reset();
      break;
    case Answer::kDown:
      successes = 0;
      in_recovery = 0;
      ++failures;
      ++failures_total;
      if (!failing_since) failing_since = now;
      if (verdict != Verdict::kDown && failures >= limits.failure_threshold) {
        verdict = Verdict::kDown;
        down_since = wall;
      }
      break;
  }
  if (!writable()) {
    writable_since.reset();
  } else if (!writable_since) {
    writable_since = check_begun;
  }
  return {before, verdict};
}

}  // namespace bascule::monitor
