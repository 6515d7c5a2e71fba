// What a primary does for its standbys: the synchronous set, slots, senders, checkpoints.
#include <fmt/format.h>

#include <algorithm>

#include "node/ops.h"

namespace bascule::node {
namespace {

using control::OpData;

constexpr Nanos kSmallWork = 5s;
constexpr Nanos kCheckpointWithin = 120s;
constexpr Millis kPause = 5ms;

// A transaction with an id, so that its commit flushes; local, so that it waits for no standby.
Result<Lsn> write_marker(PgConnection& session, const Bound& bound) {
  if (auto done = session.query("SET synchronous_commit = 'local'", bound); !done) {
    return std::unexpected(done.error());
  }
  auto text = session.value("SELECT pg_logical_emit_message(true, 'bascule', 'marker')", bound);
  if (!text) return std::unexpected(text.error());
  auto marker = Lsn::parse(*text);
  if (!marker) return marker;
  auto flushed =
      session.value(fmt::format("SELECT pg_current_wal_flush_lsn() >= '{}'", *text), bound);
  if (!flushed) return std::unexpected(flushed.error());
  if (*flushed != "t") return fail(ErrorCode::kInternal, "marker is committed but not flushed");
  return marker;
}

// Slots of the time as a primary would hold WAL back for ever, those of others too: nobody moves
// them here (but copies of logical ones), and whoever leads has them anew. Those of members come
// back at once, without WAL: the next promotion needs them. What is left of members that were
// removed goes.
Status release_slots(PgConnection& session, const control::op::EnsureSlots& o, const Bound& bound) {
  std::string wanted;
  for (const std::string& name : o.slots) {
    wanted += (wanted.empty() ? "" : ",") + session.quote(name);
  }
  auto done = session.query(
      fmt::format("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                  " WHERE NOT active AND slot_type = 'physical'"
                  " AND starts_with(slot_name, 'bascule_')"
                  " AND (restart_lsn IS NOT NULL OR slot_name <> ALL (ARRAY[{}]::name[]))",
                  wanted),
      bound);
  if (!done) return std::unexpected(done.error());
  auto feedback = session.value("SELECT current_setting('hot_standby_feedback')", bound);
  if (!feedback) return std::unexpected(feedback.error());
  for (const auto& [name, slot] : o.permanent) {
    // A copy of a logical one: see SlotKeeper. From 17 on PostgreSQL has its own, which it refuses
    // to drop, and wants the name free for them.
    if (slot.logical() && session.server_version() < 170000 && *feedback == "on") continue;
    (void)session.query(
        fmt::format("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                    " WHERE NOT active AND slot_name = {}",
                    session.quote(name)),
        bound);
  }
  return {};
}

// Of one that is there, by a row of (logical, database, plugin, is being made); empty: nothing.
std::string wrong_with(const std::string& name, const control::PermanentSlot& wanted,
                       const Row& row) {
  const bool logical = row[0] == "t";
  const std::string database = row[1].value_or(""), plugin = row[2].value_or("");
  if (row[3] == "t") return name + ": it waits for the transactions that run now";
  if (logical == wanted.logical() &&
      (!logical || (database == wanted.database && plugin == wanted.plugin))) {
    return {};
  }
  return fmt::format(
      "{}: the slot that is there is {}; drop it (SELECT pg_drop_replication_slot({})), and it is "
      "made as configured",
      name, logical ? fmt::format("logical:{}:{}", database, plugin) : "physical",
      quote_conf(name));
}

// Those of others, by the cluster's configuration. One that was taken out of it is left alone: its
// owner may still read it. What can't be had is the operation's trouble, no failure.
Status keep_permanent(OpContext& context, PgConnection& session, const control::op::EnsureSlots& o,
                      const Bound& bound) {
  for (const auto& [name, slot] : o.permanent) {
    auto rows = session.query(
        "SELECT slot_type = 'logical', coalesce(database, ''), coalesce(plugin, ''),"
        " slot_type = 'logical' AND active AND confirmed_flush_lsn IS NULL"
        " FROM pg_replication_slots WHERE slot_name = " +
            session.quote(name),
        bound);
    if (!rows) return std::unexpected(rows.error());
    if (!rows->empty()) {
      if (auto trouble = wrong_with(name, slot, rows->front()); !trouble.empty()) {
        context.slot_troubles.push_back(std::move(trouble));
      }
      continue;
    }
    if (!slot.logical()) {
      if (auto done = create_slots(session, {name}, Reserve::kNow, bound); !done) return done;
      continue;
    }
    // Of the database that it decodes.
    auto there = context.server.session(bound, slot.database);
    if (!there) {
      context.slot_troubles.push_back(name + ": " + there.error().message);
      continue;
    }
    // From 17 on standbys with sync_replication_slots keep it, and go on from it when promoted.
    const char* kept = there->server_version() >= 170000 ? ", failover => true" : "";
    auto made = there->query(fmt::format("SELECT pg_create_logical_replication_slot({}, {}{})",
                                         there->quote(name), there->quote(slot.plugin), kept),
                             bound);
    if (!made) {
      context.slot_troubles.push_back(name + ": " + made.error().message);
    } else {
      context.remark("permanent slot", name + " created: changes from now on are kept for it");
    }
  }
  return {};
}

}  // namespace

OpResult set_sync(OpContext& context, const control::op::SetSync& o) {
  const Bound bound = context.within(kSmallWork);
  auto session = reconfigure(context, {{}, o.standbys, false, o.count}, bound);
  if (!session) return in_context("synchronous_standby_names", session.error());
  if (o.from_empty) {
    // Backends learn from the checkpointer whether to wait at all. It was told to reload before the
    // session above could see the setting, and looks at that before it begins a checkpoint.
    auto done = session->query("CHECKPOINT", context.within(kCheckpointWithin));
    if (!done) return in_context("synchronous_standby_names", done.error());
  }
  auto marker = write_marker(*session, context.within(kSmallWork));
  if (!marker) return in_context("synchronous_standby_names", marker.error());
  auto timeline = session->value(
      "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int", bound);
  if (!timeline) return in_context("synchronous_standby_names", timeline.error());
  return OpData{{Timeline{static_cast<uint32_t>(atoi(timeline->c_str()))}, *marker}, 0};
}

OpResult ensure_slots(OpContext& context, const control::op::EnsureSlots& o) {
  const Bound bound = context.within(kSmallWork);
  auto session = context.server.session(bound);
  if (!session) return in_context("replication slots", session.error());
  auto recovering = session->value("SELECT pg_is_in_recovery()", bound);
  if (!recovering) return in_context("replication slots", recovering.error());
  const Reserve reserve = *recovering == "t" ? Reserve::kAtFirstUse : Reserve::kNow;
  if (reserve == Reserve::kAtFirstUse) {
    if (auto done = release_slots(*session, o, bound); !done) {
      return in_context("replication slots", done.error());
    }
  }
  if (auto done = create_slots(*session, o.slots, reserve, bound); !done) {
    return std::unexpected(done.error());
  }
  if (reserve == Reserve::kNow) {
    if (auto done = keep_permanent(context, *session, o, bound); !done) {
      return in_context("permanent slots", done.error());
    }
  }
  for (const std::string& slot : o.drop) {
    const std::string name = session->quote(slot);
    for (;;) {
      auto rows = session->query(
          fmt::format("SELECT active, pg_terminate_backend(active_pid) FROM pg_replication_slots"
                      " WHERE slot_name = {}",
                      name),
          bound);
      if (!rows) return in_context("replication slots", rows.error());
      if (rows->empty()) break;
      auto dropped =
          session->query(fmt::format("SELECT pg_drop_replication_slot({})", name), bound);
      if (dropped) break;
      if (context.server.clock().now() >= bound.deadline) {
        return in_context("replication slots", dropped.error());
      }
      context.server.process().sleep(kPause);
    }
  }
  return OpData{};
}

OpResult terminate_senders(OpContext& context, const control::op::TerminateSenders& o) {
  const Bound bound = context.within(kSmallWork);
  auto session = context.server.session(bound);
  if (!session) return in_context("terminate senders", session.error());
  for (const std::string& name : o.names) {
    // As synchronous_standby_names matches: without regard to case.
    auto done =
        session->query(fmt::format("SELECT pg_terminate_backend(pid) FROM pg_stat_replication"
                                   " WHERE lower(application_name) = lower({})",
                                   session->quote(name)),
                       bound);
    if (!done) return in_context("terminate senders", done.error());
  }
  return OpData{};
}

OpResult checkpoint(OpContext& context, const control::op::Checkpoint&) {
  const Bound bound = context.within(kCheckpointWithin);
  auto session = context.server.session(bound);
  if (!session) return in_context("checkpoint", session.error());
  if (auto done = session->query("CHECKPOINT", bound); !done) {
    return in_context("checkpoint", done.error());
  }
  return OpData{};
}

}  // namespace bascule::node
