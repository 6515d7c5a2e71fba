// Invariant 7: a blip shorter than the tolerance causes no failover, and trouble causes no
// ping-pong: no more changes of leader than disturbances, and calm soon after they end.
// Invariant 8: every decision carries a reason.
#include "sim/checkers/checker.h"

namespace bascule::sim {
namespace {

class Stability : public Checker {
 public:
  using Checker::Checker;

  // An initdb or a start that is made to fail: somebody else shall try.
  void operation_done(Member&, const control::Op& op, const Result<control::OpData>& r) override {
    const bool starts = std::holds_alternative<control::op::InitDb>(op) ||
                        std::holds_alternative<control::op::StartPrimary>(op);
    if (starts && !r && r.error().message.ends_with("(injected)")) ++failures_;
  }

  void store_applied(const store::Txn& txn, store::Revision, Endpoint) override {
    for (const store::Write& w : txn.writes) {
      if (!w.value || !w.key.starts_with(history_prefix_)) continue;
      const auto record = control::decode_history(*w.value);
      if (!record || record->epoch.value <= newest_) continue;
      newest_ = record->epoch.value;
      ++changes_;
      world().count("elections");
      if (truth_.store_damaged) continue;
      if (truth_.blips_only && truth_.disturbances > 0) {
        world().violation("stability",
                          fmt::format("epoch {} ({}: {}) though every disturbance was a blip",
                                      newest_, record->trigger, record->reason));
      }
      const int disturbances = truth_.disturbances + failures_;
      if (changes_ > 2 * disturbances + 4) {
        world().violation("stability", fmt::format("{} changes of leader after {} disturbances",
                                                   changes_, disturbances));
      }
      if (truth_.healed_at > SimTime{0} && ++after_healing_ > 4) {
        world().violation("stability", fmt::format("{} changes of leader since everything healed",
                                                   after_healing_));
      }
    }
  }

 private:
  const std::string history_prefix_ = truth_.keys.prefix + "history/";
  uint64_t newest_ = 0;
  int changes_ = 0;
  int failures_ = 0;
  int after_healing_ = 0;
};

class Reasons : public Checker {
 public:
  using Checker::Checker;

  void agent_stepped(Member& m) override {
    const control::Agent& agent = *m.agent();
    const control::Phase phase = agent.phase();
    const auto i = static_cast<size_t>(m.host());
    if (phase != last_[i]) {
      last_[i] = phase;
      world().count(fmt::format("phase.{}", control::to_string(phase)));
    }
    if (phase == control::Phase::kLeading || phase == control::Phase::kFollowing ||
        phase == control::Phase::kStandbyLeading) {
      return;
    }
    if (agent.reason().empty()) {
      world().violation("reasons", fmt::format("{} is {} without a reason", m.name().str(),
                                               control::to_string(phase)));
    }
  }

  void noted(Member& m, const control::effect::Note& note) override {
    if (note.why.empty() || note.what.empty()) {
      world().violation("reasons",
                        fmt::format("{} notes '{}' without a reason", m.name().str(), note.what));
    }
  }

 private:
  std::array<control::Phase, kHostsMax> last_{};
};

}  // namespace

std::unique_ptr<Checker> make_stability(Truth& truth) { return std::make_unique<Stability>(truth); }
std::unique_ptr<Checker> make_reasons(Truth& truth) { return std::make_unique<Reasons>(truth); }

}  // namespace bascule::sim
