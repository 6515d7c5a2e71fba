// Pointing a standby at another member, and stopping its receiver for sure before a ballot.
#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <optional>

#include "node/ops.h"
#include "node/timeline_origin.h"

namespace bascule::node {
namespace {

using control::OpData;

constexpr Nanos kReloadWithin = 5s;
constexpr Nanos kStopWithin = 1500ms;  // then PostgreSQL is restarted instead
constexpr Nanos kRestoreWithin = 5s;   // ... unless it waits for restore_command: it would again
constexpr Nanos kRestartStop = 3s;
constexpr Nanos kKickEvery = 10ms;
constexpr Nanos kTerminateAfter = 50ms;  // of cancelling first
constexpr Millis kPause = 2ms;
constexpr int kScansWanted = 2;

// "postgres: n1: startup recovering 0000…" is of kind "startup".
bool is_of_kind(std::string_view title, std::string_view cluster, std::string_view kind) {
  constexpr std::string_view kHead = "postgres: ";
  if (!title.starts_with(kHead)) return false;
  title.remove_prefix(kHead.size());
  const std::string name = std::string(cluster) + ": ";
  if (title.starts_with(name)) title.remove_prefix(name.size());
  return title.starts_with(kind) && (title.size() == kind.size() || title[kind.size()] == ' ');
}

struct Children {
  std::vector<env::Pid> receivers;
  env::Pid startup = 0;
  bool nameless = false;  // one was forked and has not said yet what it is
};

// As /proc shows them: pg_stat_activity does not know a receiver that is about to connect.
Children children_of_postmaster(OpContext& context, env::Pid postmaster) {
  env::Process& process = context.server.process();
  const std::string& cluster = context.server.config().agent.name.str();
  const std::string own_title = process.title(postmaster);
  Children out;
  for (const env::Pid pid : process.children(postmaster)) {
    const std::string title = process.title(pid);
    if (is_of_kind(title, cluster, "walreceiver")) out.receivers.push_back(pid);
    if (is_of_kind(title, cluster, "startup")) out.startup = pid;
    if (title == own_title) out.nameless = true;
  }
  return out;
}

class ReceiverStop {
 public:
  // `limit`: the end of its time; of `bound` where restore_command takes its own.
  ReceiverStop(OpContext& context, const Bound& bound, MonoTime limit)
      : context_(context), bound_(bound), limit_(limit) {}

  // Where the WAL ends, once nothing adds to it and everything is replayed.
  Result<OpData> run() {
    postmaster_ = context_.server.postmaster_pid();
    if (postmaster_ == 0) return fail(ErrorCode::kUnavailable, "PostgreSQL is not running");
    auto session = reconfigure(context_, {{}, kNobody, true}, bound_);
    if (!session) return std::unexpected(session.error());
    session_ = std::move(*session);
    while (scans_ < kScansWanted) {
      if (auto done = turn(); !done) return std::unexpected(done.error());
      if (scans_ == kScansWanted) break;
      if (context_.server.clock().now() >= (restores_ ? bound_.deadline : limit_)) {
        return fail(ErrorCode::kTimeout, "receiver or replay did not stop: " + seen_);
      }
      if (bound_.cancelled()) return fail(ErrorCode::kUnavailable, "cancelled");
      context_.server.process().sleep(kPause);
    }
    auto found = identify_system(*session_, bound_);
    if (!found) return std::unexpected(found.error());
    return OpData{
        .position = found->position,
        .system_id = found->system_id,
        .origin = origin_of(context_.server, *session_, found->position.timeline, bound_)};
  }

 private:
  // Done when the startup process was woken twice since no receiver was left, and each time went
  // back to wait for its retry interval: the second scan of the WAL began and ended after the last
  // byte was written.
  Status turn() {
    const Children children = children_of_postmaster(context_, postmaster_);
    if (children.startup == 0) return fail(ErrorCode::kUnavailable, "no startup process");
    if (auto done = end_receivers(children); !done) return done;
    if (!children.receivers.empty() || children.nameless) {
      seen_ = "a receiver lives";
      switches_.reset();
      scans_ = 0;
      return {};
    }
    auto rows = session_->query(
        "SELECT coalesce(wait_event_type, ''), coalesce(wait_event, '') FROM pg_stat_activity"
        " WHERE backend_type = 'startup'",
        bound_);
    if (!rows) return std::unexpected(rows.error());
    if (rows->empty()) return fail(ErrorCode::kUnavailable, "no startup process");
    const std::string type = *rows->at(0)[0], event = *rows->at(0)[1];
    seen_ = "the startup process waits for " + (event.empty() ? "nothing" : event);
    if (event != "RecoveryRetrieveRetryInterval") return unblock(children.startup, type, event);
    auto switches = context_.server.process().voluntary_switches(children.startup);
    if (!switches) return std::unexpected(switches.error());
    if (switches_ && *switches <= *switches_) {
      kick(children.startup);
      return {};
    }
    if (switches_) ++scans_;
    switches_ = *switches;
    last_kick_ = {};
    kick(children.startup);
    return {};
  }

