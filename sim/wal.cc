#include "sim/wal.h"

#include <algorithm>

namespace bascule::sim {

size_t DataDirectory::index_at(uint64_t lsn) const {
  const auto it = std::ranges::lower_bound(wal, lsn, {}, &WalRecord::start);
  return static_cast<size_t>(it - wal.begin());
}

uint64_t DataDirectory::left_at(uint32_t tli) const {
  if (tli == timeline) return UINT64_MAX;
  const auto it = std::ranges::find(ancestors, tli, &Fork::timeline);
  return it == ancestors.end() ? 0 : it->end;
}

control::Origin DataDirectory::origin() const {
  if (ancestors.empty()) return {};
  const uint64_t at = ancestors.back().end;
  const size_t first = index_at(at);
  const bool there = at >= oldest && first < wal.size() && wal[first].timeline == timeline;
  return {Lsn{at}, there ? static_cast<uint32_t>(wal[first].id) : 0};
}

void DataDirectory::keep(size_t count) {
  wal.resize(count);
  flushed = std::min(flushed, count);
  // A timeline none of whose records is there has not been come to.
  while (!ancestors.empty() && (wal.empty() || wal.back().timeline != timeline)) {
    timeline = ancestors.back().timeline;
    ancestors.pop_back();
  }
}

namespace {
void copy_content(DataDirectory& target, const DataDirectory& source) {
  target.wal.assign(source.wal.begin(), source.wal.begin() + static_cast<long>(source.flushed));
  target.flushed = target.wal.size();
  target.timeline = source.timeline;
  target.ancestors = source.ancestors;
  target.checkpoint_timeline = source.checkpoint_timeline;
  target.max_timeline = std::max(target.max_timeline, source.max_timeline);
  target.oldest = source.oldest;
  target.clean = false;
  target.state = control::DataDir::kReady;
  target.keep(target.wal.size());  // its timeline may be one that nothing durable is of
}
}  // namespace

void restore_backup(DataDirectory& target, size_t records, uint64_t& next_content) {
  constexpr uint32_t kTimelines[] = {1, 3, 5};
  constexpr uint64_t kBytes = 200;
  for (size_t i = 0; i < records; ++i) {
    const uint32_t timeline = kTimelines[i * std::size(kTimelines) / records];
    if (i > 0 && target.wal.back().timeline != timeline) {
      target.ancestors.push_back(Fork{target.wal.back().timeline, target.end()});
    }
    const uint64_t start = target.end();
    target.wal.push_back(
        WalRecord{next_content++, 0, start, start + kBytes, timeline, WalKind::kOther});
  }
  target.flushed = target.wal.size();
  target.timeline = target.checkpoint_timeline = target.max_timeline = kTimelines[2];
}

RewindOutcome pg_rewind(DataDirectory& target, const DataDirectory& source) {
  if (target.checkpoint_timeline == source.checkpoint_timeline) {
    target.state = control::DataDir::kReady;
    return RewindOutcome::kNotRequired;
  }
  // The last timeline that both went through ends, for each, where it left it (or ends now).
  uint64_t divergence = 0;
  std::vector<Fork> line = source.ancestors;
  line.push_back(Fork{source.timeline, source.flushed_end()});
  for (const Fork& f : line) {
    const uint64_t left = target.left_at(f.timeline);
    if (left == 0) continue;
    divergence = std::max(divergence, std::min(f.end, left == UINT64_MAX ? target.end() : left));
  }
  if (divergence == 0) return RewindOutcome::kFailed;
  if (target.end() <= divergence) {
    target.state = control::DataDir::kReady;
    return RewindOutcome::kNotRequired;
  }
  copy_content(target, source);
  target.logical.reset();  // pg_replslot is emptied
  target.confirmed_by.clear();
  return RewindOutcome::kRewound;
}

void pg_basebackup(DataDirectory& target, const DataDirectory& source) {
  target = DataDirectory{};
  target.system_id = source.system_id;
  copy_content(target, source);
}

}  // namespace bascule::sim
