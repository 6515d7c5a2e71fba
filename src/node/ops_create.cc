// A data directory from nothing: initdb, or a copy of another member.
#include <fmt/format.h>

#include "node/ops.h"

namespace bascule::node {
namespace {

using control::OpData;

constexpr Nanos kInitWithin = 120s;
constexpr Nanos kCloneWithin = 24h;
constexpr Nanos kSmallWork = 10s;
constexpr char kBaseBackup[] = "basebackup";

// A data directory made by a command of the operator's.
Status run_method(OpContext& context, const CopyMethod& method, const control::Upstream* source) {
  Server& server = context.server;
  const NodeConfig& config = server.config();
  env::Command command;
  command.argv = method.command;
  command.environment = {"BASCULE_CLUSTER=" + config.agent.cluster,
                         "BASCULE_MEMBER=" + config.agent.name.str(),
                         "BASCULE_DATA_DIR=" + config.data_dir, "BASCULE_BIN_DIR=" + config.bin_dir,
                         "PGPASSFILE=" + server.run("pgpass")};
  if (source != nullptr) {
    command.environment.push_back("BASCULE_SOURCE_HOST=" + source->host);
    command.environment.push_back("BASCULE_SOURCE_PORT=" + std::to_string(source->port));
    command.environment.push_back("BASCULE_SOURCE_USER=" + config.replication_user);
    command.environment.push_back("BASCULE_SOURCE_CONNINFO=" +
                                  server.remote_conninfo(*source, "replication"));
  }
  command.directory = config.run_dir;
  const Bound bound = context.within(method.timeout);
  command.deadline = bound.deadline;
  command.cancelled = bound.cancelled;
  context.progress("running " + method.name);
  const auto done = server.process().run(command);
  if (!done) return in_context(method.name.c_str(), done.error());
  if (!done->ok()) {
    return fail(ErrorCode::kUnavailable, method.name + ": " + done->how() + ": " + done->output);
  }
  for (const char* file : {"PG_VERSION", "global/pg_control"}) {
    if (server.disk().exists(server.data(file))) continue;
    return fail(
        ErrorCode::kUnavailable,
        fmt::format("{}: left no complete data directory ({} is missing)", method.name, file));
  }
  (void)server.disk().remove(server.data("postmaster.pid"), env::Durability::kNone);
  return {};
}

Status run_initdb(OpContext& context);

Status initialize(OpContext& context) {
  Server& server = context.server;
  const NodeConfig& config = server.config();
  if (auto done = server.disk().make_directory(config.data_dir); !done) return done;
  if (auto done = server.end_stray_tools(context.within(kSmallWork)); !done) return done;
  // What was begun and never finished holds nothing that anybody could miss.
  if (server.marked(Marker::kHalfInitialized) || server.marked(Marker::kHalfCloned)) {
    if (auto done = server.disk().remove_contents(config.data_dir); !done) return done;
    if (auto done = server.unmark(Marker::kHalfCloned); !done) return done;
  }
  if (server.data_dir_state() != control::DataDir::kEmpty) {
    return fail(ErrorCode::kConflict, config.data_dir + ": not empty",
                "give an empty directory, or one that belongs to this cluster");
  }
  if (auto done = server.mark(Marker::kHalfInitialized); !done) return done;
  if (auto done = server.mark(Marker::kRolesPending); !done) return done;
  const auto& own = config.bootstrap;
  auto made = own ? run_method(context, *own, nullptr) : run_initdb(context);
  if (!made) return made;
  if (auto done = server.write_configuration({}, nullptr); !done) return done;
  if (auto done = server.set_standby_signal(); !done) return done;
  return server.unmark(Marker::kHalfInitialized);
}

Status run_initdb(OpContext& context) {
  Server& server = context.server;
  const NodeConfig& config = server.config();
  std::vector<std::string> arguments = {"-D",
                                        config.data_dir,
                                        "-U",
                                        config.superuser,
                                        "--data-checksums",
                                        "--encoding=UTF8",
                                        "--locale=C.UTF-8",
                                        "--auth-local=peer",
                                        "--auth-host=scram-sha-256"};
  const std::string pwfile = server.run(kPasswordFile);
  if (config.superuser_password.empty()) {
    arguments[8] = "--auth-host=reject";  // initdb insists on a password otherwise; replaced below
  } else {
    auto done =
        server.disk().write(pwfile, config.superuser_password + "\n", env::Durability::kNone);
    if (!done) return done;
    arguments.push_back("--pwfile=" + pwfile);
  }
  auto out = server.run_tool("initdb", arguments, context.within(kInitWithin));
  (void)server.disk().remove(pwfile, env::Durability::kNone);
  if (!out) return std::unexpected(out.error());
  if (!out->ok()) return fail(ErrorCode::kUnavailable, out->how() + ": " + out->output);
  return {};
}

// WAL from now on is kept for us, also while the copy runs. No slot: only looks.
Status check_source(OpContext& context, const control::Upstream& source, const std::string& slot) {
  const Bound bound = context.within(kSmallWork);
  auto session = context.server.remote_session(source, bound);
  if (!session) return std::unexpected(session.error());
  if (context.server.data_dir_state() == control::DataDir::kReady) {
    auto own = context.server.control_data(bound);
    auto theirs = identify_system(*session, bound);
    if (!theirs) return std::unexpected(theirs.error());
    if (own && own->system_id != theirs->system_id) {
      return fail(ErrorCode::kConflict,
                  fmt::format("the server at {}:{} is of another cluster (system identifier {})",
                              source.host, source.port, theirs->system_id));
    }
  }
  if (slot.empty()) return {};
  const std::string name = session->identifier(slot);
  // One that is there may have lost its WAL, and nothing of it is needed any more. It can't be
  // dropped while our old server still streams through it; then it is alive and good.
  (void)session->query("DROP_REPLICATION_SLOT " + name, bound);
  auto done =
      session->query(fmt::format("CREATE_REPLICATION_SLOT {} PHYSICAL RESERVE_WAL", name), bound);
  if (!done && done.error().message.find("already exists") == std::string::npos) {
    return std::unexpected(done.error());
  }
  return {};
}

// A backup of something else would be started as a standby of this cluster.
Status check_copy(OpContext& context, const control::Upstream& source) {
  const Bound bound = context.within(kSmallWork);
  auto own = context.server.control_data(bound);
  if (!own) return std::unexpected(own.error());
  auto session = context.server.remote_session(source, bound);
  if (!session) return std::unexpected(session.error());
  auto theirs = identify_system(*session, bound);
  if (!theirs) return std::unexpected(theirs.error());
  if (own->system_id == theirs->system_id) return {};
  return fail(ErrorCode::kConflict,
              fmt::format("the copy is of another cluster (system identifier {} instead of {})",
                          own->system_id, theirs->system_id));
}

Status make_copy(OpContext& context, const control::op::Clone& o, const std::string& slot,
                 std::string& by);

Status copy(OpContext& context, const control::op::Clone& o, std::string& by) {
  const control::Upstream& source = o.source;
  Server& server = context.server;
  const NodeConfig& config = server.config();
  const std::string slot = control::slot_name(config.agent.name);
  if (auto done = server.disk().make_directory(config.data_dir); !done) return done;
  auto passfile =
      server.disk().write(server.run("pgpass"), render_passfile(config), env::Durability::kFsync);
  if (!passfile) return passfile;
  if (auto done = server.end_stray_tools(context.within(kSmallWork)); !done) return done;
  // Before anything is destroyed: the source answers, is of our cluster, and lets us in.
  // A replica holds no WAL for us afterwards: pg_basebackup's own slot ends with it.
  if (auto done = check_source(context, source, o.from_replica ? "" : slot); !done) return done;
  if (auto done = server.stop_fast(context.within(kSmallWork)); !done) return done;
  if (!server.process().in_directory(config.data_dir, "postgres").empty()) {
    return fail(ErrorCode::kConflict,
                config.data_dir + ": a PostgreSQL runs here that Bascule did not start",
                "stop it first");
  }
  if (auto done = server.mark(Marker::kHalfCloned); !done) return done;
  if (auto done = make_copy(context, o, slot, by); !done) return done;
  if (auto done = server.write_configuration({}, nullptr); !done) return done;
  if (auto done = server.set_standby_signal(); !done) return done;
  (void)server.unmark(Marker::kHalfRewound);
  (void)server.unmark(Marker::kHalfInitialized);
  (void)server.unmark(Marker::kRolesPending);
  return server.unmark(Marker::kHalfCloned);
}

Status base_backup(OpContext& context, const control::op::Clone& o, const std::string& slot) {
  Server& server = context.server;
  context.progress("cloning 0 %");
  const auto on_output = [&](std::string_view piece) {
    if (auto percent = parse_progress(piece)) {
      context.progress(fmt::format("cloning {} %", *percent));
    }
  };
  std::vector<std::string> arguments = {"-D", server.config().data_dir,
                                        "-d", server.remote_conninfo(o.source, "replication"),
                                        "-X", "stream",
                                        "-c", "fast",
                                        "-P", "--no-password"};
  if (!o.from_replica) arguments.insert(arguments.end(), {"-S", slot});
  auto out = server.run_tool("pg_basebackup", std::move(arguments), context.within(kCloneWithin),
                             on_output);
  if (!out) return std::unexpected(out.error());
  if (!out->ok()) return fail(ErrorCode::kUnavailable, out->how() + ": " + out->output);
  return {};
}

// By the first of the configured methods that succeeds; `by` is its name.
Status make_copy(OpContext& context, const control::op::Clone& o, const std::string& slot,
                 std::string& by) {
  Server& server = context.server;
  const CopyMethod plain{kBaseBackup, {}};
  const auto& configured = server.config().replica_methods;
  Status last = fail(ErrorCode::kInternal, "no method to copy with");
  for (const CopyMethod& method : configured.empty() ? std::vector{plain} : configured) {
    if (auto done = server.disk().remove_contents(server.config().data_dir); !done) return done;
    by = method.name;
    last = method.command.empty() ? base_backup(context, o, slot)
                                  : run_method(context, method, &o.source);
    if (last && !method.command.empty()) last = check_copy(context, o.source);
    if (last || context.control.cancelled) return last;
    context.remark("copy failed", last.error().to_string());
  }
  return last;
}

}  // namespace

OpResult init_db(OpContext& context, const control::op::InitDb&) {
  if (auto done = initialize(context); !done) return in_context("initdb", done.error());
  auto control = context.server.control_data(context.within(kSmallWork));
  if (!control) return in_context("initdb", control.error());
  return OpData{{}, control->system_id};
}

OpResult clone(OpContext& context, const control::op::Clone& o) {
  OpData out;
  std::string by;
  if (auto done = copy(context, o, by); !done) return in_context("clone", done.error());
  if (by != kBaseBackup) out.problem = "made by " + by;
  return out;
}

}  // namespace bascule::node
