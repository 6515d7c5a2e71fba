#include "control/history.h"

#include <algorithm>

namespace bascule::control {

Lineage lineage(const std::map<Epoch, HistoryRecord>& history, Epoch tip) {
  Lineage line;
  const HistoryRecord* next = nullptr;
  for (auto it = history.find(tip); it != history.end();) {
    const HistoryRecord& h = it->second;
    Segment s{h.epoch, h.timeline, h.origin, {}, {}, h.following};
    if (next) {
      s.left = next->fork.lsn;
      s.end = std::max(next->fork.lsn, next->origin.at);
      if (h.following) s.timeline = next->fork.timeline;
    }
    line.push_back(s);
    // A cluster never begins to follow another one later on.
    if (h.following || h.parent_epoch.value == 0) break;
    next = &h;
    it = history.find(h.parent_epoch);
  }
  std::ranges::reverse(line);
  return line;
}

Place left_at(const Lineage& line, size_t index) {
  const Segment& s = line[index];
  return {index, s.followed ? s.timeline : Timeline{}, s.left.value_or(Lsn{})};
}

std::optional<Place> place(const Lineage& line, const Position& position, const Origin& origin) {
  if (!position.known()) return std::nullopt;
  for (size_t i = 0; i < line.size(); ++i) {
    const Segment& s = line[i];
    if (s.followed || s.timeline != position.timeline) continue;
    if (s.end && position.lsn > *s.end) return std::nullopt;
    if (position.lsn < s.begin.at || origin.contradicts(s.begin)) return std::nullopt;
    return Place{i, {}, position.lsn};
  }
  if (line.empty() || !line.front().followed) return std::nullopt;
  const Segment& s = line.front();
  if (s.end && (position.timeline > s.timeline || position.lsn > *s.end)) return std::nullopt;
  return Place{0, position.timeline, position.lsn};
}

Timeline next_timeline(const std::map<Epoch, HistoryRecord>& history, Timeline at_least) {
  Timeline highest = at_least;
  for (const auto& [epoch, h] : history) highest = std::max(highest, h.timeline);
  return Timeline{highest.value + 1};
}

}  // namespace bascule::control
