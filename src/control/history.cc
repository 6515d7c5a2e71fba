#include "control/history.h"

#include <algorithm>

namespace bascule::control {

Lineage lineage(const std::map<Epoch, HistoryRecord>& history, Epoch tip) {
  Lineage line;
  std::optional<Position> end;
  for (auto it = history.find(tip); it != history.end();) {
    const HistoryRecord& h = it->second;
    if (h.following) {
      const Timeline left_on = end ? end->timeline : h.timeline;
      line.push_back({h.epoch, left_on, {}, end ? std::optional(end->lsn) : std::nullopt, true});
      break;  // a cluster never begins to follow another one later on
    }
    line.push_back({h.epoch, h.timeline, h.fork.lsn, end ? std::optional(end->lsn) : std::nullopt});
    end = h.fork;
    if (h.parent_epoch.value == 0) break;
    it = history.find(h.parent_epoch);
  }
  std::ranges::reverse(line);
  return line;
}

Place end_of(const Lineage& line, size_t index) {
  const Segment& s = line[index];
  return {index, s.followed ? s.timeline : Timeline{}, s.end.value_or(Lsn{})};
}

std::optional<Place> place(const Lineage& line, const Position& position) {
  if (!position.known()) return std::nullopt;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i].followed || line[i].timeline != position.timeline) continue;
    if (line[i].end && position.lsn > *line[i].end) return std::nullopt;
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
