#include "node/slot_keeper.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "node/pg_files.h"

namespace bascule::node {
namespace {

constexpr int kKeptByPostgres = 17;  // from this version on
constexpr Nanos kEvery = 1s;
constexpr Nanos kLookWithin = 5s;
constexpr Nanos kMoveWithin = 60s;
constexpr Nanos kInstallWithin = 3s;
constexpr Nanos kDropWithin = 2s;
constexpr Nanos kRelayedFor = 30s;  // a change of primary takes less
constexpr Nanos kSaveAfter = 3s;    // a standby has looked by then
constexpr size_t kLedgerBytesMax = 1 << 20;
constexpr Millis kPause = 5ms;
constexpr char kNotRead[] = "its WAL was not read yet";
constexpr size_t kRoomForOthers = 2;  // of max_replication_slots
constexpr std::pair<const char*, std::string_view> kNeeded[] = {{"hot_standby_feedback", "on"},
                                                                {"wal_level", "logical"}};

Lsn lsn_of(const std::optional<std::string>& text) {
  return text ? Lsn::parse(*text).value_or(Lsn{}) : Lsn{};
}
Xid xid_of(const std::optional<std::string>& text) {
  return static_cast<Xid>(strtoul(text.value_or("0").c_str(), nullptr, 10));
}

template <typename Names>
std::string quoted(const PgConnection& session, const Names& names) {
  std::string out;
  for (const auto& [name, slot] : names) out += (out.empty() ? "" : ",") + session.quote(name);
  return out;
}

// Those that are what the configuration says. One of the same name for another database or plugin
// is not looked at.
template <typename Wanted>
Result<LogicalSlots> slots_of(PgConnection& session, const Wanted& wanted, const Bound& bound) {
  auto rows = session.query(
      fmt::format("SELECT slot_name, catalog_xmin, restart_lsn, confirmed_flush_lsn, database,"
                  " plugin, coalesce(wal_status, '') IN ('reserved', 'extended')"
                  " AND coalesce(to_jsonb(s)->>'conflicting', 'false') = 'false'"
                  " FROM pg_replication_slots s WHERE slot_type = 'logical' AND NOT temporary"
                  " AND slot_name = ANY (ARRAY[{}]::name[])",
                  quoted(session, wanted)),
      bound);
  if (!rows) return std::unexpected(rows.error());
  LogicalSlots out;
  for (const Row& row : *rows) {
    const auto& slot = wanted.at(*row[0]);
    if (row[4] != slot.database || row[5] != slot.plugin) continue;
    out[*row[0]] = {xid_of(row[1]), lsn_of(row[2]), lsn_of(row[3]),
                    row[6] == "t" ? "" : "what it needs is gone here"};
  }
  return out;
}

Result<Timeline> timeline_of_primary(PgConnection& session, const Bound& bound) {
  auto text = session.value(
      "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int",
      bound);
  if (!text) return std::unexpected(text.error());
  return Timeline{xid_of(*text)};
}

// Whatever timeline it was written on.
bool has_segment(Server& server, Lsn lsn, uint64_t segment_bytes) {
  const std::string wanted = wal_file_name({Timeline{1}, lsn}, segment_bytes).substr(8);
  const auto names = server.disk().list(server.data("pg_wal"));
  return names && std::ranges::any_of(*names, [&](const std::string& name) {
           return name.size() == 24 && name.ends_with(wanted);
         });
}

Result<std::string> setting_of_stopped(OpContext& context, const char* name) {
  Server& server = context.server;
  auto out = server.run_tool("postgres", {"-D", server.config().data_dir, "-C", name},
                             context.within(kInstallWithin));
  if (!out) return std::unexpected(out.error());
  if (!out->ok()) return fail(ErrorCode::kUnavailable, out->output);
  return out->output.substr(0, out->output.find('\n'));
}

Status drop_slot(OpContext& context, PgConnection& session, const std::string& name) {
  const Bound bound = context.within(kDropWithin);
  for (;;) {
    (void)session.query(
        fmt::format("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
                    " WHERE slot_name = {} AND active_pid IS NOT NULL",
                    session.quote(name)),
        bound);
    auto done = session.query(
        fmt::format("SELECT pg_drop_replication_slot({})", session.quote(name)), bound);
    if (done) return {};
    if (context.server.clock().now() >= bound.deadline || context.control.cancelled) {
      return std::unexpected(done.error());
    }
    context.server.process().sleep(kPause);
  }
}

std::string bytes_of_hex(std::string_view hex) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : (c | 32) - 'a' + 10; };
  std::string out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    out += static_cast<char>(digit(hex[i]) * 16 + digit(hex[i + 1]));
  }
  return out;
}

}  // namespace

