#include "control/sync_set.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace bascule::control {
namespace {

constexpr Millis kFoundGrace{400};  // nothing is known of a standby before the first samples
constexpr Millis kGrace{1000};      // for the first standby of a new leader to connect

bool contains(const std::vector<std::string>& list, const std::string& item) {
  return std::ranges::find(list, item) != list.end();
}

Generation make(Epoch epoch, const Leader& self, std::vector<std::string> voters) {
  std::ranges::sort(voters);
  const size_t q = voters.size();
  return {epoch, self.name, self.sync_name, std::move(voters), q};
}

}  // namespace

void SyncSet::in_force_from_start(std::vector<std::string> names, Confirm confirm, MonoTime now) {
  found(std::move(names), now);
  must_confirm_ = confirm == Confirm::kYes && !setting_.empty();
  grace_until_ = now + kGrace;
}

void SyncSet::found(std::vector<std::string> names, MonoTime now) {
  setting_ = std::move(names);
  known_ = true;
  overridden_ = false;
  before_.clear();
  marker_.reset();
  applying_ = false;
  must_confirm_ = false;
  health_.clear();
  grace_until_ = now + kFoundGrace;
}

void SyncSet::applying() { applying_ = true; }

void SyncSet::applied(std::vector<std::string> names, Lsn marker, MonoTime now) {
  for (const std::string& n : setting_) {
    if (!contains(before_, n)) before_.push_back(n);
  }
  setting_ = std::move(names);
  marker_ = marker;
  marker_checkpointed_ = checkpointed_;
  applied_at_ = now;
  applying_ = false;
}

void SyncSet::apply_failed(const std::vector<std::string>& names) {
  for (const std::string& n : names) {
    if (!contains(before_, n)) before_.push_back(n);
  }
  marker_.reset();
  applying_ = false;
}

void SyncSet::observe(const PgStatus& status, const std::vector<SyncCandidate>& candidates,
                      Millis patience, MonoTime now) {
  senders_ = status.senders;
  candidates_ = candidates;
  sampled_at_ = status.sampled_at;
  next_change_ = now + patience;
  checkpointed_ = status.timeline.value != 0 && status.checkpoint_timeline == status.timeline;
  if (known_ && !applying_ && status.sync_standbys != setting_) {
    for (const std::string& n : setting_) {
      if (!contains(before_, n)) before_.push_back(n);
    }
    setting_ = status.sync_standbys;
    marker_.reset();
    overridden_ = true;
  }
  for (auto& [name, h] : health_) h.streaming = false;
  for (const WalSender& s : status.senders) {
    Health& h = health_[s.application_name];
    h.streaming = s.streaming;
    // Good: it has everything, or it gets on.
    if (s.streaming && (s.flush_lsn >= status.flush_lsn || s.flush_lsn > h.flush))
      h.last_good = now;
    h.flush = s.flush_lsn;
  }
  if (confirmed()) {
    overridden_ = false;
    before_.clear();
    must_confirm_ = false;
  }
}

bool SyncSet::good(const std::string& name, MonoTime now, Millis patience) const {
  const bool candidate =
      std::ranges::any_of(candidates_, [&](const SyncCandidate& c) { return c.sync_name == name; });
  const auto it = health_.find(name);
  const MonoTime last = it == health_.end() ? MonoTime{} : it->second.last_good;
  if (contains(setting_, name) && now < grace_until_) return true;
  return (candidate || contains(setting_, name)) && last != MonoTime{} && now - last <= patience;
}

// Coming from empty or changing: everybody who could have released a commit under an older setting
// has flushed the marker or is gone.
bool SyncSet::confirmed() const {
  if (!marker_ || setting_.empty() || sampled_at_ < applied_at_) return false;
  bool member_confirmed = false;
  for (const WalSender& s : senders_) {
    const bool named = contains(setting_, s.application_name);
    if (named && s.flush_lsn >= *marker_) member_confirmed = true;
    if ((named || contains(before_, s.application_name)) && s.flush_lsn < *marker_) return false;
  }
  return member_confirmed;
}

std::string SyncSet::wanted(const ClusterConfig& config, MonoTime now) const {
  if (!setting_.empty() && good(setting_[0], now, config.sync_degrade_after)) return setting_[0];
  const SyncCandidate* best = nullptr;
  for (const SyncCandidate& c : candidates_) {
    const auto it = health_.find(c.sync_name);
    if (it == health_.end() || !it->second.streaming) continue;
    if (!good(c.sync_name, now, config.sync_degrade_after)) continue;
    const auto key = [](const SyncCandidate& s) { return std::pair(s.priority, s.flush_lsn); };
    if (!best || key(c) > key(*best)) best = &c;
  }
  if (best) return best->sync_name;
  if (config.sync_strict && !setting_.empty()) return setting_[0];  // block rather than degrade
  return "";
}

