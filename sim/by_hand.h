// Somebody takes the cluster for lost and promotes the data directory of a member whose host is
// down, with pg_ctl: nobody holds the record for it, no guard watches it, no client reaches it.
#pragma once

#include <functional>

#include "sim/member.h"

namespace bascule::sim {

// The host is down, its data directory complete. `records` of WAL are written on the new timeline.
// `done`: it has been promoted, and shut down again. Never, if the server is killed before.
void promote_by_hand(Member& m, int records, std::function<void()> done);

}  // namespace bascule::sim
