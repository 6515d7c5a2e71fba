// What only a series of snapshots can tell: counts of what happened, and how old a replica's newest
// row is. One thread at a time.
#pragma once

#include <deque>
#include <map>
#include <utility>

#include "api/snapshot.h"

namespace bascule::api {

class Tally {
 public:
  // Feed every snapshot, in order; sets its `tally`, and returns that.
  const TallyCounts& observe(Snapshot& snapshot, MonoTime now);

 private:
  void observe_members(const Snapshot& snapshot);
  void observe_local(const Snapshot& snapshot);
  void observe_monitor(const Snapshot& snapshot, MonoTime now);
  void observe_lag(const Snapshot& snapshot, MonoTime now);
  void take_samples(const Snapshot& snapshot, MonoTime now);

  static constexpr size_t kPositionsMax = 1024;
  static constexpr size_t kSamplesKept = 360;  // an hour
  static constexpr Nanos kSampleEvery = 10s;

  TallyCounts counts_;
  AlertBook alerts_;
  std::optional<MonoTime> sampled_at_;
  std::map<NodeName, bool> followed_;  // in the last snapshot
  MonoTime last_sample_{};
  control::Revision lease_ = 0;
  // The primary's end of WAL when it was first seen: a replica that replayed less is at least that
  // old. Resolution: how often the primary publishes.
  std::deque<std::pair<MonoTime, Lsn>> primary_;
  Timeline primary_timeline_;
};

}  // namespace bascule::api
