// Who may become primary, in which order, and why not. Pure.
//
// A candidate is up, in recovery, allowed to, of the same database system, on the primary's
// timeline, replays, and lags by no more than the limits. Unknown is not enough where it is about
// losing data, except where a managed database doesn't show it (timeline, system identifier).
//
// Order: WAL received (within loss_tolerance of the most advanced), region of the old primary,
// priority, lower response time is not looked at (it changes), name.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "monitor/config.h"
#include "monitor/endpoint.h"

namespace bascule::monitor {

struct Candidate {
  NodeName name;
  bool eligible = false;
  std::string why_not;
};

struct Choice {
  NodeName primary;        // is none; its region is preferred
  std::string region;      // of it
  Timeline timeline;       // 0: unknown
  uint64_t system_id = 0;  // 0: unknown
  // The primary's end of WAL with the time at which the check that showed it was begun, oldest
  // first. A standby is compared with what the primary had written by the time of its own check:
  // checks of the two are up to an interval apart, which on a busy primary is a lot of WAL.
  std::deque<std::pair<MonoTime, Lsn>> written;
  Lsn written_by(MonoTime when) const;
  std::string unknown;  // why no standby can be compared with the primary; empty: it can
};

enum class Lag { kLimited, kAccepted };  // accepted: an operator insists (force)

Candidate judge(const Endpoint& endpoint, const Choice& choice, const MonitorConfig& config,
                Lag lag);

// Best first; those that are not eligible follow, in the order of their names.
std::vector<Candidate> rank(const std::map<NodeName, Endpoint>& endpoints, const Choice& choice,
                            const MonitorConfig& config, Lag lag);

// "eu-west: 40 MB behind; us-west: down": for the reason why nobody was chosen.
std::string why_nobody(const std::vector<Candidate>& candidates);

}  // namespace bascule::monitor
