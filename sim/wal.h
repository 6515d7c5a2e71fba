// Write-ahead log and data directory of the model. A record stands for a run of bytes: two records
// with the same id are the same bytes, so divergence that real PostgreSQL would not notice shows.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "control/events.h"

namespace bascule::sim {

enum class WalKind : uint8_t { kCommit, kOther, kCheckpoint, kShutdown, kTimeline };

struct WalRecord {
  uint64_t id = 0;      // of the content
  uint64_t commit = 0;  // the client's transaction, for kCommit
  uint64_t start = 0;   // byte positions: [start, end)
  uint64_t end = 0;
  uint32_t timeline = 0;
  WalKind kind = WalKind::kOther;
  bool by_hand = false;  // written by a server that somebody promoted: nobody's history
};

// A line of a timeline history file: `timeline` was left at `end`.
struct Fork {
  uint32_t timeline = 0;
  uint64_t end = 0;
};

inline constexpr uint64_t kSegmentBytes = 16 << 20;
inline constexpr uint64_t kFirstLsn = 0x1000000;

// A logical replication slot with `failover`: see sim/failover_slot.h.
struct LogicalSlot {
  uint64_t confirmed = 0;   // confirmed_flush_lsn
  uint64_t saved = 0;       // ... as a crash leaves it
  bool synced = false;      // a copy of the primary's; means nothing on a primary
  bool temporary = false;   // a copy that is not sound yet: gone with the worker
  uint64_t sound_from = 0;  // ... until the primary's has come so far
};

struct DataDirectory {
  control::DataDir state = control::DataDir::kEmpty;
  uint64_t system_id = 0;
  std::vector<WalRecord> wal;
  size_t flushed = 0;  // so many records are durable
  uint32_t timeline = 0;
  std::vector<Fork> ancestors;            // oldest first
  uint32_t checkpoint_timeline = 0;       // pg_control
  bool clean = false;                     // pg_control says "shut down"
  uint32_t max_timeline = 0;              // highest id of any history file seen
  uint64_t oldest = kFirstLsn;            // WAL before this has been recycled
  std::map<std::string, uint64_t> slots;  // physical slots with their restart position
  // In runs with a consumer of a failover slot.
  std::optional<LogicalSlot> logical;
  std::map<std::string, uint64_t> confirmed_by;  // physical slots, as their users have moved them

  uint64_t end() const { return wal.empty() ? kFirstLsn : wal.back().end; }
  uint64_t flushed_end() const { return flushed == 0 ? kFirstLsn : wal[flushed - 1].end; }
  control::Origin origin() const;  // of the current timeline
  void drop_temporary_slots() {
    if (logical && logical->temporary) logical.reset();
  }
  // Only the first `count` records are left.
  void keep(size_t count);
  // Index of the first record that begins at `lsn` or later.
  size_t index_at(uint64_t lsn) const;
  // Where this history leaves `tli`; 0 if it isn't an ancestor. UINT64_MAX for the current one.
  uint64_t left_at(uint32_t tli) const;
};

// As recovery leaves it: two timelines behind it, `records` of WAL with contents from
// `next_content`.
void restore_backup(DataDirectory& target, size_t records, uint64_t& next_content);

enum class RewindOutcome {
  kRewound,
  kNotRequired,  // pg_rewind's word: same timeline id, or nothing beyond the fork. Proves nothing
  kFailed,       // no common ancestor
};
// pg_rewind as PostgreSQL 15 does it: it looks at the timeline ids of both last checkpoints first.
RewindOutcome pg_rewind(DataDirectory& target, const DataDirectory& source);
// pg_basebackup: everything that is durable at the source, no slots.
void pg_basebackup(DataDirectory& target, const DataDirectory& source);

}  // namespace bascule::sim
