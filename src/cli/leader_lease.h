// While the store is silent a proxy's permit would run out, although the leader goes on by the
// pledges of the others (failsafe). Then the leader itself is asked, at its API, for how long it
// may still acknowledge: GET /primary, `lease`. What follows from its answers: control/lease.h.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/time.h"
#include "base/types.h"
#include "control/lease.h"
#include "control/records.h"
#include "env/http.h"
#include "env/loop.h"

namespace bascule::cli {

class LeaderLease {
 public:
  using Extended = std::function<void(Epoch epoch, MonoTime until)>;

  // Loop's thread. `http` must outlive this.
  LeaderLease(env::Loop& loop, env::HttpClient& http, Extended extended);
  ~LeaderLease();
  LeaderLease(const LeaderLease&) = delete;
  LeaderLease& operator=(const LeaderLease&) = delete;

  // Every read of the store.
  void on_view(const control::ClusterView& view, MonoTime begun);

 private:
  void schedule(MonoTime when);
  void ask();

  env::Loop& loop_;
  env::HttpClient& http_;
  const Extended extended_;
  std::string url_;  // of the leader's API; empty: nobody to ask
  Epoch epoch_;
  Millis ttl_{5000};
  store::Revision renewed_ = 0;  // of the record that was read last
  env::TimerId timer_ = env::TimerId::kNone;
  uint64_t asked_ = 0;  // of the HTTP client; 0: none under way
  control::LeaseReader reader_;
};

// What the holder of `epoch` says of itself; nullopt: it does not lead in that epoch. Foreign
// input.
std::optional<control::LeaseWord> lease_in(const std::string& body, Epoch epoch);

}  // namespace bascule::cli
