#include "monitor/database.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace bascule::monitor {
namespace {

using pgclient::Row;

constexpr Millis kPollEvery{100};
constexpr Millis kReloadWithin{5000};

// All that every role may see. In recovery or not is asked first, so that a promotion in between
// can at worst show a primary as a standby for one more check.
constexpr char kState[] =
    "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only'),"
    " current_setting('server_version_num')";
constexpr char kPrimary[] =
    "SELECT pg_current_wal_flush_lsn(),"
    " ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint";
// pg_last_wal_receive_lsn() is NULL or behind replay after a restart.
constexpr char kStandby[] =
    "SELECT greatest(coalesce(pg_last_wal_receive_lsn(), '0/0'),"
    " coalesce(pg_last_wal_replay_lsn(), '0/0')), coalesce(pg_last_wal_replay_lsn(), '0/0'),"
    " CASE WHEN pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn() THEN 0 ELSE"
    " (extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000)::bigint END,"
    " pg_is_wal_replay_paused()";
// Columns but pid are NULL for roles that are not members of pg_read_all_stats.
constexpr char kReceiver[] =
    "SELECT coalesce(status = 'streaming', true), received_tli,"
    " (extract(epoch FROM clock_timestamp() - last_msg_receipt_time) * 1000)::bigint"
    " FROM pg_stat_wal_receiver WHERE pid IS NOT NULL";
constexpr char kControl[] =
    "SELECT (SELECT system_identifier FROM pg_control_system()),"
    " (SELECT timeline_id FROM pg_control_checkpoint())";

// Superusers' sessions can be ended by superusers only; on managed services those are the
// provider's own.
constexpr char kSessions[] =
    "SELECT a.pid FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid"
    " WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()"
    " AND a.application_name <> 'bascule-monitor'"
    " AND (NOT r.rolsuper OR current_setting('is_superuser') = 'on')";

template <typename Int>
Int int_of(const std::optional<std::string>& text) {
  Int value = 0;
  if (text) std::from_chars(text->data(), text->data() + text->size(), value);
  return value;
}
Lsn lsn_of(const std::optional<std::string>& text) {
  return text ? Lsn::parse(*text).value_or(Lsn{}) : Lsn{};
}
std::optional<Millis> millis_of(const std::optional<std::string>& text) {
  if (!text) return std::nullopt;
  return Millis(std::max<int64_t>(0, int_of<int64_t>(text)));
}
bool is_true(const std::optional<std::string>& text) { return text == "t"; }

// The five characters of "FATAL:  53300: sorry, too many clients already".
std::string sql_state(std::string_view message) {
  for (const std::string_view severity : {"FATAL:", "ERROR:", "PANIC:"}) {
    size_t at = message.find(severity);
    if (at == std::string_view::npos) continue;
    at = message.find_first_not_of(' ', at + severity.size());
    if (at == std::string_view::npos || message.size() < at + 6 || message[at + 5] != ':') continue;
    return std::string(message.substr(at, 5));
  }
  return "";
}

// Where in PostgreSQL's source it was said is of no use to an operator.
Error without_location(Error error) {
  if (const size_t at = error.message.find(" LOCATION:"); at != std::string::npos) {
    error.message.resize(at);
  }
  std::ranges::replace(error.message, '\t', ' ');
  while (error.message.ends_with(' ')) error.message.pop_back();
  return error;
}

Status too_late(MonoTime now, MonoTime not_after) {
  if (now < not_after) return {};
  return fail(ErrorCode::kTimeout, "this monitor's lease may have run out: not begun");
}

}  // namespace

Answer answer_of(const Error& error) {
  const std::string state = sql_state(error.message);
  // Too many connections, log-in refused, no such database, no right to connect.
  for (const std::string_view alive : {"53", "28", "3D", "42", "55"}) {
    if (state.starts_with(alive)) return Answer::kRefused;
  }
  if (error.message.contains("certificate verify failed") ||
      error.message.contains("no password supplied")) {
    return Answer::kRefused;
  }
  return Answer::kDown;
}

Database::Database(const EndpointConfig& config, const Access& access, const env::Clock& clock,
                   env::Process& process, std::function<bool()> cancelled)
    : config_(config),
      access_(access),
      clock_(clock),
      process_(process),
      cancelled_(std::move(cancelled)) {}

Result<Database::Connection> Database::connect(const Bound& bound, Writes writes) const {
  auto parameters = access_.parameters;
  if (writes == Writes::kAllowed) {
    parameters.emplace_back("options", "-c default_transaction_read_only=off");
  }
  auto connection =
      Connection::connect(parameters, bound, pgclient::PgConnection::Errors::kSqlState);
  if (!connection) return std::unexpected(without_location(std::move(connection.error())));
  return connection;
}

// ---- health check
// --------------------------------------------------------------------------------

