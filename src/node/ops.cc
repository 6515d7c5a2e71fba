#include "node/ops.h"

#include <fmt/format.h>

#include <variant>

namespace bascule::node {

using control::OpData;
namespace op = control::op;

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
    OpResult operator()(const op::Kill&) {
      return fail(ErrorCode::kInternal, "kill is the guard's");
    }
  };
  return std::visit(Visitor{context}, operation);
}

Status reconfigure(OpContext& context, const ServerSettings& wanted, const Bound& bound) {
  Server& server = context.server;
  std::vector<std::string> overridden;
  if (auto done = server.write_configuration(wanted, &overridden); !done) return done;
  for (const std::string& name : overridden) {
    context.remark("setting removed", name + " in postgresql.auto.conf is managed by Bascule");
  }
  ServerSettings settings = wanted;
  if (server.ballot_intent()) settings.upstream.reset();
  const std::string sync = render_sync_standbys(settings.sync_standbys);
  const std::string upstream = settings.upstream ? settings.upstream->member.str() : "";
  // Loaded by the postmaster before it forks a session that shows it. Our sessions can't tell a
  // conninfo from an older one of the same member, so the conninfo itself is compared as well.
  const std::string text = render_conf(
      {server.config(), server.version_major(), server.sync_name(), server.run("pgpass")},
      settings);
  {
    auto session = server.session(bound);
    if (!session) return in_context("reload", session.error());
    if (auto done = session->query("SELECT pg_reload_conf()", bound); !done) {
      return in_context("reload", done.error());
    }
  }
  for (;;) {
    auto session = server.session(bound);
    if (!session) return in_context("reload", session.error());
    auto rows = session->query(
        "SELECT current_setting('synchronous_standby_names'),"
        " coalesce(current_setting('bascule.upstream', true), ''),"
        " current_setting('primary_conninfo'), current_setting('max_standby_streaming_delay')",
        bound);
    if (!rows) return in_context("reload", rows.error());
    const Row& row = rows->at(0);
    const bool conninfo_shown =
        text.find("primary_conninfo = " + quote_conf(*row[2]) + "\n") != std::string::npos;
    if (row[0] == sync && row[1] == upstream && conninfo_shown &&
        (!settings.cancel_conflicts || row[3] == "0")) {
      return {};
    }
    if (server.clock().now() >= bound.deadline) {
      return fail(ErrorCode::kTimeout, "reload: a new session does not show the settings",
                  "look for errors in " + server.run("postgresql.log"));
    }
    server.process().sleep(2ms);
  }
}

Status create_slots(PgConnection& session, const std::vector<std::string>& slots,
                    const Bound& bound) {
  for (const std::string& slot : slots) {
    const std::string name = session.quote(slot);
    auto done = session.query(
        fmt::format("SELECT pg_create_physical_replication_slot({0}, true) WHERE NOT EXISTS"
                    " (SELECT FROM pg_replication_slots WHERE slot_name = {0})",
                    name),
        bound);
    if (!done) return in_context("replication slot", done.error());
  }
  return {};
}

}  // namespace bascule::node
