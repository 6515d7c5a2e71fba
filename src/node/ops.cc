#include "node/ops.h"

#include <fmt/format.h>

#include <variant>

namespace bascule::node {

using control::OpData;
namespace op = control::op;

namespace {

constexpr Nanos kReloadAgain = 200ms;

}  // namespace

std::unexpected<Error> in_context(const char* what, Error error) {
  error.message = std::string(what) + ": " + error.message;
  return std::unexpected(std::move(error));
}

OpResult run_op(OpContext& context, const control::Op& operation) {
  struct Visitor {
    OpContext& c;
    OpResult operator()(const op::InitDb& o) { return init_db(c, o); }
    OpResult operator()(const op::StartPrimary& o) { return start_primary(c, o); }
    OpResult operator()(const op::StartStandby& o) { return start_standby(c, o); }
    OpResult operator()(const op::SetUpstream& o) { return set_upstream(c, o); }
    OpResult operator()(const op::StopReceiver& o) { return stop_receiver(c, o); }
    OpResult operator()(const op::Promote& o) { return promote(c, o); }
    OpResult operator()(const op::Checkpoint& o) { return checkpoint(c, o); }
    OpResult operator()(const op::CleanStop& o) { return clean_stop(c, o); }
    OpResult operator()(const op::VerifyReceived& o) { return verify_received(c, o); }
    OpResult operator()(const op::SetSync& o) { return set_sync(c, o); }
    OpResult operator()(const op::EnsureSlots& o) { return ensure_slots(c, o); }
    OpResult operator()(const op::TerminateSenders& o) { return terminate_senders(c, o); }
    OpResult operator()(const op::Rewind& o) { return rewind(c, o); }
    OpResult operator()(const op::Clone& o) { return clone(c, o); }
    OpResult operator()(const op::Reload& o) { return reload(c, o); }
    OpResult operator()(const op::Kill&) {
      return fail(ErrorCode::kInternal, "kill is the guard's");
    }
  };
  return std::visit(Visitor{context}, operation);
}

namespace {

// Whether a session shows the settings; an error only when it can't be asked.
Result<bool> shows(PgConnection& session, const ServerSettings& settings, const std::string& text,
                   const Bound& bound) {
  auto rows = session.query(
      "SELECT current_setting('synchronous_standby_names'),"
      " coalesce(current_setting('bascule.upstream', true), ''),"
      " current_setting('primary_conninfo'), current_setting('max_standby_streaming_delay')",
      bound);
  if (!rows) return std::unexpected(rows.error());
  const Row& row = rows->at(0);
  const std::string upstream = settings.upstream ? settings.upstream->member.str() : "";
  // The conninfo as well: the same member may have another address now.
  const std::string conninfo = "primary_conninfo = " + quote_conf(row[2].value_or("")) + "\n";
  return row[0] == render_sync_standbys(settings.sync_standbys, settings.sync_count) &&
         row[1] == upstream && text.find(conninfo) != std::string::npos &&
         (!settings.cancel_conflicts || row[3] == "0");
}

}  // namespace

Result<PgConnection> reconfigure(OpContext& context, const ServerSettings& wanted,
                                 const Bound& bound) {
  Server& server = context.server;
  ServerSettings settings = wanted;
  if (server.ballot_intent()) settings.upstream.reset();
  const std::string text = server.rendered(settings);
  const bool changed =
      server.disk().read(server.data(kConfName), text.size() + 1).value_or("") != text;
  std::vector<std::string> overridden;
  if (auto done = server.write_configuration(settings, &overridden); !done) {
    return in_context("reload", done.error());
  }
  for (const std::string& name : overridden) {
    context.remark("setting removed", name + " in postgresql.auto.conf is managed by Bascule");
  }
  // Unchanged files are mostly in force: then there is nothing to reload, which a session tells.
  MonoTime next_reload = server.clock().now();
  if (!changed && overridden.empty()) next_reload += 1ms;
  for (;;) {
    if (server.clock().now() >= next_reload) {
      if (auto done = server.reload(); !done) return in_context("reload", done.error());
      next_reload = server.clock().now() + kReloadAgain;
    }
    // The postmaster loads the settings before it forks a session that shows them.
    auto session = server.replication_session(bound);
    if (!session) return in_context("reload", session.error());
    auto shown = shows(*session, settings, text, bound);
    if (!shown) return in_context("reload", shown.error());
    if (*shown) return session;
    if (server.clock().now() >= bound.deadline) {
      return fail(ErrorCode::kTimeout, "reload: a new session does not show the settings",
                  "look for errors in " + server.run("postgresql.log"));
    }
    server.process().sleep(2ms);
  }
}

Status create_slots(PgConnection& session, const std::vector<std::string>& slots, Reserve reserve,
                    const Bound& bound) {
  if (slots.empty()) return {};
  std::string names;
  for (const std::string& slot : slots) names += (names.empty() ? "" : ",") + session.quote(slot);
  if (reserve == Reserve::kNow) {
    // Made while in recovery, they hold no WAL, and naming them again would not change that. One
    // that a standby has attached to meanwhile can't be dropped, and holds its WAL by now.
    (void)session.query(
        fmt::format("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                    " WHERE slot_type = 'physical' AND restart_lsn IS NULL AND NOT active"
                    " AND slot_name = ANY (ARRAY[{}])",
                    names),
        bound);
  }
  // While in recovery nobody streams from here, and a reserved slot would hold WAL back for ever.
  const std::string create = fmt::format(
      "SELECT pg_create_physical_replication_slot(name, {}) FROM unnest(ARRAY[{}]) name"
      " WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = name)",
      reserve == Reserve::kNow ? "true" : "false", names);
  auto done = session.query(create, bound);
  // A member that clones makes its own at the same moment: the second look does not ask for that
  // one.
  if (!done) done = session.query(create, bound);
  if (!done) return in_context("replication slots", done.error());
  return {};
}

}  // namespace bascule::node
