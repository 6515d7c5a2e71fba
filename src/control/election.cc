#include "control/election.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <tuple>

namespace bascule::control {
namespace {

struct Voter {
  const Ballot* ballot;
  std::optional<Place> place;
  const MemberRecord* member;  // may be null
};

class Count {
 public:
  Count(const ClusterView& view, const UnsafeMutations& unsafe)
      : view_(view),
        unsafe_(unsafe),
        record_(view.leader->value),
        line_(lineage(view.history, record_.epoch)) {
    for (const auto& [name, ballot] : view.ballots) {
      if (ballot.value.answers != view.leader_revision) continue;
      voters_.push_back({&ballot.value, std::nullopt, view.member(name)});
    }
    settle_origin();
    for (Voter& v : voters_) {
      if (!on_disputed(v)) v.place = place(line_, *v.ballot);
    }
    const RequestRecord* request = view.request ? &view.request->value : nullptr;
    if (request && request->kind == RequestKind::kFailover && request->outcome.empty() &&
        request->force) {
      forced_ = request;
    }
  }

  Election result() const {
    Election e;
    for (const Voter& v : voters_) {
      e.counted.push_back(v.ballot->member);
      std::string obstacle = obstacle_of(v);
      const bool by_force = !obstacle.empty() && is_forced(v);
      if (by_force) obstacle = force_obstacle();
      e.ranking.push_back(
          {v.ballot->member, v.ballot->position, obstacle.empty(), obstacle, by_force});
    }
    for (Candidate& c : e.ranking) c.fetch_from = fetch_for(voter(c.name));
    std::ranges::stable_sort(e.ranking, [&](const Candidate& a, const Candidate& b) {
      return key_of(a) > key_of(b) || (key_of(a) == key_of(b) && a.name < b.name);
    });
    const NodeName leader = last_leader();
    const auto roster = view_.roster ? view_.roster->value.members : std::vector<NodeName>{};
    for (const NodeName& name : roster) {
      if (name != leader && std::ranges::find(e.counted, name) == e.counted.end()) {
        e.missing.push_back(name);
      }
    }
    for (const auto& [name, ballot] : view_.ballots) {
      if (ballot.value.fetching == view_.leader_revision) e.fetching.push_back(name);
    }
    e.summary = summarize(e);
    return e;
  }

 private:
  bool is_forced(const Voter& v) const {
    return forced_ && (forced_->candidate.empty() || forced_->candidate == v.ballot->member);
  }

  // Empty: may take over, and nobody has to force it.
  std::string obstacle_of(const Voter& v) const {
    if (unsafe_.ignore_ballots) return "";
    if (std::string why = bar_of(v); !why.empty()) return why;
    if (!promised()) return lag_obstacle(v);
    if (has_final(v)) return "";
    for (const Generation& g : view_.sync->value.generations) {
      if (std::string why = generation_obstacle(v, g); !why.empty()) return why;
    }
    return "";
  }

  // The last leader may have died before it could record how its timeline began, or whether it did
  // (ADR 0027), and somebody have promoted a member by hand to the same id. Its own ballot says
  // how; without that all must say the same, and none that it began before the recorded fork:
  // nobody had been let in.
  void settle_origin() {
    const auto last = view_.history.find(record_.epoch);
    if (last == view_.history.end() || !last->second.lacks_origin() || line_.empty()) return;
    const HistoryRecord& epoch = last->second;
    const Origin* first = nullptr;
    const bool let_in = record_.phase != LeaderPhase::kPreparing && !record_.vacant();
    for (const Voter& v : voters_) {
      const Origin& origin = v.ballot->origin;
      if (v.ballot->position.timeline != epoch.timeline) {
        disputed_ = disputed_ || v.ballot->member == epoch.leader;  // it has not promoted to it
        continue;
      }
      if (origin.at == Lsn{}) continue;
      if (v.ballot->member == epoch.leader) {
        line_.back().begin = origin;
        disputed_ = false;
        return;
      }
      if (first == nullptr) first = &origin;
      const bool too_early = !let_in && origin.at < epoch.fork.lsn;
      disputed_ = disputed_ || too_early || origin.contradicts(*first);
    }
  }

  bool on_disputed(const Voter& v) const {
    return disputed_ && v.ballot->position.timeline == line_.back().timeline;
  }

