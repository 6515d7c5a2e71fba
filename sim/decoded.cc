#include "sim/decoded.h"

namespace bascule::sim {

control::SharedView Decoded::of(const SnapshotPtr& snapshot) {
  for (const auto& [known, view] : recent_) {
    if (known == snapshot) return view;
  }
  if (recent_.size() == kRecent) recent_.pop_back();
  recent_.emplace_front(snapshot, std::make_shared<control::ClusterView>(parser_.parse(*snapshot)));
  return recent_.front().second;
}

}  // namespace bascule::sim
