// Invariant 2: a commit that a synchronous standby let go is in every later history; what
// asynchronous mode loses is a suffix within its bound. Disks keep what they synced in this world,
// so with k = 1 not one synchronous commit may be lost, whatever dies. The log of releases, with
// the setting that released each, is kept for the message.
#include <algorithm>
#include <map>
#include <unordered_set>
#include <utility>

#include "sim/checkers/checker.h"

namespace bascule::sim {
namespace {

struct Released {
  WalRecord record;
  Endpoint host = -1;
  Release release;
  SimTime at{};
  uint64_t system_id = 0;
  bool declared = false;  // by a server of the cluster that the store knew then
};

class Durability : public Checker {
 public:
  using Checker::Checker;

  void commit_inserted(Endpoint host, const WalRecord& r) override {
    inserted_.push_back({world().now(), r});
    if (truth_.excused(host)) released_.clear();
  }

  void commit_released(Endpoint host, const WalRecord& r, const Release& release) override {
    if (release.by == Release::By::kCancelled) {
      world().count("commits.cancelled_waits");
      cancelled_.insert(r.commit);  // its client was told that the standby may not have it
      return;
    }
    world().count(release.by == Release::By::kStandby ? "commits.released_by_standby"
                                                      : "commits.released_alone");
    if (release.by == Release::By::kStandby && promised(host) && r.timeline < newest_timeline_ &&
        !in_newest_.contains(r.commit) && !truth_.forced_since(r.timeline) &&
        !truth_.excused(host)) {
      return lost(Released{r, host, release, world().now()}, newest_timeline_);
    }
    // Too late, of a line that is over: whether it may be is for one_writer to say (a frozen
    // guest's direct clients). Nobody was promised that the new line has it.
    if (r.timeline < newest_timeline_ &&
        (release.by != Release::By::kStandby || truth_.forced_since(r.timeline))) {
      return;
    }
    const uint64_t system = member(host).pg().data().system_id;
    released_.push_back(
        Released{r, host, release, world().now(), system, system == truth_.system_id()});
    if (!promised(host)) released_.back().release.by = Release::By::kNoSync;
  }

  void proxy_forwarded(Endpoint proxy, const WalRecord& r, Epoch) override {
    if (!cancelled_.contains(r.commit)) return;
    world().violation("durability",
                      fmt::format("proxy {} called commit {} done although its wait for the "
                                  "standby was cancelled",
                                  proxy, r.commit));
  }

  void commit_sent(Member&, const store::Txn& txn, control::RequestId, MonoTime) override {
    for (const store::Write& w : txn.writes) {
      if (w.key == leader_key_ && w.value) sent_.try_emplace(*w.value, world().now());
    }
  }

  void store_applied(const store::Txn& txn, store::Revision, Endpoint by) override {
    for (const store::Write& w : txn.writes) {
      if (w.key == leader_key_ && w.value && by >= 0 && by < kHostsMax) {
        const auto& leader = truth_.view().leader;
        if (leader && !leader->value.vacant() && member(by).pg().accepts_writes())
          renewed_[static_cast<size_t>(by)] = sent_at(*w.value);
      }
      if (w.key != config_key_ || !w.value) continue;
      const auto& config = truth_.view().config;
      if (!config) continue;
      maximum_lag_ = config->value.maximum_lag_bytes;
      sync_ = config->value.sync_mode != control::SyncMode::kOff;
      if (!sync_) forgive_synchronous();
    }
  }

  void promoted(Endpoint host, uint32_t timeline, uint64_t fork) override {
    world().count("promotions");
    // A server that was promoted after its agent lost the record (both were frozen in the middle of
    // it) is no history: the guard kills it before it has acknowledged anything, which is what
    // one_writer and fencing watch. What was acknowledged must be in the line of the record.
    if (!truth_.lawful(host, timeline)) {
      world().count("promotions.stale");
      return;
    }
    const DataDirectory& d = member(host).pg().data();
    in_newest_.clear();
    for (const WalRecord& r : d.wal) {
      if (r.commit != 0) in_newest_.insert(r.commit);
    }
    const uint32_t before = std::min(std::exchange(newest_timeline_, timeline), timeline - 1);
    if (truth_.excused(host)) {
      released_.clear();
      return;
    }
    if (truth_.forced_since(before, timeline)) {
      world().count("promotions.forced");
      released_.clear();
      return;
    }
    std::erase_if(released_, [&](const Released& r) {
      return !r.declared && r.system_id != d.system_id;  // see Truth::system_id
    });
    check(timeline, fork, d);
  }

  void finish() override {
    const Member* leader = truth_.leading();
    if (leader == nullptr || truth_.parted) return;
    in_newest_.clear();
    for (const WalRecord& r : leader->pg().data().wal) {
      if (r.commit != 0) in_newest_.insert(r.commit);
    }
    for (const Released& r : released_) {
      if (r.release.by == Release::By::kStandby && !in_newest_.contains(r.record.commit)) {
        return lost(r, leader->pg().data().timeline);
      }
    }
  }