  // Empty: it may lead, if its WAL says so.
  std::string bar_of(const Voter& v) const {
    if (is_tagged(v) && !was_forced(v)) return "is tagged nofailover";
    if (v.member && v.member->disk_full == DiskFull::kWal) return "has no room for WAL on its disk";
    const auto& roster = view_.roster ? view_.roster->value.members : std::vector<NodeName>{};
    if (std::ranges::find(roster, v.ballot->member) == roster.end()) {
      return "is not in the roster (never streamed from a leader)";
    }
    if (on_disputed(v)) {
      return fmt::format("is on timeline {}, of which only {} can tell how it began",
                         v.ballot->position.timeline.value,
                         view_.history.at(record_.epoch).leader.str());
    }
    if (!v.place) {
      return fmt::format("has diverged: {} is not on the line of epoch {}",
                         v.ballot->position.to_string(), record_.epoch.value);
    }
    return "";
  }

  static bool is_tagged(const Voter& v) { return v.member && v.member->nofailover; }

  // It leads since somebody forced it to. Where nobody else can it goes on: the others have
  // diverged from it, or lack what it has acknowledged.
  bool was_forced(const Voter& v) const {
    auto h = view_.history.find(record_.epoch);
    for (; h != view_.history.end(); h = view_.history.find(h->second.parent_epoch)) {
      if (h->second.leader != v.ballot->member) return false;
      if (h->second.trigger == "forced") return true;
    }
    return false;
  }

  // In synchronous mode whatever only one of them has was not acknowledged.
  bool promised() const { return view_.sync && !view_.sync->value.generations.empty(); }

  // Whoever may lead and has less than one who may not, or is passed by because its disk is full.
  NodeName fetch_for(const Voter& v) const {
    if (promised() || goes_on_following() || !bar_of(v).empty()) return {};
    const Voter* source = &v;
    for (const Voter& other : voters_) {
      const bool passed_by = !bar_of(other).empty() || (is_tagged(other) && !is_tagged(v)) ||
                             (has_room(v) && !has_room(other));
      if (passed_by && other.place > source->place) source = &other;
    }
    return source == &v ? NodeName() : source->ballot->member;
  }

  // The same numbers as in Agent::Impl::bound_since(): who is bound has no ballot.
  std::string force_obstacle() const {
    if (record_.vacant() || forced_->old_primary_dead || unsafe_.force_despite_pledges) return "";
    std::string who;
    const Generation* newest = view_.sync && !view_.sync->value.generations.empty()
                                   ? &view_.sync->value.generations.back()
                                   : nullptr;
    if (newest && newest->quorum > 0 && newest->epoch == record_.epoch) {
      const auto balloted = std::ranges::count_if(voters_, [&](const Voter& v) {
        return std::ranges::find(newest->voters, v.ballot->sync_name) != newest->voters.end();
      });
      if (static_cast<size_t>(balloted) >= newest->quorum) return "";
      who = fmt::format("{}", fmt::join(newest->voters, ", "));
    } else {
      const auto roster = view_.roster ? view_.roster->value.members : std::vector<NodeName>{};
      const bool free = std::ranges::any_of(voters_, [&](const Voter& v) {
        return v.ballot->member != record_.holder &&
               std::ranges::find(roster, v.ballot->member) != roster.end();
      });
      if (free) return "";
      who = "the roster";
    }
    return fmt::format(
        "is not forced: {} has not released the record and may go on without the store, by pledges "
        "of [{}]; if its host is off for sure, say --old-primary-is-dead",
        record_.holder.str(), who);
  }

  std::string lag_obstacle(const Voter& v) const {
    if (has_final(v)) return "";
    if (v.ballot->led_epoch == record_.epoch) return "";
    if (goes_on_following()) return "";
    const uint64_t limit = config().maximum_lag_bytes;
    uint64_t behind = v.ballot->receiver_lag_bytes;
    // What the lost primary had at its last renewal, and what a ballot says that somebody has of
    // its WAL; a member that was away knows nothing newer itself.
    Lsn newest = record_.flush_lsn;
    for (const Voter& other : voters_) {
      if (other.place > v.place) newest = std::max(newest, other.ballot->position.lsn);
    }
    if (newest > v.ballot->position.lsn) {
      behind = std::max(behind, newest.value - v.ballot->position.lsn.value);
    }
    if (behind <= limit) return "";
    return fmt::format("is {} bytes behind the lost primary, more than maximum_lag {}", behind,
                       limit);
  }

  // What it lacks it gets from the cluster that is followed.
  bool goes_on_following() const {
    const auto last = view_.history.find(record_.epoch);
    return config().standby_cluster && last != view_.history.end() && last->second.following;
  }

  bool has_final(const Voter& v) const {
    if (!record_.vacant() || !record_.final_position.known()) return false;
    const auto final_place = place(line_, record_.final_position);
    return final_place && v.place && *v.place >= *final_place;
  }

