// Invariant 6: an operator's request is carried out at most once, and says how it ended.
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
      if (w.key == truth_.keys.leader()) {
        const auto leader = control::decode_leader(*w.value);
        if (!leader || !leader->vacant() || leader->request_id.empty()) continue;
        auto& epochs = handed_over_[leader->request_id];
        epochs.insert(leader->epoch.value);
        if (epochs.size() > 1 && !truth_.store_damaged) {
          world().violation("requests", fmt::format("request {} released the record in {} epochs",
                                                    leader->request_id, epochs.size()));
        }
      } else if (w.key == truth_.keys.request()) {
        const auto request = control::decode_request(*w.value);
        if (!request) continue;
        if (const auto it = ended_.find(request->id);
            it != ended_.end() && it->second != request->outcome && !truth_.store_damaged) {
          world().violation("requests", fmt::format("request {} ended as '{}' and then as '{}'",
                                                    request->id, it->second, request->outcome));
        }
        if (!request->outcome.empty()) {
          ended_[request->id] = request->outcome;
          open_.erase(request->id);
          world().count(request->outcome == "done" ? "requests.done"
                                                   : "requests.refused_or_failed");
        } else {
          if (request->confirms(last_)) open_.erase(last_.id);  // it goes on under this one
          open_.insert(request->id);
        }
        last_ = *request;
      }
    }
  }

  void finish() override {
    if (open_.empty() || truth_.store_damaged) return;
    world().violation("requests",
                      fmt::format("request {} has no outcome at the end", *open_.begin()));
  }

 private:
  std::map<std::string, std::set<uint64_t>> handed_over_;
  std::map<std::string, std::string> ended_;
  std::set<std::string> open_;
  control::RequestRecord last_;
};

}  // namespace

std::unique_ptr<Checker> make_requests(Truth& truth) { return std::make_unique<Requests>(truth); }

}  // namespace bascule::sim
