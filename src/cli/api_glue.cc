#include "cli/api_glue.h"

#include <fmt/format.h>

#include "base/log.h"
#include "cli/cluster_access.h"
#include "cli/query_analysis.h"
#include "proxy/statement_scanner.h"

namespace bascule::cli {
namespace {

// Who wanted what, from where, and what came of it: in the log, and in a file if there is one.
void audit(const Platform& platform, const std::string& file, const api::Command& command,
           const std::string& outcome) {
  log(LogLevel::kInfo, "audit", "command",
      {{"by", command.by}, {"what", describe(command)}, {"outcome", outcome}});
  if (file.empty()) return;
  const std::string line =
      audit_line({to_iso8601(platform.clock.wall_now()), command.by, describe(command), outcome});
  if (auto s = platform.disk.append(file, line + "\n"); !s) {
    log(LogLevel::kError, "audit", "can't be written", {{"reason", s.error().to_string()}});
  }
}

}  // namespace

api::LocalMember local_member(const NodeName& name, const node::NodeView& view) {
  api::LocalMember member;
  member.name = name;
  member.phase = view.phase;
  member.reason = view.reason;
  member.leading_epoch = view.leading_epoch;
  member.deadline = view.deadline;
  member.proved_at = view.proved_at;
  member.taken_at = view.taken_at;
  member.postgres = view.postgres;
  return member;
}

void add_proxy(const proxy::ProxyStats& stats, api::Snapshot& snapshot) {
  using Kind = api::MetricPoint::Kind;
  const auto add = [&](const char* name, const char* help, Kind kind, uint64_t value) {
    snapshot.metrics.push_back(
        {fmt::format("bascule_proxy_{}", name), help, kind, {}, static_cast<double>(value)});
  };
  const proxy::WorkerStats& t = stats.total;
  add("clients", "Connected clients.", Kind::kGauge, t.clients);
  add("held_clients", "Clients whose statement waits for a server.", Kind::kGauge, t.held);
  add("active_transactions", "Transactions that run on the writer port.", Kind::kGauge,
      t.active_transactions);
  add("servers", "Server connections.", Kind::kGauge, t.servers);
  add("servers_idle", "Server connections without a client.", Kind::kGauge, t.servers_idle);
  add("clients_total", "Clients accepted.", Kind::kCounter, t.clients_total);
  add("logins_failed_total", "Clients that failed to log in.", Kind::kCounter, t.logins_failed);
  add("servers_total", "Server connections opened.", Kind::kCounter, t.servers_total);
  add("servers_lost_total", "Server connections that broke or were of an older epoch.",
      Kind::kCounter, t.servers_lost);
  add("transactions_total", "Transactions relayed to their end.", Kind::kCounter, t.transactions);
  add("moved_total", "Sessions set up again on another server connection.", Kind::kCounter,
      t.moved);
  add("retried_total", "Statements sent again.", Kind::kCounter, t.retried);
  add("outage_errors_total", "Errors answered for work that was lost with its server.",
      Kind::kCounter, t.errors_outage);
  add("hold_timeouts_total", "Statements that waited too long for a server.", Kind::kCounter,
      t.hold_timeouts);
  add("clients_dropped_total", "Sessions closed because they could not be moved.", Kind::kCounter,
      t.clients_dropped);
  add("cancels_total", "Cancel requests.", Kind::kCounter, t.cancels);
  add("unreplicated_commits_total",
      "Commits whose wait for a synchronous standby was cancelled: answered 08007.", Kind::kCounter,
      t.unreplicated);
  for (size_t i = 1; i < t.pinned.size(); ++i) {
    const std::string_view why = proxy::describe(static_cast<proxy::Pin>(i));
    if (why.empty()) break;
    snapshot.metrics.push_back({"bascule_proxy_clients_pinned",
                                "Clients that keep their server between transactions, by why.",
                                Kind::kGauge,
                                {{"reason", std::string(why)}},
                                static_cast<double>(t.pinned[i])});
  }
  for (size_t i = 0; i < stats.workers.size(); ++i) {
    snapshot.loops.push_back({fmt::format("worker-{}", i), stats.workers[i].loop});
  }
}

api::CommandHandler command_handler(const Platform& platform, ClusterAt at, std::string audit_file,
                                    api::CommandHandler daemon) {
  return [&platform, at = std::move(at), file = std::move(audit_file),
          daemon = std::move(daemon)](const api::Command& command) -> Result<std::string> {
    if (command.kind == api::Command::Kind::kAnalyzeQuery) return analyze_query(command.query);
    auto session = StoreSession::open(platform, at);
    auto done = [&]() -> Result<std::string> {
      if (session) return carry_out(platform, **session, at.cluster, command, daemon);
      // The databases can be looked at without the store.
      if (command.kind == api::Command::Kind::kCheckHealth) return daemon(command);
      return std::unexpected(session.error());
    }();
    if (is_audited(command)) audit(platform, file, command, outcome_of(done));
    return done;
  };
}

api::RefusalHandler refusal_handler(const Platform& platform, ClusterAt at,
                                    std::string audit_file) {
  return
      [&platform, at = std::move(at), file = std::move(audit_file)](const api::Refusal& refusal) {
        if (!is_audited(refusal.command)) return;
        const std::string outcome = "refused, " + refusal.why;
        audit(platform, file, refusal.command, outcome);
        if (refusal.asker == api::Refusal::Asker::kNobody) return;
        const auto session = StoreSession::open(platform, at);
        if (session) record_audit(platform, **session, at.cluster, refusal.command, outcome);
      };
}

Result<std::string> reconnect(proxy::Proxy* proxy, const std::string& region) {
  if (proxy == nullptr) {
    return fail(ErrorCode::kUnavailable, "no proxy runs in this daemon",
                "Ask the API of a daemon with a proxy");
  }
  proxy->reconnect(region);
  return region.empty()
             ? std::string("every server connection is replaced as soon as it is free")
             : fmt::format("connections to region {} are replaced as soon as they are free",
                           region);
}

}  // namespace bascule::cli
