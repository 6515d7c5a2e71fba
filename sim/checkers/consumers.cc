// What a consumer of a failover slot was sent is the history of the leader in the end: in order,
// from where it asked, nothing left out and nothing that is not there. What it had not confirmed
// may come again, when it asks again; what was written before a slot was made anew may be missing
// (which scripts forbid, and runs count).
#include <algorithm>

#include "sim/checkers/checker.h"

namespace bascule::sim {
namespace {

class Consumers : public Checker {
 public:
  using Checker::Checker;

  void consumer_asked(Endpoint host, uint64_t from) override {
    sessions_.push_back({host, from, made_at_, {}});
  }
  void consumer_slot_made(Endpoint, uint64_t at) override { made_at_ = at; }
  void consumer_sent(Endpoint, const WalRecord& r) override {
    sessions_.back().sent.push_back(r);
    world().count("consumer.commits");
  }

  void finish() override {
    const Member* leader = truth_.leading();
    if (leader == nullptr || truth_.parted || sessions_.empty()) return;
    const auto& wal = leader->pg().data().wal;
    for (size_t i = 0; i < wal.size(); ++i) {
      if (wal[i].kind == WalKind::kCommit) history_.push_back(wal[i]);
    }
    reached_ = history_.cbegin();
    for (const Session& s : sessions_) {
      if (!judge(s)) return;
    }
  }

 private:
  struct Session {
    Endpoint host = -1;
    uint64_t from = 0;
    uint64_t made_at = 0;  // the slot, the last time
    std::vector<WalRecord> sent;
  };

  using At = std::vector<WalRecord>::const_iterator;

  At beyond(uint64_t lsn) const {
    return std::ranges::upper_bound(history_, lsn, {}, &WalRecord::end);
  }

  // The first commit that it must have been sent: anything before the slot was made may be missing.
  At begin_of(const Session& s) const {
    const At asked = beyond(s.from);
    const At kept = beyond(s.made_at);
    if (asked >= kept || s.sent.empty()) return std::max(asked, kept);
    return std::ranges::find(asked, kept, s.sent.front().id, &WalRecord::id);
  }

  bool judge(const Session& s) {
    At next = begin_of(s);
    reached_ = std::max(reached_, beyond(s.made_at));
    if (next > reached_) return missed(s);
    for (const WalRecord& r : s.sent) {
      if (next != history_.cend() && next->id == r.id) {
        ++next;
        continue;
      }
      const auto there = std::ranges::find(std::as_const(history_), r.id, &WalRecord::id);
      if (there == history_.cend()) return broken(s, r, "which is not in the leader's history");
      if (there < next) return broken(s, r, "for the second time");
      return broken(s, r,
                    fmt::format("but not commit {}, which ends at {:X}", next->commit, next->end));
    }
    reached_ = std::max(reached_, next);
    return true;
  }

  // It believes that it has more than it was sent of this history.
  bool missed(const Session& s) {
    world().violation("consumers",
                      fmt::format("the consumer asked host {} for what comes after {:X}, and was "
                                  "never sent commit {}, which ends at {:X}",
                                  s.host, s.from, reached_->commit, reached_->end));
    return false;
  }

  bool broken(const Session& s, const WalRecord& r, const std::string& how) {
    world().violation(
        "consumers",
        fmt::format("the consumer that had everything up to {:X} was sent commit {} (timeline {}, "
                    "ends {:X}) by host {}, {}",
                    s.from, r.commit, r.timeline, r.end, s.host, how));
    return false;
  }

  std::vector<Session> sessions_;
  uint64_t made_at_ = 0;
  std::vector<WalRecord> history_;  // commits of the leader in the end
  At reached_;                      // everything before was sent
};

}  // namespace

std::unique_ptr<Checker> make_consumers(Truth& truth) { return std::make_unique<Consumers>(truth); }

}  // namespace bascule::sim