 private:
  // By its id somebody else's, promoted by hand: not the line that `r` is of (ADR 0027, (a)).
  static bool is_by_hand_there(const DataDirectory& d, const WalRecord& r) {
    return std::ranges::any_of(d.wal, [&](const WalRecord& other) {
      return other.by_hand && other.timeline == r.timeline;
    });
  }

  SimTime sent_at(const std::string& record) {
    const auto found = sent_.find(record);
    return found == sent_.end() ? world().now() : found->second;
  }

  void check(uint32_t timeline, uint64_t fork, const DataDirectory& d) {
    uint64_t bytes_lost = 0;
    Endpoint from = -1;
    for (const Released& r : released_) {
      if (in_newest_.contains(r.record.commit)) continue;
      if (r.release.by == Release::By::kStandby) return lost(r, timeline);
      if (r.record.end <= fork && r.record.timeline == parent_of(timeline) &&
          !is_by_hand_there(d, r.record)) {
        return world().violation(
            "durability",
            fmt::format("commit {} at {:X} is missing on timeline {} though it lies before the "
                        "fork {:X}: the loss is no suffix",
                        r.record.commit, r.record.end, timeline, fork));
      }
      bytes_lost += r.record.end - r.record.start;
      from = r.host;
    }
    if (bytes_lost == 0) return;
    world().count("async.losses");
    if (!sync_) {
      // The position published with a renewal is from a sample before it.
      const SimTime since = renewed_[static_cast<size_t>(from)] - millis(1500);
      uint64_t unpublished = 0;
      for (const auto& [at, r] : inserted_) {
        if (at >= since) unpublished += r.end - r.start;
      }
      if (bytes_lost > maximum_lag_ + unpublished) {
        world().violation(
            "durability",
            fmt::format("asynchronous failover to timeline {} lost {} bytes; the bound is {} + {}",
                        timeline, bytes_lost, maximum_lag_, unpublished));
      }
    } else {
      // Released while no standby was asked: only a leader that is "alone" may do so, and then
      // nobody else may be elected.
      const auto it = std::ranges::find_if(released_, [&](const Released& r) {
        return !in_newest_.contains(r.record.commit) && r.at > sync_since_;
      });
      if (it != released_.end()) lost(*it, timeline);
    }
    std::erase_if(released_,
                  [&](const Released& r) { return !in_newest_.contains(r.record.commit); });
  }

  // In a run that left synchronous mode a release is a promise again only once the mode is on and
  // the releasing leader's voters are on record.
  bool promised(Endpoint host) {
    if (!sync_) return false;
    if (sync_since_ != SimTime::max()) return true;
    const auto& record = truth_.view().sync;
    if (!record || record->value.generations.empty()) return false;
    const control::Generation& newest = record->value.generations.back();
    return newest.leader == member(host).name() && !newest.voters.empty();
  }

  // Mode off: what was synchronous before is promised no more than the rest.
  void forgive_synchronous() {
    sync_since_ = SimTime::max();
    for (Released& r : released_) r.release.by = Release::By::kNoSync;
  }

  uint32_t parent_of(uint32_t timeline) const {
    for (const auto& m : truth_.members) {
      const DataDirectory& d = m->pg().data();
      if (d.timeline == timeline && !d.ancestors.empty()) return d.ancestors.back().timeline;
    }
    return 0;
  }

  void lost(const Released& r, uint32_t timeline) {
    world().violation(
        "durability",
        fmt::format(
            "commit {} (timeline {}, ends {:X}) was released on host {} at {} ms by {} under '{}', "
            "and is not in the history of timeline {}",
            r.record.commit, r.record.timeline, r.record.end, r.host, to_ms(r.at),
            r.release.standby.empty() ? "no standby" : r.release.standby,
            fmt::join(r.release.setting, ", "), timeline));
  }

  const std::string leader_key_ = truth_.keys.leader();
  const std::string config_key_ = truth_.keys.config();
  std::vector<Released> released_;
  std::vector<std::pair<SimTime, WalRecord>> inserted_;
  std::unordered_set<uint64_t> in_newest_;
  std::unordered_set<uint64_t> cancelled_;
  uint32_t newest_timeline_ = 0;
  uint64_t maximum_lag_ = truth_.initial.maximum_lag_bytes;
  bool sync_ = truth_.initial.sync_mode != control::SyncMode::kOff;
  // Releases without a standby count as promises only in a run that never left synchronous mode.
  SimTime sync_since_ = sync_ ? SimTime{0} : SimTime::max();
  std::map<std::string, SimTime> sent_;  // leader records by their text, and when first
  // When the last leader record that was written as its holder had been sent.
  std::array<SimTime, kHostsMax> renewed_{};
};

}  // namespace

std::unique_ptr<Checker> make_durability(Truth& truth) {
  return std::make_unique<Durability>(truth);
}

}  // namespace bascule::sim
