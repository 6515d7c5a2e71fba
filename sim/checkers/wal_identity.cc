// Invariant 3, by bytes: no two members hold different content at the same timeline and position,
// no member appends to WAL that has diverged, and no timeline id is used twice.
//
// What a server wrote that somebody had promoted by hand is compared with nothing: standbys that
// have it for their upstream stream that, too, until their agents know of another leader. It must
// never be in the WAL of a member that is promoted for the cluster, unless somebody forced that,
// nor with anybody who follows in the end, and nothing of the cluster's is appended to it.
#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "sim/checkers/checker.h"

namespace bascule::sim {
namespace {

class WalIdentity : public Checker {
 public:
  using Checker::Checker;

  void wal_durable(Endpoint host, const WalRecord& r, uint64_t previous) override {
    if (r.by_hand) return;
    const uint64_t system =
        member(host).pg().data().system_id;  // a second initdb is another cluster
    const auto [it, added] =
        content_.try_emplace((static_cast<uint64_t>(r.timeline) << 44) ^ r.start ^ system,
                             Content{r.id, previous, host});
    if (added || truth_.excused(host)) return;
    if (it->second.id != r.id) {
      world().violation("wal_identity", fmt::format("hosts {} and {} hold different WAL at {}/{:X}",
                                                    it->second.host, host, r.timeline, r.start));
    } else if (it->second.previous != previous && streams_from_a_stray(host, r)) {
      if (member(host).agent() == nullptr) pass_over(host, r);
    } else if (it->second.previous != previous) {
      world().violation("wal_identity",
                        fmt::format("host {} appended {}/{:X} to WAL that has diverged", host,
                                    r.timeline, r.start));
    }
  }

  void promoted(Endpoint host, uint32_t timeline, uint64_t) override {
    if (truth_.runs_by_hand(host)) return;
    if (truth_.lawful(host, timeline)) {
      const uint32_t before = std::min(std::exchange(newest_lawful_, timeline), timeline - 1);
      look_for_what_is_by_hand(host, truth_.forced_since(before, timeline));
    }
    const auto [it, added] = owner_.try_emplace(timeline, host);
    if (!added && !truth_.excused(host)) {
      world().violation("wal_identity",
                        fmt::format("timeline {} was promoted to on host {} and now on host {}",
                                    timeline, it->second, host));
    }
  }

  void finish() override {
    const Member* leader = truth_.leading();
    if (leader == nullptr || truth_.parted) return;
    adopted_.insert(passed_over_.begin(), passed_over_.end());
    for (const auto& m : truth_.members) {
      if (m.get() != leader && !m->pg().receiver_streaming()) continue;  // not compared yet
      look_for_what_is_by_hand(m->host(), false);
      compare(*m, *leader);
    }
  }

 private:
  // Its upstream is not the leader, and has promised nobody anything. What it holds of such a
  // server is found when its agent looks for where its WAL ends, before it follows the leader.
  bool streams_from_a_stray(Endpoint host, const WalRecord& r) {
    const DataDirectory& d = member(host).pg().data();
    const size_t i = d.index_at(r.start);
    const auto upstream = member(host).pg().status().upstream;
    const auto& leader = truth_.view().leader;
    return i > 0 && d.wal[i - 1].by_hand && (!leader || upstream != leader->value.holder);
  }

  // While no agent was there its upstream was promoted by hand, and then joined the cluster again.
  // PostgreSQL does not replay beyond that ("incorrect prev-link"); this model does. Nobody may be
  // elected with it.
  void pass_over(Endpoint host, const WalRecord& r) {
    world().count("exception.streamed_on_after_wal_by_hand");
    const DataDirectory& d = member(host).pg().data();
    for (size_t i = d.index_at(r.start); i > 0 && d.wal[i - 1].by_hand; --i) {
      passed_over_.insert(d.wal[i - 1].id);
    }
  }

  void compare(const Member& m, const Member& leader) {
    const DataDirectory& theirs = leader.pg().data();
    for (const WalRecord& r : m.pg().data().wal) {
      const size_t i = theirs.index_at(r.start);
      if (i == theirs.wal.size() || theirs.wal[i].id == r.id) continue;
      if (passed_over_.contains(r.id) || passed_over_.contains(theirs.wal[i].id)) continue;
      return world().violation(
          "wal_identity", fmt::format("{} follows, and holds {}/{:X} that {} does not",
                                      m.name().str(), r.timeline, r.start, leader.name().str()));
    }
  }

  void look_for_what_is_by_hand(Endpoint host, bool adopt) {
    for (const WalRecord& r : member(host).pg().data().wal) {
      if (!r.by_hand || adopted_.contains(r.id)) continue;
      adopt = adopt || recorded(r);
      if (!adopt) {
        return world().violation(
            "wal_identity", fmt::format("host {} holds {}/{:X}, which somebody wrote by hand", host,
                                        r.timeline, r.start));
      }
      adopted_.insert(r.id);
    }
  }

  // The elected leader was lost before it had recorded how its timeline began, or before it was
  // promoted at all, and nobody contradicts the one who has a timeline of that id: ADR 0027, (a).
  // It has all that was promised, which is durability's to check.
  bool recorded(const WalRecord& first) {
    const bool is = std::ranges::any_of(truth_.view().history, [&](const auto& epoch) {
      return epoch.second.timeline.value == first.timeline &&
             epoch.second.origin.at.value == first.start &&
             !control::Origin{Lsn{first.start}, static_cast<uint32_t>(first.id)}.contradicts(
                 epoch.second.origin);
    });
    if (is) world().count("exception.promoted_by_hand_to_what_nobody_had_recorded");
    return is;
  }

  struct Content {
    uint64_t id;
    uint64_t previous;
    Endpoint host;
  };
  std::unordered_map<uint64_t, Content> content_;
  std::unordered_set<uint64_t> adopted_;  // by hand, and then by force
  std::set<uint64_t> passed_over_;        // by hand, see pass_over()
  std::map<uint32_t, Endpoint> owner_{{1, -1}};
  uint32_t newest_lawful_ = 0;  // timeline
};

// Invariant 4.
class DataDirectoryChecker : public Checker {
 public:
  using Checker::Checker;

  void operation_begun(Member& m, const control::Op& op) override {
    if (!std::holds_alternative<control::op::StartPrimary>(op) &&
        !std::holds_alternative<control::op::StartStandby>(op)) {
      return;
    }
    const control::DataDir state = m.pg().data().state;
    if (state == control::DataDir::kHalfCloned || state == control::DataDir::kHalfRewound) {
      world().violation("data_directory",
                        fmt::format("{}: {} on a data directory that is half {}", m.name().str(),
                                    control::op_name(op),
                                    state == control::DataDir::kHalfCloned ? "cloned" : "rewound"));
    }
  }
};

}  // namespace

std::unique_ptr<Checker> make_wal_identity(Truth& truth) {
  return std::make_unique<WalIdentity>(truth);
}
std::unique_ptr<Checker> make_data_directory(Truth& truth) {
  return std::make_unique<DataDirectoryChecker>(truth);
}

}  // namespace bascule::sim