SlotKeeper::SlotKeeper(Server& server, Remark remark)
    : server_(server), remark_(std::move(remark)) {
  const auto text = server_.disk().read(file(), kLedgerBytesMax);
  if (text) ledger_ = decode_slot_ledger(*text).value_or(SlotLedger{});
}

void SlotKeeper::want(const std::map<std::string, control::PermanentSlot>& slots,
                      std::optional<control::Upstream> leader) {
  const std::lock_guard lock(mutex_);
  wanted_.clear();
  for (const auto& [name, slot] : slots) {
    if (slot.logical() && server_.version_major() < kKeptByPostgres) wanted_[name] = slot;
  }
  leader_ = std::move(leader);
}

SlotKeeper::Wanted SlotKeeper::wanted() const {
  const std::lock_guard lock(mutex_);
  return wanted_;
}
std::optional<control::Upstream> SlotKeeper::leader() const {
  const std::lock_guard lock(mutex_);
  return leader_;
}
bool SlotKeeper::relayed() const {
  const std::lock_guard lock(mutex_);
  return relayed_;
}
SlotLedger SlotKeeper::ledger() const {
  const std::lock_guard lock(mutex_);
  return ledger_;
}
SlotKeeper::Report SlotKeeper::report() const {
  const std::lock_guard lock(mutex_);
  return report_;
}

bool SlotKeeper::looking() const {
  const std::lock_guard lock(mutex_);
  return looking_;
}

bool SlotKeeper::due(const control::PgStatus& status) {
  const std::lock_guard lock(mutex_);
  if (wanted_.empty() && ledger_.copies.empty()) {
    report_ = {};
    return false;
  }
  const MonoTime now = server_.clock().now();
  const bool streams =
      leader_ && status.run == control::PgRun::kStandby && status.receiver_streaming;
  const bool direct = streams && status.upstream == leader_->member;
  if (!streams || direct) {
    relayed_since_ = {};
  } else if (relayed_since_ == MonoTime{}) {
    relayed_since_ = now;
  }
  relayed_ = relayed_since_ != MonoTime{} && now >= relayed_since_ + kRelayedFor;
  if (looking_ || now < looked_at_ + kEvery) return false;
  if (!direct && !relayed_ && status.run != control::PgRun::kPrimary) return false;
  looking_ = true;
  cancelled_ = false;
  looked_at_ = now;
  return true;
}

Bound SlotKeeper::within(Nanos time) const {
  return server_.within(time, [this] { return cancelled_.load(); });
}

void SlotKeeper::look() {
  const Bound bound = within(kLookWithin);
  const auto looked = [&]() -> Status {
    auto session = server_.session(bound);
    if (!session) return std::unexpected(session.error());
    auto recovering = session->value("SELECT pg_is_in_recovery()", bound);
    if (!recovering) return std::unexpected(recovering.error());
    return *recovering == "t" ? look_as_standby(*session, bound) : look_as_primary(*session, bound);
  }();
  if (!looked) log(LogLevel::kDebug, "slots", "not looked at", {{"error", looked.error().message}});
  const std::lock_guard lock(mutex_);
  looking_ = false;
}

// Before anything relies on it.
void SlotKeeper::keep(SlotLedger ledger, Report report) {
  std::vector<std::pair<std::string, std::string>> news;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [name, copy] : ledger.copies) {
      const auto before = ledger_.copies.find(name);
      const bool was = before != ledger_.copies.end() && before->second.sound;
      if (was != copy.sound && !ledger.original) {
        news.emplace_back(copy.sound ? "slot copy is sound" : "slot copy is not sound",
                          copy.sound ? name : name + ": " + copy.why);
      }
    }
    report_ = std::move(report);
    if (ledger == ledger_) return;
    ledger_ = std::move(ledger);
    // Under the lock: an older one must not overtake.
    (void)server_.disk().write(file(), encode(ledger_), env::Durability::kFsync);
  }
  for (auto& [what, why] : news) remark_(LogLevel::kInfo, std::move(what), std::move(why));
}

// ---- a primary
// -----------------------------------------------------------------------------------

