#include "sim/failover_slot.h"

#include <algorithm>

#include "node/pg_files.h"

namespace bascule::sim {

using namespace control;

namespace {
constexpr Nanos kSilent = millis(5000);         // wal_receiver_timeout of the consumer
constexpr Nanos kQuietAfter = millis(3000);     // node/shell.cc
constexpr Nanos kSlotsAgain = millis(300'000);  // likewise
constexpr double kConsumerRestarts = 0.003;     // at each look
constexpr double kCheckpoint = 0.1;             // that the slot is saved when it moves
constexpr double kReloadSeen = 0.2;             // by a walsender, at each turn of its loop

bool works(const PostgresModel& pg) {
  return pg.any_process() && !pg.hung() &&
         (pg.run() == PostgresModel::Run::kPrimary || pg.run() == PostgresModel::Run::kStandby);
}
}  // namespace

FailoverSlot::FailoverSlot(Truth& truth, Observer& observer, const ConsumerPlan& plan)
    : truth_(truth), observer_(observer), plan_(plan), random_(truth.world.stream("consumer")) {}

void FailoverSlot::start() {
  process_ = world().spawn(kDirectClients);
  consume();
  for (const auto& m : truth_.members) look_at(m->host());
}

// ---- what Bascule writes ------------------------------------------------------------------------

std::vector<std::string> FailoverSlot::slots_in_configuration(const Member& m) const {
  static constexpr std::string_view kSetting = "\nsynchronized_standby_slots = '";
  node::NodeConfig config;
  config.agent = m.config();
  const std::string text = node::render_conf(
      {config, plan_.version, "", ""}, {{}, m.pg().sync_setting(), false, m.pg().sync_count(), {}});
  std::vector<std::string> out;
  size_t at = text.rfind(kSetting);
  if (at == std::string::npos) return out;
  at += kSetting.size();
  for (const size_t end = text.find('\'', at); at < end;) {
    const size_t comma = std::min(text.find(',', at), end);
    out.push_back(text.substr(at, comma - at));
    at = comma + 1;
  }
  return out;
}

bool FailoverSlot::in_configuration(const Member& m) const {
  const auto* agent = m.agent();
  return agent != nullptr && agent->cluster().config &&
         agent->cluster().config->value.slots.contains(kName);
}

bool FailoverSlot::sync_worker_on() const {
  const auto& config = truth_.view().config;
  if (!config) return false;
  const auto set = config->value.parameters.find("sync_replication_slots");
  return set != config->value.parameters.end() && set->second == "on";
}

// ---- slots on disk ------------------------------------------------------------------------------

bool FailoverSlot::carried_by(const Member& standby) const {
  const auto& slot = standby.pg().data().logical;
  return slot && slot->synced && !slot->temporary;
}

void FailoverSlot::ensured(Endpoint host, const op::EnsureSlots& op) {
  PostgresModel& pg = member(host).pg();
  if (pg.run() != PostgresModel::Run::kPrimary || !op.permanent.contains(kName)) return;
  auto& slot = pg.data().logical;
  if (slot) return;
  const uint64_t at = pg.data().flushed_end();
  slot = LogicalSlot{.confirmed = at, .saved = at};
  if (applied_ != 0) world().count("exception.slot_made_anew");
  observer_.consumer_slot_made(host, at);
  world().trace("slot {} made at {:X} on {}", kName, at, member(host).name().str());
  if (applied_ == 0) received_ = applied_ = at;
}

// ---- standby: the worker that keeps slots equal, and what the shell does there ------------------

void FailoverSlot::look_at(Endpoint host) {
  Member& m = member(host);
  Standby& s = standbys_[static_cast<size_t>(host)];
  const bool streams = works(m.pg()) && m.pg().run() == PostgresModel::Run::kStandby &&
                       m.pg().receiver_streaming() && !world().frozen(host);
  if (!streams) {
    s.streaming_since = SimTime{-1};
  } else {
    if (s.streaming_since < SimTime{0}) s.streaming_since = world().now();
    release(m);
    ask_primary(m);
  }
  // Twice its nap after a turn that moved nothing; 200 ms at least.
  world().after(random_ms(random_, 200, 1500), ProcessId::kWorld, [this, host] { look_at(host); });
}

// Shell::maybe_prepare_slots and release_slots: of physical ones those with WAL, of the
// configuration's those that PostgreSQL does not keep itself.
void FailoverSlot::release(Member& m) {
  Standby& s = standbys_[static_cast<size_t>(m.host())];
  if (std::exchange(s.agent, m.agent_process()) != m.agent_process()) s.released_at = SimTime{-1};
  const bool lately = s.released_at >= SimTime{0} && world().now() - s.released_at < kSlotsAgain;
  const bool idle = m.agent_running() && !m.running_op();
  if (lately || !idle || world().now() - s.streaming_since < kQuietAfter) return;
  s.released_at = world().now();
  DataDirectory& d = m.pg().data();
  d.confirmed_by.clear();
  if (d.logical && !d.logical->synced && in_configuration(m)) d.logical.reset();
}

void FailoverSlot::ask_primary(Member& m) {
  if (!sync_worker_on()) return;
  const auto upstream = m.pg().status().upstream;
  if (!upstream) return;
  const auto& all = truth_.members;
  const auto from =
      std::ranges::find_if(all, [&](const auto& o) { return o->name() == *upstream; });
  if (from == all.end()) return;
  Member* primary = from->get();
  world().send(m.host(), primary->host(), primary->pg().process(),
               [this, primary, &m, me = m.pg().process()] {
                 if (primary->pg().run() != PostgresModel::Run::kPrimary)
                   return;  // no cascade in 17
                 world().send(
                     primary->host(), m.host(), me,
                     [this, &m, theirs = primary->pg().data().logical] { copy(m, theirs); });
               });
}

void FailoverSlot::copy(Member& m, const std::optional<LogicalSlot>& theirs) {
  if (m.pg().run() != PostgresModel::Run::kStandby) return;
  DataDirectory& d = m.pg().data();
  auto& ours = d.logical;
  if (!theirs) {  // drop_local_obsolete_slots
    if (ours && ours->synced) ours.reset();
    return;
  }
  if (ours && !ours->synced) return;  // "same name slot already exists": the worker gives up
  if (theirs->confirmed > d.flushed_end()) return;  // "ahead of the standby position"
  if (!ours) {
    // What it reserves here is younger than what the primary's needs, until that has moved on.
    ours = LogicalSlot{.confirmed = theirs->confirmed,
                       .saved = theirs->confirmed,
                       .synced = true,
                       .temporary = true,
                       .sound_from = d.flushed_end()};
    return;
  }
  if (ours->temporary) {
    if (theirs->confirmed < ours->sound_from) return;  // "remote slot precedes local slot"
    ours->temporary = false;
    world().count("consumer.slot_carried");
  }
  const uint64_t to = plan_.copies_too_far ? d.flushed_end() : theirs->confirmed;
  if (to >= ours->confirmed) ours->confirmed = ours->saved = to;
}

// ---- primary: the walsender ---------------------------------------------------------------------

void FailoverSlot::accept(Member& m, uint64_t from) {
  DataDirectory& d = m.pg().data();
  if (m.pg().run() != PostgresModel::Run::kPrimary || !d.logical) return;
  // CreateDecodingContext: what the slot has confirmed is not sent again, whatever is asked for.
  const uint64_t begin = std::max(from, d.logical->confirmed);
  session_ = Session{.id = ++sessions_,
                     .host = m.host(),
                     .process = m.pg().process(),
                     .sent = begin,
                     .target = begin,
                     .standbys = m.pg().sync_setting(),
                     .slots = slots_in_configuration(m)};
  world().count("consumer.sessions");
  world().trace("consumer reads from {} beyond {:X} (asked for {:X})", m.name().str(), begin, from);
  observer_.consumer_asked(m.host(), from);
  world().send_stream(m.host(), kDirectClients, process_, [this, id = session_.id] {
    if (connecting_until_ < world().now() || id != session_.id) return;
    connecting_until_ = SimTime{};
    connected_ = id;
    last_contact_ = world().now();
    serve_later(id);
  });
}

void FailoverSlot::serve_later(uint64_t session) {
  world().after(random_ms(random_, 1, 8), session_.process, [this, session] { serve(session); });
}

// WalSndWaitForWal: first what was reloaded, then where the WAL ends, then whether the standbys
// have that; the end is looked at again only once they do.
void FailoverSlot::serve(uint64_t session) {
  if (session != session_.id) return;
  Member& m = member(session_.host);
  const auto run = m.pg().run();
  if (run != PostgresModel::Run::kPrimary && run != PostgresModel::Run::kStopping) return;
  if (!session_.in_flight) {
    reload(m);
    const DataDirectory& d = m.pg().data();
    if (session_.target <= session_.sent) session_.target = d.flushed_end();
    const bool more = session_.target > session_.sent;
    if (more && standbys_have(d, session_.target)) send_up_to(m, session_.target);
  }
  serve_later(session);
}

// At its own pace; but the signal was pending when WAL beyond the change was written.
void FailoverSlot::reload(Member& m) {
  const PostgresModel& pg = m.pg();
  if (session_.standbys == pg.sync_setting()) return;
  if (pg.data().flushed_end() <= pg.set_at() && !random_.chance(kReloadSeen)) return;
  session_.standbys = pg.sync_setting();
  session_.slots = slots_in_configuration(m);
}

// StandbySlotsHaveCaughtup: a slot that is not there, or that nobody has moved, has nothing.
bool FailoverSlot::standbys_have(const DataDirectory& data, uint64_t lsn) const {
  return std::ranges::all_of(session_.slots, [&](const std::string& slot) {
    const auto it = data.confirmed_by.find(slot);
    return it != data.confirmed_by.end() && it->second >= lsn;
  });
}

void FailoverSlot::send_up_to(Member& m, uint64_t lsn) {
  const DataDirectory& d = m.pg().data();
  std::vector<WalRecord> commits;
  for (size_t i = d.index_at(session_.sent); i < d.flushed && d.wal[i].end <= lsn; ++i) {
    if (d.wal[i].kind == WalKind::kCommit) commits.push_back(d.wal[i]);
  }
  session_.sent = lsn;
  session_.in_flight = true;
  world().send_stream(m.host(), kDirectClients, process_,
                      [this, id = session_.id, commits = std::move(commits), lsn] {
                        if (id == session_.id) session_.in_flight = false;
                        receive(id, commits, lsn);
                      });
}

// ---- consumer -----------------------------------------------------------------------------------

void FailoverSlot::consume() {
  if (connected_ != 0 && !still_connected()) connected_ = 0;
  if (connected_ == 0 && world().now() >= connecting_until_) connect();
  world().after(random_ms(random_, 50, 250), process_, [this] { consume(); });
}

void FailoverSlot::connect() {
  const auto& leader = truth_.view().leader;
  if (!leader || leader->value.phase != LeaderPhase::kRunning || applied_ == 0) return;
  const auto& all = truth_.members;
  const auto it =
      std::ranges::find_if(all, [&](const auto& m) { return m->name() == leader->value.holder; });
  if (it == all.end()) return;
  Member* m = it->get();
  connecting_until_ = world().now() + millis(2000);
  world().send(kDirectClients, m->host(), m->pg().process(), [this, m, from = applied_] {
    if (world().now() < connecting_until_) accept(*m, from);
  });
}

bool FailoverSlot::still_connected() {
  const PostgresModel& pg = member(session_.host).pg();
  const bool reached = world().both_ways(kDirectClients, session_.host) &&
                       !world().frozen(session_.host) && !pg.hung();
  if (reached && pg.process() != session_.process) return false;  // reset
  if (reached) last_contact_ = world().now();
  return world().now() - last_contact_ < kSilent && !random_.chance(kConsumerRestarts);
}

void FailoverSlot::receive(uint64_t session, const std::vector<WalRecord>& commits,
                           uint64_t up_to) {
  if (session != connected_) return;
  last_contact_ = world().now();
  received_ = up_to;
  for (const WalRecord& r : commits) observer_.consumer_sent(session_.host, r);
  world().after(random_ms(random_, 0, 150), process_, [this, session, up_to] {
    if (session == connected_) apply(session, up_to);
  });
}

void FailoverSlot::apply(uint64_t session, uint64_t up_to) {
  applied_ = std::max(applied_, up_to);
  Member& m = member(session_.host);
  world().send(kDirectClients, m.host(), session_.process, [this, &m, session, up_to] {
    auto& slot = m.pg().data().logical;
    if (session != session_.id || !slot) return;
    slot->confirmed = std::max(slot->confirmed, up_to);
    if (random_.chance(kCheckpoint)) slot->saved = slot->confirmed;
  });
}

}  // namespace bascule::sim
