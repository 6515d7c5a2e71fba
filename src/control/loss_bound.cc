#include "control/loss_bound.h"

#include <fmt/format.h>

#include <algorithm>

namespace bascule::control {
namespace {

std::string amount(uint64_t bytes) {
  if (bytes < 10240) return fmt::format("{} bytes", bytes);
  if (bytes < (10u << 20)) return fmt::format("{} kB", bytes >> 10);
  return fmt::format("{} MB", bytes >> 20);
}

// Synchronous mode with this member as the only voter: each acknowledged commit is there.
bool has_everything(const ClusterView& view, const MemberRecord& member) {
  if (!view.sync || view.sync->value.generations.size() != 1) return false;
  const Generation& g = view.sync->value.generations.back();
  return g.voters.size() == 1 && g.quorum == 1 && g.voters.front() == member.sync_name;
}

LossBound bound_of(const ClusterView& view, const MemberRecord& member) {
  const LeaderRecord& leader = view.leader->value;
  const bool stopped_cleanly = leader.vacant() && leader.final_position.known();
  const Lsn newest = stopped_cleanly ? leader.final_position.lsn : leader.flush_lsn;
  LossBound out;
  out.member = member.name;
  if (stopped_cleanly) {
    out.none = member.timeline == leader.final_position.timeline &&
               member.flush_lsn >= leader.final_position.lsn;
  }
  out.none = out.none || has_everything(view, member);
  if (member.timeline == leader.timeline && member.flush_lsn.valid()) {
    out.bytes = newest > member.flush_lsn ? newest.value - member.flush_lsn.value : 0;
  }
  if (!stopped_cleanly) {
    out.unknown = leader.ttl * 6 / 10;  // it acknowledges nothing after that
    out.longer_by_pledges = !leader.vacant() && (!view.config || view.config->value.failsafe);
  }
  if (out.none) {
    out.text = "nothing acknowledged is lost: it is the synchronous standby";
    if (leader.vacant()) out.text = "nothing is lost: it has everything";
  } else if (!out.bytes) {
    out.text = "unknown: it is not on the leader's timeline, or has not told its position";
  } else {
    out.text = fmt::format("{} that the leader had {}", amount(*out.bytes),
                           stopped_cleanly ? "when it stopped" : "at its last renewal");
    if (out.unknown > Millis(0)) {
      out.text +=
          fmt::format(", and what it wrote in the at most {} ms after that", out.unknown.count());
      if (out.longer_by_pledges) out.text += " (longer, if the store was away: failsafe is on)";
    }
  }
  return out;
}

}  // namespace

std::vector<LossBound> loss_bounds(const ClusterView& view) {
  std::vector<LossBound> out;
  if (!view.leader) return out;
  for (const auto& [name, member] : view.members) {
    if (name != view.leader->value.holder) out.push_back(bound_of(view, member));
  }
  std::ranges::stable_sort(out, [](const LossBound& a, const LossBound& b) {
    if (a.none != b.none) return a.none;
    if (a.bytes.has_value() != b.bytes.has_value()) return a.bytes.has_value();
    return a.bytes.value_or(0) < b.bytes.value_or(0);
  });
  return out;
}

}  // namespace bascule::control