Status SlotKeeper::look_as_primary(PgConnection& session, const Bound& bound) {
  auto timeline = timeline_of_primary(session, bound);
  if (!timeline) return std::unexpected(timeline.error());
  auto slots = slots_of(session, wanted(), bound);
  if (!slots) return std::unexpected(slots.error());
  Report report;
  for (const auto& [name, slot] : *slots) report.slots[name] = "in use here";
  keep(originals(server_.sync_name(), *timeline, *slots), std::move(report));
  save_what_is_held(session, bound);
  return {};
}

// A standby's slot that holds catalog rows for it is written to disk by a checkpoint only, and the
// proof of its copies waits for one.
void SlotKeeper::save_what_is_held(PgConnection& session, const Bound& bound) {
  auto held = session.value(
      "SELECT coalesce(string_agg(slot_name || ' ' || active_pid, ',' ORDER BY slot_name), '')"
      " FROM pg_replication_slots WHERE slot_type = 'physical' AND active"
      " AND catalog_xmin IS NOT NULL AND starts_with(slot_name, 'bascule_')",
      bound);
  if (!held) return;
  const MonoTime now = server_.clock().now();
  if (*held != held_) {
    held_ = *held;
    held_since_ = now;
  }
  if (held_ == saved_ || held_.empty() || now < held_since_ + kSaveAfter) return;
  saved_ = held_;
  session.send("CHECKPOINT");
  parked_ = std::move(session);
}

// ---- a standby
// -----------------------------------------------------------------------------------

Result<PrimaryLook> SlotKeeper::look_at_primary(const control::Upstream& leader,
                                                const Bound& bound) {
  auto session = server_.remote_sql_session(leader, bound);
  if (!session) return std::unexpected(session.error());
  auto recovering = session->value("SELECT pg_is_in_recovery()", bound);
  if (!recovering) return std::unexpected(recovering.error());
  if (*recovering == "t") return fail(ErrorCode::kUnavailable, "the primary is in recovery");
  auto timeline = timeline_of_primary(*session, bound);
  if (!timeline) return std::unexpected(timeline.error());
  // The slots first: what was removed before this moment is older than what they need.
  auto slots = slots_of(*session, wanted(), bound);
  if (!slots) return std::unexpected(slots.error());
  auto rows = session->query(
      fmt::format("SELECT s.catalog_xmin, concat_ws(' ', pg_postmaster_start_time(), a.pid,"
                  " a.backend_start), a.pid IS NOT NULL, pg_current_wal_insert_lsn(),"
                  " (SELECT redo_lsn FROM pg_control_checkpoint())"
                  " FROM (SELECT) one"
                  " LEFT JOIN pg_replication_slots s ON s.slot_name = {} AND s.active"
                  " LEFT JOIN pg_stat_replication a ON a.pid = s.active_pid",
                  session->quote(control::slot_name(server_.config().agent.name))),
      bound);
  if (!rows) return std::unexpected(rows.error());
  const Row& row = rows->at(0);
  PrimaryLook out{*timeline,
                  row[2] == "t" ? row[1].value_or("") : "",
                  {},
                  lsn_of(row[3]),
                  lsn_of(row[4]),
                  *std::move(slots)};
  if (row[0]) out.held = xid_of(row[0]);
  return out;
}

Status SlotKeeper::look_as_standby(PgConnection& session, const Bound& bound) {
  const auto from = leader();
  if (!from) return {};
  const Wanted wanted = this->wanted();
  if (relayed()) return drop_all(session, bound);
  auto primary = look_at_primary(*from, bound);
  if (!primary) return std::unexpected(primary.error());
  auto feedback = session.value("SELECT current_setting('hot_standby_feedback')", bound);
  if (!feedback) return std::unexpected(feedback.error());
  if (*feedback != "on") primary->held.reset();
  const SlotLedger before = ledger();
  if (primary->session != before.session) read_.clear();
  auto here = slots_of(session, wanted, bound);
  if (!here) return std::unexpected(here.error());
  if (auto done = drop_lost(session, *here, bound); !done) return done;
  auto replayed = session.value("SELECT pg_last_wal_replay_lsn()", bound);
  if (!replayed) return std::unexpected(replayed.error());
  move_on(*primary, *here, Lsn::parse(*replayed).value_or(Lsn{}));
  auto moved = slots_of(session, wanted, within(kLookWithin));
  if (!moved) return std::unexpected(moved.error());
  for (auto& [name, slot] : *moved) {
    if (!slot.problem.empty() || read_.contains(name)) continue;
    const auto tried = here->find(name);
    slot.problem = tried == here->end() ? kNotRead : tried->second.problem;
  }
  std::set<std::string> names;
  Report report;
  for (const auto& [name, slot] : wanted) names.insert(name);
  SlotLedger after = look_again(before, server_.sync_name(), *primary, *moved, names);
  for (const auto& [name, copy] : after.copies) {
    report.slots[name] = copy.sound ? "sound copy" : "not sound: " + copy.why;
    const auto there = primary->slots.find(name);
    if (moved->contains(name) || there == primary->slots.end() || *feedback != "on") continue;
    if (!could_be_installed(session, there->second, bound)) continue;
    report.slots[name] = "no copy yet: needs a restart of this member";
    report.restart = true;
  }
  keep(std::move(after), std::move(report));
  return {};
}

