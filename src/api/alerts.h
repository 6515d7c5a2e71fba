// Alerts out of a series of snapshots: raised once when a condition has held for its time, resolved
// by themselves when it has not held for a while. Pure; one thread at a time.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/time.h"
#include "base/types.h"

namespace bascule::api {

struct Snapshot;

struct Alert {
  std::string id;  // "endpoint_down-n2-1763724000123"
  std::string type;
  std::string severity;  // "low", "medium", "high", "critical"
  std::string endpoint;  // empty: of the cluster
  std::string message;
  WallTime since{};  // when the condition began
  std::optional<WallTime> resolved_at;
};

class AlertBook {
 public:
  static constexpr size_t kResolvedKept = 100;

  // Feed every snapshot, in order. `lag`: how old the newest replayed row of a replica is.
  void observe(const Snapshot& snapshot, const std::map<NodeName, Nanos>& lag, MonoTime now);
  std::vector<Alert> list() const;  // active ones first, then resolved ones, newest first

 private:
  struct Open {
    Alert alert;
    MonoTime begun{}, seen{};
    bool raised = false;
  };
  struct Condition {
    std::string type, severity, endpoint, message;
    Nanos after{};  // so long it must hold
  };
  std::vector<Condition> conditions(const Snapshot& snapshot, const std::map<NodeName, Nanos>& lag,
                                    MonoTime now) const;
  void note_failovers(const Snapshot& snapshot);
  void resolve(Alert alert, WallTime at);

  std::map<std::string, Open> open_;  // by type and endpoint
  std::deque<Alert> resolved_;        // oldest first
  std::optional<Epoch> epoch_;
};

}  // namespace bascule::api
