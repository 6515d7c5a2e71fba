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
                                        const std::map<std::string, std::string>& parameters) {
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
  if (auto good = check_dynamic(o.parameters); !good) {
    out.problem = good.error().message;
    return out;
  }
  auto refused = refusal_of_postgres(context, o.parameters);
  if (!refused) return in_context("parameters", refused.error());
  out.problem = *refused;
  if (!out.problem.empty()) return out;
  const DynamicConf conf = render_dynamic(o.parameters);
  const std::string path = server.data(kDynamicConfName);
  if (server.disk().read(path, kFileBytesMax).value_or("") != conf.text) {
    if (auto done = server.disk().write(path, conf.text, env::Durability::kFsync); !done) {
      return in_context("parameters", done.error());
    }
  }
  if (server.postmaster_pid() == 0) return out;
  const std::string main_conf =
      server.disk().read(server.data(kConfName), kFileBytesMax).value_or("");
  if (main_conf.find(kDynamicConfName) == std::string::npos) {
    out.problem = "PostgreSQL was started by an older version: in force after its next restart";
    return out;
  }
  if (auto done = show_to_sessions(context, conf.mark); !done) {
    return in_context("parameters", done.error());
  }
  return out;
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