namespace {

void read_primary(pgclient::PgConnection& connection, const pgclient::Bound& bound, Sample& s) {
  if (auto rows = connection.query(kPrimary, bound); rows && rows->size() == 1) {
    s.written = lsn_of(rows->front()[0]);
    s.timeline.value = int_of<uint32_t>(rows->front()[1]);
  }
}

void read_standby(pgclient::PgConnection& connection, const pgclient::Bound& bound, Sample& s) {
  if (auto rows = connection.query(kStandby, bound); rows && rows->size() == 1) {
    const Row& row = rows->front();
    s.received = lsn_of(row[0]);
    s.replayed = lsn_of(row[1]);
    s.lag = millis_of(row[2]);
    s.replay_paused = is_true(row[3]);
  }
  if (auto rows = connection.query(kReceiver, bound); rows && rows->size() == 1) {
    const Row& row = rows->front();
    s.streaming = is_true(row[0]);
    if (row[1]) s.timeline.value = int_of<uint32_t>(row[1]);
    s.receiver_silence = millis_of(row[2]);
  }
}

}  // namespace

event::Probed Database::probe(MonoTime deadline) const {
  event::Probed out;
  const MonoTime begun = clock_.now();
  const Bound bound{clock_, deadline, cancelled_};
  const auto failed = [&](const Error& error, Answer answer) {
    out.answer = answer;
    out.error = error.message;
    out.took = Millis(to_ms(clock_.now() - begun));
    return out;
  };
  auto connection = connect(bound, Writes::kByDefault);
  if (!connection) return failed(connection.error(), answer_of(connection.error()));
  auto rows = connection->query(kState, bound);
  if (!rows) return failed(rows.error(), Answer::kDown);
  if (rows->size() != 1 || rows->front().size() != 3) {
    return failed({ErrorCode::kUnavailable, "an answer of another shape than asked for", ""},
                  Answer::kRefused);
  }
  const Row& row = rows->front();
  out.took = Millis(to_ms(clock_.now() - begun));
  out.answer = Answer::kOk;
  out.sample.in_recovery = is_true(row[0]);
  out.sample.read_only = row[1] == "on";
  out.sample.version = int_of<int>(row[2]);
  // What a managed database does not show is left unknown.
  if (out.sample.in_recovery) {
    read_standby(*connection, bound, out.sample);
  } else {
    read_primary(*connection, bound, out.sample);
  }
  if (auto control = connection->query(kControl, bound); control && control->size() == 1) {
    out.sample.system_id = int_of<uint64_t>(control->front()[0]);
    if (out.sample.timeline.value == 0) {
      out.sample.timeline.value = int_of<uint32_t>(control->front()[1]);
    }
  }
  return out;
}

// ---- actions
// -------------------------------------------------------------------------------------

Result<ActionData> Database::act(ActionKind kind, MonoTime not_after, MonoTime deadline) const {
  if (auto s = too_late(clock_.now(), not_after); !s) return std::unexpected(s.error());
  const Bound bound{clock_, deadline, cancelled_};
  switch (kind) {
    case ActionKind::kPromote:
      return promote(not_after, bound);
    case ActionKind::kFence:
      return fence(not_after, bound);
    case ActionKind::kUnfence:
      return unfence(bound);
  }
  return fail(ErrorCode::kInternal, "unknown action");
}

Status Database::run_command(const CommandLine& command, const char* what,
                             const Bound& bound) const {
  env::Command run;
  run.argv = command;
  run.environment = {
      fmt::format("BASCULE_ACTION={}", what),
      fmt::format("BASCULE_ENDPOINT={}", config_.name.str()),
      fmt::format("BASCULE_REGION={}", config_.region),
      fmt::format("BASCULE_HOST={}", config_.host),
      fmt::format("BASCULE_PORT={}", config_.port),
      fmt::format("BASCULE_DATABASE={}", access_.database),
  };
  run.cancelled = bound.cancelled;
  run.deadline = bound.deadline;
  const auto finished = process_.run(run);
  if (!finished) return std::unexpected(finished.error());
  if (finished->ok()) return {};
  std::string output = finished->output.substr(0, 300);
  std::ranges::replace(output, '\n', ' ');
  return fail(ErrorCode::kUnavailable,
              fmt::format("{} ended with {}: {}", command.front(), finished->how(), output));
}

Result<ActionData> Database::promote(MonoTime not_after, const Bound& bound) const {
  auto connection = connect(bound, Writes::kAllowed);
  if (!connection) return std::unexpected(connection.error());
  auto recovering = connection->value("SELECT pg_is_in_recovery()", bound);
  if (!recovering) return std::unexpected(recovering.error());
  if (*recovering == "t") {
    if (auto s = too_late(clock_.now(), not_after); !s) return std::unexpected(s.error());
    if (!access_.promote_command.empty()) {
      if (auto s = run_command(access_.promote_command, "promote", bound); !s) {
        return std::unexpected(s.error());
      }
      // The address may be another server's from now on.
      connection = connect(bound, Writes::kAllowed);
      if (!connection) return std::unexpected(connection.error());
    } else if (auto sent = connection->value("SELECT pg_promote(false)", bound); !sent) {
      return std::unexpected(sent.error());
    }
    while (*recovering == "t") {
      process_.sleep(kPollEvery);
      recovering = connection->value("SELECT pg_is_in_recovery()", bound);
      if (!recovering) return std::unexpected(recovering.error());
    }
  }
  return unfence(bound);
}

