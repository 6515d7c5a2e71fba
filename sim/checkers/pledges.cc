// Failsafe: who has pledged to follow a leader neither ballots nor takes over while the pledge
// holds, whatever becomes of its agent; and nobody pledges whose ballot may count.
#include <algorithm>

#include "sim/checkers/checker.h"

namespace bascule::sim {
namespace {

class Pledges : public Checker {
 public:
  using Checker::Checker;

  void pledged(Member& by, const control::PeerRequest& request, MonoTime until) override {
    auto& pledge = truth_.pledges[static_cast<size_t>(by.host())];
    pledge = {request.from, request.epoch, until, by_clock_of(request.from, by, until)};
    if (!leads(*pledge)) return;  // it is not the leader any more: nobody is bound, nothing gained
    const auto ballot = truth_.view().ballots.find(by.name());
    if (ballot != truth_.view().ballots.end() &&
        ballot->second.value.answers == truth_.view().leader_revision) {
      // Out of a backup that it has not seen yet: it can't know.
      if (truth_.was_rolled_back &&
          by.agent()->local().highest_revision > truth_.store.revision()) {
        return world().count("exception.rolled_back_store");
      }
      world().violation("pledges", fmt::format("{} pledges to {} while its ballot counts",
                                               by.name().str(), request.from.str()));
    }
  }

  void commit_sent(Member& m, const store::Txn& txn, control::RequestId, MonoTime sent) override {
    const auto& pledge = truth_.pledges[static_cast<size_t>(m.host())];
    if (!pledge || sent >= pledge->until || !leads(*pledge)) return;
    for (const store::Write& w : txn.writes) {
      if (w.key != truth_.keys.ballot(m.name()) || !w.value) continue;
      world().violation("pledges",
                        fmt::format("{} ballots {} ms before its pledge to {} ends", m.name().str(),
                                    to_ms(pledge->until - sent), pledge->to.str()));
    }
  }

 private:
  MonoTime by_clock_of(const NodeName& leader, Member& by, MonoTime until) {
    const auto it = std::ranges::find(truth_.members, leader,
                                      [](const auto& m) -> const NodeName& { return m->name(); });
    if (it == truth_.members.end()) return {};
    const Nanos left = world().clock(by.host()).true_at(until) - world().now();
    const double rate = world().clock((*it)->host()).rate;
    return world().local((*it)->host()) +
           Nanos(static_cast<int64_t>(static_cast<double>(left.count()) * rate));
  }

  bool leads(const Truth::Pledge& pledge) const {
    const auto& record = truth_.view().leader;
    return record && record->value.holder == pledge.to && record->value.epoch == pledge.epoch;
  }
};

}  // namespace

std::unique_ptr<Checker> make_pledges(Truth& truth) { return std::make_unique<Pledges>(truth); }

}  // namespace bascule::sim
