// The election, as a pure function of one snapshot: who may take over, in which order, and why the
// others may not. Every candidate computes the same ranking from the same ballots; safety does not
// rest on that (the take-over transaction compares every ballot counted), only promptness does.
//
// Safe for a generation g (Election 5; the R + W > N argument):
//   every commit acknowledged in g is on g's leader and on at least one of any q voters, so a
//   member has all of them if
//     (a) it is g's leader in the same incarnation: neither rewound nor cloned since, or
//     (b) q voters of g have ballots and it is at least as advanced as the most advanced of these,
//     or (c) it has everything up to the fork of a later epoch on the line: that fork was made by a
//         member that was safe for g and had no more, or
//     (d) the last leader stopped cleanly and it has everything up to that final position.
//
// Force sets this aside, but not that the last leader must be over: where it has not released the
// record it may go on without the store, by pledges (ADR 0025), until so many who could pledge have
// ballots that the rest are too few, or until a person says that it is off.
#pragma once

#include <string>
#include <vector>

#include "control/agent.h"
#include "control/history.h"
#include "control/records.h"

namespace bascule::control {

struct Candidate {
  NodeName name;
  Position position;
  bool safe = false;      // may take over
  std::string obstacle;   // why not, when not safe
  bool by_force = false;  // not without force: acknowledged commits may be missing
  // A member that may not lead has more than this one, which may, and no promise covers it: to be
  // fetched before the take-over. Empty: nobody.
  NodeName fetch_from{};
};

struct Election {
  std::vector<Candidate> ranking;  // best first; the safe ones before the others
  std::vector<NodeName> counted;   // members whose ballots this is computed from
  std::vector<NodeName> missing;   // roster members without a ballot (the last leader excepted)
  std::vector<NodeName> fetching;  // their ballots come when they have fetched another one's WAL
  std::string summary;             // one line for people
  // Index in `ranking` among the safe candidates; nullopt: not there or not safe.
  std::optional<size_t> rank_of(const NodeName& name) const;
};

Election elect(const ClusterView& view, const UnsafeMutations& unsafe = {});

}  // namespace bascule::control