SyncStep SyncSet::plan(const SyncRecord& record, Epoch epoch, const Leader& self,
                       const ClusterConfig& config, MonoTime now) const {
  using Kind = SyncStep::Kind;
  if (applying_) return {};
  const auto& gens = record.generations;
  const Generation* own = !gens.empty() && gens.back().epoch == epoch ? &gens.back() : nullptr;
  const auto write = [&](std::vector<std::string> voters, bool keep_older, std::string why) {
    SyncStep step{.kind = Kind::kRecord, .record = {}, .names = {}, .why = std::move(why)};
    if (keep_older) step.record.generations.assign(gens.begin(), gens.end() - (own ? 1 : 0));
    step.record.generations.push_back(make(epoch, self, std::move(voters)));
    return step;
  };
  const auto apply = [&](std::vector<std::string> names, std::string why) {
    return SyncStep{.kind = Kind::kApply,
                    .record = {},
                    .names = std::move(names),
                    .from_empty = setting_.empty() || overridden_ || !own || own->voters.empty(),
                    .why = std::move(why)};
  };

  if (config.sync_mode == SyncMode::kOff) {
    if (setting_.empty() && gens.empty()) return {};
    if (!setting_.empty() && (!own || !own->voters.empty())) {
      return write({}, true, "synchronous mode is off");
    }
    if (!setting_.empty()) return apply({}, "synchronous mode is off");
    return {.kind = Kind::kRecord, .record = {}, .names = {}, .why = "synchronous mode is off"};
  }
  if (!own) return write({}, true, "first generation of this epoch");

  const std::string want = wanted(config, now);
  if (unsafe_.sync_before_record && !want.empty() && (setting_.empty() || setting_[0] != want)) {
    return apply({want}, "mutation: setting before record");
  }
  if (want.empty()) {
    if (!setting_.empty() && !own->voters.empty()) {
      return write({}, true,
                   fmt::format("{} does not acknowledge and no other standby can: going "
                               "on alone",
                               setting_[0]));
    }
    if (!setting_.empty()) return apply({}, "going on alone: recorded");
    if (gens.size() > 1) return write({}, false, "alone: older generations end with this leader");
    return {};
  }
  if (setting_.empty() || setting_[0] != want) {
    std::vector<std::string> voters = own->voters;
    const bool joining = voters.empty();
    if (!joining && !contains(voters, want)) {
      voters.push_back(want);
      return write(std::move(voters), true,
                   fmt::format("{} is to replace {}", want, fmt::join(setting_, ", ")));
    }
    return apply({want}, joining ? fmt::format("{} becomes the synchronous standby", want)
                                 : fmt::format("{} replaces {}", want, fmt::join(setting_, ", ")));
  }
  const bool recorded = own->voters == std::vector<std::string>{want};
  const bool must_confirm = (must_confirm_ || overridden_) && !confirmed();
  if (recorded && gens.size() == 1 && !must_confirm) return {};
  if (recorded && !must_confirm && !checkpointed_) {
    return {.kind = Kind::kNone,
            .record = {},
            .names = {},
            .why = "older generations are kept until the first checkpoint of this timeline"};
  }
  if (!marker_ || (recorded && gens.size() > 1 && checkpointed_ && !marker_checkpointed_)) {
    return apply({want}, "confirming the synchronous standby");
  }
  if (confirmed()) {
    return write({want}, !marker_checkpointed_, fmt::format("{} has confirmed the change", want));
  }
  std::vector<std::string> stragglers;
  for (const WalSender& s : senders_) {
    if (s.application_name != want && contains(before_, s.application_name) &&
        s.flush_lsn < *marker_ && !good(s.application_name, now, config.sync_degrade_after)) {
      stragglers.push_back(s.application_name);
    }
  }
  if (!stragglers.empty()) {
    return {.kind = Kind::kTerminate,
            .record = {},
            .names = std::move(stragglers),
            .why = "still holds an older synchronous setting"};
  }
  return {.kind = Kind::kNone,
          .record = {},
          .names = {},
          .why = fmt::format("waiting for {} to flush {}", want, marker_->to_string())};
}

bool SyncSet::healthy(const SyncRecord& record, Epoch epoch) const {
  if (record.generations.size() != 1 || setting_.size() != 1 || overridden_) return false;
  const Generation& g = record.generations.back();
  if (g.epoch != epoch || g.voters != setting_) return false;
  const auto it = health_.find(setting_[0]);
  return it != health_.end() && it->second.streaming;
}

}  // namespace bascule::control
