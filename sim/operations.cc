// The shell's operations on PostgreSQL, as control/events.h promises them.
#include <algorithm>

#include "sim/failover_slot.h"
#include "sim/member.h"

namespace bascule::sim {

using namespace control;

// ---- frame --------------------------------------------------------------------------------------

void Member::carry_out_one(effect::StartOp& e) {
  world_.trace("{} op {} begins", name().str(), op_name(e.op));
  world_.count(fmt::format("op.{}", op_name(e.op)));
  observer_.operation_begun(*this, e.op);
  if (std::holds_alternative<op::Kill>(e.op)) return kill_by_guard(e.id);
  if (running_op_) {
    world_.violation("contract", fmt::format("{}: {} begun while {} runs", name().str(),
                                             op_name(e.op), op_name(*running_op_)));
    return;
  }
  running_op_ = std::move(e.op);
  world_.disturb(pg_.process());
  running_id_ = e.id;
  ++op_token_;
  if (random_.chance(faults_.op_fails)) {
    step(random_ms(random_, 5, 600), [this] { fail_op("failed (injected)"); });
    return;
  }
  std::visit([this](const auto& operation) { begin(operation); }, *running_op_);
}

void Member::finish(Result_ result) {
  if (!running_op_) return;
  const Op op = std::move(*running_op_);
  running_op_.reset();
  ++op_token_;
  if (result && random_.chance(faults_.op_unknown)) {
    result = fail(ErrorCode::kTimeout, fmt::format("{}: timed out (injected)", op_name(op)));
  }
  world_.trace(
      "{} op {} {}", name().str(), op_name(op),
      result ? "done " + result->position.to_string() : "FAILED: " + result.error().message);
  if (!result) world_.count(fmt::format("op.{}.error", op_name(op)));
  observer_.operation_done(*this, op, result);
  deliver(event::OpDone{running_id_, std::move(result)});
}

void Member::finish_at(Position position) { finish(OpData{position, 0}); }

void Member::fail_op(std::string why) { finish(fail(ErrorCode::kUnavailable, std::move(why))); }

void Member::step(Nanos delay, InlineFunction run) {
  world_.after(delay, agent_process_, [this, token = op_token_, run = std::move(run)]() mutable {
    if (token == op_token_) run();
  });
}

PostgresModel::Done Member::then(std::function<void()> run) {
  return [this, token = op_token_, process = agent_process_, run = std::move(run)](bool) {
    if (!world_.alive(process)) return;
    world_.after(random_ms(random_, 0.2, 8), process, [this, token, run] {
      if (token == op_token_) run();
    });
  };
}

void Member::kill_by_guard(OpId id) {
  // The other operation ends in an error, or is never reported.
  if (running_op_) {
    if (random_.chance(0.5)) {
      world_.after(random_ms(random_, 0.1, 40), agent_process_, [this, other = running_id_] {
        deliver(event::OpDone{other, fail(ErrorCode::kUnavailable, "PostgreSQL was killed")});
      });
    }
    running_op_.reset();
  }
  ++op_token_;
  kill_running_ = true;
  Nanos takes = random_ms(random_, 1, 40);
  if (!guard_alive_) takes += random_ms(random_, 20, 200);
  world_.after(takes, agent_process_, [this, id] {
    pg_.kill_all();
    kill_running_ = false;
    // An operation that was begun in the meantime has lost its server.
    if (running_op_) fail_op("PostgreSQL was killed");
    deliver(event::OpDone{id, OpData{}});
  });
}

void Member::begin(const op::Kill&) {}

std::string Member::application_name() const {
  return fmt::format("{}_{}", name().str(), persisted_.incarnation);
}

PostgresModel* Member::reach(const Upstream& target) {
  const auto host = fabric_.host_of(target.member);
  if (!host || !world_.both_ways(host_, *host) || world_.frozen(*host)) return nullptr;
  PostgresModel* pg = fabric_.servers[static_cast<size_t>(*host)];
  const bool answers =
      pg->run() == PostgresModel::Run::kPrimary || pg->run() == PostgresModel::Run::kStandby;
  return answers && !pg->hung() ? pg : nullptr;
}

// ---- start and stop -----------------------------------------------------------------------------

void Member::begin(const op::InitDb&) {
  step(random_ms(random_, 200, 900), [this] {
    DataDirectory& d = pg_.data();
    d = DataDirectory{};
    d.state = DataDir::kReady;
    d.system_id = random_.next() | 1;
    d.timeline = d.checkpoint_timeline = d.max_timeline = 1;
    if (faults_.restores_backup) restore_backup(d, 300, fabric_.next_content);
    d.clean = true;
    finish(OpData{Position{Timeline{d.timeline}, Lsn{d.end()}}, d.system_id});
  });
}

void Member::begin(const op::StartPrimary& op) {
  step(random_ms(random_, 2, 30),
       [this, guard = guard_process_, sync = op.sync_standbys, count = op.sync_count] {
         // The parent that was asked for it.
         if (!guard_alive_ || guard_process_ != guard)
           return fail_op("can't start: the guard died");
         if (pg_.any_process() || pg_.data().state != DataDir::kReady) {
           return fail_op("can't start: running, or no complete data directory");
         }
         pg_.start_primary(
             sync, count, then([this] {
               finish_at(Position{Timeline{pg_.data().timeline}, Lsn{pg_.data().flushed_end()}});
             }));
       });
}

void Member::begin(const op::StartStandby& op) {
  step(random_ms(random_, 2, 30), [this, guard = guard_process_, upstream = op.upstream] {
    if (!guard_alive_ || guard_process_ != guard) return fail_op("can't start: the guard died");
    if (pg_.any_process() || pg_.data().state != DataDir::kReady) {
      return fail_op("can't start: running, or no complete data directory");
    }
    // While a ballot intent is on disk every start renders an empty primary_conninfo.
    const auto conninfo = persisted_.ballot_intent ? std::nullopt : upstream;
    pg_.start_standby(conninfo, application_name(), then([this] { finish_at({}); }));
  });
}

void Member::begin(const op::CleanStop& op) {
  step(op.limit, [this] { fail_op("shutdown takes too long"); });
  if (!pg_.any_process()) return step(millis(5), [this] { fail_op("PostgreSQL is not running"); });
  pg_.fast_shutdown(
      then([this] { finish_at(Position{Timeline{pg_.data().timeline}, Lsn{pg_.data().end()}}); }));
}

void Member::stop_cleanly_then(std::function<void()> run) {
  if (!pg_.any_process()) return step(millis(5), [run = std::move(run)] { run(); });
  if (pg_.hung()) {
    pg_.kill_all();
    return step(millis(20), [run = std::move(run)] { run(); });
  }
  auto once = std::make_shared<bool>(false);
  const auto go = [once, run = std::move(run)] {
    if (!std::exchange(*once, true)) run();
  };
  step(millis(3000), [this, once, go] {
    if (*once) return;
    pg_.kill_all();
    go();
  });
  pg_.fast_shutdown(then(go));
}

// ---- standby ------------------------------------------------------------------------------------

void Member::begin(const op::SetUpstream& op) {
  step(random_ms(random_, 3, 40), [this, upstream = op.upstream] {
    if (pg_.run() != PostgresModel::Run::kStandby || pg_.hung())
      return fail_op("not a running standby");
    pg_.set_upstream(upstream, application_name());
    pg_.unblock_replay();
    step(random_ms(random_, 2, 40), [this] { finish_at({}); });
  });
}

void Member::begin(const op::StopReceiver&) {
  if (pg_.run() != PostgresModel::Run::kStandby || pg_.hung()) {
    return step(millis(20), [this] { fail_op("not a running standby"); });
  }
  pg_.set_upstream(std::nullopt, application_name());
  step(random_ms(random_, 2, 60), [this] {
    pg_.unblock_replay();
    pg_.signal_receiver();
    poll_isolated(world_.now() + millis(1500), world_.now() + millis(6000));
  });
}

void Member::poll_isolated(SimTime restart_at, SimTime give_up) {
  if (pg_.isolated()) {
    const DataDirectory& d = pg_.data();
    return finish(
        OpData{.position = {Timeline{d.timeline}, Lsn{d.flushed_end()}}, .origin = d.origin()});
  }
  if (world_.now() > give_up || pg_.run() != PostgresModel::Run::kStandby) {
    return fail_op("the receiver could not be stopped for sure");
  }
  if (world_.now() > restart_at) {
    world_.count("model.stop_receiver_by_restart");
    return stop_cleanly_then([this, give_up] {
      pg_.start_standby(std::nullopt, application_name(),
                        then([this, give_up] { poll_isolated(give_up, give_up); }));
    });
  }
  step(millis(15), [this, restart_at, give_up] {
    if (pg_.receiver_running()) pg_.signal_receiver();
    poll_isolated(restart_at, give_up);
  });
}

void Member::begin(const op::Promote& op) {
  step(random_ms(random_, 5, 40), [this, op] {
    if (pg_.run() != PostgresModel::Run::kStandby || pg_.hung())
      return fail_op("not a running standby");
    // node/timeline_gaps.cc: there is a history file of it.
    if (pg_.data().max_timeline >= op.timeline.value) {
      return fail_op(fmt::format("timeline {} has been used already", op.timeline.value));
    }
    const auto process = agent_process_;
    const auto token = op_token_;
    pg_.promote(op, [this, op, process, token](uint32_t timeline) {
      if (!world_.alive(process)) return;
      world_.after(random_ms(random_, 1, 30), process, [this, op, token, timeline] {
        if (token != op_token_) return;
        if (timeline != op.timeline.value) {
          return fail_op(
              fmt::format("timeline {} came out instead of {}", timeline, op.timeline.value));
        }
        finish(OpData{.position = {Timeline{timeline}, Lsn{pg_.data().flushed_end()}},
                      .origin = pg_.data().origin()});
      });
    });
    step(millis(15000), [this] { fail_op("promotion takes too long"); });
  });
}

// ---- primary ------------------------------------------------------------------------------------

void Member::begin(const op::Checkpoint&) {
  if (!pg_.any_process() || pg_.hung())
    return step(millis(20), [this] { fail_op("no connection"); });
  pg_.checkpoint(then([this] { finish_at({}); }));
  step(millis(10000), [this] { fail_op("checkpoint takes too long"); });
}

void Member::begin(const op::VerifyReceived& op) {
  poll_received(op.candidate, op.position, world_.now() + op.limit);
}

void Member::poll_received(Upstream candidate, Position position, SimTime give_up) {
  if (world_.now() > give_up) return fail_op("the candidate has not received everything");
  step(random_ms(random_, 2, 50), [this, candidate, position, give_up] {
    PostgresModel* pg = reach(candidate);
    if (pg != nullptr && pg->data().timeline == position.timeline.value &&
        pg->data().flushed_end() >= position.lsn.value) {
      return finish_at(position);
    }
    poll_received(candidate, position, give_up);
  });
}

void Member::begin(const op::SetSync& op) {
  step(random_ms(random_, 2, 30), [this, op] {
    if (!pg_.accepts_writes()) return fail_op("not a running primary");
    pg_.set_sync(op.standbys, op.count);
    const auto mark = [this] {
      if (!pg_.accepts_writes()) return fail_op("not a running primary");
      auto end = std::make_shared<uint64_t>(0);
      *end = pg_.write_marker(
          then([this, end] { finish_at(Position{Timeline{pg_.data().timeline}, Lsn{*end}}); }));
    };
    step(millis(10000), [this] { fail_op("the setting did not take effect in time"); });
    if (op.from_empty) {
      pg_.checkpoint(then(mark));
    } else {
      step(random_ms(random_, 2, 30), mark);
    }
  });
}

void Member::begin(const op::EnsureSlots& op) {
  step(random_ms(random_, 2, 30), [this, op] {
    if (!pg_.any_process() || pg_.hung()) return fail_op("no connection");
    pg_.ensure_slots(op.slots, op.drop);
    if (fabric_.consumer != nullptr) fabric_.consumer->ensured(host_, op);
    finish_at({});
  });
}

void Member::begin(const op::TerminateSenders& op) {
  step(random_ms(random_, 2, 30), [this, op] {
    if (!pg_.any_process() || pg_.hung()) return fail_op("no connection");
    pg_.terminate_senders(op.names);
    finish_at({});
  });
}

// Of the parameters one that waits for a restart; the others don't touch replication.
void Member::begin(const op::Reload& op) {
  const auto limit = op.parameters.find("max_connections");
  if (limit != op.parameters.end()) pg_.set_max_connections(std::stoi(limit->second));
  step(random_ms(random_, 2, 30), [this] { finish_at({}); });
}

// ---- rejoin -------------------------------------------------------------------------------------

void Member::fetch_from(const Upstream& source, Nanos takes,
                        std::function<void(PostgresModel&)> copy) {
  step(takes / 2, [this, source, takes, copy = std::move(copy)] {
    if (reach(source) == nullptr) return fail_op("the source went away");
    step(takes / 2, [this, source, copy] {
      PostgresModel* pg = reach(source);
      if (pg == nullptr) return fail_op("the source went away");
      copy(*pg);
    });
  });
}

void Member::begin(const op::Rewind& op) {
  stop_cleanly_then([this, source = op.source] {
    if (reach(source) == nullptr) return fail_op("the source does not answer");
    pg_.data().state = DataDir::kHalfRewound;
    fetch_from(source, random_ms(random_, 100, 2500), [this](PostgresModel& from) {
      const RewindOutcome outcome = pg_rewind(pg_.data(), from.data());
      if (outcome == RewindOutcome::kFailed) return fail_op("no common ancestor");
      if (outcome == RewindOutcome::kNotRequired) {
        world_.count("model.no_rewind_required");
        return fail_op("pg_rewind sees no divergence");
      }
      world_.count("model.rewound");
      finish_at({});
    });
  });
}

void Member::begin(const op::Clone& op) {
  // As node/ops_create.cc: the source answers before anything is stopped or destroyed.
  if (reach(op.source) == nullptr) {
    return step(millis(20), [this] { fail_op("the source does not answer"); });
  }
  stop_cleanly_then([this, source = op.source] {
    pg_.data() = DataDirectory{};
    pg_.data().state = DataDir::kHalfCloned;
    fetch_from(source, random_ms(random_, 200, 3000), [this](PostgresModel& from) {
      pg_basebackup(pg_.data(), from.data());
      finish_at({});
    });
  });
}

}  // namespace bascule::sim
