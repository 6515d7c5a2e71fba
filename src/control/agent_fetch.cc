// What only a member has that may not lead is fetched from it before a take-over that would give it
// up (Election 5). Bounded: a member that is silent stops no election.
#include "control/agent_impl.h"

namespace bascule::control {
namespace {

constexpr Millis kFetchWithin{5000};    // in all
constexpr Millis kFetchPatience{2000};  // without a byte
constexpr Millis kFetchAgain{30000};

}  // namespace

// Who would take over next fetches, and those behind it let it.
bool Agent::Impl::fetches_first(const Election& election) {
  for (const Candidate& c : election.ranking) {
    if (c.name == config_.name) return begin_fetch(c) || others_fetch(c, election);
    if (c.safe || !c.fetch_from.empty()) break;
  }
  const auto own = std::ranges::find(election.ranking, config_.name, &Candidate::name);
  return own != election.ranking.end() && others_fetch(*own, election);
}

// Whoever fetches has made its ballot void: without it a less advanced member would seem best.
bool Agent::Impl::others_fetch(const Candidate& own, const Election& election) {
  Revision newest = 0;
  for (const NodeName& name : election.fetching) {
    if (name != config_.name) newest = std::max(newest, view_->ballots.at(name).revision);
  }
  if (newest == 0 || own.fetch_from.empty()) return false;
  if (std::exchange(fetch_seen_, newest) != newest) fetch_seen_at_ = now_;
  const MonoTime limit = fetch_seen_at_ + kFetchWithin + kFetchPatience;
  if (now_ >= limit) return false;
  wake_at(limit);
  set_phase(Phase::kCandidate, "another one fetches WAL first: " + election.summary);
  return true;
}

// One that may not lead has more and is about to say so: its receiver is slow to stop.
bool Agent::Impl::awaits_source(const Election& election) {
  const MonoTime limit = contest_since_ + kFetchWithin;
  const bool promised = view_->sync && !view_->sync->value.generations.empty();
  if (promised || now_ >= limit || following_epoch(view_->leader->value.epoch)) return false;
  for (const NodeName& name : election.missing) {
    const MemberRecord* m = view_->member(name);
    const bool ballots = m != nullptr && m->nofailover &&
                         m->state == to_string(Phase::kBalloting) &&
                         m->epoch == view_->leader->value.epoch;
    if (!ballots || m->timeline != located_->timeline || m->flush_lsn <= located_->lsn) continue;
    wake_at(limit);
    set_phase(Phase::kCandidate,
              fmt::format("{} may not lead and has WAL up to {}: its ballot is waited for",
                          name.str(), m->flush_lsn.to_string()));
    return true;
  }
  return false;
}

bool Agent::Impl::begin_fetch(const Candidate& own) {
  if (own.fetch_from.empty() || now_ < fetch_again_) return false;
  if (upstream_of(own.fetch_from).host.empty()) return false;
  const Position& upto = view_->ballots.at(own.fetch_from).value.position;
  fetch_ = Fetch{own.fetch_from, upto, located_->lsn, now_, now_};
  note(LogLevel::kInfo, "fetching",
       fmt::format("{} may not lead and has WAL up to {}; here it ends at {}", own.fetch_from.str(),
                   upto.to_string(), located_->to_string()));
  void_ballot();
  return true;
}

// Rule 8: the ballot is void, confirmed, and the intent is gone before the receiver runs. Both
// ballots compare the one before: whichever comes late is not applied.
void Agent::Impl::void_ballot() {
  set_phase(Phase::kBalloting, "fetching the WAL of " + fetch_->from.str());
  Ballot ballot = view_->ballots.at(config_.name).value;
  ballot.answers = 0;
  ballot.fetching = view_->leader_revision;
  commit(TxnKind::kBallot, {{{keys_.leader(), view_->leader_revision},
                             {keys_.ballot(config_.name), ballot_revision()}},
                            {{keys_.ballot(config_.name), encode(ballot)}}});
}

// False: it goes on. Afterwards the receiver is stopped, and the ballot placed, as at first.
bool Agent::Impl::fetched() {
  if (pg_.flush_lsn > fetch_->seen) {
    fetch_->seen = pg_.flush_lsn;
    fetch_->progress_at = now_;
  }
  const bool complete = pg_.timeline == fetch_->upto.timeline && pg_.flush_lsn >= fetch_->upto.lsn;
  const MonoTime limit =
      std::min(fetch_->since + kFetchWithin, fetch_->progress_at + kFetchPatience);
  if (complete || now_ >= limit) {
    note(complete ? LogLevel::kInfo : LogLevel::kWarn, complete ? "fetched" : "not fetched",
         fmt::format("WAL of {} up to {} of {}", fetch_->from.str(), pg_.flush_lsn.to_string(),
                     fetch_->upto.to_string()));
    fetch_again_ = now_ + kFetchAgain;
    fetch_.reset();
    return true;
  }
  wake_at(limit);
  if (txn_pending(TxnKind::kBallot)) return false;
  const auto own = view_->ballots.find(config_.name);
  if (own != view_->ballots.end() && own->second.value.answers != 0) {
    void_ballot();
  } else if (local_.ballot_intent) {
    local_.ballot_intent.reset();
    persist({});
  } else if (pg_.upstream != fetch_->from) {
    // Nothing has to be held for us; a slot it may not have yet.
    Upstream source = upstream_of(fetch_->from);
    source.without_slot = true;
    run(op::SetUpstream{std::move(source)});
  }
  return false;
}

}  // namespace bascule::control
