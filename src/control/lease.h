// What a proxy may conclude from what the leader says about itself while the store is silent.
//
// The leader's own clock proves nothing: a virtual machine that its hypervisor paused wakes up with
// a deadline that seems to lie ahead (docs/control-plane.md, Time). So an answer counts only if it
// rests on something that was begun after the proxy's question: a renewal, or a round of pledges,
// asked for later, by the leader's clock, than an earlier question of the same proxy was answered.
// That one was asked at a time by the proxy's clock, and from there the permit counts.
//
// Pure; one reader a proxy, used from one thread.
#pragma once

#include <deque>
#include <optional>

#include "base/time.h"
#include "base/types.h"

namespace bascule::control {

// All by the leader's clock, which nobody compares with another.
struct LeaseWord {
  Epoch epoch;          // that it leads in
  MonoTime clock{};     // when it answered
  MonoTime proved{};    // when the renewal or the pledges that count were asked for
  MonoTime deadline{};  // until when it acknowledges because of them
};

class LeaseReader {
 public:
  // The answer to a question asked at `asked` (the proxy's clock). Returns until when the holder of
  // that epoch may be believed, by the proxy's clock; nullopt: nothing new is known.
  std::optional<MonoTime> heard(MonoTime asked, const LeaseWord& word);

 private:
  struct Question {
    MonoTime asked{};
    MonoTime answered{};  // the leader's clock
  };
  Epoch epoch_;
  std::deque<Question> open_;      // no proof was begun after their answers yet
  std::optional<MonoTime> since_;  // the newest question that one was begun after
};

}  // namespace bascule::control
