#include "control/history.h"

#include <algorithm>

namespace bascule::control {

Lineage lineage(const std::map<Epoch, HistoryRecord>& history, Epoch tip) {
  Lineage line;
  std::optional<Lsn> end;
  for (auto it = history.find(tip); it != history.end();) {
    const HistoryRecord& h = it->second;
    line.push_back({h.epoch, h.timeline, h.fork.lsn, end});
    end = h.fork.lsn;
    if (h.parent_epoch.value == 0) break;
    it = history.find(h.parent_epoch);
  }
  std::ranges::reverse(line);
  return line;
}

std::optional<Place> place(const Lineage& line, const Position& position) {
  if (!position.known()) return std::nullopt;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i].timeline != position.timeline) continue;
    if (line[i].end && position.lsn > *line[i].end) return std::nullopt;
    return Place{i, position.lsn};
  }
  return std::nullopt;
}

Timeline next_timeline(const std::map<Epoch, HistoryRecord>& history, Timeline at_least) {
  Timeline highest = at_least;
  for (const auto& [epoch, h] : history) highest = std::max(highest, h.timeline);
  return Timeline{highest.value + 1};
}

}  // namespace bascule::control
