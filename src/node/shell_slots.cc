// What the shell does about replication slots of its own accord.
#include <algorithm>

#include "node/shell_shared.h"

namespace bascule::node {
namespace {

namespace op = control::op;

constexpr Nanos kSlotsAgain = 300s;
constexpr Nanos kQuietAfter = 3s;  // of streaming
constexpr Nanos kTroubleFirst = 2s, kTroubleMost = 60s;

}  // namespace

// Not beside an operation, which may be about to promote or to stop this server.
void Shell::maybe_keep_slots(control::PgStatus& status) {
  if (!leaving_ && running_.id == 0 && ops_.empty() && shared_->slots.due(status)) {
    deps_.pool.submit([shared = shared_] { shared->slots.look(); });
  }
  SlotKeeper::Report report = shared_->slots.report();
  status.slots = std::move(report.slots);
  status.pending_restart |= report.restart;
}

void Shell::prepare_slots(std::vector<std::string> slots,
                          std::map<std::string, control::PermanentSlot> permanent,
                          std::optional<control::Upstream> leader) {
  shared_->slots.want(permanent, std::move(leader));
  slots_wanted_ = std::move(slots);
  slots_of_others_ = std::move(permanent);
}

// Each trouble is said once.
void Shell::permanent_slots_looked_at(std::vector<std::string> troubles) {
  for (const std::string& trouble : troubles) {
    if (std::ranges::find(slot_troubles_, trouble) == slot_troubles_.end()) {
      remark("permanent slot missing", trouble);
    }
  }
  slots_retry_after_ = troubles.empty()         ? Nanos::zero()
                       : slot_troubles_.empty() ? kTroubleFirst
                                                : std::min(2 * slots_retry_after_, kTroubleMost);
  slots_retry_at_ = troubles.empty() ? MonoTime::max() : deps_.loop.now() + slots_retry_after_;
  slot_troubles_ = std::move(troubles);
}

// The agent asks for them when they or the members change, and takes what PostgreSQL says for good.
void Shell::maybe_retry_permanent_slots(const control::PgStatus& status) {
  if (status.run != control::PgRun::kPrimary) {
    slot_troubles_.clear();
    slots_retry_at_ = MonoTime::max();
    return;
  }
  if (deps_.loop.now() < slots_retry_at_ || leaving_ || running_.id != 0 || !ops_.empty()) return;
  slots_retry_at_ = deps_.loop.now() + kTroubleMost;  // should it be cancelled
  ops_.push_back({kOwnOp, op::EnsureSlots{{}, {}, slots_of_others_}});
  next_op();
}

void Shell::maybe_prepare_slots(const control::PgStatus& status) {
  const bool streaming = status.run == control::PgRun::kStandby && status.receiver_streaming;
  if (!streaming) {
    streaming_since_ = {};
    // A primary makes others than a standby needs.
    if (status.run == control::PgRun::kPrimary) slots_prepared_.reset();
    return;
  }
  if (streaming_since_ == MonoTime{}) streaming_since_ = status.sampled_at;
  // Again from time to time: one that a cascaded standby has left would hold WAL for ever.
  const bool prepared =
      slots_prepared_ == slots_wanted_ && status.sampled_at - slots_prepared_at_ < kSlotsAgain;
  if (status.sampled_at - streaming_since_ < kQuietAfter || prepared || leaving_ ||
      running_.id != 0 || !ops_.empty()) {
    return;
  }
  slots_prepared_at_ = status.sampled_at;
  slots_prepared_ = slots_wanted_;  // also should it fail: the promotion creates what is missing
  ops_.push_back({kOwnOp, op::EnsureSlots{slots_wanted_, {}, slots_of_others_}});
  next_op();
}

}  // namespace bascule::node
