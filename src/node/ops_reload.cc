// Dynamic parameters: a file of their own that bascule.conf includes, so that whatever else changes
// there leaves them alone.
#include <fmt/format.h>

#include <charconv>

#include "node/ops.h"

namespace bascule::node {
namespace {

using control::OpData;

constexpr Nanos kReloadWithin = 5s;
constexpr Nanos kCheckWithin = 10s;
constexpr Nanos kReloadAgain = 200ms;
constexpr size_t kFileBytesMax = 1 << 20;
constexpr size_t kProblemBytesMax = 300;

// PostgreSQL itself says what it would refuse: with such a value in its files it would not start.
Result<std::string> refusal_of_postgres(OpContext& context,
                                        const std::map<std::string, std::string>& dynamic) {
  auto parameters = context.server.config().parameters;
  parameters.insert(dynamic.begin(), dynamic.end());  // the member's own win
  std::vector<std::string> arguments = {"-D", context.server.config().data_dir, "-C", "port"};
  for (const auto& [name, value] : parameters) {
    arguments.emplace_back("-c");
    arguments.push_back(name + "=" + value);
  }
  auto out =
      context.server.run_tool("postgres", std::move(arguments), context.within(kCheckWithin));
  if (!out) return std::unexpected(out.error());
  if (out->ok()) return std::string();
  std::string text = out->output.substr(0, kProblemBytesMax);
  const size_t fatal = text.find("FATAL:  ");
  if (fatal != std::string::npos) text = text.substr(fatal + 8);
  return text.substr(0, text.find('\n'));
}

// The file is as wanted, or `problem` says why not.
Status write_dynamic(OpContext& context, const std::map<std::string, std::string>& parameters,
                     std::string& problem) {
  Server& server = context.server;
  if (auto good = check_dynamic(parameters); !good) {
    problem = good.error().message;
    return {};
  }
  auto refused = refusal_of_postgres(context, parameters);
  if (!refused) return std::unexpected(refused.error());
  problem = *refused;
  const std::string text = render_dynamic(parameters).text;
  const std::string path = server.data(kDynamicConfName);
  if (!problem.empty() || server.disk().read(path, kFileBytesMax).value_or("") == text) return {};
  return server.disk().write(path, text, env::Durability::kFsync);
}

// What is wrong with the rules; empty: nothing. A running server goes on with those that it had.
Result<std::string> refresh_hba(OpContext& context) {
  Server& server = context.server;
  const std::string path = server.data("pg_hba.conf");
  const std::string text = render_hba(server.config());
  if (server.disk().read(path, kFileBytesMax).value_or("") != text) {
    if (auto done = server.disk().write(path, text, env::Durability::kNone); !done) {
      return std::unexpected(done.error());
    }
  }
  const Bound bound = context.within(kReloadWithin);
  auto session = server.replication_session(bound);
  if (!session) return std::unexpected(session.error());
  auto wrong = session->query(
      "SELECT error, line_number FROM pg_hba_file_rules WHERE error IS NOT NULL LIMIT 1", bound);
  if (!wrong) return std::unexpected(wrong.error());
  if (wrong->empty()) return std::string();
  const Row& row = wrong->front();
  return fmt::format("pg_hba.conf, line {}: {}; PostgreSQL would not start with it",
                     row[1].value_or("?"), row[0].value_or("").substr(0, kProblemBytesMax));
}

Status show_to_sessions(OpContext& context, const std::string& mark) {
  Server& server = context.server;
  const Bound bound = context.within(kReloadWithin);
  MonoTime next_reload = server.clock().now();
  for (;;) {
    if (server.clock().now() >= next_reload) {
      if (auto done = server.reload(); !done) return done;
      next_reload = server.clock().now() + kReloadAgain;
    }
    auto session = server.replication_session(bound);
    if (!session) return std::unexpected(session.error());
    auto shown =
        session->value("SELECT coalesce(current_setting('bascule.parameters', true), '')", bound);
    if (!shown) return std::unexpected(shown.error());
    if (*shown == mark) return {};
    if (server.clock().now() >= bound.deadline) {
      return fail(ErrorCode::kTimeout, "a new session does not show the parameters",
                  "look for errors in " + server.run("postgresql.log"));
    }
    server.process().sleep(5ms);
  }
}

int number_of(const std::string& text) {
  int out = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size() ? out : -1;
}

}  // namespace

OpResult reload(OpContext& context, const control::op::Reload& o) {
  Server& server = context.server;
  OpData out;
  if (auto done = write_dynamic(context, o.parameters, out.problem); !done) {
    return in_context("parameters", done.error());
  }
  server.started_with({});
  if (!out.problem.empty() || server.postmaster_pid() == 0) return out;
  const std::string main_conf =
      server.disk().read(server.data(kConfName), kFileBytesMax).value_or("");
  if (main_conf.find(kDynamicConfName) == std::string::npos) {
    out.problem = "PostgreSQL was started by an older version: in force after its next restart";
    return out;
  }
  // This member's own settings and rules: an agent that adopts a running server may have others.
  if (auto done = server.refresh_configuration(); !done) {
    return in_context("parameters", done.error());
  }
  auto refused = refresh_hba(context);
  if (!refused) return in_context("pg_hba.conf", refused.error());
  out.problem = *refused;
  if (auto done = show_to_sessions(context, render_dynamic(o.parameters).mark); !done) {
    return in_context("parameters", done.error());
  }
  return out;
}

bool refresh_dynamic(OpContext& context) {
  Server& server = context.server;
  const auto wanted = server.wanted_parameters();
  const std::string path = server.data(kDynamicConfName);
  const auto present = server.disk().read(path, kFileBytesMax);
  if (!wanted || (present && *present == render_dynamic(*wanted).text)) return false;
  std::string problem;
  if (auto done = write_dynamic(context, *wanted, problem); !done) problem = done.error().message;
  if (!problem.empty()) {
    context.remark("parameters refused", problem);
  } else {
    server.started_with(wanted);
  }
  return problem.empty();
}

// A standby does not start with less of these than its primary had when it wrote the WAL:
// https://www.postgresql.org/docs/15/hot-standby.html#HOT-STANDBY-ADMIN
std::map<std::string, std::string> standby_floors(OpContext& context) {
  Server& server = context.server;
  std::map<std::string, std::string> out;
  auto control = server.control_data(context.within(kCheckWithin));
  if (!control) return out;
  const auto dynamic =
      parse_dynamic(server.disk().read(server.data(kDynamicConfName), kFileBytesMax).value_or(""));
  const auto& own = server.config().parameters;
  for (const auto& [name, least] : control->standby_minima) {
    int value = least.otherwise;
    if (const auto found = dynamic.find(name); found != dynamic.end()) {
      value = number_of(found->second);
    }
    if (const auto found = own.find(name); found != own.end()) value = number_of(found->second);
    if (value < least.value) out[name] = std::to_string(least.value);
  }
  return out;
}

}  // namespace bascule::node
