// Who descends from whom: places WAL positions on the line of succession of an epoch. Timeline ids
// alone are never compared: the recorded forks are (docs/control-plane.md, Rejoin).
#pragma once

#include <compare>
#include <map>
#include <optional>
#include <vector>

#include "base/types.h"
#include "control/records.h"

namespace bascule::control {

// One epoch of a line: its timeline from where it forked off to where the next one left it. The
// epochs in which the cluster followed another one are a single segment, the first, whatever
// timelines the WAL is on: who descends from whom there PostgreSQL itself finds out.
struct Segment {
  Epoch epoch;              // followed: the last of them
  Timeline timeline;        // followed: on which it was left
  Origin begin;             // unknown for the first
  std::optional<Lsn> left;  // where the next one's winner stood; nullopt for the last
  std::optional<Lsn> end;   // WAL beyond is diverged; nullopt for the last: open
  bool followed = false;
};

// The line that ends in `tip`, oldest first. Empty if `tip` is not recorded. A parent that is not
// recorded any more (cut off by retention) begins the line.
using Lineage = std::vector<Segment>;
Lineage lineage(const std::map<Epoch, HistoryRecord>& history, Epoch tip);

// A position on the line. Ordered: a later segment is more advanced, then the LSN decides.
struct Place {
  size_t segment = 0;
  Timeline timeline;  // of a segment that is followed; else 0
  Lsn lsn;
  auto operator<=>(const Place&) const = default;
};

// Where the winner of the next epoch stood when it left segment `index` of the line.
Place left_at(const Lineage& line, size_t index);

// nullopt: not on the line, i.e. diverged (WAL beyond a fork, or a timeline that is no ancestor) or
// unknown. `origin`: of that timeline, as the member has it. One that somebody promoted by hand may
// have the id of a timeline of the line.
std::optional<Place> place(const Lineage& line, const Position& position,
                           const Origin& origin = {});
inline std::optional<Place> place(const Lineage& line, const Ballot& ballot) {
  return place(line, ballot.position, ballot.origin);
}

// The timeline id to reserve: above every id ever reserved and above `at_least`.
Timeline next_timeline(const std::map<Epoch, HistoryRecord>& history, Timeline at_least);

}  // namespace bascule::control
