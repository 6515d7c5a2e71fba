#include "node/sampler.h"

#include <fmt/format.h>

#include <utility>

namespace bascule::node {
namespace {

using control::PgRun;
using control::PgStatus;

constexpr Nanos kSessionLife = 1s;
constexpr Nanos kToolWithin = 10s;
constexpr uint64_t kDataRoom = 1 << 20;

// In recovery or not is asked first of all columns, and positions of our own last, so that a
// promotion in between can at worst show a primary as a standby for one more sample. All in one
// statement, for this is what an agent does all day. A name has no tabs and line ends: PostgreSQL
// allows printable characters only.
constexpr char kQuery[] =
    "SELECT pg_is_in_recovery(),"
    " (SELECT timeline_id FROM pg_control_checkpoint()),"
    " coalesce(pg_last_wal_replay_lsn()::text, ''),"
    " coalesce((SELECT pid FROM pg_stat_wal_receiver WHERE status = 'streaming'), 0),"
    " coalesce((SELECT latest_end_lsn::text FROM pg_stat_wal_receiver), ''),"
    " coalesce(current_setting('bascule.upstream', true), ''),"
    " current_setting('synchronous_standby_names'),"
    " (SELECT string_agg(concat_ws('\t', application_name, state = 'streaming',"
    " coalesce(flush_lsn::text, ''), coalesce(replay_lsn::text, '')), '\n'"
    " ORDER BY application_name, pid)"
    " FROM pg_stat_replication"
    " WHERE pid <> pg_backend_pid() AND state IN ('catchup', 'streaming')),"
    " CASE WHEN pg_is_in_recovery() THEN 0 ELSE"
    " (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    " AND xact_start IS NOT NULL"
    " AND NOT (application_name = 'bascule' AND usename = current_user)) END,"
    " CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn()::text END";

// A recovery target that was reached is no reason for a restart.
constexpr char kSettingsQuery[] =
    "SELECT EXISTS (SELECT FROM pg_settings WHERE pending_restart AND name NOT LIKE "
    "'recovery_target%'), pg_size_bytes(current_setting('wal_segment_size'))";

// Of what waits for a restart: is a limit lowered that standbys must not undercut?
constexpr char kPendingLowersQuery[] =
    "SELECT EXISTS (SELECT FROM pg_settings s WHERE pending_restart"
    " AND name IN ('max_connections', 'max_worker_processes', 'max_wal_senders',"
    " 'max_prepared_transactions', 'max_locks_per_transaction')"
    " AND (SELECT CASE WHEN f.setting ~ '^[0-9]{1,9}$' THEN f.setting::int END"
    " FROM pg_file_settings f WHERE f.name = s.name ORDER BY seqno DESC LIMIT 1)"
    " < s.setting::int)";

Lsn lsn_of(const std::optional<std::string>& text) {
  return text ? Lsn::parse(*text).value_or(Lsn{}) : Lsn{};
}

std::vector<std::string> split(std::string_view text, char by) {
  std::vector<std::string> out;
  for (;;) {
    const size_t end = text.find(by);
    out.emplace_back(text.substr(0, end));
    if (end == std::string_view::npos) return out;
    text.remove_prefix(end + 1);
  }
}

// As kQuery lists them.
std::vector<control::WalSender> senders_in(const std::optional<std::string>& list) {
  std::vector<control::WalSender> out;
  if (!list) return out;
  for (const std::string& line : split(*list, '\n')) {
    const auto parts = split(line, '\t');
    if (parts.size() != 4) continue;
    out.push_back({parts[0], parts[1] == "t", lsn_of(parts[2]), lsn_of(parts[3])});
  }
  return out;
}

bool is_true(const std::optional<std::string>& text) { return text == "t"; }

}  // namespace

void Sampler::forget_stopped() {
  const std::lock_guard lock(mutex_);
  directory_.reset();
  stopped_.reset();
  progress_.clear();
}

void Sampler::set_progress(std::string progress) {
  const std::lock_guard lock(mutex_);
  progress_ = std::move(progress);
}

void Sampler::look_at_files(PgStatus& status) {
  if (status.data != control::DataDir::kReady) return;
  {
    const std::lock_guard lock(mutex_);
    if (stopped_) {
      status.system_id = stopped_->system_id;
      status.timeline = status.checkpoint_timeline = stopped_->checkpoint_timeline;
      return;
    }
  }
  auto control = server_.control_data(server_.within(kToolWithin));
  if (!control) return;
  status.system_id = control->system_id;
  status.timeline = status.checkpoint_timeline = control->checkpoint_timeline;
  const std::lock_guard lock(mutex_);
  stopped_ = *control;
}

Status Sampler::ensure_session(const Bound& bound) {
  if (session_ && server_.clock().now() - session_since_ < kSessionLife) return {};
  session_.reset();
  if (!server_.says_ready(session_of_)) return fail(ErrorCode::kUnavailable, "starting up");
  auto session = server_.replication_session(bound);
  if (!session) return std::unexpected(session.error());
  // Not at every sample: pg_settings is slow.
  auto settings = session->query(kSettingsQuery, bound);
  if (!settings) return std::unexpected(settings.error());
  const Row& row = settings->at(0);
  pending_restart_ = is_true(row[0]);
  segment_bytes_ = strtoull(row[1].value_or("").c_str(), nullptr, 10);
  pending_lowers_ = false;
  if (pending_restart_) {
    auto lowers = session->value(kPendingLowersQuery, bound);
    if (!lowers) return std::unexpected(lowers.error());
    pending_lowers_ = *lowers == "t";
  }
  session_ = std::move(*session);
  identified_.reset();
  session_since_ = server_.clock().now();
  return {};
}

Status Sampler::look_at_server(PgStatus& status, const Bound& bound) {
  if (auto done = ensure_session(bound); !done) return done;
  auto rows = session_->query(kQuery, bound);
  if (!rows) return std::unexpected(rows.error());
  const Row& row = rows->at(0);
  status.run = is_true(row[0]) ? PgRun::kStandby : PgRun::kPrimary;
  // A primary's identity and timeline stay what they are; where it is the row says.
  const bool known = identified_ && status.run == PgRun::kPrimary;
  if (!known) {
    auto system = identify_system(*session_, bound);
    if (!system) return std::unexpected(system.error());
    identified_ = *system;
    status.flush_lsn = system->position.lsn;
  } else {
    status.flush_lsn = lsn_of(row[9]);
  }
  status.system_id = identified_->system_id;
  status.timeline = identified_->position.timeline;
  if (status.run != PgRun::kPrimary) identified_.reset();
  status.checkpoint_timeline.value =
      static_cast<uint32_t>(strtoul(row[1].value_or("0").c_str(), nullptr, 10));
  // A receiver says "streaming" before it was served. One that is refused (no slot, WAL gone) is
  // soon replaced by the next.
  const int receiver = atoi(row[3].value_or("0").c_str());
  status.receiver_streaming = receiver != 0 && receiver == std::exchange(receiver_, receiver);
  status.receiver_new = receiver != 0 && !status.receiver_streaming;
  status.upstream_lsn = lsn_of(row[4]);
  if (row[5] && !row[5]->empty()) {
    if (auto name = NodeName::parse(*row[5])) status.upstream = *name;
  }
  if (auto setting = parse_sync_standbys(row[6].value_or(""))) {
    status.sync_standbys = std::move(setting->names);
    status.sync_count = setting->count;
  } else {
    status.sync_standbys = {row[6].value_or("")};  // somebody else's: shown as it is
  }
  status.replay_lsn = lsn_of(row[2]);
  const bool standby = status.run == PgRun::kStandby;
  if (!standby || status.upstream == control::followed_cluster())
    status.senders = senders_in(row[7]);
  if (standby) return {};
  status.running_transactions = atoi(row[8].value_or("0").c_str());
  status.replay_lsn = status.flush_lsn;
  status.upstream.reset();
  return {};
}

// Once a session: what a server that answers has below it only our own operations change.
control::DataDir Sampler::look_at_directory() {
  const bool answers = session_ && server_.clock().now() - session_since_ < kSessionLife;
  {
    const std::lock_guard lock(mutex_);
    if (answers && directory_) return *directory_;
  }
  const control::DataDir state = server_.data_dir_state();
  const std::lock_guard lock(mutex_);
  directory_ = state;
  return state;
}

// A directory that does not answer is no full one.
control::DiskFull Sampler::look_at_disks() {
  const auto below = [&](const std::string& path, uint64_t room) {
    const auto free = server_.disk().free_bytes(path);
    return free && *free < room;
  };
  if (below(server_.data("pg_wal"), segment_bytes_)) return control::DiskFull::kWal;
  return below(server_.config().data_dir, kDataRoom) ? control::DiskFull::kData
                                                     : control::DiskFull::kNo;
}

PgStatus Sampler::sample(env::Pid postmaster, bool processes) {
  PgStatus status;
  status.sampled_at = server_.clock().now();
  if (postmaster != session_of_) {
    session_.reset();
    connected_once_ = false;
    session_of_ = postmaster;
  }
  status.data = look_at_directory();
  status.disk_full = look_at_disks();
  {
    const std::lock_guard lock(mutex_);
    status.progress = progress_;
  }
  if (postmaster == 0) {
    if (processes) status.run = PgRun::kStarting;
    if (!processes) look_at_files(status);
    return status;
  }
  const auto bound = server_.within(server_.config().probe_deadline);
  if (auto done = look_at_server(status, bound); !done) {
    session_.reset();
    status.run =
        !connected_once_ || says_not_yet(done.error()) ? PgRun::kStarting : PgRun::kUnresponsive;
    return status;
  }
  connected_once_ = true;
  status.pending_restart = pending_restart_;
  status.pending_lowers = pending_lowers_;
  return status;
}

}  // namespace bascule::node
