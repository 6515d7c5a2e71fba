// Keeps databases available on which no agent can run: decides which of them is the primary, and
// why. Pure: no clock, no I/O.
//
//   Monitor monitor(config, now);
//   for (effect : monitor.start(now)) ...
//   for (each event) for (effect : monitor.step(event, now)) carry it out;
//   wake it with event::Tick at next_wakeup() at the latest.
//
// Several monitors watch the same databases; the one that holds the lease in the store acts, the
// others tell what they see (and take the lease when it is not renewed).
//
// What is promised, and by what (docs/monitor.md, ADR on fencing without an agent):
//   - Proxies never send clients to two primaries: a proxy acts by a record for at most `permit`
//     after it read it, and a new epoch begins only when the old one's record has been closed for
//     longer, or every proxy has said that it acts by the closed one.
//   - A promotion is begun only when the old primary was seen unreachable or in recovery after the
//     closing, or was fenced by SQL; a person may insist (force).
//   - Clients that go to a database directly are not covered: SQL fences hold only those who don't
//     resist. A database that comes back writable is fenced and not routed to.
//
// One instance a process, used from one thread.
#pragma once

#include <memory>
#include <string>

#include "base/time.h"
#include "control/records.h"
#include "monitor/config.h"
#include "monitor/events.h"

namespace bascule::monitor {

// Mutations for tests of the checkers: each removes one safety. Production never sets them.
struct UnsafeMutations {
  bool skip_permit_wait = false;   // promotes right after closing
  bool ignore_threshold = false;   // one failed check is enough
  bool skip_second_look = false;   // promotes without looking at the old primary again
  bool ignore_lag = false;         // every standby is good enough
  bool act_without_lease = false;  // goes on when the lease could not be renewed, or after a stop
  bool skip_catch_up = false;      // planned: does not wait for the last WAL
};

class Monitor {
 public:
  Monitor(MonitorConfig config, MonoTime now, UnsafeMutations unsafe = {});
  ~Monitor();
  Monitor(Monitor&&) noexcept;
  Monitor& operator=(Monitor&&) noexcept;

  Effects start(MonoTime now);
  Effects step(const Event& event, MonoTime now);
  MonoTime next_wakeup() const;
  // Wall time for what people read; no decision looks at it. Set before start / step.
  void set_wall_time(WallTime wall);

  bool leading(MonoTime now) const;  // holds the lease and may act
  control::MonitorState state() const;
  const std::string& reason() const;
  const control::ClusterView& cluster() const;  // last snapshot, with its own changes

  class Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace bascule::monitor
