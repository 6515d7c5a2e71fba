#include "control/lease.h"

#include <algorithm>

namespace bascule::control {
namespace {

constexpr size_t kQuestionsMax = 32;

}  // namespace

std::optional<MonoTime> LeaseReader::heard(MonoTime asked, const LeaseWord& word) {
  const bool went_back = !open_.empty() && word.clock < open_.back().answered;
  if (word.epoch != epoch_ || went_back) {
    epoch_ = word.epoch;
    open_.clear();
    since_.reset();
  }
  while (!open_.empty() && open_.front().answered < word.proved) {
    since_ = open_.front().asked;
    open_.pop_front();
  }
  if (open_.size() == kQuestionsMax) open_.pop_front();
  open_.push_back({asked, word.clock});
  if (!since_ || word.clock >= word.deadline) return std::nullopt;
  return *since_ + (word.deadline - word.proved) * 9 / 10;  // its clock may run slower than ours
}

}  // namespace bascule::control
