// The synchronous set of the leader: which standbys' acknowledgement a commit waits for, and what
// is recorded about it so that the right members can be elected. Mode "on": one named standby (k =
// 1). Mode "quorum": any k of all that keep up.
//
// Rule: for each setting (S, k) under which a commit may have been acknowledged, |V ∪ S| < q + k
// and S ⊆ V, where V are the recorded voters and q the election size: any q voters and any k of S
// have one in common. V = {} ("alone") says that only the leader has everything, which is true
// under every setting. One step at a time:
//   (S, k) to (S', k')  record V = V ∪ S', q = |V| - min(k, k') + 1  ->  setting (S', k')  ->
//                       confirmed  ->  record V = S', q = |S'| - k' + 1
//   go alone            record V = {}  ->  setting empty
//   first standbys      (V = {})  setting (S, k) with a CHECKPOINT  ->  confirmed  ->  record V = S
// Confirmed: the marker written after the setting was in force is flushed by k of S, and by every
// walsender named before or after, or that walsender is gone (walsenders reload at their own pace).
// Where several were named before, one that is late releases by the others' positions too, which
// may lie beyond the marker: then k of S must have what was written when the last of them had
// passed it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/time.h"
#include "control/agent.h"
#include "control/events.h"
#include "control/records.h"

namespace bascule::control {

// Whether a commit may be made to wait for this member.
inline bool may_be_waited_for(const MemberRecord& m) {
  return !m.nofailover && !m.tags.nosync && m.disk_full != DiskFull::kWal;
}

// A standby that may be waited for: streams, is in the roster, not nofailover.
struct SyncCandidate {
  std::string sync_name;
  NodeName member;
  int priority = 0;
  Lsn flush_lsn;
  bool leaving = false;    // waited for only until another one can be (removed, nosync, no room)
  bool preferred = false;  // by its region (sync_region)
};

// One step to take, or nothing (all is as wanted, or waiting; `why` says which).
struct SyncStep {
  enum class Kind { kNone, kRecord, kApply, kTerminate } kind = Kind::kNone;
  SyncRecord record;               // kRecord: to be committed together with a renewal
  std::vector<std::string> names;  // kApply: the new setting; kTerminate: walsenders to end
  size_t count = 1;                // kApply
  bool from_empty = false;         // kApply
  std::string why;
};

struct Leader {
  NodeName name;
  std::string sync_name;
};

struct SyncSetting {
  std::vector<std::string> names;  // sorted where there are several
  size_t count = 1;                // k
  bool empty() const { return names.empty(); }
  bool operator==(const SyncSetting&) const = default;
};
// What a recorded generation stands for: all voters, and the k that its election size meets.
SyncSetting setting_of(const Generation& generation);
Generation make_generation(Epoch epoch, const Leader& leader, SyncSetting setting,
                           const UnsafeMutations& unsafe = {});

// What the leader remembers about its setting; a fresh one knows nothing and is safe.
class SyncSet {
 public:
  explicit SyncSet(const UnsafeMutations& unsafe) : unsafe_(unsafe) {}

  // The setting is in force since before the first write of this epoch (start or promotion).
  // kConfirm: what was recovered must reach the standby before clients are let in (see caught_up).
  enum class Confirm { kNo, kYes };
  void in_force_from_start(SyncSetting setting, Confirm confirm, MonoTime now);
  bool caught_up() const { return setting_.empty() || !must_confirm_; }
  // A SetSync operation has been started / has ended well with this marker.
  void applying();
  void applied(SyncSetting setting, Lsn marker, MonoTime now);
  // It failed: either setting may be in force.
  void apply_failed(const SyncSetting& setting);
  // Found in force when an agent came back; nothing is confirmed.
  void found(SyncSetting setting, MonoTime now);

  // Feed every sample of the primary.
  void observe(const PgStatus& status, const std::vector<SyncCandidate>& candidates,
               Millis patience, MonoTime now);

  // The next step. `record` is what the store is known to hold.
  SyncStep plan(const SyncRecord& record, Epoch epoch, const Leader& self,
                const ClusterConfig& config, MonoTime now) const;

  const SyncSetting& setting() const { return setting_; }
  // What is in force is recorded, alone, and so many voters were healthy in the last sample that
  // one of them can be elected at once.
  bool healthy(const SyncRecord& record, Epoch epoch) const;
  // When plan() may answer differently without a new sample.
  MonoTime next_change() const { return next_change_; }

 private:
  struct Health {
    MonoTime last_good{};
    MonoTime steady_since{};  // zero: it does not keep up
    Lsn flush;
    bool streaming = false;
  };
  bool good(const std::string& name, MonoTime now, Millis patience) const;
  bool preferred(const std::string& name) const;
  bool steady(const std::string& name, MonoTime now) const;
  bool confirmed() const;
  bool all_passed() const;
  void forget_marker();
  SyncSetting wanted(const ClusterConfig& config, MonoTime now) const;
  std::string wanted_one(const ClusterConfig& config, MonoTime now) const;
  SyncSetting wanted_quorum(const ClusterConfig& config, MonoTime now) const;
  void supersede();

  const UnsafeMutations& unsafe_;
  SyncSetting setting_;                // in force
  std::vector<std::string> before_;    // named before: their walsenders must confirm too
  bool several_before_ = false;        // one of the settings before named several
  std::optional<MonoTime> passed_at_;  // the sample in which everybody had passed the marker
  std::optional<Lsn> passed_lsn_;      // end of WAL in a later one
  size_t least_count_ = SIZE_MAX;  // of the settings before, as long as they are not confirmed away
  std::optional<Lsn> marker_;      // nullopt: not confirmed since it came into force
  MonoTime applied_at_{};          // a sample counts only if begun after this
  bool checkpointed_ = false;      // the primary has a checkpoint on its timeline
  bool marker_checkpointed_ = false;  // ... had it when the marker was written
  bool applying_ = false;
  bool must_confirm_ = false;
  bool known_ = false;  // setting_ was set or found
  // Another setting was seen in force: changed by somebody else (ALTER SYSTEM), or by a change of
  // ours that seemed to fail. Set anew, and confirmed.
  bool overridden_ = false;
  std::map<std::string, Health> health_;   // by sync name
  std::vector<SyncCandidate> candidates_;  // of the last sample
  std::vector<WalSender> senders_;
  MonoTime sampled_at_{};
  MonoTime observed_at_{};
  MonoTime grace_until_{};  // a new leader's standbys need time to come
  MonoTime next_change_{};
};

}  // namespace bascule::control
