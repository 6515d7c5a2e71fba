// What an operator may ask of the cluster, checked against what it looks like now: pure decisions
// about refusing, and the transaction that asks.
#pragma once

#include <string>

#include "base/result.h"
#include "control/records.h"
#include "store/store.h"

namespace bascule::cli {

// The transaction that opens `request` under the condition that nobody opened one meanwhile and
// that the cluster was not paused. ErrorCode::kConflict: refused, with the reason and what to do.
Result<store::Txn> open_request(const control::ClusterView& view, const control::Keys& keys,
                                const control::RequestRecord& request);

// What is known of a candidate beforehand, also of one whose time is yet to come: it is a member,
// does not lead already and may lead. An empty name is good: the best one then. kConflict: refused.
enum class Accept { kEligible, kAnyMember };  // the latter: also one that is nofailover
Status check_candidate(const control::ClusterView& view, const NodeName& candidate, Accept accept);

enum class PauseChange { kPause, kResume };
Result<store::Txn> change_pause(const control::ClusterView& view, const control::Keys& keys,
                                PauseChange change, const std::string& by);

// "draining" as a sentence for the person who waits.
std::string describe_progress(const control::RequestRecord& request);

}  // namespace bascule::cli
