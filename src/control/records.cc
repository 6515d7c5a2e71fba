#include "control/records.h"

#include <fmt/format.h>

#include "control/json_fields.h"

namespace bascule::control {
namespace {

constexpr std::pair<LeaderPhase, std::string_view> kPhases[] = {
    {LeaderPhase::kVacant, "vacant"},     {LeaderPhase::kPreparing, "preparing"},
    {LeaderPhase::kRunning, "running"},   {LeaderPhase::kDraining, "draining"},
    {LeaderPhase::kStopping, "stopping"}, {LeaderPhase::kFollowing, "following"},
};
constexpr std::pair<SyncMode, std::string_view> kSyncModes[] = {
    {SyncMode::kOff, "off"},
    {SyncMode::kOn, "on"},
    {SyncMode::kQuorum, "quorum"},
};
constexpr std::pair<OnCrash, std::string_view> kOnCrash[] = {
    {OnCrash::kFailover, "failover"},
    {OnCrash::kRestart, "restart"},
    {OnCrash::kRestartThenFailover, "restart_then_failover"},
};
constexpr std::pair<OnDiskFull, std::string_view> kOnDiskFull[] = {
    {OnDiskFull::kFailover, "failover"},
    {OnDiskFull::kStay, "stay"},
};
constexpr std::pair<SyncRegion, std::string_view> kSyncRegions[] = {
    {SyncRegion::kAny, "any"},
    {SyncRegion::kOther, "other"},
    {SyncRegion::kSame, "same"},
};
constexpr std::pair<DiskFull, std::string_view> kDiskFull[] = {
    {DiskFull::kNo, ""},
    {DiskFull::kData, "data"},
    {DiskFull::kWal, "wal"},
};
constexpr std::pair<RequestKind, std::string_view> kRequestKinds[] = {
    {RequestKind::kSwitchover, "switchover"},
    {RequestKind::kFailover, "failover"},
};

constexpr size_t kParametersMax = 500;
constexpr size_t kSlotsMax = 100;
constexpr size_t kStepsMax = 200;
constexpr size_t kGenerationsMax = 64;

constexpr std::pair<TaskKind, std::string_view> kTaskKinds[] = {
    {TaskKind::kRestart, "restart"}, {TaskKind::kReload, "reload"},
    {TaskKind::kReinit, "reinit"},   {TaskKind::kSwitchover, "switchover"},
    {TaskKind::kRemove, "remove"},
};
constexpr std::pair<StepState, std::string_view> kStepStates[] = {
    {StepState::kWaiting, "waiting"}, {StepState::kRunning, "running"}, {StepState::kDone, "done"},
    {StepState::kFailed, "failed"},   {StepState::kSkipped, "skipped"},
};

}  // namespace

std::string_view to_string(SyncMode mode) { return name_of(kSyncModes, mode); }
std::string_view to_string(LeaderPhase phase) { return name_of(kPhases, phase); }
std::string_view to_string(DiskFull full) { return name_of(kDiskFull, full); }
std::string_view to_string(TaskKind kind) { return name_of(kTaskKinds, kind); }
std::string_view to_string(StepState state) { return name_of(kStepStates, state); }

Status validate(const ClusterConfig& c) {
  const auto refuse = [](std::string what, std::string hint) {
    return fail(ErrorCode::kInvalid, std::move(what), std::move(hint));
  };
  if (c.ttl < 1s || c.ttl > 10min) {
    return refuse(fmt::format("ttl: {} ms is out of range", c.ttl.count()),
                  "Choose 1 s to 10 min; the presets are fast (2 s), default (5 s), wide (30 s)");
  }
  const Millis margin = c.ttl - ClusterConfig::fence_after(c.ttl);
  if (margin < 300ms) {
    return refuse(
        fmt::format("ttl: {} ms leaves {} ms to kill PostgreSQL", c.ttl.count(), margin.count()),
        "At least 300 ms are needed between the fence (0.6 ttl) and the take-over");
  }
  if (c.ballot_window < 10ms || c.ballot_window > c.ttl) {
    return refuse(fmt::format("ballot_window: {} ms is out of range", c.ballot_window.count()),
                  "Choose 10 ms up to ttl");
  }
  if (c.sync_count < 1 || c.sync_count > 8) {
    return refuse(fmt::format("sync_count: {} is out of range", c.sync_count), "Choose 1 to 8");
  }
  if (c.sync_degrade_after < 50ms || c.sync_degrade_after > 10min) {
    return refuse(
        fmt::format("sync_degrade_after: {} ms is out of range", c.sync_degrade_after.count()),
        "Choose 50 ms to 10 min");
  }
  if (c.drain_timeout < 0ms || c.drain_timeout > 10min) {
    return refuse("drain_timeout: out of range", "Choose 0 to 10 min");
  }
  if (c.promote_timeout < 1s || c.promote_timeout > 1h) {
    return refuse("promote_timeout: out of range", "Choose 1 s to 1 h");
  }
  if (c.blip_tolerance < 200ms || c.blip_tolerance > 10min) {
    return refuse("blip_tolerance: out of range", "Choose 200 ms to 10 min");
  }
  if (c.standby_cluster && (c.standby_cluster->host.empty() || c.standby_cluster->port < 1 ||
                            c.standby_cluster->port > 65535)) {
    return refuse("standby_cluster: the address of the primary to follow is missing",
                  "Give standby_cluster.host and standby_cluster.port");
  }
  if (c.rejoin_timeout < 1s || c.rejoin_timeout > 24h) {
    return refuse("rejoin_timeout: out of range", "Choose 1 s to 24 h");
  }
  return {};
}

const NodeName& followed_cluster() {
  static const NodeName name = *NodeName::parse("followed_cluster");
  return name;
}

Keys::Keys(std::string_view cluster) : prefix(fmt::format("/bascule/{}/", cluster)) {}

std::string Keys::history(Epoch e) const {
  return fmt::format("{}history/{:020}", prefix, e.value);
}

// ---- JSON: one description of the fields for both ways --------------------------------

static void fields(auto& f, Of<PermanentSlot> auto& s) {
  f.text("plugin", s.plugin);
  f.text("database", s.database);
}

static void fields(auto& f, Of<StandbyCluster> auto& s) {
  f.text("host", s.host);
  f.number("port", s.port);
  f.text("primarySlotName", s.primary_slot_name);
  f.text("restoreCommand", s.restore_command);
}

static void fields(auto& f, Of<ClusterConfig> auto& c) {
  f.duration("ttlMs", c.ttl);
  f.choice("syncMode", kSyncModes, c.sync_mode);
  f.number("syncCount", c.sync_count);
  f.boolean("syncStrict", c.sync_strict);
  f.duration("syncDegradeAfterMs", c.sync_degrade_after);
  f.choice("onCrash", kOnCrash, c.on_crash);
  f.choice("onDiskFull", kOnDiskFull, c.on_disk_full);
  f.number("failoverLimit", c.failover_limit);
  f.duration("failoverWindowMs", c.failover_window);
  f.choice("syncRegion", kSyncRegions, c.sync_region);
  f.number("maximumLagBytes", c.maximum_lag_bytes);
  f.duration("ballotWindowMs", c.ballot_window);
  f.duration("drainTimeoutMs", c.drain_timeout);
  f.duration("promoteTimeoutMs", c.promote_timeout);
  f.duration("rejoinTimeoutMs", c.rejoin_timeout);
  f.text_map("parameters", kParametersMax, c.parameters);
  f.object_map("slots", kSlotsMax, c.slots);
  f.text("primaryRegion", c.primary_region);
  f.boolean("failsafe", c.failsafe);
  f.boolean("earlyTakeover", c.early_takeover);
  f.duration("blipToleranceMs", c.blip_tolerance);
  f.boolean("regionRelays", c.region_relays);
  f.object("standbyCluster", c.standby_cluster);
}

static void fields(auto& f, Of<LeaderRecord> auto& l) {
  f.name("holder", l.holder);
  f.required("epoch", l.epoch.value);
  f.number("counter", l.counter);
  f.required_choice("phase", kPhases, l.phase);
  f.number("timeline", l.timeline.value);
  f.duration("ttlMs", l.ttl);
  f.text("why", l.why);
  f.name("handoverTo", l.handover_to);
  f.position("final", l.final_position);
  f.text("requestId", l.request_id);
  f.lsn("flushLsn", l.flush_lsn);
  f.check(l.vacant() == l.holder.empty(), "holder and phase contradict each other");
  f.check(l.ttl >= 100ms && l.ttl <= 10min, "ttlMs is out of range");
}

static void fields(auto& f, Of<MemberRecord> auto& m) {
  f.name("name", m.name);
  f.text("role", m.role);
  f.text("state", m.state);
  f.text("reason", m.reason);
  f.number("epoch", m.epoch.value);
  f.number("timeline", m.timeline.value);
  f.lsn("flushLsn", m.flush_lsn);
  f.lsn("replayLsn", m.replay_lsn);
  f.number("checkpointTimeline", m.checkpoint_timeline.value);
  f.text("host", m.host);
  f.number("port", m.port);
  f.text("apiUrl", m.api_url);
  f.text("region", m.region);
  f.number("priority", m.priority);
  f.boolean("nofailover", m.nofailover);
  f.boolean("nosync", m.tags.nosync);
  f.boolean("noloadbalance", m.tags.noloadbalance);
  f.boolean("clonefrom", m.tags.clonefrom);
  f.name("replicatefrom", m.tags.replicatefrom);
  f.name("upstream", m.upstream);
  f.text("syncName", m.sync_name);
  f.number("systemId", m.system_id);
  f.boolean("pendingRestart", m.pending_restart);
  f.boolean("restartFirst", m.restart_first);
  f.choice("diskFull", kDiskFull, m.disk_full);
  f.text_map("slots", kSlotsMax, m.slots);
  f.text("configProblem", m.config_problem);
  f.text("task", m.task);
  f.text("taskResult", m.task_result);
  f.wall("writtenAtMs", m.written_at);
  f.check(!m.name.empty(), "name is missing");
  f.check(m.port >= 0 && m.port <= 65535, "port is out of range");
}

static void origin(auto& f, Of<Origin> auto& o) {
  f.lsn("began", o.at);
  f.number("beganMark", o.mark);
}

static void fields(auto& f, Of<Ballot> auto& b) {
  f.name("member", b.member);
  f.required("answers", b.answers);
  f.number("fetching", b.fetching);
  f.position("position", b.position);
  origin(f, b.origin);
  f.number("receiverLagBytes", b.receiver_lag_bytes);
  f.text("syncName", b.sync_name);
  f.number("ledEpoch", b.led_epoch.value);
  f.check(!b.member.empty(), "member is missing");
  f.check(b.position.known(), "position is unknown");
}

static void fields(auto& f, Of<Generation> auto& g) {
  f.required("epoch", g.epoch.value);
  f.name("leader", g.leader);
  f.text("leaderSyncName", g.leader_sync_name);
  f.texts("voters", g.voters);
  f.number("quorum", g.quorum);
  f.check(!g.leader.empty(), "leader is missing");
  f.check(g.quorum <= g.voters.size() && (g.quorum == 0) == g.voters.empty(),
          "quorum does not fit the voters");
}

static void fields(auto& f, Of<SyncRecord> auto& s) {
  f.objects("generations", kGenerationsMax, s.generations);
}

static void fields(auto& f, Of<HistoryRecord> auto& h) {
  f.required("epoch", h.epoch.value);
  f.name("leader", h.leader);
  f.number("parentEpoch", h.parent_epoch.value);
  f.required("timeline", h.timeline.value);
  f.position("fork", h.fork);
  origin(f, h.origin);
  f.text("reason", h.reason);
  f.text("trigger", h.trigger);
  f.wall("atMs", h.at);
  f.number("silentMs", h.silent_ms);
  f.number("gapMs", h.gap_ms);
  f.number("promoteMs", h.promote_ms);
  f.number("routeMs", h.route_ms);
  f.number("lostBytes", h.lost_bytes);
  f.boolean("following", h.following);
  f.check(h.parent_epoch < h.epoch, "parentEpoch is not before epoch");
}

static void fields(auto& f, Of<RequestRecord> auto& q) {
  f.text("id", q.id);
  f.required_choice("kind", kRequestKinds, q.kind);
  f.name("candidate", q.candidate);
  f.boolean("force", q.force);
  f.boolean("oldPrimaryDead", q.old_primary_dead);
  f.text("by", q.by);
  f.text("progress", q.progress);
  f.text("outcome", q.outcome);
  f.check(!q.id.empty(), "id is missing");
}

static void fields(auto& f, Of<TaskStep> auto& s) {
  f.name("member", s.member);
  f.required_choice("state", kStepStates, s.state);
  f.text("note", s.note);
  f.check(!s.member.empty(), "member is missing");
}

static void fields(auto& f, Of<TaskRecord> auto& t) {
  f.text("id", t.id);
  f.required_choice("kind", kTaskKinds, t.kind);
  f.objects("steps", kStepsMax, t.steps);
  f.wall("atMs", t.at);
  f.wall("askedAtMs", t.asked_at);
  f.boolean("onlyPending", t.only_pending);
  f.boolean("bySwitchover", t.by_switchover);
  f.duration("stepTimeoutMs", t.step_timeout);
  f.name("candidate", t.candidate);
  f.text("region", t.region);
  f.text("by", t.by);
  f.text("outcome", t.outcome);
  f.check(!t.id.empty(), "id is missing");
}

static void fields(auto& f, Of<InitRecord> auto& i) {
  f.number("systemId", i.system_id);
  f.name("by", i.by);
}

static void fields(auto& f, Of<RosterRecord> auto& roster) { f.names("members", roster.members); }

static void fields(auto& f, Of<SeedRecord> auto& s) {
  f.required("number", s.number);
  f.name("by", s.by);
  f.required("epoch", s.epoch.value);
}

static void fields(auto& f, Of<RemovedRecord> auto& r) {
  f.text("syncName", r.sync_name);
  f.text("by", r.by);
}

std::string encode(const ClusterConfig& c) { return write_record(c); }
Result<ClusterConfig> decode_config(std::string_view text) {
  auto config = read_record<ClusterConfig>(text, "config");
  if (!config) return config;
  if (auto ok = validate(*config); !ok) return std::unexpected(ok.error());
  return config;
}
std::string encode(const LeaderRecord& l) { return write_record(l); }
Result<LeaderRecord> decode_leader(std::string_view text) {
  return read_record<LeaderRecord>(text, "leader");
}
std::string encode(const MemberRecord& m) { return write_record(m); }
Result<MemberRecord> decode_member(std::string_view text) {
  return read_record<MemberRecord>(text, "member");
}
std::string encode(const Ballot& b) { return write_record(b); }
Result<Ballot> decode_ballot(std::string_view text) { return read_record<Ballot>(text, "ballot"); }
std::string encode(const SyncRecord& s) { return write_record(s); }
Result<SyncRecord> decode_sync(std::string_view text) {
  return read_record<SyncRecord>(text, "sync");
}
std::string encode(const HistoryRecord& h) { return write_record(h); }
Result<HistoryRecord> decode_history(std::string_view text) {
  return read_record<HistoryRecord>(text, "history");
}
std::string encode(const RequestRecord& q) { return write_record(q); }
Result<RequestRecord> decode_request(std::string_view text) {
  return read_record<RequestRecord>(text, "request");
}
std::string encode(const TaskRecord& t) { return write_record(t); }
Result<TaskRecord> decode_task(std::string_view text) {
  return read_record<TaskRecord>(text, "task");
}
std::string encode(const InitRecord& i) { return write_record(i); }
Result<InitRecord> decode_init(std::string_view text) {
  return read_record<InitRecord>(text, "init");
}
std::string encode(const RosterRecord& roster) { return write_record(roster); }
Result<RosterRecord> decode_roster(std::string_view text) {
  return read_record<RosterRecord>(text, "roster");
}
std::string encode(const RemovedRecord& r) { return write_record(r); }
Result<RemovedRecord> decode_removed(std::string_view text) {
  return read_record<RemovedRecord>(text, "removed");
}
std::string encode(const SeedRecord& s) { return write_record(s); }
Result<SeedRecord> decode_seed(std::string_view text) {
  return read_record<SeedRecord>(text, "seed");
}

}  // namespace bascule::control
