// Which member streams from the leader on behalf of its region (region_relays), so that a distant
// region costs one stream. Pure.
#pragma once

#include <functional>

#include "control/records.h"

namespace bascule::control {

constexpr int kRelaysMax = 16;  // in a row

// It follows the leader's line and says so.
bool follows(const MemberRecord& m, const LeaderRecord& leader);

// By way of others, none of which is `without`.
bool reaches_leader(const ClusterView& view, const MemberRecord& relay, const LeaderRecord& leader,
                    const NodeName& without);

// The member of `region` that the others of it are to stream from. Empty: nobody (the leader's own
// region, none, or nobody there follows). Every member computes the same, except for those that it
// has found not to serve (`avoided`).
NodeName relay_of_region(const ClusterView& view, const LeaderRecord& leader,
                         const std::string& region,
                         const std::function<bool(const MemberRecord&)>& avoided);

}  // namespace bascule::control
