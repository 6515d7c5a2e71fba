// How old is what a replica shows? Its position is compared with what the primary had written when.
// Pure. Positions of a primary that is not asked about any
// more must be forgotten (reset) when another one takes over.
#pragma once

#include <deque>
#include <utility>

#include "base/time.h"
#include "base/types.h"

namespace bascule::proxy {

class LagClock {
 public:
  void reset() { written_.clear(); }

  // In order of time. A primary that writes nothing keeps its replicas current.
  void primary_at(Lsn written, MonoTime now) {
    if (!written_.empty() && written_.back().second >= written) {
      written_.back().first = now;
      return;
    }
    written_.emplace_back(now, written);
    if (written_.size() > kSamplesMax) written_.pop_front();
  }

  // Age of the newest state of the primary that a replica with this position has surely replayed;
  // with one older than the samples the age of the oldest; 0 if nothing is known.
  Nanos lag(Lsn replayed, MonoTime now) const {
    if (written_.empty()) return Nanos(0);
    for (auto at = written_.rbegin(); at != written_.rend(); ++at) {
      if (at->second > replayed) continue;
      // Between the last sample that it has and the first that it lacks.
      return at == written_.rbegin() ? Nanos(0) : now - at->first;
    }
    return now - written_.front().first;
  }

 private:
  static constexpr size_t kSamplesMax = 256;
  std::deque<std::pair<MonoTime, Lsn>> written_;
};

}  // namespace bascule::proxy
