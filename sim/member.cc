// Agent, guard, effects, sampling. Operations: operations.cc.
#include "sim/member.h"

#include <algorithm>
#include <utility>

namespace bascule::sim {

using namespace control;

namespace {
constexpr Nanos kSilence = millis(300);
}

Member::Member(World& world, StoreModel& store, Decoded& decoded, Fabric& fabric,
               Observer& observer, Endpoint host, AgentConfig config, UnsafeMutations unsafe)
    : world_(world),
      store_(store),
      decoded_(decoded),
      fabric_(fabric),
      observer_(observer),
      host_(host),
      config_(std::move(config)),
      unsafe_(unsafe),
      random_(world.stream(fmt::format("member {}", host))),
      pg_(fabric, host, config_.name) {
  pg_.on_exit = [this](std::string_view how) { pg_exited(how); };
}

// ---- agent --------------------------------------------------------------------------------------

void Member::boot() {
  if (up_) return;
  up_ = true;
  service_manager_ = world_.spawn(host_);
  // As a process of the host, which may be frozen.
  world_.after(Nanos{0}, service_manager_, [this] {
    start_guard();
    start_agent();
  });
}

void Member::start_agent() {
  agent_process_ = world_.spawn(host_);
  AgentConfig config = config_;
  config.new_incarnation = fmt::format("{:06x}", random_.below(1 << 24));
  agent_ = std::make_unique<Agent>(config, persisted_, world_.local(host_), unsafe_);
  world_.trace("{} agent starts", name().str());
  observer_.agent_started(*this);
  if (!guard_alive_) start_guard();
  store_.watch(host_, agent_process_, [this] { deliver(event::StoreChanged{}); });
  stepping_ = true;
  agent_->set_wall_time(wall());
  carry_out(agent_->start(world_.local(host_)));
  stepping_ = false;
  observer_.agent_stepped(*this);
  arm_wakeup();
}

void Member::deliver(Event event) {
  if (!agent_) return;
  if (stepping_) {
    inbox_.push_back(std::move(event));
    return;
  }
  handle(event);
  while (!inbox_.empty()) {
    std::vector<Event> events = std::exchange(inbox_, {});
    for (Event& e : events) handle(e);
  }
}

void Member::handle(Event& event) {
  if (!agent_) return;
  const Phase before = agent_->phase();
  stepping_ = true;
  agent_->set_wall_time(wall());
  Effects effects = agent_->step(std::move(event), world_.local(host_));
  if (world_.tracing() && agent_->phase() != before) {
    world_.trace("{} phase {} -> {}: {}", name().str(), to_string(before),
                 to_string(agent_->phase()), agent_->reason());
  }
  carry_out(std::move(effects));
  stepping_ = false;
  if (!agent_) return;
  observer_.agent_stepped(*this);
  arm_wakeup();
}

void Member::carry_out(Effects effects) {
  for (Effect& effect : effects) {
    if (!agent_) return;
    std::visit([this](auto& e) { carry_out_one(e); }, effect);
  }
}

void Member::carry_out_one(effect::ReadStore& e) {
  store_.read(host_, agent_process_, [this, id = e.id](const Result<SnapshotPtr>& read) {
    if (read) {
      deliver(event::StoreRead{id, decoded_.of(*read)});
    } else {
      deliver(event::StoreRead{id, std::unexpected(read.error())});
    }
  });
}

void Member::carry_out_one(effect::CommitStore& e) {
  observer_.commit_sent(*this, e.txn, e.id, world_.local(host_));
  store_.commit(host_, agent_process_, std::move(e.txn),
                [this, id = e.id](const store::TxnResult& result) {
                  observer_.commit_answered(*this, id, result);
                  deliver(event::StoreCommitted{id, result});
                });
}

void Member::carry_out_one(effect::Persist& e) {
  Nanos takes = micros(
      random_.between(faults_.persist_low.count() / 1000, faults_.persist_high.count() / 1000));
  const SimTime hung_until = std::as_const(pg_).disk().hung_until;
  if (hung_until > world_.now()) takes += hung_until - world_.now();
  world_.after(takes, agent_process_, [this, id = e.id, state = std::move(e.state)] {
    persisted_ = state;
    deliver(event::PersistDone{id});
  });
}

void Member::carry_out_one(effect::SetSampling& e) {
  sampling_ = e.every;
  told_.reset();
  sample_after(Nanos{0});
}

void Member::carry_out_one(effect::Note& e) {
  world_.trace("{} note {}: {}", name().str(), e.what, e.why);
  if (e.what == "fetching") world_.count("notes.fetching");
  observer_.noted(*this, e);
}

void Member::carry_out_one(effect::Exit&) {
  world_.trace("{} agent exits", name().str());
  kill_agent(random_ms(random_, 500, 4000));
}

void Member::arm_wakeup() {
  const SimTime when =
      std::max(world_.clock(host_).true_at(agent_->next_wakeup()), world_.now() + micros(50));
  if (wakeup_at_ && *wakeup_at_ <= when) return;
  wakeup_at_ = when;
  world_.at(when, agent_process_, [this, token = ++wakeup_token_] {
    if (token != wakeup_token_) return;
    wakeup_at_.reset();
    if (world_.local(host_) < agent_->next_wakeup()) return arm_wakeup();
    deliver(event::Tick{});
  });
}

void Member::sample_after(Nanos delay) {
  Nanos takes = random_ms(random_, 0.3, 8);
  if (random_.chance(0.01)) takes += random_ms(random_, 20, 200);
  takes += faults_.sample_takes;
  const MonoTime begun = world_.local(host_) + delay;
  world_.after(delay + takes / 2, agent_process_, [this, begun, takes, token = ++sampling_token_] {
    sample(begun, takes / 2, token);
  });
}

Member::Glance Member::glance() const {
  return {pg_.process(), world_.events_of(pg_.process()), pg_.hung(), pg_.disk().full};
}

void Member::sample(MonoTime begun, Nanos answer, uint64_t token) {
  if (token != sampling_token_) return;
  const Disk& disk = std::as_const(pg_).disk();
  const bool told_lately =
      told_ && !told_->receiver_new && world_.now() - told_at_ < faults_.unchanged_sample;
  const Glance now = glance();
  const bool busy = running_op_ || disk.hung_until > world_.now();
  if (told_lately && !busy && now == told_glance_) return rest();
  told_glance_ = now;
  PgStatus status = pg_.status();
  // The first log-in may fail (a loaded machine); until it succeeds nothing inside is seen.
  if (logged_into_ != pg_.process() && !pg_.hung() && random_.chance(0.1)) {
    PgStatus seen;
    seen.run = PgRun::kStarting;
    seen.data = status.data;
    seen.disk_full = status.disk_full;
    status = std::move(seen);
  } else {
    logged_into_ = pg_.process();
    const uint64_t receiver = status.receiver_streaming ? pg_.receiver_attempt() : 0;
    const bool again = receiver == std::exchange(receiver_sampled_, receiver);
    status.receiver_new = status.receiver_streaming && !again;
    status.receiver_streaming = status.receiver_streaming && again;
  }
  status.sampled_at = begun;
  // A stopped server's sockets accept and never answer: the probe's deadline passes.
  if (pg_.hung()) answer = millis(500);
  if (disk.hung_until <= world_.now() || status.run != PgRun::kPrimary) {
    write_probe_since_.reset();
  } else {
    if (!write_probe_since_) write_probe_since_ = begun;
    status.write_waits = begun - *write_probe_since_;
  }
  if (told_lately) {
    told_->sampled_at = begun;
    if (*told_ == status) return busy ? sample_after(sampling_) : rest();
  }
  tell(std::move(status), answer);
}

void Member::tell(PgStatus status, Nanos answer) {
  // A primary's last look that showed nothing new is told before the first that does: how long a
  // standby has been silent counts from there (sync_degrade_after).
  std::optional<PgStatus> before;
  if (faults_.unchanged_sample > Nanos{0}) {
    if (told_ && told_->run == PgRun::kPrimary && world_.now() - told_at_ > kSilence) {
      told_->sampled_at = status.sampled_at;
      if (*told_ != status) before = std::move(told_);
      if (before) before->sampled_at -= sampling_;
    }
    told_ = status;
  }
  told_at_ = world_.now();
  world_.after(answer, agent_process_,
               [this, token = sampling_token_, before = std::move(before),
                status = std::move(status)]() mutable {
                 if (token != sampling_token_) return;
                 sample_after(sampling_);
                 const bool quiet =
                     !before || before->run != status.run || before->system_id != status.system_id;
                 if (!quiet) deliver(event::Observed{*std::move(before)});
                 deliver(event::Observed{std::move(status)});
               });
}

// Looks that would show nothing new are left out: the next is when the server has done anything
// (by World::events_of(), as it would have been seen at the next look), and when it is time to
// tell.
void Member::rest() {
  if (!pg_.any_process() || logged_into_ != pg_.process()) return sample_after(sampling_);
  const uint64_t token = ++sampling_token_;
  const SimTime since = world_.now();
  world_.at(told_at_ + faults_.unchanged_sample, agent_process_, [this, token] {
    if (token == sampling_token_) sample_after(Nanos{0});
  });
  world_.when_disturbed(pg_.process(), [this, token, since] {
    if (token != sampling_token_ || sampling_ == Nanos{0}) return;
    sample_after(sampling_ - (world_.now() - since) % sampling_);
  });
}

void Member::kill_agent(Nanos restart_after) {
  if (!agent_) return;
  world_.trace("{} agent dies", name().str());
  if (guard_alive_ && world_.stopped(guard_process_)) kill_guard();
  world_.kill(agent_process_);
  agent_.reset();
  inbox_.clear();
  answers_.clear();
  wakeup_at_.reset();
  ++wakeup_token_;
  ++sampling_token_;
  sampling_ = Nanos{0};
  told_.reset();
  ++op_token_;  // helper processes die with it
  running_op_.reset();
  kill_running_ = false;
  world_.after(restart_after, service_manager_, [this] {
    if (!agent_) start_agent();
  });
}

void Member::stop_agent() {
  if (guard_alive_ && world_.stopped(guard_process_)) kill_guard();
  world_.stop(agent_process_);
}
void Member::continue_agent() {
  if (agent_) world_.resume(agent_process_);
}

void Member::terminate_agent() {
  world_.after(Nanos{0}, agent_process_, [this] { deliver(event::ShutdownRequested{}); });
}

// ---- guard --------------------------------------------------------------------------------------

void Member::start_guard() {
  guard_process_ = world_.spawn(host_);
  guard_alive_ = true;
  guard_deadline_.reset();
}

void Member::carry_out_one(effect::ArmGuard& e) {
  if (!guard_alive_) start_guard();
  guard_deadline_ = e.deadline;
  observer_.guard_armed(*this, e.deadline);
  watch_deadline();
}

void Member::carry_out_one(effect::DisarmGuard&) { guard_deadline_.reset(); }

void Member::watch_deadline() {
  const MonoTime deadline = *guard_deadline_;
  // Real-time scheduled, no disk: late by little.
  const SimTime when = world_.clock(host_).true_at(deadline) + random_ms(random_, 0, 4);
  world_.at(when, guard_process_, [this, deadline] {
    if (!guard_deadline_ || *guard_deadline_ != deadline) return;
    if (world_.local(host_) < deadline) return watch_deadline();
    guard_deadline_.reset();
    if (!pg_.any_process()) return;
    world_.trace("{} guard fences PostgreSQL", name().str());
    world_.count("guard.fenced");
    // The guard starts servers too, one thing after another: it never kills a later one.
    world_.after(random_ms(random_, 0.2, 30), guard_process_, [this, victim = pg_.process()] {
      if (!pg_.any_process() || pg_.process() != victim) return;
      pg_.kill_all();
      pg_exited("killed by the guard at the deadline");
    });
  });
}

void Member::pg_exited(std::string_view how) {
  world_.trace("{} PostgreSQL exited: {}", name().str(), how);
  if (running_op_ && !kill_running_) {
    const bool reports = std::holds_alternative<op::CleanStop>(*running_op_) ||
                         std::holds_alternative<op::Rewind>(*running_op_) ||
                         std::holds_alternative<op::Clone>(*running_op_);
    const bool concerns = !std::holds_alternative<op::VerifyReceived>(*running_op_) &&
                          !std::holds_alternative<op::InitDb>(*running_op_);
    if (concerns) {
      step(random_ms(random_, 1, 20), [this] { fail_op("PostgreSQL exited"); });
    }
    if (reports) return;
  }
  // Without a guard there is no parent that reaps.
  if (!guard_alive_ || kill_running_) return;
  world_.after(random_ms(random_, 0.5, 10), agent_process_,
               [this, how = std::string(how)] { deliver(event::PgExited{how}); });
}

void Member::kill_guard() {
  if (!guard_alive_) return;
  world_.trace("{} guard dies", name().str());
  world_.kill(guard_process_);
  guard_alive_ = false;
  guard_deadline_.reset();
  // PR_SET_PDEATHSIG takes the postmaster; its children go when they notice.
  pg_.kill_postmaster(random_ms(random_, 0, 60));
  world_.after(random_ms(random_, 1, 30), agent_process_, [this] {
    if (!guard_alive_) start_guard();
    deliver(event::GuardLost{"signal 9"});
  });
}

void Member::stop_guard() {
  // Both hanging at once is outside the promise without a watchdog (control-plane.md, Fencing).
  if (!guard_alive_ || !agent_running()) return;
  world_.stop(guard_process_);
  // Agent and guard watch each other; a guard that doesn't answer is replaced.
  world_.after(random_ms(random_, 200, 500), agent_process_, [this, guard = guard_process_] {
    if (guard_process_ == guard) kill_guard();
  });
}

void Member::kill_processes(Nanos restart_after) {
  world_.trace("{} every process is killed", name().str());
  pg_.kill_all();
  kill_agent(restart_after);
  world_.kill(guard_process_);
  guard_alive_ = false;
  guard_deadline_.reset();
}

void Member::power_loss() {
  up_ = false;
  pg_.power_loss();
  if (agent_) kill_agent(Nanos{0});
  world_.kill(guard_process_);
  world_.kill(service_manager_);
  guard_alive_ = false;
  guard_deadline_.reset();
}

}  // namespace bascule::sim
