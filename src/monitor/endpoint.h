// What a monitor knows of one database: its health with hysteresis, its last sample. Pure.
//
//            failure_threshold failures in a row
//   unknown ----------------------------------------> down
//      |  one success           ^                      |
//      v                        | the same             | recovery_threshold
//      up ----------------------+                      | successes in a row
//      ^-----------------------------------------------+
//
// A server that answers "too many connections" or "wrong password" lives: that is no failure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/time.h"
#include "monitor/config.h"
#include "monitor/events.h"

namespace bascule::monitor {

enum class Verdict { kUnknown, kUp, kDown };

struct Endpoint {
  EndpointConfig config;
  Verdict verdict = Verdict::kUnknown;
  int failures = 0;     // in a row
  int successes = 0;    // in a row
  int in_recovery = 0;  // samples in a row
  uint64_t failures_total = 0;
  std::optional<MonoTime> failing_since;   // the first failed check of this row ended
  std::optional<MonoTime> writable_since;  // begin of the first sample of this row that said so
  WallTime down_since{};                   // 0: not down

  // The last check that was answered for, of whatever outcome.
  std::optional<Answer> answer;
  MonoTime begun{};  // of that check
  WallTime checked_at{};
  Millis took{-1};
  std::string error;
  std::optional<Sample> sample;  // the newest; of an earlier check if `answer` is not kOk

  // The check under way.
  uint64_t probe_id = 0;  // 0: none
  MonoTime probe_begun{};
  MonoTime probe_deadline{};
  MonoTime next_probe{};

  bool up() const { return verdict == Verdict::kUp; }
  bool down() const { return verdict == Verdict::kDown; }
  bool ok() const { return answer == Answer::kOk; }
  // The newest check says that new transactions may write.
  bool writable() const { return ok() && !sample->in_recovery && !sample->read_only; }
  bool standby() const { return ok() && sample->in_recovery; }
  // Its newest check was begun at or after `when`.
  bool checked_since(MonoTime when) const { return answer && begun >= when; }

  // Nobody looked for a while: rows of checks end, the one under way counts for nothing.
  void begin_anew();

  struct Change {
    Verdict before;
    Verdict after;
    bool changed() const { return before != after; }
  };
  Change on_check(const event::Probed& check, MonoTime check_begun, MonoTime now, WallTime wall,
                  const MonitorConfig& limits);
};

}  // namespace bascule::monitor
