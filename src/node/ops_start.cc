// Starting PostgreSQL as a primary or as a standby.
#include <fmt/format.h>

#include "node/ops.h"
#include "node/slot_keeper.h"

namespace bascule::node {
namespace {

using control::OpData;

constexpr Millis kConnectPause = 5ms;
constexpr Nanos kConnectWithin = 2s;
constexpr Nanos kSmallWork = 30s;
constexpr Millis kRecoveryPause = 100ms;

// Until a session can be had. Recovery takes as long as it takes: it ends by success, by the
// postmaster's end, or by cancellation.
Result<PgConnection> await_session(OpContext& context, GuardSession& guard) {
  Server& server = context.server;
  for (;;) {
    if (guard.exited()) {
      return fail(ErrorCode::kUnavailable, "PostgreSQL ended while starting: " + server.log_tail());
    }
    if (context.control.cancelled) return fail(ErrorCode::kUnavailable, "cancelled");
    if (server.says_ready(guard.last().postmaster_pid)) {
      auto session = server.session(context.within(kConnectWithin));
      if (session) return session;
    }
    context.progress("recovering");  // or starting: PostgreSQL does not say before it is over
    server.process().sleep(kConnectPause);
  }
}

Status write_conf(OpContext& context, const ServerSettings& settings) {
  std::vector<std::string> overridden;
  auto done = context.server.write_configuration(settings, &overridden);
  for (const std::string& name : overridden) {
    context.remark("setting removed", name + " in postgresql.auto.conf is managed by Bascule");
  }
  return done;
}

std::string role_sql(PgConnection& session, const std::string& name, const std::string& password,
                     const char* options) {
  return fmt::format(
      "DO $bascule$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {0}) THEN "
      "CREATE ROLE {1} LOGIN; END IF; END $bascule$; ALTER ROLE {1} LOGIN {2} PASSWORD {3}",
      session.quote(name), session.identifier(name), options,
      password.empty() ? std::string("NULL") : session.quote(password));
}

// Roles and databases of a new cluster. Can be repeated.
Status create_roles(OpContext& context, PgConnection& session) {
  const NodeConfig& config = context.server.config();
  const Bound bound = context.within(kSmallWork);
  // Passwords must not get into the log, not even with an error.
  auto done = session.query(
      "SET log_statement = 'none'; SET log_min_duration_statement = -1;"
      " SET log_min_error_statement = 'panic'; SET synchronous_commit = 'local'",
      bound);
  if (!done) return std::unexpected(done.error());
  done = session.query(
      role_sql(session, config.replication_user, config.replication_password, "REPLICATION"),
      bound);
  if (!done) return in_context("replication role", done.error());
  // What pg_rewind needs: https://www.postgresql.org/docs/15/app-pgrewind.html#id-1.9.5.10.8
  const std::string to = session.identifier(config.replication_user);
  done = session.query(fmt::format("GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean),"
                                   " pg_stat_file(text, boolean), pg_read_binary_file(text),"
                                   " pg_read_binary_file(text, bigint, bigint, boolean) TO {}",
                                   to),
                       bound);
  if (!done) return in_context("replication role", done.error());
  for (const ClientUser& user : config.client_users) {
    done = session.query(role_sql(session, user.name, user.password, ""), bound);
    if (!done) return in_context("client role", done.error());
    if (user.database.empty()) continue;
    auto rows = session.query(
        "SELECT FROM pg_database WHERE datname = " + session.quote(user.database), bound);
    if (!rows) return std::unexpected(rows.error());
    if (!rows->empty()) continue;
    done =
        session.query(fmt::format("CREATE DATABASE {} OWNER {}", session.identifier(user.database),
                                  session.identifier(user.name)),
                      bound);
    if (!done) return in_context("client database", done.error());
  }
  return context.server.unmark(Marker::kRolesPending);
}

Status start_as_primary(OpContext& context, const control::op::StartPrimary& o, Position& at) {
  Server& server = context.server;
  auto guard = server.guard();
  if (!guard) return std::unexpected(guard.error());
  if (auto done = write_conf(context, {{}, o.sync_standbys, false, o.sync_count}); !done)
    return done;
  refresh_dynamic(context);
  if (auto done = server.remove_standby_signal(); !done) return done;
  if (auto done = server.start_postmaster(*guard, context.control.begun); !done) return done;
  auto session = await_session(context, *guard);
  if (!session) return std::unexpected(session.error());
  const bool fresh = server.marked(Marker::kRolesPending);
  for (;;) {
    auto recovering = session->value("SELECT pg_is_in_recovery()", context.within(kSmallWork));
    if (!recovering) return std::unexpected(recovering.error());
    if (*recovering == "f") break;
    // A restored directory of a new cluster may have an archive to read, to its end or to a point
    // in time, where PostgreSQL pauses.
    if (!fresh) return fail(ErrorCode::kInternal, "started, but it is in recovery");
    (void)session->query("SELECT pg_wal_replay_resume() WHERE pg_is_wal_replay_paused()",
                         context.within(kSmallWork));
    if (context.control.cancelled) return fail(ErrorCode::kUnavailable, "cancelled");
    context.progress("recovering");
    server.process().sleep(kRecoveryPause);
  }
  if (!fresh) return {};
  auto position = server.replication_session(context.within(kSmallWork));
  if (!position) return std::unexpected(position.error());
  auto found = identify_system(*position, context.within(kSmallWork));
  if (!found) return std::unexpected(found.error());
  at = found->position;
  return create_roles(context, *session);
}

}  // namespace

OpResult start_primary(OpContext& context, const control::op::StartPrimary& o) {
  OpData out;
  const Status started = start_as_primary(context, o, out.position);
  // Also after a failure: whoever starts this directory next without holding the record gets a
  // standby.
  const Status signal = context.server.set_standby_signal();
  if (!started) return in_context("start as primary", started.error());
  if (!signal) return in_context("start as primary", signal.error());
  return out;
}

Status start_in_recovery(OpContext& context, const ServerSettings& settings) {
  Server& server = context.server;
  auto guard = server.guard();
  if (!guard) return std::unexpected(guard.error());
  ServerSettings with_floors = settings;
  with_floors.floors = standby_floors(context);
  if (auto done = write_conf(context, with_floors); !done) return done;
  if (refresh_dynamic(context)) {
    with_floors.floors = standby_floors(context);
    if (auto done = write_conf(context, with_floors); !done) return done;
  }
  if (auto done = server.set_standby_signal(); !done) return done;
  if (auto done = server.start_postmaster(*guard, context.control.begun); !done) return done;
  auto session = await_session(context, *guard);
  if (!session) return std::unexpected(session.error());
  auto recovering = session->value("SELECT pg_is_in_recovery()", context.within(kSmallWork));
  if (!recovering) return std::unexpected(recovering.error());
  if (*recovering != "t") return fail(ErrorCode::kInternal, "started, but it is not in recovery");
  return {};
}

OpResult start_standby(OpContext& context, const control::op::StartStandby& o) {
  if (context.slots != nullptr) context.slots->install(context);
  if (auto done = start_in_recovery(context, {o.upstream, kNobody, false}); !done) {
    return in_context("start as standby", done.error());
  }
  return OpData{};
}

}  // namespace bascule::node
