#include "control/sync_set.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <tuple>

namespace bascule::control {
namespace {

constexpr Millis kFoundGrace{400};  // nothing is known of a standby before the first samples
constexpr Millis kGrace{1000};      // for the first standby of a new leader to connect
constexpr Millis kSteady{5000};  // nobody is replaced for the region's sake by one that just came

bool contains(const std::vector<std::string>& list, const std::string& item) {
  return std::ranges::find(list, item) != list.end();
}

void add_to(std::vector<std::string>& list, const std::vector<std::string>& more) {
  for (const std::string& item : more) {
    if (!contains(list, item)) list.push_back(item);
  }
}

size_t quorum_of(size_t voters, size_t count, const UnsafeMutations& unsafe) {
  const size_t q = voters == 0 ? 0 : voters - std::min(count, voters) + 1;
  return unsafe.short_quorum ? std::min<size_t>(q, 1) : q;
}

Generation with_quorum(Epoch epoch, const Leader& leader, std::vector<std::string> voters,
                       size_t count, const UnsafeMutations& unsafe) {
  std::ranges::sort(voters);
  const size_t q = quorum_of(voters.size(), count, unsafe);
  return {epoch, leader.name, leader.sync_name, std::move(voters), q};
}

}  // namespace

SyncSetting setting_of(const Generation& generation) {
  if (generation.voters.empty()) return {};
  return {generation.voters, generation.voters.size() - generation.quorum + 1};
}

Generation make_generation(Epoch epoch, const Leader& leader, SyncSetting setting,
                           const UnsafeMutations& unsafe) {
  return with_quorum(epoch, leader, std::move(setting.names), setting.count, unsafe);
}

void SyncSet::in_force_from_start(SyncSetting setting, Confirm confirm, MonoTime now) {
  found(std::move(setting), now);
  must_confirm_ = confirm == Confirm::kYes && !setting_.empty();
  grace_until_ = now + kGrace;
}

void SyncSet::found(SyncSetting setting, MonoTime now) {
  setting_ = std::move(setting);
  least_count_ = SIZE_MAX;
  several_before_ = false;
  known_ = true;
  overridden_ = false;
  before_.clear();
  forget_marker();
  applying_ = false;
  must_confirm_ = false;
  health_.clear();
  grace_until_ = now + kFoundGrace;
}

void SyncSet::applying() { applying_ = true; }

// What was in force may still be, for somebody.
void SyncSet::supersede() {
  add_to(before_, setting_.names);
  several_before_ = several_before_ || setting_.names.size() > 1;
  if (!setting_.empty()) least_count_ = std::min(least_count_, setting_.count);
}

void SyncSet::forget_marker() {
  marker_.reset();
  passed_at_.reset();
  passed_lsn_.reset();
}

void SyncSet::applied(SyncSetting setting, Lsn marker, MonoTime now) {
  supersede();
  setting_ = std::move(setting);
  forget_marker();
  marker_ = marker;
  marker_checkpointed_ = checkpointed_;
  applied_at_ = now;
  applying_ = false;
}

void SyncSet::apply_failed(const SyncSetting& setting) {
  add_to(before_, setting.names);
  several_before_ = several_before_ || setting.names.size() > 1;
  if (!setting.empty()) least_count_ = std::min(least_count_, setting.count);
  forget_marker();
  applying_ = false;
}

void SyncSet::observe(const PgStatus& status, const std::vector<SyncCandidate>& candidates,
                      Millis patience, MonoTime now) {
  senders_ = status.senders;
  candidates_ = candidates;
  sampled_at_ = status.sampled_at;
  observed_at_ = now;
  next_change_ = now + patience;
  checkpointed_ = status.timeline.value != 0 && status.checkpoint_timeline == status.timeline;
  const SyncSetting seen{status.sync_standbys, status.sync_count};
  const bool other =
      seen.names != setting_.names || (!seen.empty() && seen.count != setting_.count);
  if (known_ && !applying_ && other) {
    supersede();
    setting_ = seen;
    forget_marker();
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
  for (auto& [name, h] : health_) {
    if (!h.streaming || !good(name, now, patience)) {
      h.steady_since = {};
    } else if (h.steady_since == MonoTime{}) {
      h.steady_since = now;
    }
  }
  if (all_passed()) {
    if (!passed_at_) {
      passed_at_ = sampled_at_;
    } else if (!passed_lsn_ && sampled_at_ > *passed_at_) {
      passed_lsn_ = status.flush_lsn;
    }
  }
  if (confirmed()) {
    overridden_ = false;
    before_.clear();
    several_before_ = false;
    least_count_ = SIZE_MAX;
    must_confirm_ = false;
  }
}

bool SyncSet::preferred(const std::string& name) const {
  const auto found = std::ranges::find(candidates_, name, &SyncCandidate::sync_name);
  return found != candidates_.end() && found->preferred;
}

bool SyncSet::steady(const std::string& name, MonoTime now) const {
  const auto it = health_.find(name);
  return it != health_.end() && it->second.steady_since != MonoTime{} &&
         now - it->second.steady_since >= kSteady;
}

bool SyncSet::good(const std::string& name, MonoTime now, Millis patience) const {
  const auto found = std::ranges::find(candidates_, name, &SyncCandidate::sync_name);
  const bool candidate = found != candidates_.end();
  if (candidate && found->leaving) return false;
  const auto it = health_.find(name);
  const MonoTime last = it == health_.end() ? MonoTime{} : it->second.last_good;
  if (contains(setting_.names, name) && now < grace_until_) return true;
  // By the last sample: while none comes (the primary itself hangs) standbys are not the ones to
  // blame, and "alone" would leave nobody who may be elected.
  return (candidate || contains(setting_.names, name)) && last != MonoTime{} &&
         observed_at_ - last <= patience;
}

// Everybody who could release a commit under an older setting has flushed the marker or is gone.
bool SyncSet::all_passed() const {
  if (!marker_ || setting_.empty() || sampled_at_ < applied_at_) return false;
  return std::ranges::none_of(senders_, [&](const WalSender& s) {
    const bool concerned =
        contains(setting_.names, s.application_name) || contains(before_, s.application_name);
    return concerned && s.flush_lsn < *marker_;
  });
}

bool SyncSet::confirmed() const {
  if (!all_passed() || (several_before_ && !passed_lsn_)) return false;
  const Lsn needed = several_before_ ? *passed_lsn_ : *marker_;
  const auto have_it = std::ranges::count_if(senders_, [&](const WalSender& s) {
    return contains(setting_.names, s.application_name) && s.flush_lsn >= needed;
  });
  return static_cast<size_t>(have_it) >= setting_.count;
}

SyncSetting SyncSet::wanted(const ClusterConfig& config, MonoTime now) const {
  if (config.sync_mode == SyncMode::kQuorum) return wanted_quorum(config, now);
  const std::string one = wanted_one(config, now);
  return one.empty() ? SyncSetting{} : SyncSetting{{one}, 1};
}

std::string SyncSet::wanted_one(const ClusterConfig& config, MonoTime now) const {
  const SyncCandidate* best = nullptr;
  for (const SyncCandidate& c : candidates_) {
    const auto it = health_.find(c.sync_name);
    if (it == health_.end() || !it->second.streaming) continue;
    if (!good(c.sync_name, now, config.sync_degrade_after)) continue;
    const auto key = [](const SyncCandidate& s) {
      return std::tuple(s.preferred, s.priority, s.flush_lsn);
    };
    if (!best || key(c) > key(*best)) best = &c;
  }
  for (const std::string& name : setting_.names) {
    if (!good(name, now, config.sync_degrade_after)) continue;
    const bool better = best && best->preferred && !preferred(name) && steady(best->sync_name, now);
    return better ? best->sync_name : name;
  }
  if (best) return best->sync_name;
  if (config.sync_strict && !setting_.empty()) {
    return setting_.names[0];  // block rather than degrade
  }
  return "";
}

// All that keep up; who does not any more leaves, because each voter more makes an election need
// one more ballot.
SyncSetting SyncSet::wanted_quorum(const ClusterConfig& config, MonoTime now) const {
  std::vector<std::string> names;
  for (const std::string& name : setting_.names) {
    if (good(name, now, config.sync_degrade_after)) names.push_back(name);
  }
  size_t sure = 0;  // who is only waited for, because the leader is new, raises no demand
  for (const SyncCandidate& c : candidates_) {
    const auto it = health_.find(c.sync_name);
    const bool streams = it != health_.end() && it->second.streaming;
    if (!streams || !good(c.sync_name, now, config.sync_degrade_after)) continue;
    ++sure;
    if (!contains(names, c.sync_name)) names.push_back(c.sync_name);
  }
  // Those of the preferred region alone, where they are enough.
  std::vector<std::string> there;
  std::ranges::copy_if(names, std::back_inserter(there), [&](const std::string& name) {
    return preferred(name) && (contains(setting_.names, name) || steady(name, now));
  });
  if (there.size() >= config.sync_count) {
    names = std::move(there);
    sure = names.size();
  }
  size_t held = setting_.empty() ? 0 : setting_.count;
  if (!config.sync_strict) held = std::min(held, names.size());
  const size_t count = std::min(config.sync_count, std::max(sure, held));
  if (names.size() < count) add_to(names, setting_.names);  // strict: block rather than degrade
  std::ranges::sort(names);
  return {std::move(names), std::max<size_t>(count, 1)};
}

SyncStep SyncSet::plan(const SyncRecord& record, Epoch epoch, const Leader& self,
                       const ClusterConfig& config, MonoTime now) const {
  using Kind = SyncStep::Kind;
  if (applying_) return {};
  const auto& gens = record.generations;
  const Generation* own = !gens.empty() && gens.back().epoch == epoch ? &gens.back() : nullptr;
  const auto write = [&](std::vector<std::string> voters, size_t count, bool keep_older,
                         std::string why) {
    SyncStep step{.kind = Kind::kRecord, .record = {}, .names = {}, .why = std::move(why)};
    if (keep_older) step.record.generations.assign(gens.begin(), gens.end() - (own ? 1 : 0));
    step.record.generations.push_back(with_quorum(epoch, self, std::move(voters), count, unsafe_));
    return step;
  };
  const auto apply = [&](SyncSetting setting, std::string why) {
    return SyncStep{.kind = Kind::kApply,
                    .record = {},
                    .names = std::move(setting.names),
                    .count = setting.count,
                    .from_empty = setting_.empty() || overridden_ || !own || own->voters.empty(),
                    .why = std::move(why)};
  };

  if (config.sync_mode == SyncMode::kOff) {
    if (setting_.empty() && gens.empty()) return {};
    if (!setting_.empty() && (!own || !own->voters.empty())) {
      return write({}, 0, true, "synchronous mode is off");
    }
    if (!setting_.empty()) return apply({}, "synchronous mode is off");
    return {.kind = Kind::kRecord, .record = {}, .names = {}, .why = "synchronous mode is off"};
  }
  if (!own) return write({}, 0, true, "first generation of this epoch");

  const SyncSetting want = wanted(config, now);
  const auto wanted_names = [&want] { return fmt::format("{}", fmt::join(want.names, ", ")); };
  if (unsafe_.sync_before_record && !want.empty() && setting_ != want) {
    return apply(want, "mutation: setting before record");
  }
  if (want.empty()) {
    if (!setting_.empty() && !own->voters.empty()) {
      return write({}, 0, true,
                   fmt::format("{} does not acknowledge and no other standby can: going "
                               "on alone",
                               fmt::join(setting_.names, ", ")));
    }
    if (!setting_.empty()) return apply({}, "going on alone: recorded");
    if (gens.size() > 1)
      return write({}, 0, false, "alone: older generations end with this leader");
    return {};
  }
  if (setting_ != want) {
    std::vector<std::string> voters = own->voters;
    const bool joining = voters.empty();
    add_to(voters, want.names);
    // The k that every quorum meets under which a commit may be acknowledged until this is
    // confirmed.
    size_t count = std::min(want.count, least_count_);
    if (!setting_.empty()) count = std::min(count, setting_.count);
    const size_t q = voters.size() - std::min(count, voters.size()) + 1;
    const bool short_of = own->quorum < q && !unsafe_.short_quorum;
    if (!joining && (voters.size() != own->voters.size() || short_of)) {
      return write(
          std::move(voters), count, true,
          fmt::format("{} is to replace {}", wanted_names(), fmt::join(setting_.names, ", ")));
    }
    return apply(want, joining ? fmt::format("{} becomes the synchronous standby", wanted_names())
                               : fmt::format("{} replaces {}", wanted_names(),
                                             fmt::join(setting_.names, ", ")));
  }
  const bool recorded = own->leader == self.name && own->leader_sync_name == self.sync_name &&
                        own->voters == want.names &&
                        own->quorum == quorum_of(want.names.size(), want.count, unsafe_);
  const bool must_confirm = (must_confirm_ || overridden_) && !confirmed();
  if (recorded && gens.size() == 1 && !must_confirm) return {};
  if (recorded && !must_confirm && !checkpointed_) {
    return {.kind = Kind::kNone,
            .record = {},
            .names = {},
            .why = "older generations are kept until the first checkpoint of this timeline"};
  }
  if (!marker_ || (recorded && gens.size() > 1 && checkpointed_ && !marker_checkpointed_)) {
    return apply(want, "confirming the synchronous standby");
  }
  if (confirmed()) {
    return write(want.names, want.count, !marker_checkpointed_,
                 fmt::format("{} has confirmed the change", wanted_names()));
  }
  std::vector<std::string> stragglers;
  for (const WalSender& s : senders_) {
    if (!contains(want.names, s.application_name) && contains(before_, s.application_name) &&
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
          .why = fmt::format("waiting for {} to flush {}", wanted_names(), marker_->to_string())};
}

bool SyncSet::healthy(const SyncRecord& record, Epoch epoch) const {
  if (record.generations.size() != 1 || setting_.empty() || overridden_) return false;
  const Generation& g = record.generations.back();
  if (g.epoch != epoch || g.voters != setting_.names) return false;
  const auto streams = [&](const std::string& name) {
    const auto it = health_.find(name);
    return it != health_.end() && it->second.streaming;
  };
  return static_cast<size_t>(std::ranges::count_if(g.voters, streams)) >= g.quorum;
}

}  // namespace bascule::control