  std::string generation_obstacle(const Voter& v, const Generation& g) const {
    if (v.ballot->sync_name == g.leader_sync_name) return "";
    if (has_fork_after(v, g.epoch)) return "";
    if (unsafe_.early_without_voters && g.epoch == record_.epoch && !record_.vacant()) return "";
    if (g.quorum == 0) {
      return fmt::format("epoch {} ended with only {} having all acknowledged commits",
                         g.epoch.value, g.leader.str());
    }
    size_t voters = 0;
    for (const Voter& other : voters_) {
      if (std::ranges::find(g.voters, other.ballot->sync_name) == g.voters.end()) continue;
      if (!other.place) continue;  // unknown does not count
      ++voters;
      if (*other.place > *v.place && !unsafe_.promote_shorter_log) {
        return fmt::format("{} is more advanced", other.ballot->member.str());
      }
    }
    if (voters >= g.quorum) return "";
    return fmt::format("epoch {} needs ballots of {} of [{}] or its leader {}: {} there",
                       g.epoch.value, g.quorum, fmt::join(g.voters, ", "), g.leader.str(), voters);
  }

  // Has everything up to the fork of a later epoch on the line: whoever made that fork was safe for
  // this one, and had no more. Also where the promotion failed and nothing was written behind it.
  bool has_fork_after(const Voter& v, Epoch epoch) const {
    for (size_t i = 1; i < line_.size(); ++i) {
      if (line_[i].epoch > epoch && *v.place >= left_at(line_, i - 1)) return true;
    }
    return false;
  }

  // Larger is better.
  using Key = std::tuple<bool, bool, bool, bool, bool, bool, size_t, Timeline, Lsn, bool, int>;
  Key key_of(const Candidate& c) const {
    const Voter* v = &voter(c.name);
    const MemberRecord* last = view_.member(last_leader());
    const bool same_region = last && v->member && v->member->region == last->region;
    const Place at = v->place.value_or(Place{});
    // Whoever is safe in synchronous mode loses nothing: the region counts more than the position.
    const std::string& wanted = config().primary_region;
    const bool in_region =
        promised() && !wanted.empty() && v->member && v->member->region == wanted;
    return {c.safe,
            preferred() == c.name,
            !c.by_force,
            !is_tagged(*v),
            has_room(*v),
            in_region,
            at.segment,
            at.timeline,
            at.lsn,
            same_region,
            v->member ? v->member->priority : 0};
  }

  // Also where it has released the record.
  NodeName last_leader() const {
    const auto last = view_.history.find(record_.epoch);
    return last == view_.history.end() ? record_.holder : last->second.leader;
  }

  static bool has_room(const Voter& v) { return !v.member || v.member->disk_full == DiskFull::kNo; }

  const Voter& voter(const NodeName& name) const {
    return *std::ranges::find(voters_, name, [](const Voter& v) { return v.ballot->member; });
  }

  NodeName preferred() const {
    if (forced_) return forced_->candidate;
    return record_.vacant() ? record_.handover_to : NodeName();
  }

  std::string summarize(const Election& e) const {
    std::vector<std::string> parts;
    for (const Candidate& c : e.ranking) {
      parts.push_back(
          c.safe ? fmt::format("{} at {} may take over", c.name.str(), c.position.to_string())
                 : fmt::format("{} {}", c.name.str(), c.obstacle));
    }
    for (const NodeName& n : e.missing) {
      const bool fetches = std::ranges::find(e.fetching, n) != e.fetching.end();
      parts.push_back(n.str() + (fetches ? " fetches WAL first" : " has no ballot"));
    }
    return fmt::format("{}", fmt::join(parts, "; "));
  }

  ClusterConfig config() const { return view_.config ? view_.config->value : ClusterConfig{}; }

  const ClusterView& view_;
  const UnsafeMutations& unsafe_;
  const LeaderRecord& record_;
  Lineage line_;
  std::vector<Voter> voters_;
  const RequestRecord* forced_ = nullptr;
  bool disputed_ = false;  // whether the last timeline is what the record means
};

}  // namespace

std::optional<size_t> Election::rank_of(const NodeName& name) const {
  for (size_t i = 0; i < ranking.size() && ranking[i].safe; ++i) {
    if (ranking[i].name == name) return i;
  }
  return std::nullopt;
}

Election elect(const ClusterView& view, const UnsafeMutations& unsafe) {
  if (!view.leader || view.leader_unreadable) return {};
  return Count(view, unsafe).result();
}

}  // namespace bascule::control
