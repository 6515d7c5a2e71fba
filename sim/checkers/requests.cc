// Invariant 6: an operator's request is carried out at most once, and says how it ended; and who
// was removed does not lead.
#include <algorithm>
#include <map>
#include <set>

#include "sim/checkers/checker.h"

namespace bascule::sim {
namespace {

class Requests : public Checker {
 public:
  using Checker::Checker;

  void store_applied(const store::Txn& txn, store::Revision, Endpoint) override {
    for (const store::Write& w : txn.writes) {
      if (!w.value) continue;
      if (w.key == leader_key_ && truth_.view().leader) {
        leader_written(truth_.view().leader->value);
      } else if (w.key == request_key_ && truth_.view().request) {
        request_written(truth_.view().request->value);
      }
    }
  }

  void finish() override {
    if (open_.empty() || truth_.store_damaged) return;
    world().violation("requests",
                      fmt::format("request {} has no outcome at the end", *open_.begin()));
  }

 private:
  void leader_written(const control::LeaderRecord& leader) {
    const auto& removed = truth_.view().removed;
    const auto gone = removed.find(leader.holder);
    if (gone != removed.end() && !truth_.store_damaged) {
      const auto holder = std::ranges::find_if(
          truth_.members, [&](const auto& m) { return m->name() == leader.holder; });
      const std::string name = leader.holder.str() + "_" + (*holder)->persisted().incarnation;
      if (name == gone->second.value.sync_name) {
        world().violation("requests", fmt::format("{} leads and was removed", name));
      }
    }
    if (!leader.vacant() || leader.request_id.empty()) return;
    auto& epochs = handed_over_[leader.request_id];
    epochs.insert(leader.epoch.value);
    if (epochs.size() > 1 && !truth_.store_damaged) {
      world().violation("requests", fmt::format("request {} released the record in {} epochs",
                                                leader.request_id, epochs.size()));
    }
  }

  void request_written(const control::RequestRecord& request) {
    if (const auto it = ended_.find(request.id);
        it != ended_.end() && it->second != request.outcome && !truth_.store_damaged) {
      world().violation("requests", fmt::format("request {} ended as '{}' and then as '{}'",
                                                request.id, it->second, request.outcome));
    }
    if (!request.outcome.empty()) {
      ended_[request.id] = request.outcome;
      open_.erase(request.id);
      world().count(request.outcome == "done" ? "requests.done" : "requests.refused_or_failed");
    } else {
      if (request.confirms(last_)) open_.erase(last_.id);  // it goes on under this one
      open_.insert(request.id);
    }
    last_ = request;
  }

  const std::string leader_key_ = truth_.keys.leader();
  const std::string request_key_ = truth_.keys.request();
  std::map<std::string, std::set<uint64_t>> handed_over_;
  std::map<std::string, std::string> ended_;
  std::set<std::string> open_;
  control::RequestRecord last_;
};

}  // namespace

std::unique_ptr<Checker> make_requests(Truth& truth) { return std::make_unique<Requests>(truth); }

}  // namespace bascule::sim
