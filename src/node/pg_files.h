// Texts that PostgreSQL reads and writes, as pure functions: configuration, connection strings,
// names of synchronous standbys, output of pg_controldata and pg_waldump.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/types.h"
#include "control/events.h"
#include "control/sync_set.h"
#include "node/config.h"

namespace bascule::node {

inline constexpr char kConfName[] = "bascule.conf";
inline constexpr char kDynamicConfName[] = "bascule.dynamic.conf";

// A standby waits for a name that nobody has. Backends and walsenders of a promoted standby may
// learn late of the names that are set for it (backends from the checkpointer): until then a commit
// waits instead of being acknowledged alone.
inline const std::vector<std::string> kNobody = {"bascule_nobody"};

// What changes in bascule.conf from operation to operation.
struct ServerSettings {
  std::optional<control::Upstream> upstream;
  std::vector<std::string> sync_standbys;
  // While a ballot is out: conflicts never hold replay up.
  bool cancel_conflicts = false;
  size_t sync_count = 1;
  std::map<std::string, std::string> floors{};  // of a standby, see standby_floors()
};

struct ConfInputs {
  const NodeConfig& config;
  int version_major = 15;
  std::string sync_name;  // application_name of our receiver
  std::string passfile;
};

// bascule.conf in full. Parameters of the user first: the last one wins.
std::string render_conf(const ConfInputs& inputs, const ServerSettings& settings);
// `rendered`, with what operations set (ServerSettings but floors) as it is in `present`, a
// bascule.conf. `present` as it is where that can't be told apart.
std::string with_operations_of(std::string_view rendered, std::string_view present);
std::string render_hba(const NodeConfig& config);
std::string render_ident(const NodeConfig& config, std::string_view os_user);
std::string render_passfile(const NodeConfig& config);
// Names of the parameters that render_conf sets for safety: nobody else may.
const std::vector<std::string>& owned_parameters();

// The cluster's dynamic parameters. `mark`: what a session that has read them shows as
// bascule.parameters.
struct DynamicConf {
  std::string text;
  std::string mark;
};
DynamicConf render_dynamic(const std::map<std::string, std::string>& parameters);
std::map<std::string, std::string> parse_dynamic(std::string_view text);
// Refuses what is no parameter, is managed by Bascule, or would end replication.
bool is_parameter_name(std::string_view name);
Status check_dynamic(const std::map<std::string, std::string>& parameters);

// 'it''s' as in postgresql.conf: ' and \ doubled.
std::string quote_conf(std::string_view value);
// A value inside a libpq connection string: 'it\'s'.
std::string quote_conninfo(std::string_view value);
// For libpq. Several ("a:1,b:2", of a followed cluster): whichever accepts writes.
struct Hosts {
  std::string hosts, ports;
  std::string session = "any";  // target_session_attrs
};
Hosts hosts_of(const control::Upstream& upstream);
std::string render_hosts(const control::Upstream& upstream);
std::string render_conninfo(const ConfInputs& inputs, const control::Upstream& upstream);

// FIRST 1 ("a"), or ANY 2 ("a","b","c") where there are several; empty for none.
std::string render_sync_standbys(const std::vector<std::string>& names, size_t count = 1);
// Back from what the server shows. Not of our form: kInvalid.
Result<control::SyncSetting> parse_sync_standbys(std::string_view text);

// postgresql.conf with our include as its last line; unchanged when it is there.
std::string with_include(std::string_view postgresql_conf);
// Where recovery ends: kept in a directory that a new cluster is made from (a backup, to a point in
// time), and removed from any other.
enum class RecoveryTarget { kRemove, kKeep };
// postgresql.auto.conf without parameters that we own; `removed` gets their names.
std::string without_owned(std::string_view auto_conf, RecoveryTarget target,
                          std::vector<std::string>& removed);

struct StandbyMinimum {
  int value = 0;      // the primary's, as it last wrote it
  int otherwise = 0;  // PostgreSQL's default
};

struct ControlData {
  uint64_t system_id = 0;
  int version_major = 0;  // from the catalog version's file, not here: 0
  std::string state;      // "shut down", "in production", …
  Timeline checkpoint_timeline;
  Lsn checkpoint;  // start of the latest checkpoint record
  uint64_t segment_bytes = 0;
  std::map<std::string, StandbyMinimum> standby_minima;  // by parameter
  bool cleanly_stopped() const { return state == "shut down" || state == "shut down in recovery"; }
};
Result<ControlData> parse_controldata(std::string_view output);

// End of the WAL record of `total_bytes` that begins at `start`: page headers counted in, aligned
// to 8 (src/include/access/xlog_internal.h: 24 bytes a page, 40 on a segment's first).
Lsn wal_record_end(Lsn start, uint64_t total_bytes, uint64_t segment_bytes);

// So many bytes from `lsn` on, where a record begins, hold the record's header and no byte of the
// next one: page headers before and within it count.
uint64_t wal_header_bytes(Lsn lsn, uint64_t segment_bytes);

// Where a timeline begins, by the text of its history file: the switch point of its last line
// ("1\t0/3000148\treason"). 0: it does not say.
Lsn begin_in_history(std::string_view text);

struct WalRecord {
  std::string manager;      // "XLOG"
  std::string description;  // "CHECKPOINT_SHUTDOWN redo …"
  uint64_t total_bytes = 0;
};
// The first line of pg_waldump's output.
Result<WalRecord> parse_waldump_line(std::string_view output);

// Percentage in a progress line of pg_basebackup or pg_rewind ("12/67 kB (18%), …").
std::optional<int> parse_progress(std::string_view piece);

// The last messages of PostgreSQL's log that say why it ended, for people. Statements and data of
// clients, which the log may quote, are left out: this goes to the store and to the API.
std::string why_it_ended(std::string_view log);

// The name of the segment that holds a position: timeline, then its number in two parts
// (https://www.postgresql.org/docs/15/wal-internals.html).
std::string wal_file_name(const Position& position, uint64_t segment_bytes);

// The name of a timeline's history file: "00000003.history".
std::string history_file_name(Timeline timeline);

}  // namespace bascule::node
