#include "node/server.h"

#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <charconv>

#include "node/timeline_gaps.h"

namespace bascule::node {
namespace {

constexpr size_t kFileBytesMax = 4 << 20;
constexpr size_t kLogBytesMax = 32 << 20;
constexpr int kVersionMin = 13;
constexpr int kVersionMax = 18;
constexpr Millis kKillPoll = 2ms;

const char* marker_suffix(Marker marker) {
  switch (marker) {
    case Marker::kHalfInitialized:
      return ".half-initialized";
    case Marker::kHalfCloned:
      return ".half-cloned";
    case Marker::kHalfRewound:
      return ".half-rewound";
    case Marker::kRolesPending:
      return ".roles-pending";
  }
  return ".marker";
}

}  // namespace

void Server::set_identity(std::string incarnation, bool ballot_intent) {
  const std::lock_guard lock(mutex_);
  incarnation_ = std::move(incarnation);
  ballot_intent_ = ballot_intent;
}

bool Server::ballot_intent() const {
  const std::lock_guard lock(mutex_);
  return ballot_intent_;
}

std::string Server::sync_name() const {
  const std::lock_guard lock(mutex_);
  return config().agent.name.str() + "_" + incarnation_;
}

void Server::want_parameters(std::map<std::string, std::string> parameters) {
  const std::lock_guard lock(mutex_);
  parameters_ = std::move(parameters);
}

std::optional<std::map<std::string, std::string>> Server::wanted_parameters() const {
  const std::lock_guard lock(mutex_);
  return parameters_;
}

void Server::started_with(std::optional<std::map<std::string, std::string>> parameters) {
  const std::lock_guard lock(mutex_);
  started_with_ = std::move(parameters);
}

bool Server::started_with_others() const {
  const std::lock_guard lock(mutex_);
  return started_with_ && started_with_ != parameters_;
}

ConfInputs Server::conf_inputs() const {
  return {config(), version_major_, sync_name(), run("pgpass")};
}

Status Server::detect_version() {
  auto out = run_tool("postgres", {"--version"}, within(10s));
  if (!out) return std::unexpected(out.error());
  // "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)"
  const size_t at = out->output.find("(PostgreSQL) ");
  if (at != std::string::npos) version_major_ = atoi(out->output.c_str() + at + 13);
  if (version_major_ < kVersionMin || version_major_ > kVersionMax) {
    return fail(ErrorCode::kInvalid,
                fmt::format("{}: PostgreSQL {} is not supported", config().bin_dir, version_major_),
                fmt::format("versions {} to {} are", kVersionMin, kVersionMax));
  }
  return {};
}

bool Server::marked(Marker marker) {
  return deps_.disk.exists(config().state_file + marker_suffix(marker));
}

Status Server::mark(Marker marker) {
  return deps_.disk.write(config().state_file + marker_suffix(marker), "", env::Durability::kFsync);
}

Status Server::unmark(Marker marker) {
  return deps_.disk.remove(config().state_file + marker_suffix(marker), env::Durability::kFsync);
}

control::DataDir Server::data_dir_state() {
  if (marked(Marker::kHalfInitialized)) return control::DataDir::kEmpty;
  if (marked(Marker::kHalfCloned)) return control::DataDir::kHalfCloned;
  if (marked(Marker::kHalfRewound)) return control::DataDir::kHalfRewound;
  if (deps_.disk.exists(data("PG_VERSION")) && deps_.disk.exists(data("global/pg_control"))) {
    return control::DataDir::kReady;
  }
  auto names = deps_.disk.list(config().data_dir);
  return !names || names->empty() ? control::DataDir::kEmpty : control::DataDir::kForeign;
}

Status Server::write_configuration(const ServerSettings& wanted,
                                   std::vector<std::string>* overridden) {
  ServerSettings settings = wanted;
  if (ballot_intent()) settings.upstream.reset();
  env::Disk& disk = deps_.disk;
  const auto put = [&](const std::string& path, const std::string& text) -> Status {
    auto present = disk.read(path, kFileBytesMax);
    if (present && *present == text) return {};
    // Not fsynced: every start compares and writes them again, and without them a start by somebody
    // else yields a standby without upstream.
    return disk.write(path, text, env::Durability::kNone);
  };
  if (auto done = put(run("pgpass"), render_passfile(config())); !done) return done;
  if (auto done = put(data(kConfName), rendered(settings)); !done) return done;
  if (auto done = put(data("pg_hba.conf"), render_hba(config())); !done) return done;
  if (auto done = put(data("pg_ident.conf"), render_ident(config(), deps_.process.user())); !done) {
    return done;
  }
  auto main_conf = disk.read(data("postgresql.conf"), kFileBytesMax);
  if (!main_conf && main_conf.error().code != ErrorCode::kNotFound) {
    return std::unexpected(main_conf.error());
  }
  if (auto done = put(data("postgresql.conf"), with_include(main_conf ? *main_conf : "")); !done) {
    return done;
  }
  auto auto_conf = disk.read(data("postgresql.auto.conf"), kFileBytesMax);
  if (!auto_conf) return {};
  std::vector<std::string> removed;
  const auto target =
      marked(Marker::kRolesPending) ? RecoveryTarget::kKeep : RecoveryTarget::kRemove;
  const std::string cleaned = without_owned(*auto_conf, target, removed);
  if (removed.empty()) return {};
  if (overridden != nullptr) *overridden = removed;
  return put(data("postgresql.auto.conf"), cleaned);
}

Status Server::refresh_configuration() {
  env::Disk& disk = deps_.disk;
  auto present = disk.read(data(kConfName), kFileBytesMax);
  if (!present) return std::unexpected(present.error());
  const std::string text = with_operations_of(rendered({}), *present);
  if (text != *present) {
    if (auto done = disk.write(data(kConfName), text, env::Durability::kNone); !done) return done;
  }
  return disk.write(data("pg_ident.conf"), render_ident(config(), deps_.process.user()),
                    env::Durability::kNone);
}

std::string Server::rendered(const ServerSettings& settings) const {
  return render_conf(conf_inputs(), settings);
}

Status Server::set_standby_signal() {
  if (deps_.disk.exists(data("standby.signal"))) return {};
  return deps_.disk.write(data("standby.signal"), "", env::Durability::kFsync);
}

Status Server::remove_standby_signal() {
  return deps_.disk.remove(data("standby.signal"), env::Durability::kFsync);
}

Result<env::Finished> Server::run_tool(const std::string& name, std::vector<std::string> arguments,
                                       const Bound& bound,
                                       std::function<void(std::string_view)> on_output) {
  env::Command command;
  command.argv = {binary(name)};
  command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
  command.directory = config().run_dir;  // by which end_stray_tools() finds it
  command.environment = {"PGPASSFILE=" + run("pgpass")};
  command.on_output = std::move(on_output);
  command.cancelled = bound.cancelled;
  command.deadline = bound.deadline;
  return deps_.process.run(command);
}

Status Server::end_stray_tools(const Bound& bound) {
  for (;;) {
    size_t alive = 0;
    for (const char* program : {"pg_basebackup", "pg_rewind", "initdb"}) {
      for (const env::Pid pid : deps_.process.in_directory(config().run_dir, program)) {
        auto handle = deps_.process.open(pid);
        if (!handle || !deps_.process.works_in(pid, config().run_dir, program)) continue;
        (void)(*handle)->signal(SIGKILL);
        ++alive;
      }
    }
    if (alive == 0) return {};
    if (deps_.clock.now() >= bound.deadline) {
      return fail(ErrorCode::kTimeout, "a tool of an earlier agent does not die");
    }
    deps_.process.sleep(kKillPoll);
  }
}

Result<ControlData> Server::control_data(const Bound& bound) {
  auto out = run_tool("pg_controldata", {"-D", config().data_dir}, bound);
  if (!out) return std::unexpected(out.error());
  if (!out->ok()) {
    return fail(ErrorCode::kUnavailable, "pg_controldata: " + out->how() + ": " + out->output);
  }
  return parse_controldata(out->output);
}

std::string Server::log_tail() {
  auto text = deps_.disk.read(run("postgresql.log"), 2 * kLogBytesMax);
  return text ? why_it_ended(*text) : std::string();
}

env::Pid Server::postmaster_pid() {
  auto text = deps_.disk.read(data("postmaster.pid"), 4096);
  if (!text) return 0;
  env::Pid pid = 0;
  std::from_chars(text->data(), text->data() + text->size(), pid);
  if (pid <= 0) return 0;
  // The number may be a stranger's by now: it counts only if it works in our directory.
  return deps_.process.works_in(pid, config().data_dir, "postgres") ? pid : 0;
}

bool Server::says_ready(env::Pid postmaster) {
  // Its eighth line: https://www.postgresql.org/docs/15/storage-file-layout.html
  auto text = deps_.disk.read(data("postmaster.pid"), 4096);
  if (!text || atoi(text->c_str()) != postmaster) return false;
  size_t at = 0;
  for (int line = 1; line < 8; ++line) {
    at = text->find('\n', at);
    if (at == std::string::npos) return false;
    ++at;
  }
  return text->compare(at, 5, "ready") == 0;
}

Result<GuardSession> Server::guard() {
  return GuardSession::open(deps_.process, deps_.clock, config().run_dir);
}

Status Server::start_postmaster(GuardSession& guard, MonoTime begun) {
  if (auto state = data_dir_state(); state != control::DataDir::kReady) {
    return fail(ErrorCode::kConflict, config().data_dir + ": not a complete data directory");
  }
  if (auto done = remove_stray_gaps(*this); !done) return done;
  // PostgreSQL would refuse to start as long as the old postmaster is a zombie that init has not
  // reaped. What is dead is told by the processes themselves.
  if (deps_.process.in_directory(config().data_dir, "postgres").empty()) {
    const std::string socket = fmt::format(".s.PGSQL.{}.lock", config().agent.port);
    for (const std::string& path : {data("postmaster.pid"), run(socket)}) {
      if (auto done = deps_.disk.remove(path, env::Durability::kNone); !done) return done;
    }
  }
  // Between two starts nobody writes to it.
  if (deps_.disk.size(run("postgresql.log")).value_or(0) > kLogBytesMax) {
    (void)deps_.disk.rename(run("postgresql.log"), run("postgresql.log.1"));
  }
  auto started = guard.start(run("postgresql.log"), {binary("postgres"), "-D", config().data_dir},
                             {"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "TZ=UTC",
                              "PGDATA=" + config().data_dir},
                             begun);
  if (!started) return std::unexpected(started.error());
  return {};
}

Status Server::reload() {
  const env::Pid pid = postmaster_pid();
  auto handle = deps_.process.open(pid);
  if (pid == 0 || !handle || postmaster_pid() != pid) {
    return fail(ErrorCode::kUnavailable, "PostgreSQL is not running");
  }
  return (*handle)->signal(SIGHUP);
}

void Server::checkpoint_soon(PgConnection session) {
  session.send("CHECKPOINT");
  parked_ = std::move(session);
}

Status Server::stop_fast(const Bound& bound) {
  auto session = guard();
  if (!session) return std::unexpected(session.error());
  auto status = session->status();
  if (!status) return std::unexpected(status.error());
  if (status->state == env::GuardState::kIdle) return {};
  stopped_on_purpose = status->starts;
  if (auto sent = session->signal(SIGINT); !sent && status->postmaster_pid != 0) {
    if (sent.error().code != ErrorCode::kUnavailable) return sent;
  }
  auto ended = session->wait_exit(bound.deadline, bound.cancelled);
  if (!ended) return std::unexpected(ended.error());
  return {};
}

Status Server::kill_leftovers(Nanos at_most) {
  const MonoTime until = deps_.clock.now() + at_most;
  for (;;) {
    const auto pids = deps_.process.in_directory(config().data_dir, "postgres");
    if (pids.empty()) return {};
    for (const env::Pid pid : pids) {
      auto handle = deps_.process.open(pid);
      if (!handle) continue;
      // Looked up again with the descriptor in hand: the number can't change owners any more.
      if (!deps_.process.works_in(pid, config().data_dir, "postgres")) continue;
      (void)(*handle)->signal(SIGKILL);
    }
    if (deps_.clock.now() >= until) {
      return fail(ErrorCode::kTimeout, config().data_dir + ": processes of PostgreSQL don't die");
    }
    deps_.process.sleep(kKillPoll);
  }
}

Result<PgConnection> Server::session(const Bound& bound, const std::string& database) {
  return PgConnection::connect({{"host", config().run_dir},
                                {"port", std::to_string(config().agent.port)},
                                {"user", config().superuser},
                                {"dbname", database},
                                {"application_name", "bascule"},
                                {"client_encoding", "UTF8"},
                                {"gssencmode", "disable"},
                                {"options",
                                 "-c synchronous_commit=local -c statement_timeout=0 "
                                 "-c lock_timeout=0 -c search_path=pg_catalog"}},
                               bound);
}

Result<PgConnection> Server::replication_session(const Bound& bound) {
  return PgConnection::connect({{"host", config().run_dir},
                                {"port", std::to_string(config().agent.port)},
                                {"user", config().superuser},
                                {"dbname", "postgres"},
                                {"replication", "database"},
                                {"application_name", "bascule"},
                                {"client_encoding", "UTF8"},
                                {"gssencmode", "disable"},
                                {"options",
                                 "-c synchronous_commit=local -c statement_timeout=0 "
                                 "-c search_path=pg_catalog"}},
                               bound);
}

PgConnection::Parameters Server::remote(const control::Upstream& member) const {
  const Hosts of = hosts_of(member);
  return {{"host", of.hosts},
          {"port", of.ports},
          {"target_session_attrs", of.session},
          {"user", config().replication_user},
          {"application_name", "bascule"},
          {"passfile", run("pgpass")},
          {"sslmode", "prefer"},
          {"gssencmode", "disable"},
          {"tcp_user_timeout", "2000"}};
}

Result<PgConnection> Server::remote_session(const control::Upstream& member, const Bound& bound) {
  PgConnection::Parameters parameters = remote(member);
  parameters.insert(parameters.end(), {{"dbname", "replication"}, {"replication", "true"}});
  return PgConnection::connect(parameters, bound);
}

Result<PgConnection> Server::remote_sql_session(const control::Upstream& member,
                                                const Bound& bound) {
  PgConnection::Parameters parameters = remote(member);
  parameters.insert(parameters.end(),
                    {{"dbname", "postgres"}, {"options", "-c search_path=pg_catalog"}});
  return PgConnection::connect(parameters, bound);
}

std::string Server::remote_conninfo(const control::Upstream& member,
                                    const std::string& database) const {
  return fmt::format(
      "{} user={} dbname={} passfile={} application_name={} connect_timeout=5 "
      "keepalives_idle=2 keepalives_interval=2 keepalives_count=3 sslmode=prefer",
      render_hosts(member), quote_conninfo(config().replication_user), quote_conninfo(database),
      quote_conninfo(run("pgpass")),
      quote_conninfo("bascule copy of " + config().agent.name.str()));
}

Result<SystemPosition> identify_system(PgConnection& session, const Bound& bound) {
  auto rows = session.query("IDENTIFY_SYSTEM", bound);
  if (!rows) return std::unexpected(rows.error());
  SystemPosition out;
  if (rows->size() != 1 || (*rows)[0].size() < 3) {
    return fail(ErrorCode::kInvalid, "IDENTIFY_SYSTEM: answer not understood");
  }
  const Row& row = (*rows)[0];
  out.system_id = strtoull(row[0].value_or("0").c_str(), nullptr, 10);
  out.position.timeline.value =
      static_cast<uint32_t>(strtoul(row[1].value_or("0").c_str(), nullptr, 10));
  auto lsn = Lsn::parse(row[2].value_or(""));
  if (!lsn) return std::unexpected(lsn.error());
  out.position.lsn = *lsn;
  return out;
}

}  // namespace bascule::node
