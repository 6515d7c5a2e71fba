// Invariant 3, by bytes: no two members hold different content at the same timeline and position,
// no member appends to WAL that has diverged, and no timeline id is used twice.
#include <map>
#include <unordered_map>

#include "sim/checkers/checker.h"

namespace bascule::sim {
namespace {

class WalIdentity : public Checker {
 public:
  using Checker::Checker;

  void wal_durable(Endpoint host, const WalRecord& r, uint64_t previous) override {
    if (truth_.runs_by_hand(host)) return;
    const uint64_t system =
        member(host).pg().data().system_id;  // a second initdb is another cluster
    const auto [it, added] =
        content_.try_emplace((static_cast<uint64_t>(r.timeline) << 44) ^ r.start ^ system,
                             Content{r.id, previous, host});
    if (added || truth_.excused(host)) return;
    if (it->second.id != r.id) {
      world().violation("wal_identity", fmt::format("hosts {} and {} hold different WAL at {}/{:X}",
                                                    it->second.host, host, r.timeline, r.start));
    } else if (it->second.previous != previous) {
      world().violation("wal_identity",
                        fmt::format("host {} appended {}/{:X} to WAL that has diverged", host,
                                    r.timeline, r.start));
    }
  }

  void promoted(Endpoint host, uint32_t timeline, uint64_t) override {
    if (truth_.runs_by_hand(host)) return;
    const auto [it, added] = owner_.try_emplace(timeline, host);
    if (!added && !truth_.excused(host)) {
      world().violation("wal_identity",
                        fmt::format("timeline {} was promoted to on host {} and now on host {}",
                                    timeline, it->second, host));
    }
  }

 private:
  struct Content {
    uint64_t id;
    uint64_t previous;
    Endpoint host;
  };
  std::unordered_map<uint64_t, Content> content_;
  std::map<uint32_t, Endpoint> owner_{{1, -1}};
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
