#include "control/records.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "control/json_reader.h"

namespace bascule::control {
namespace {

using nlohmann::json;

constexpr std::pair<LeaderPhase, std::string_view> kPhases[] = {
    {LeaderPhase::kVacant, "vacant"},     {LeaderPhase::kPreparing, "preparing"},
    {LeaderPhase::kRunning, "running"},   {LeaderPhase::kDraining, "draining"},
    {LeaderPhase::kStopping, "stopping"},
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
constexpr std::pair<RequestKind, std::string_view> kRequestKinds[] = {
    {RequestKind::kSwitchover, "switchover"},
    {RequestKind::kFailover, "failover"},
};

constexpr size_t kParametersMax = 500;
constexpr size_t kSlotsMax = 100;
constexpr size_t kStepsMax = 200;

constexpr std::pair<TaskKind, std::string_view> kTaskKinds[] = {
    {TaskKind::kRestart, "restart"},
    {TaskKind::kReload, "reload"},
    {TaskKind::kReinit, "reinit"},
    {TaskKind::kSwitchover, "switchover"},
};
constexpr std::pair<StepState, std::string_view> kStepStates[] = {
    {StepState::kWaiting, "waiting"}, {StepState::kRunning, "running"}, {StepState::kDone, "done"},
    {StepState::kFailed, "failed"},   {StepState::kSkipped, "skipped"},
};

json slots_to_json(const std::map<std::string, PermanentSlot>& slots) {
  json out = json::object();
  for (const auto& [name, slot] : slots) {
    out[name] = {{"plugin", slot.plugin}, {"database", slot.database}};
  }
  return out;
}

json to_json(const Position& p) {
  return {{"timeline", p.timeline.value}, {"lsn", p.lsn.to_string()}};
}

}  // namespace

std::string_view to_string(SyncMode mode) { return name_of(kSyncModes, mode); }
std::string_view to_string(LeaderPhase phase) { return name_of(kPhases, phase); }
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
  if (c.rejoin_timeout < 1s || c.rejoin_timeout > 24h) {
    return refuse("rejoin_timeout: out of range", "Choose 1 s to 24 h");
  }
  return {};
}

Keys::Keys(std::string_view cluster) : prefix(fmt::format("/bascule/{}/", cluster)) {}

std::string Keys::history(Epoch e) const {
  return fmt::format("{}history/{:020}", prefix, e.value);
}

// ---- encoding ---------------------------------------------------------------------------------

std::string encode(const ClusterConfig& c) {
  return dump(json{{"ttlMs", c.ttl.count()},
                   {"syncMode", name_of(kSyncModes, c.sync_mode)},
                   {"syncCount", c.sync_count},
                   {"syncStrict", c.sync_strict},
                   {"syncDegradeAfterMs", c.sync_degrade_after.count()},
                   {"onCrash", name_of(kOnCrash, c.on_crash)},
                   {"maximumLagBytes", c.maximum_lag_bytes},
                   {"ballotWindowMs", c.ballot_window.count()},
                   {"drainTimeoutMs", c.drain_timeout.count()},
                   {"promoteTimeoutMs", c.promote_timeout.count()},
                   {"rejoinTimeoutMs", c.rejoin_timeout.count()},
                   {"parameters", c.parameters},
                   {"slots", slots_to_json(c.slots)},
                   {"primaryRegion", c.primary_region},
                   {"failsafe", c.failsafe},
                   {"earlyTakeover", c.early_takeover},
                   {"blipToleranceMs", c.blip_tolerance.count()}});
}

Result<ClusterConfig> decode_config(std::string_view text) {
  JsonReader r(text, "config");
  ClusterConfig c;
  r.duration("ttlMs", c.ttl);
  r.choice("syncMode", kSyncModes, c.sync_mode);
  r.number("syncCount", c.sync_count);
  r.boolean("syncStrict", c.sync_strict);
  r.duration("syncDegradeAfterMs", c.sync_degrade_after);
  r.choice("onCrash", kOnCrash, c.on_crash);
  r.number("maximumLagBytes", c.maximum_lag_bytes);
  r.duration("ballotWindowMs", c.ballot_window);
  r.duration("drainTimeoutMs", c.drain_timeout);
  r.duration("promoteTimeoutMs", c.promote_timeout);
  r.duration("rejoinTimeoutMs", c.rejoin_timeout);
  r.text_map("parameters", kParametersMax, c.parameters);
  r.object_map("slots", kSlotsMax, [&](const std::string& name, JsonReader& slot) {
    PermanentSlot& to = c.slots[name];
    slot.text("plugin", to.plugin);
    slot.text("database", to.database);
  });
  r.text("primaryRegion", c.primary_region);
  r.boolean("failsafe", c.failsafe);
  r.boolean("earlyTakeover", c.early_takeover);
  r.duration("blipToleranceMs", c.blip_tolerance);
  if (auto ok = r.status(); !ok) return std::unexpected(ok.error());
  if (auto ok = validate(c); !ok) return std::unexpected(ok.error());
  return c;
}

std::string encode(const LeaderRecord& l) {
  return dump(json{{"holder", l.holder.str()},
                   {"epoch", l.epoch.value},
                   {"counter", l.counter},
                   {"phase", to_string(l.phase)},
                   {"timeline", l.timeline.value},
                   {"ttlMs", l.ttl.count()},
                   {"why", l.why},
                   {"handoverTo", l.handover_to.str()},
                   {"final", to_json(l.final_position)},
                   {"requestId", l.request_id},
                   {"flushLsn", l.flush_lsn.to_string()}});
}

Result<LeaderRecord> decode_leader(std::string_view text) {
  JsonReader r(text, "leader");
  LeaderRecord l;
  r.name("holder", l.holder);
  r.required("epoch", l.epoch.value);
  r.number("counter", l.counter);
  r.required_choice("phase", kPhases, l.phase);
  r.number("timeline", l.timeline.value);
  r.duration("ttlMs", l.ttl);
  r.text("why", l.why);
  r.name("handoverTo", l.handover_to);
  r.position("final", l.final_position);
  r.text("requestId", l.request_id);
  r.lsn("flushLsn", l.flush_lsn);
  r.check(l.vacant() == l.holder.empty(), "holder and phase contradict each other");
  r.check(l.ttl >= 100ms && l.ttl <= 10min, "ttlMs is out of range");
  return r.finish(std::move(l));
}

std::string encode(const MemberRecord& m) {
  return dump(json{{"name", m.name.str()},
                   {"role", m.role},
                   {"state", m.state},
                   {"reason", m.reason},
                   {"epoch", m.epoch.value},
                   {"timeline", m.timeline.value},
                   {"flushLsn", m.flush_lsn.to_string()},
                   {"replayLsn", m.replay_lsn.to_string()},
                   {"checkpointTimeline", m.checkpoint_timeline.value},
                   {"host", m.host},
                   {"port", m.port},
                   {"apiUrl", m.api_url},
                   {"region", m.region},
                   {"priority", m.priority},
                   {"nofailover", m.nofailover},
                   {"nosync", m.tags.nosync},
                   {"noloadbalance", m.tags.noloadbalance},
                   {"clonefrom", m.tags.clonefrom},
                   {"replicatefrom", m.tags.replicatefrom.str()},
                   {"upstream", m.upstream.str()},
                   {"syncName", m.sync_name},
                   {"systemId", m.system_id},
                   {"pendingRestart", m.pending_restart},
                   {"configProblem", m.config_problem},
                   {"task", m.task},
                   {"taskResult", m.task_result},
                   {"writtenAtMs", m.written_at.time_since_epoch().count()}});
}

Result<MemberRecord> decode_member(std::string_view text) {
  JsonReader r(text, "member");
  MemberRecord m;
  r.name("name", m.name);
  r.text("role", m.role);
  r.text("state", m.state);
  r.text("reason", m.reason);
  r.number("epoch", m.epoch.value);
  r.number("timeline", m.timeline.value);
  r.lsn("flushLsn", m.flush_lsn);
  r.lsn("replayLsn", m.replay_lsn);
  r.number("checkpointTimeline", m.checkpoint_timeline.value);
  r.text("host", m.host);
  r.number("port", m.port);
  r.text("apiUrl", m.api_url);
  r.text("region", m.region);
  r.number("priority", m.priority);
  r.boolean("nofailover", m.nofailover);
  r.boolean("nosync", m.tags.nosync);
  r.boolean("noloadbalance", m.tags.noloadbalance);
  r.boolean("clonefrom", m.tags.clonefrom);
  r.name("replicatefrom", m.tags.replicatefrom);
  r.name("upstream", m.upstream);
  r.text("syncName", m.sync_name);
  r.number("systemId", m.system_id);
  r.boolean("pendingRestart", m.pending_restart);
  r.text("configProblem", m.config_problem);
  r.text("task", m.task);
  r.text("taskResult", m.task_result);
  int64_t written_ms = 0;
  r.number("writtenAtMs", written_ms);
  m.written_at = WallTime(Millis(written_ms));
  r.check(!m.name.empty(), "name is missing");
  r.check(m.port >= 0 && m.port <= 65535, "port is out of range");
  return r.finish(std::move(m));
}

std::string encode(const Ballot& b) {
  return dump(json{{"member", b.member.str()},
                   {"answers", b.answers},
                   {"position", to_json(b.position)},
                   {"receiverLagBytes", b.receiver_lag_bytes},
                   {"syncName", b.sync_name},
                   {"ledEpoch", b.led_epoch.value}});
}

Result<Ballot> decode_ballot(std::string_view text) {
  JsonReader r(text, "ballot");
  Ballot b;
  r.name("member", b.member);
  r.required("answers", b.answers);
  r.position("position", b.position);
  r.number("receiverLagBytes", b.receiver_lag_bytes);
  r.text("syncName", b.sync_name);
  r.number("ledEpoch", b.led_epoch.value);
  r.check(!b.member.empty(), "member is missing");
  r.check(b.position.known(), "position is unknown");
  return r.finish(std::move(b));
}

std::string encode(const SyncRecord& s) {
  json list = json::array();
  for (const Generation& g : s.generations) {
    list.push_back({{"epoch", g.epoch.value},
                    {"leader", g.leader.str()},
                    {"leaderSyncName", g.leader_sync_name},
                    {"voters", g.voters},
                    {"quorum", g.quorum}});
  }
  return dump(json{{"generations", std::move(list)}});
}

Result<SyncRecord> decode_sync(std::string_view text) {
  JsonReader r(text, "sync");
  SyncRecord s;
  r.objects("generations", 64, [&](JsonReader& g) {
    Generation generation;
    g.required("epoch", generation.epoch.value);
    g.name("leader", generation.leader);
    g.text("leaderSyncName", generation.leader_sync_name);
    g.texts("voters", generation.voters);
    g.number("quorum", generation.quorum);
    g.check(!generation.leader.empty(), "leader is missing");
    g.check(generation.quorum <= generation.voters.size() &&
                (generation.quorum == 0) == generation.voters.empty(),
            "quorum does not fit the voters");
    s.generations.push_back(std::move(generation));
  });
  return r.finish(std::move(s));
}

std::string encode(const HistoryRecord& h) {
  return dump(json{{"epoch", h.epoch.value},
                   {"leader", h.leader.str()},
                   {"parentEpoch", h.parent_epoch.value},
                   {"timeline", h.timeline.value},
                   {"fork", to_json(h.fork)},
                   {"reason", h.reason},
                   {"trigger", h.trigger},
                   {"atMs", h.at.time_since_epoch().count()},
                   {"gapMs", h.gap_ms}});
}

Result<HistoryRecord> decode_history(std::string_view text) {
  JsonReader r(text, "history");
  HistoryRecord h;
  r.required("epoch", h.epoch.value);
  r.name("leader", h.leader);
  r.number("parentEpoch", h.parent_epoch.value);
  r.required("timeline", h.timeline.value);
  r.position("fork", h.fork);
  r.text("reason", h.reason);
  r.text("trigger", h.trigger);
  int64_t at_ms = 0;
  r.number("atMs", at_ms);
  h.at = WallTime(Millis(at_ms));
  r.number("gapMs", h.gap_ms);
  r.check(h.parent_epoch < h.epoch, "parentEpoch is not before epoch");
  return r.finish(std::move(h));
}

std::string encode(const RequestRecord& q) {
  return dump(json{{"id", q.id},
                   {"kind", name_of(kRequestKinds, q.kind)},
                   {"candidate", q.candidate.str()},
                   {"force", q.force},
                   {"by", q.by},
                   {"progress", q.progress},
                   {"outcome", q.outcome}});
}

Result<RequestRecord> decode_request(std::string_view text) {
  JsonReader r(text, "request");
  RequestRecord q;
  r.text("id", q.id);
  r.required_choice("kind", kRequestKinds, q.kind);
  r.name("candidate", q.candidate);
  r.boolean("force", q.force);
  r.text("by", q.by);
  r.text("progress", q.progress);
  r.text("outcome", q.outcome);
  r.check(!q.id.empty(), "id is missing");
  return r.finish(std::move(q));
}

std::string encode(const TaskRecord& t) {
  json steps = json::array();
  for (const TaskStep& step : t.steps) {
    steps.push_back(
        {{"member", step.member.str()}, {"state", to_string(step.state)}, {"note", step.note}});
  }
  return dump(json{{"id", t.id},
                   {"kind", to_string(t.kind)},
                   {"steps", std::move(steps)},
                   {"atMs", t.at.time_since_epoch().count()},
                   {"onlyPending", t.only_pending},
                   {"bySwitchover", t.by_switchover},
                   {"stepTimeoutMs", t.step_timeout.count()},
                   {"candidate", t.candidate.str()},
                   {"region", t.region},
                   {"by", t.by},
                   {"askedAtMs", t.asked_at.time_since_epoch().count()},
                   {"outcome", t.outcome}});
}

Result<TaskRecord> decode_task(std::string_view text) {
  JsonReader r(text, "task");
  TaskRecord t;
  r.text("id", t.id);
  r.required_choice("kind", kTaskKinds, t.kind);
  r.objects("steps", kStepsMax, [&](JsonReader& s) {
    TaskStep step;
    s.name("member", step.member);
    s.required_choice("state", kStepStates, step.state);
    s.text("note", step.note);
    s.check(!step.member.empty(), "member is missing");
    t.steps.push_back(std::move(step));
  });
  int64_t at_ms = 0, asked_ms = 0;
  r.number("atMs", at_ms);
  r.number("askedAtMs", asked_ms);
  t.at = WallTime(Millis(at_ms));
  t.asked_at = WallTime(Millis(asked_ms));
  r.boolean("onlyPending", t.only_pending);
  r.boolean("bySwitchover", t.by_switchover);
  r.duration("stepTimeoutMs", t.step_timeout);
  r.name("candidate", t.candidate);
  r.text("region", t.region);
  r.text("by", t.by);
  r.text("outcome", t.outcome);
  r.check(!t.id.empty(), "id is missing");
  return r.finish(std::move(t));
}

std::string encode(const InitRecord& i) {
  return dump(json{{"systemId", i.system_id}, {"by", i.by.str()}});
}

Result<InitRecord> decode_init(std::string_view text) {
  JsonReader r(text, "init");
  InitRecord i;
  r.number("systemId", i.system_id);
  r.name("by", i.by);
  return r.finish(std::move(i));
}

std::string encode(const RosterRecord& roster) {
  return dump(json{{"members", names_to_json(roster.members)}});
}

Result<RosterRecord> decode_roster(std::string_view text) {
  JsonReader r(text, "roster");
  RosterRecord roster;
  r.names("members", roster.members);
  return r.finish(std::move(roster));
}

std::string encode(const SeedRecord& s) {
  return dump(json{{"number", s.number}, {"by", s.by.str()}, {"epoch", s.epoch.value}});
}

Result<SeedRecord> decode_seed(std::string_view text) {
  JsonReader r(text, "seed");
  SeedRecord s;
  r.required("number", s.number);
  r.name("by", s.by);
  r.required("epoch", s.epoch.value);
  return r.finish(std::move(s));
}

// ---- the snapshot
// --------------------------------------------------------------------------------

const MemberRecord* ClusterView::member(const NodeName& name) const {
  const auto it = members.find(name);
  return it == members.end() ? nullptr : &it->second;
}

ClusterView parse_cluster(const Keys& keys, const store::Snapshot& snapshot) {
  return ClusterParser(keys).parse(snapshot);
}

template <typename T>
Result<T> ClusterParser::decode(const store::Entry& entry, Result<T> (*decoder)(std::string_view)) {
  Decoded& last = decoded_[entry.key];
  if (last.text == entry.value) {
    if (const T* value = std::get_if<T>(&last.value)) return *value;
  }
  Result<T> result = decoder(entry.value);
  if (result) last = Decoded{entry.value, *result};
  return result;
}

ClusterView ClusterParser::parse(const store::Snapshot& snapshot) {
  const Keys& keys = keys_;
  // Keys that are gone (ballots, members) would otherwise stay for ever.
  if (decoded_.size() > snapshot.entries.size() + 64) decoded_.clear();
  ClusterView view;
  view.identity = snapshot.identity;
  view.revision = snapshot.revision;
  const auto take = [&](auto decoded, const store::Entry& entry, auto use) {
    if (decoded) {
      use(*std::move(decoded));
    } else {
      view.problems.push_back(
          fmt::format("store key {}: {}", entry.key, decoded.error().to_string()));
    }
  };
  const auto versioned = [](auto& slot, const store::Entry& entry) {
    return [&slot, &entry](auto value) { slot = {std::move(value), entry.revision}; };
  };
  const std::string members = keys.prefix + "members/";
  const std::string ballots = keys.prefix + "ballots/";
  const std::string history = keys.prefix + "history/";
  const std::string tasks = keys.prefix + "tasks/";
  const MonitorKeys monitor(keys.prefix);
  for (const store::Entry& e : snapshot.entries) {
    const std::string_view key = e.key;
    if (key == keys.leader()) {
      view.leader_revision = e.revision;
      take(decode(e, &decode_leader), e, versioned(view.leader, e));
      view.leader_unreadable = !view.leader;
    } else if (key == keys.config()) {
      take(decode(e, &decode_config), e, versioned(view.config, e));
    } else if (key == keys.init()) {
      take(decode(e, &decode_init), e, versioned(view.init, e));
    } else if (key == keys.roster()) {
      take(decode(e, &decode_roster), e, versioned(view.roster, e));
    } else if (key == keys.sync()) {
      take(decode(e, &decode_sync), e, versioned(view.sync, e));
      if (!view.sync) view.leader_unreadable = true;  // nobody can be shown to be safe
    } else if (key == keys.request()) {
      take(decode(e, &decode_request), e, versioned(view.request, e));
    } else if (key == keys.seed()) {
      take(decode(e, &decode_seed), e, versioned(view.seed, e));
    } else if (key == keys.pause()) {
      view.paused = true;
    } else if (key.starts_with(members)) {
      take(decode(e, &decode_member), e,
           [&](MemberRecord m) { view.members[m.name] = std::move(m); });
    } else if (key.starts_with(ballots)) {
      take(decode(e, &decode_ballot), e, [&](Ballot b) {
        if (key == keys.ballot(b.member)) view.ballots[b.member] = {b, e.revision};
      });
    } else if (key.starts_with(history)) {
      take(decode(e, &decode_history), e, [&](HistoryRecord h) {
        if (key == keys.history(h.epoch)) view.history[h.epoch] = std::move(h);
      });
    } else if (key.starts_with(tasks)) {
      take(decode(e, &decode_task), e, [&](TaskRecord t) {
        if (key == keys.task(t.id)) view.tasks[t.id] = {t, e.revision};
      });
    } else if (key.starts_with(monitor.prefix)) {
      if (!view.monitor) view.monitor.emplace();
      auto status = read_monitor_entry(monitor, e, *view.monitor);
      if (!status) view.problems.push_back(status.error().to_string());
    }
  }
  return view;
}

}  // namespace bascule::control
