// What a forced failover to a member would lose, as far as the records tell: for the person who is
// asked to confirm it. Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "control/records.h"

namespace bascule::control {

struct LossBound {
  NodeName member;
  bool none = false;              // every acknowledged commit is there
  std::optional<uint64_t> bytes;  // of WAL that the leader is known to have had; none: diverged
  Millis unknown{0};              // for so long it may have written more after that
  bool longer_by_pledges =
      false;         // and as long as the store was away before it was lost (ADR 0025)
  std::string text;  // for people
};

// Of every member but the leader, the one that loses least first.
std::vector<LossBound> loss_bounds(const ClusterView& view);

}  // namespace bascule::control