// An advance decodes WAL from the slot's restart_lsn on: that it succeeds proves that it is there.
void SlotKeeper::move_on(const PrimaryLook& primary, LogicalSlots& here, Lsn replayed) {
  const Wanted wanted = this->wanted();
  for (auto& [name, slot] : here) {
    const auto there = primary.slots.find(name);
    if (!slot.problem.empty() || there == primary.slots.end() || !wanted.contains(name)) continue;
    if (!read_.contains(name)) slot.problem = kNotRead;
    const auto target = advance_to(there->second, slot, replayed);
    if (!target) continue;
    const Bound bound = within(kMoveWithin);
    auto session = server_.session(bound, wanted.at(name).database);
    if (!session) continue;
    auto done = session->query(fmt::format("SELECT pg_replication_slot_advance({}, '{}')",
                                           session->quote(name), target->to_string()),
                               bound);
    if (done) {
      read_.insert(name);
      slot.problem.clear();
    } else {
      // Cancelled for replay's sake, or in use: soon again.
      log(LogLevel::kDebug, "slots", "not moved on",
          {{"slot", name}, {"error", done.error().message}});
      const auto says = [&](const char* state) {
        return done.error().message.find(state) != std::string::npos;
      };
      if (!says("58P01") && !says("55000")) continue;
      read_.erase(name);
      slot.problem = done.error().message;
    }
  }
}

// Copies that can be of no use any more make room for new ones; those of slots that were taken out
// of the configuration go, too.
Status SlotKeeper::drop_lost(PgConnection& session, const LogicalSlots& here, const Bound& bound) {
  std::set<std::string> lost;
  for (const auto& [name, slot] : here) {
    if (!slot.problem.empty()) lost.insert(name);
  }
  const Wanted wanted = this->wanted();
  for (const auto& [name, copy] : ledger().copies) {
    if (!wanted.contains(name)) lost.insert(name);
  }
  return drop(session, lost, bound);
}

// Behind a relay our slot at the primary holds nothing: nothing can be proven, and a copy that
// nobody moves on would hold WAL here and catalog rows there.
Status SlotKeeper::drop_all(PgConnection& session, const Bound& bound) {
  std::set<std::string> names;
  for (const auto& [name, slot] : wanted()) names.insert(name);
  for (const auto& [name, copy] : ledger().copies) names.insert(name);
  auto done = drop(session, names, bound);
  if (done) keep({}, {});
  return done;
}

Status SlotKeeper::drop(PgConnection& session, const std::set<std::string>& names,
                        const Bound& bound) {
  if (names.empty()) return {};
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ",") + session.quote(name);
  auto done = session.query(
      fmt::format("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                  " WHERE slot_type = 'logical' AND NOT active AND slot_name = ANY"
                  " (ARRAY[{}]::name[])",
                  list),
      bound);
  if (!done) return std::unexpected(done.error());
  return {};
}

bool SlotKeeper::could_be_installed(PgConnection& session, const LogicalSlot& slot,
                                    const Bound& bound) {
  auto rows = session.query(
      "SELECT current_setting('wal_level') = 'logical',"
      " pg_size_bytes(current_setting('wal_segment_size')),"
      " current_setting('max_replication_slots')::int - (SELECT count(*) FROM "
      "pg_replication_slots)",
      bound);
  if (!rows) return false;
  const Row& row = rows->at(0);
  const uint64_t segment = strtoull(row[1].value_or("0").c_str(), nullptr, 10);
  return row[0] == "t" && segment != 0 && xid_of(row[2]) > kRoomForOthers &&
         has_segment(server_, slot.restart, segment);
}

// ---- operations
// ----------------------------------------------------------------------------------