  Status end_receivers(const Children& children) {
    for (const env::Pid pid : children.receivers) {
      auto handle = context_.server.process().open(pid);
      if (!handle) continue;
      // A client's role may be named "walreceiver"; and the number may have changed owners.
      auto client = session_->query(
          fmt::format("SELECT FROM pg_stat_activity WHERE pid = {} AND backend_type IN"
                      " ('client backend', 'walsender')",
                      pid),
          bound_);
      if (!client) return std::unexpected(client.error());
      const Children again = children_of_postmaster(context_, postmaster_);
      if (client->empty() && std::ranges::find(again.receivers, pid) != again.receivers.end()) {
        (void)(*handle)->signal(SIGTERM);
      }
    }
    return {};
  }

  Status unblock(env::Pid startup, const std::string& type, const std::string& event) {
    // It works, or runs restore_command (which has a name from 15 on): it comes to its wait by
    // itself. Woken on the way there it would not wait, but begin anew.
    restores_ = restores_ || event == "RestoreCommand";
    if (event.empty() || event == "RestoreCommand") return {};
    if (event == "RecoveryPause") {
      auto done = session_->query("SELECT pg_wal_replay_resume()", bound_);
      if (!done) return std::unexpected(done.error());
    } else if (type == "Lock" || type == "BufferPin" || event.starts_with("RecoveryConflict")) {
      const MonoTime now = context_.server.clock().now();
      if (conflict_since_ == MonoTime{}) conflict_since_ = now;
      // An idle transaction has nothing to cancel.
      const bool all = now - conflict_since_ > kTerminateAfter;
      auto done = session_->query(
          fmt::format("SELECT CASE WHEN state = 'active' AND NOT {} THEN pg_cancel_backend(pid)"
                      " ELSE pg_terminate_backend(pid) END FROM pg_stat_activity"
                      " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                      " AND (xact_start IS NOT NULL OR backend_xmin IS NOT NULL)",
                      all),
          bound_);
      if (!done) return std::unexpected(done.error());
      if (!remarked_) context_.remark("queries cancelled", "they held replay up: " + event);
      remarked_ = true;
    }
    kick(startup);
    return {};
  }

  // SIGHUP ends its sleeps: it re-reads the (unchanged) configuration and looks again.
  void kick(env::Pid startup) {
    const MonoTime now = context_.server.clock().now();
    if (last_kick_ != MonoTime{} && now - last_kick_ < kKickEvery) return;
    last_kick_ = now;
    if (auto handle = context_.server.process().open(startup)) (void)(*handle)->signal(SIGHUP);
  }

  OpContext& context_;
  const Bound& bound_;
  MonoTime limit_;
  bool restores_ = false;  // restore_command was seen running
  env::Pid postmaster_ = 0;
  std::optional<PgConnection> session_;
  std::optional<uint64_t> switches_;
  int scans_ = 0;
  MonoTime conflict_since_{}, last_kick_{};
  bool remarked_ = false;
  std::string seen_;
};

Result<OpData> restart_isolated(OpContext& context) {
  Server& server = context.server;
  if (!server.stop_fast(context.within(kRestartStop))) {
    auto guard = server.guard();
    if (!guard) return std::unexpected(guard.error());
    (void)guard->signal(SIGQUIT);
    auto ended = guard->wait_exit(server.clock().now() + kRestartStop, context.cancelled());
    if (!ended) return std::unexpected(ended.error());
  }
  if (auto done = start_in_recovery(context, {{}, kNobody, true}); !done) {
    return std::unexpected(done.error());
  }
  const Bound bound = context.within(kStopWithin + kRestoreWithin);
  return ReceiverStop(context, bound, bound.deadline).run();
}

}  // namespace

OpResult set_upstream(OpContext& context, const control::op::SetUpstream& o) {
  if (o.upstream && context.server.ballot_intent()) {
    return fail(ErrorCode::kConflict, "set upstream: a ballot of this member is out");
  }
  const Bound bound = context.within(kReloadWithin);
  auto session = reconfigure(context, {o.upstream, kNobody, false}, bound);
  if (!session) return in_context("set upstream", session.error());
  auto done = session->query(
      "SELECT pg_wal_replay_resume() WHERE pg_is_in_recovery() AND pg_is_wal_replay_paused()",
      bound);
  if (!done) return in_context("set upstream", done.error());
  return OpData{};
}

OpResult stop_receiver(OpContext& context, const control::op::StopReceiver&) {
  const Bound bound = context.within(kStopWithin + kRestoreWithin);
  auto found = ReceiverStop(context, bound, context.server.clock().now() + kStopWithin).run();
  if (!found && !context.control.cancelled) {
    context.remark("restarting isolated",
                   "the receiver was not stopped by reload: " + found.error().message);
    found = restart_isolated(context);
  }
  if (!found) return in_context("stop receiver", found.error());
  return *std::move(found);
}

}  // namespace bascule::node
