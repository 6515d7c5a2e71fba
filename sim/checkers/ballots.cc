// What the election stands on: while a ballot that answers the current leader revision is in the
// store, no byte arrives at its member; and every synchronous setting is covered by the recorded
// generation: S within V, |V u S| < q + k.
#include <algorithm>
#include <optional>

#include "sim/checkers/checker.h"

namespace bascule::sim {
namespace {

class Ballots : public Checker {
 public:
  using Checker::Checker;

  void store_applied(const store::Txn& txn, store::Revision revision, Endpoint) override {
    for (const store::Write& w : txn.writes) {
      if (w.key == leader_key_) leader_revision_ = revision;
      if (!w.key.starts_with(ballots_prefix_)) continue;
      for (auto& m : truth_.members) {
        if (w.key != truth_.keys.ballot(m->name())) continue;
        auto& ballot = ballots_[static_cast<size_t>(m->host())];
        ballot.reset();
        if (!w.value) continue;
        const auto decoded = control::decode_ballot(*w.value);
        if (decoded) ballot = *decoded;
        world().count("ballots");
        if (!ballot || ballot->answers != leader_revision_) continue;
        const uint64_t end = m->pg().data().flushed_end();
        const DataDirectory& d = m->pg().data();
        const bool by_hand = d.flushed > 0 && d.wal[d.flushed - 1].by_hand;
        if (end > ballot->position.lsn.value && !by_hand) grown(m->host(), end, *ballot);
        if (m->pg().receiver_streaming()) {
          world().violation("ballots",
                            fmt::format("{} ballots while its receiver streams", m->name().str()));
        }
      }
    }
  }

  void wal_durable(Endpoint host, const WalRecord& r, uint64_t) override {
    const auto& ballot = ballots_[static_cast<size_t>(host)];
    if (!ballot || ballot->answers != leader_revision_ || r.by_hand) return;
    // Rewinding and cloning replace WAL; that is no acknowledgement.
    if (r.end > ballot->position.lsn.value) grown(host, r.end, *ballot);
  }

 private:
  void grown(Endpoint host, uint64_t end, const control::Ballot& ballot) {
    if (truth_.store_damaged) return;
    world().violation(
        "ballots", fmt::format("host {} holds WAL up to {:X} while its ballot says {:X}", host, end,
                               ballot.position.lsn.value));
  }
  const std::string leader_key_ = truth_.keys.leader();
  const std::string ballots_prefix_ = truth_.keys.prefix + "ballots/";
  store::Revision leader_revision_ = 0;
  std::array<std::optional<control::Ballot>, kHostsMax> ballots_;
};

class SyncRule : public Checker {
 public:
  using Checker::Checker;

  void operation_begun(Member& m, const control::Op& op) override {
    const std::vector<std::string>* setting = nullptr;
    size_t count = 1;
    const auto look = [&](const std::vector<std::string>& names, size_t k) {
      setting = &names;
      count = k;
    };
    if (const auto* o = std::get_if<control::op::SetSync>(&op)) look(o->standbys, o->count);
    if (const auto* o = std::get_if<control::op::Promote>(&op)) {
      look(o->sync_standbys, o->sync_count);
    }
    if (const auto* o = std::get_if<control::op::StartPrimary>(&op)) {
      look(o->sync_standbys, o->sync_count);
    }
    if (setting == nullptr || truth_.store_damaged) return;
    const auto& record = truth_.view().sync;
    if (!record) return;
    const auto& all = record->value.generations;
    const auto mine = std::ranges::find_if(all.rbegin(), all.rend(),
                                           [&](const auto& g) { return g.leader == m.name(); });
    // No voters: only the leader itself may be elected, which is right under every setting.
    if (mine == all.rend() || mine->voters.empty()) return;
    std::vector<std::string> joined = mine->voters;
    bool within = true;
    for (const std::string& name : *setting) {
      if (std::ranges::find(joined, name) != joined.end()) continue;
      joined.push_back(name);
      within = false;
    }
    const bool covered = !setting->empty() && within && joined.size() < mine->quorum + count;
    if (!covered) {
      world().violation(
          "sync_rule",
          fmt::format("{} {} sets {} of '{}' while the record has {} voters, quorum {}",
                      m.name().str(), control::op_name(op), count, fmt::join(*setting, ", "),
                      mine->voters.size(), mine->quorum));
    }
  }
};

}  // namespace

std::unique_ptr<Checker> make_ballots(Truth& truth) { return std::make_unique<Ballots>(truth); }
std::unique_ptr<Checker> make_sync_rule(Truth& truth) { return std::make_unique<SyncRule>(truth); }

}  // namespace bascule::sim