void SlotKeeper::install(OpContext& context) {
  const auto from = leader();
  const Wanted wanted = this->wanted();
  if (!from || wanted.empty()) return;
  std::string missing;
  for (const auto& [name, slot] : wanted) {
    if (server_.disk().exists(server_.data("pg_replslot/" + name))) continue;
    missing += (missing.empty() ? "" : ",") + name;
  }
  if (missing.empty()) return;
  // PostgreSQL does not start with a logical slot below wal_level = logical, nor with too many.
  for (const auto& [name, value] : kNeeded) {
    auto set = setting_of_stopped(context, name);
    if (!set || *set != value) return;
  }
  auto most = setting_of_stopped(context, "max_replication_slots");
  const auto there = server_.disk().list(server_.data("pg_replslot"));
  if (!most || !there || there->size() + wanted.size() + kRoomForOthers > xid_of(*most)) return;
  if (auto done = fetch(context, missing, *from); !done) {
    remark_(LogLevel::kWarn, "slot copy missing", missing + ": " + done.error().message);
  }
}

Status SlotKeeper::fetch(OpContext& context, const std::string& missing,
                         const control::Upstream& leader) {
  const Bound bound = context.within(kInstallWithin);
  auto control = server_.control_data(bound);
  if (!control) return std::unexpected(control.error());
  auto session = server_.remote_sql_session(leader, bound);
  if (!session) return std::unexpected(session.error());
  auto rows = session->query(
      fmt::format("SELECT slot_name, database, plugin, restart_lsn,"
                  " encode(pg_read_binary_file('pg_replslot/' || slot_name || '/state'), 'hex')"
                  " FROM pg_replication_slots WHERE NOT pg_is_in_recovery()"
                  " AND slot_type = 'logical' AND NOT temporary"
                  " AND slot_name = ANY (string_to_array({}, ','))",
                  session->quote(missing)),
      bound);
  if (!rows) return std::unexpected(rows.error());
  const Wanted wanted = this->wanted();
  for (const Row& row : *rows) {
    const std::string& name = *row[0];
    const auto slot = wanted.find(name);
    if (slot == wanted.end() || row[1] != slot->second.database || row[2] != slot->second.plugin)
      continue;
    if (!has_segment(server_, lsn_of(row[3]), control->segment_bytes)) continue;
    const std::string state = bytes_of_hex(row[4].value_or(""));
    if (auto good = check_slot_state(state, name); !good) return good;
    // Of the copy that was there before nothing holds any more.
    SlotLedger known = ledger();
    known.copies[name] = {.why = "just copied"};
    keep(std::move(known), report());
    // Complete before it has its name: PostgreSQL removes what ends in .tmp.
    const std::string path = server_.data("pg_replslot/" + name);
    if (auto done = server_.disk().make_directory(path + ".tmp"); !done) return done;
    auto done = server_.disk().write(path + ".tmp/state", state, env::Durability::kFsync);
    if (!done) return done;
    if (auto renamed = server_.disk().rename(path + ".tmp", path); !renamed) return renamed;
    remark_(LogLevel::kInfo, "slot copied", name + " from " + leader.member.str());
  }
  return {};
}

Status SlotKeeper::before_promotion(OpContext& context, PgConnection& session, Timeline timeline) {
  const Wanted wanted = this->wanted();
  if (wanted.empty()) return {};
  const Bound bound = context.within(kDropWithin);
  auto here = slots_of(session, wanted, bound);
  if (!here) return std::unexpected(here.error());
  auto rows = session.query("SELECT pg_last_wal_replay_lsn(), pg_last_wal_receive_lsn()", bound);
  if (!rows) return std::unexpected(rows.error());
  const BeforePromotion at{server_.sync_name(), timeline, lsn_of(rows->at(0)[0]),
                           lsn_of(rows->at(0)[1])};
  const SlotLedger known = ledger();
  for (const auto& [name, slot] : *here) {
    const std::string why = why_unsound(known, at, name, slot);
    if (why.empty()) {
      remark_(LogLevel::kInfo, "slot carried over",
              fmt::format("{} from {} on", name, slot.confirmed.to_string()));
      continue;
    }
    if (auto done = drop_slot(context, session, name); !done) {
      return in_context("copy of a slot that is not sound", done.error());
    }
    remark_(LogLevel::kWarn, "slot dropped",
            fmt::format("the copy of {} is not sound: {}", name, why));
  }
  return {};
}

}  // namespace bascule::node
