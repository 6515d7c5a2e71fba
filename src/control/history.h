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

// One epoch of a line: its timeline from where it forked off to where the next one left it.
struct Segment {
  Epoch epoch;
  Timeline timeline;
  Lsn begin;               // 0 for the first
  std::optional<Lsn> end;  // nullopt for the last: open
};

// The line that ends in `tip`, oldest first. Empty if `tip` is not recorded. A parent that is not
// recorded any more (cut off by retention) begins the line.
using Lineage = std::vector<Segment>;
Lineage lineage(const std::map<Epoch, HistoryRecord>& history, Epoch tip);

// A position on the line. Ordered: a later segment is more advanced, then the LSN decides.
struct Place {
  size_t segment = 0;
  Lsn lsn;
  auto operator<=>(const Place&) const = default;
};

// nullopt: not on the line, i.e. diverged (WAL beyond a fork, or a timeline that is no ancestor) or
// unknown.
std::optional<Place> place(const Lineage& line, const Position& position);

// The timeline id to reserve: above every id ever reserved and above `at_least`.
Timeline next_timeline(const std::map<Epoch, HistoryRecord>& history, Timeline at_least);

}  // namespace bascule::control