Status Database::await_default(const char* setting, const Bound& bound) const {
  const MonoTime limit = std::min(bound.deadline, clock_.now() + kReloadWithin);
  for (;;) {
    auto session = connect(bound, Writes::kByDefault);
    if (!session) return std::unexpected(session.error());
    const auto value = session->value("SHOW default_transaction_read_only", bound);
    if (!value) return std::unexpected(value.error());
    if (*value == setting) return {};
    if (clock_.now() >= limit) {
      return fail(ErrorCode::kUnavailable,
                  fmt::format("new sessions show default_transaction_read_only = {}", *value),
                  "A setting of the role has precedence (ALTER ROLE ... SET)");
    }
    process_.sleep(kPollEvery);
  }
}

// For the server if we may, else for our database: managed services have no ALTER SYSTEM.
Status Database::set_read_only(Connection& connection, const char* setting,
                               const Bound& bound) const {
  const bool on = std::string_view(setting) == "on";
  const auto system = connection.query(on ? "ALTER SYSTEM SET default_transaction_read_only = on"
                                          : "ALTER SYSTEM RESET default_transaction_read_only",
                                       bound);
  if (system) {
    auto reloaded = connection.query("SELECT pg_reload_conf()", bound);
    if (!reloaded) return std::unexpected(reloaded.error());
  }
  // The reset is for both: which of them was set is not remembered.
  if (system && on) return {};
  const auto name = connection.value("SELECT current_database()", bound);
  if (!name) return std::unexpected(name.error());
  const auto database =
      connection.query(fmt::format("ALTER DATABASE {} {}", connection.identifier(*name),
                                   on ? "SET default_transaction_read_only = on"
                                      : "RESET default_transaction_read_only"),
                       bound);
  if (!database && !system) return std::unexpected(database.error());
  return {};
}

Status Database::end_sessions(Connection& connection, const Bound& bound) const {
  // Those that were there when the default changed; new ones begin read-only.
  const auto now = connection.value("SELECT clock_timestamp()", bound);
  if (!now) return std::unexpected(now.error());
  const std::string list = kSessions + (" AND a.backend_start < " + connection.quote(*now));
  const MonoTime limit = std::min(bound.deadline, clock_.now() + kReloadWithin);
  for (;;) {
    const auto sessions = connection.query(list, bound);
    if (!sessions) return std::unexpected(sessions.error());
    if (sessions->empty()) return {};
    if (clock_.now() >= limit) {
      return fail(ErrorCode::kUnavailable,
                  fmt::format("{} sessions could not be ended", sessions->size()),
                  "The role needs pg_signal_backend");
    }
    for (const Row& row : *sessions) {
      (void)connection.query(fmt::format("SELECT pg_terminate_backend({})", int_of<int>(row[0])),
                             bound);
    }
    process_.sleep(kPollEvery);
  }
}

Result<ActionData> Database::fence(MonoTime not_after, const Bound& bound) const {
  if (!access_.fence_command.empty()) {
    if (auto s = run_command(access_.fence_command, "fence", bound); !s) {
      return std::unexpected(s.error());
    }
  }
  auto connection = connect(bound, Writes::kAllowed);
  if (!connection) {
    // What the command is for: nobody gets in any more.
    const bool gone = answer_of(connection.error()) == Answer::kDown;
    if (!access_.fence_command.empty() && gone) return ActionData{};
    return std::unexpected(connection.error());
  }
  const auto recovering = connection->value("SELECT pg_is_in_recovery()", bound);
  if (!recovering) return std::unexpected(recovering.error());
  if (*recovering == "t") return fail(ErrorCode::kConflict, "it is in recovery: nothing to fence");
  if (auto s = too_late(clock_.now(), not_after); !s) return std::unexpected(s.error());
  if (auto s = set_read_only(*connection, "on", bound); !s) return std::unexpected(s.error());
  if (auto s = await_default("on", bound); !s) return std::unexpected(s.error());
  if (auto s = end_sessions(*connection, bound); !s) return std::unexpected(s.error());
  const auto end = connection->value("SELECT pg_current_wal_insert_lsn()", bound);
  if (!end) return std::unexpected(end.error());
  return ActionData{lsn_of(*end)};
}

Result<ActionData> Database::unfence(const Bound& bound) const {
  auto session = connect(bound, Writes::kByDefault);
  if (!session) return std::unexpected(session.error());
  const auto value = session->value("SHOW default_transaction_read_only", bound);
  if (!value) return std::unexpected(value.error());
  if (*value == "off") return ActionData{};
  auto connection = connect(bound, Writes::kAllowed);
  if (!connection) return std::unexpected(connection.error());
  if (auto s = set_read_only(*connection, "off", bound); !s) return std::unexpected(s.error());
  if (auto s = await_default("off", bound); !s) return std::unexpected(s.error());
  return ActionData{};
}

}  // namespace bascule::monitor
