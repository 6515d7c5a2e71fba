// Agent to agent: failsafe (a leader without a store goes on while enough members pledge to follow
// it) and the evidence for an early take-over. ADRs 0024 and 0025 say why neither lets two members
// acknowledge, or loses a commit.
#include "control/agent_impl.h"

namespace bascule::control {
namespace {

constexpr Millis kAskAgain{50};       // after evidence: it has to be confirmed
constexpr Millis kLookAgain{500};     // after none
constexpr Millis kPeerTimeout{1000};  // the shell's bound; beyond it an answer is lost
constexpr int kConfirmations = 2;
constexpr Millis kSilentAgain{150};  // the last of them, for one who was silent for its full time

bool on_loopback(std::string_view url) {
  if (const size_t scheme = url.find("://"); scheme != url.npos) url.remove_prefix(scheme + 3);
  return url.starts_with("127.") || url.starts_with("localhost") || url.starts_with("[::1]") ||
         url == "::1";
}

}  // namespace

RequestId Agent::Impl::ask(const NodeName& member, PeerRequest request) {
  const MemberRecord* m = known().member(member);
  if (!m || m->api_url.empty()) return 0;
  // An API that listens on loopback only: from another host that address is somebody else.
  if (on_loopback(m->api_url) && !on_loopback(m->host)) return 0;
  const RequestId id = next_id_++;
  request.from = config_.name;
  std::erase_if(asked_, [&](const Asked& a) { return now_ >= a.sent_at + kPeerTimeout * 2; });
  asked_.push_back({id, member, request.kind, request.epoch, now_});
  out_.push_back(effect::AskPeer{id, member, m->api_url, std::move(request)});
  return id;
}

void Agent::Impl::on(const event::PeerAnswered& e) {
  const auto found = std::ranges::find_if(asked_, [&](const Asked& a) { return a.id == e.id; });
  if (found == asked_.end()) return;
  const Asked asked = std::move(*found);
  asked_.erase(found);
  if (asked.member == config_.name) return namesake_answered(e);
  if (asked.kind == PeerRequest::Kind::kPledge) return pledge_answered(asked, e);
  looking_ = 0;
  looked_at_ = now_;
  if (e.outcome == PeerOutcome::kAnswered || asked.epoch != looked_epoch_) {
    refused_ = silent_ = 0;
  } else {
    refused_ += e.outcome == PeerOutcome::kRefused ? 1 : 0;
    ++silent_;
  }
}

// ---- a second member of the same name -----------------------------------------------------------

// A configuration file that was copied, say. The record of this name shows another address: whoever
// answers there keeps the name. Where nobody does the member has moved.
bool Agent::Impl::namesake_lives() {
  const MemberRecord* m = view_->member(config_.name);
  const bool elsewhere = m && (m->host != config_.host || m->port != config_.port);
  if (!elsewhere || namesake_absent_ >= kConfirmations) {
    name_is_ours_ = true;
    return false;
  }
  set_phase(Phase::kRefused,
            fmt::format("{}:{} is known as {}: two members can't have one name; waiting until "
                        "nobody answers there",
                        m->host, m->port, config_.name.str()));
  const Millis pause = namesake_absent_ > 0 ? kAskAgain : kPeerTimeout;
  if (namesake_asked_at_ != MonoTime{} && now_ < namesake_asked_at_ + pause) {
    wake_at(namesake_asked_at_ + pause);
    return true;
  }
  namesake_asked_at_ = now_;
  wake_at(now_ + kPeerTimeout);
  if (ask(config_.name, {}) == 0) ++namesake_absent_;  // it has no address that could be asked
  return true;
}

void Agent::Impl::namesake_answered(const event::PeerAnswered& e) {
  // The same data directory: this member itself, whose host has got another name.
  const bool is_one = e.outcome == PeerOutcome::kAnswered && e.reply.sync_name != sync_name() &&
                      e.reply.sync_name.starts_with(config_.name.str() + "_");
  namesake_absent_ = is_one ? 0 : namesake_absent_ + 1;
}

// ---- being asked -------------------------------------------------------------------------------

void Agent::Impl::on(const event::PeerAsked& e) {
  PeerReply reply;
  reply.leading = held_ ? held_->record.epoch : Epoch{};
  reply.sync_name = sync_name();
  if (e.request.kind == PeerRequest::Kind::kPledge) {
    reply.why = no_pledge_because(e.request);
    reply.granted = reply.why.empty();
    if (reply.granted) {
      const Millis ttl = std::max(e.request.ttl, known().leader->value.ttl);
      pledge_ = Pledge{e.request.from, e.request.epoch, now_ + ttl, e.request.flush_lsn};
    }
  }
  out_.push_back(effect::AnswerPeer{e.token, std::move(reply)});
}

// Empty: this member can be bound. What it may have put into the store must not count against the
// leader: no ballot of its own, no take-over, also none whose outcome is unknown (the intent stands
// until a view has shown that the ballot is void and gone).
std::string Agent::Impl::no_pledge_because(const PeerRequest& request) const {
  // In doubt: what was seen before, in this life. Nobody can have led since without its voters.
  const bool trusted = have_view_ && known().leader && (doubt_.empty() || good_);
  if (!trusted) return "has no view of the store to trust";
  const LeaderRecord& leader = known().leader->value;
  if (held_ || leader.vacant() || leader.holder != request.from || leader.epoch != request.epoch ||
      local_.highest_epoch > request.epoch || local_.led_epoch > request.epoch) {
    return fmt::format("knows {} of epoch {} as the leader",
                       leader.vacant() ? "nobody" : leader.holder.str(), leader.epoch.value);
  }
  if (unsafe_.pledge_with_ballot) return "";
  const bool outstanding = local_.ballot_intent || txn_pending(TxnKind::kBallot) ||
                           txn_pending(TxnKind::kTakeOver) || txn_pending(TxnKind::kDropBallot) ||
                           txn_pending(TxnKind::kResume) || txn_pending(TxnKind::kBootstrap) ||
                           known().ballots.contains(config_.name) ||
                           view_->ballots.contains(config_.name);  // brought back by a backup
  return outstanding ? "has a ballot that may count" : "";
}

// Bound to the leader that the store shows: no ballot, no election.
bool Agent::Impl::pledged() const {
  if (!pledge_ || now_ >= pledge_->until || !known().leader || unsafe_.ballot_despite_pledge) {
    return false;
  }
  const LeaderRecord& leader = known().leader->value;
  return !leader.vacant() && leader.holder == pledge_->to && leader.epoch == pledge_->epoch;
}

// ---- failsafe: the leader's side ---------------------------------------------------------------

// Asks for pledges as soon as renewals are overdue: in time before the deadline, and not for every
// answer that is a little late.
void Agent::Impl::keep_failsafe() {
  if (!held_ || stage_ != Stage::kRunning || !crash_.empty() || pg_.run != PgRun::kPrimary ||
      phase_ == Phase::kStandingDown || (!config().failsafe && !good_)) {
    return;
  }
  const Millis every = ClusterConfig::renew_every(held_->record.ttl);
  const MonoTime overdue = held_->renewed_at + every * 2;
  if (now_ < overdue && !good_) {
    if (std::exchange(failsafe_, false)) {
      note(LogLevel::kInfo, "failsafe ended", "the store answers again");
    }
    return wake_at(overdue);
  }
  if (now_ < pledges_asked_at_ + every) return wake_at(pledges_asked_at_ + every);
  pledges_asked_at_ = now_;
  wake_at(now_ + every);
  for (const auto& [name, member] : known().members) {
    if (name == config_.name) continue;
    PeerRequest request;
    request.kind = PeerRequest::Kind::kPledge;
    request.epoch = held_->record.epoch;
    request.ttl = std::max(held_->record.ttl, config().ttl);
    request.flush_lsn = pg_.flush_lsn;
    ask(name, std::move(request));
  }
  extend_by_pledges();
}

void Agent::Impl::pledge_answered(const Asked& asked, const event::PeerAnswered& e) {
  if (!held_ || e.outcome != PeerOutcome::kAnswered || asked.epoch != held_->record.epoch) return;
  if (!e.reply.granted) {
    pledges_.erase(asked.member);
    return;
  }
  pledges_[asked.member] = {asked.sent_at, e.reply.sync_name};
  extend_by_pledges();
}

// As if renewed at the sending of the oldest request among the pledges that are needed.
void Agent::Impl::extend_by_pledges() {
  const auto since = bound_since();
  if (!since || !config().failsafe || now_ >= held_->deadline || pg_down()) return;
  if (now_ < held_->renewed_at + held_->record.ttl / 5) return;
  const MonoTime deadline = fence_at(*since, held_->record);
  if (deadline <= held_->deadline) return;
  hold_until(deadline, *since);
  if (!std::exchange(failsafe_, true)) {
    note(LogLevel::kWarn, "failsafe",
         fmt::format("the store does not answer; {} pledge to follow, so {} goes on",
                     pledges_.size(), config_.name.str()));
  }
}

// Since when so many members are bound that nobody can be elected; nullopt: not so many.
//   synchronous: an election needs ballots from q of the newest generation's voters, so it is
//     impossible while |V| - q + 1 of them are bound;
//   asynchronous, alone, or with a change of the records in doubt: all of the roster.
std::optional<MonoTime> Agent::Impl::bound_since() const {
  if (unsafe_.failsafe_unpledged) return now_;
  std::vector<MonoTime> times;
  const auto& generations =
      known().sync ? known().sync->value.generations : std::vector<Generation>{};
  const Generation* newest = generations.empty() ? nullptr : &generations.back();
  if (newest && newest->quorum > 0 && newest->epoch == held_->record.epoch && !records_in_doubt_) {
    for (const auto& [name, pledge] : pledges_) {
      if (std::ranges::find(newest->voters, pledge.sync_name) != newest->voters.end()) {
        times.push_back(pledge.sent_at);
      }
    }
    const size_t needed =
        newest->voters.size() - std::min(newest->quorum, newest->voters.size()) + 1;
    if (times.size() < needed) return std::nullopt;
    std::ranges::sort(times, std::greater{});
    return times[needed - 1];
  }
  if (!known().roster) return std::nullopt;
  std::vector<NodeName> electable = known().roster->value.members;
  if (records_in_doubt_) {  // whoever is known may just have been added
    for (const auto& [name, member] : known().members) electable.push_back(name);
  }
  MonoTime oldest = now_;  // of nobody else: nobody else can be elected
  for (const NodeName& name : electable) {
    if (name == config_.name) continue;
    const auto pledge = pledges_.find(name);
    if (pledge == pledges_.end()) return std::nullopt;
    oldest = std::min(oldest, pledge->second.sent_at);
  }
  return oldest;
}

// ---- early take-over: the evidence -------------------------------------------------------------

// The record names a leader that may be gone before its time is over. Once suspected, a revision
// stays so: a ballot that answers it may be under way.
bool Agent::Impl::suspected() const {
  if (!view_->leader || view_->leader->value.vacant()) return false;
  return suspected_ == view_->leader_revision || local_.ballot_intent == view_->leader_revision;
}

// Evidence makes an early take-over timely, not safe: wrongly suspected, a leader that renews voids
// the ballots, and one that does not can't have a commit acknowledged (early_obstacle).
void Agent::Impl::watch_leader(const LeaderRecord& leader) {
  const ClusterConfig& c = config();
  if (!c.early_takeover || (!c.synchronous() && !unsafe_.early_when_alone) ||
      leader.phase != LeaderPhase::kRunning || config_.nofailover || view_->paused ||
      pg_.run != PgRun::kStandby) {
    return;
  }
  // A pledge of an earlier life of this process is not remembered, but over by then.
  const MonoTime free_at = started_at_ + std::max(leader.ttl, c.ttl);
  if (now_ < free_at) return wake_at(free_at);
  if (leader.epoch != looked_epoch_) {
    looked_epoch_ = leader.epoch;
    refused_ = silent_ = 0;
  }
  const bool cut_off = cut_off_from(leader);
  const MonoTime quiet_at = leader_seen_at_ + std::min(c.blip_tolerance, leader.ttl);
  if (now_ < quiet_at) wake_at(quiet_at);
  const bool quiet = view_begun_ >= quiet_at;
  if (now_ >= quiet_at && !quiet) request_read();
  if (!cut_off && now_ < quiet_at) {
    refused_ = silent_ = 0;
    was_cut_off_ = false;
    return;
  }
  // A leader may have renewed right before a blip as long as the tolerance: then it is back when
  // the last one is asked (by that time its next renewal was due), and answers.
  const bool last_asked = silent_ + 1 == kConfirmations && looking_ != 0 && looked_at_ >= quiet_at;
  const bool silent_again = last_asked && now_ >= looked_at_ + kSilentAgain;
  if (last_asked && !silent_again) wake_at(looked_at_ + kSilentAgain);
  const bool gone = (cut_off && refused_ >= kConfirmations) ||
                    (quiet && (silent_ >= kConfirmations || silent_again));
  if (gone) {
    suspected_ = view_->leader_revision;
    note(LogLevel::kWarn, "suspected",
         quiet ? fmt::format("{} is silent: no renewal for {} ms, its agent does not answer",
                             leader.holder.str(), to_ms(now_ - leader_seen_at_))
               : fmt::format("{}'s PostgreSQL has closed the connection, and its host says that no "
                             "agent runs there",
                             leader.holder.str()));
    return;
  }
  if (looking_ != 0 && now_ < looked_at_ + kPeerTimeout) return wake_at(looked_at_ + kPeerTimeout);
  const bool just_cut_off = cut_off && !std::exchange(was_cut_off_, cut_off);
  const MonoTime next = looked_at_ + (silent_ > 0 ? kAskAgain : kLookAgain);
  if (now_ < next && !just_cut_off) return wake_at(next);
  PeerRequest request;
  request.epoch = leader.epoch;
  looking_ = ask(leader.holder, std::move(request));
  looked_at_ = now_;
  wake_at(now_ + kPeerTimeout);
}

// Empty: the record may be taken although its holder's time is not over. Its commits wait for k of
// S, |V u S| < q + k, and q voters have stopped receiving: none of them can be acknowledged any
// more. What was, is on one of these q (elect()).
std::string Agent::Impl::early_obstacle() const {
  if (unsafe_.early_when_alone || unsafe_.early_without_voters) return "";
  if (!config().early_takeover) return "early_takeover is off";
  const RequestRecord* request = view_->request ? &view_->request->value : nullptr;
  if (request && request->kind == RequestKind::kFailover && request->force &&
      request->outcome.empty()) {
    return "a forced failover does not ask the voters";
  }
  const auto& generations =
      view_->sync ? view_->sync->value.generations : std::vector<Generation>{};
  if (generations.empty()) return "commits of its leader wait for nobody";
  const Generation& newest = generations.back();
  if (newest.epoch != view_->leader->value.epoch || newest.quorum == 0) {
    return "commits of its leader wait for nobody";
  }
  return "";
}

}  // namespace bascule::control
