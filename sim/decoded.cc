#include "sim/decoded.h"

namespace bascule::sim {

const control::ClusterView& Decoded::of(const SnapshotPtr& snapshot) {
  for (const auto& [known, view] : recent_) {
    if (known == snapshot) return view;
  }
  if (recent_.size() == kRecent) recent_.pop_back();
  recent_.emplace_front(snapshot, parser_.parse(*snapshot));
  return recent_.front().second;
}

}  // namespace bascule::sim
