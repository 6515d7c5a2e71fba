#include "cli/api_glue.h"

#include <fmt/format.h>

#include "cli/request.h"

namespace bascule::cli {
namespace {

Result<std::string> committed(const store::TxnResult& result, std::string id) {
  switch (result.outcome) {
    case store::TxnOutcome::kCommitted:
      return id;
    case store::TxnOutcome::kConflict:
      return fail(ErrorCode::kConflict, "somebody else changed it in the same moment", "Try again");
    case store::TxnOutcome::kUnknown:
      break;
  }
  return fail(ErrorCode::kUnknown,
              fmt::format("it is not known whether it was written: {}", result.error),
              "GET /cluster shows it");
}

Result<std::string> carry_out(const Platform& platform, const ClusterAt& at,
                              const api::Command& command) {
  auto session = StoreSession::open(platform, at);
  if (!session) return std::unexpected(session.error());
  const auto view = (*session)->view();
  if (!view) return std::unexpected(view.error());
  const control::Keys& keys = (*session)->keys();
  using Kind = api::Command::Kind;
  const std::string id = platform.entropy.hex(4);
  Result<store::Txn> txn;
  if (command.kind == Kind::kPause || command.kind == Kind::kResume) {
    const bool pause = command.kind == Kind::kPause;
    txn = change_pause(*view, keys, pause ? PauseChange::kPause : PauseChange::kResume, command.by);
  } else {
    control::RequestRecord request;
    request.id = id;
    request.kind = command.kind == Kind::kFailover ? control::RequestKind::kFailover
                                                   : control::RequestKind::kSwitchover;
    request.candidate = command.candidate;
    request.force = command.force;
    request.by = command.by;
    txn = open_request(*view, keys, request);
  }
  if (!txn) return std::unexpected(txn.error());
  return committed((*session)->commit(std::move(*txn)), id);
}

}  // namespace

api::LocalMember local_member(const NodeName& name, const node::NodeView& view) {
  api::LocalMember member;
  member.name = name;
  member.phase = view.phase;
  member.reason = view.reason;
  member.leading_epoch = view.leading_epoch;
  member.deadline = view.deadline;
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
  for (size_t i = 0; i < stats.workers.size(); ++i) {
    snapshot.loops.push_back({fmt::format("worker-{}", i), stats.workers[i].loop});
  }
}

api::CommandHandler command_handler(const Platform& platform, ClusterAt at) {
  return [&platform, at = std::move(at)](const api::Command& command) {
    return carry_out(platform, at, command);
  };
}

}  // namespace bascule::cli
