#include "node/shell.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <variant>

#include "node/shell_shared.h"

namespace bascule::node {
namespace {

using control::OpData;
namespace effect = control::effect;
namespace event = control::event;
namespace op = control::op;

constexpr Nanos kLeftoversWithin = 10s;
constexpr Nanos kGuardRetry = 200ms;
constexpr Nanos kGuardStable = 10s;
constexpr Nanos kPersistRetry = 200ms;
constexpr Millis kSamplingMin = 5ms;

}  // namespace

Result<Shell::Opened> Shell::open(NodeConfig config, ShellDeps deps) {
  if (auto done = complete(config, deps.process, deps.disk); !done) {
    return std::unexpected(done.error());
  }
  for (const std::string& directory : {config.run_dir, config.data_dir}) {
    if (auto made = deps.disk.make_directory(directory); !made) {
      return std::unexpected(made.error());
    }
  }
  auto lock = deps.disk.lock(config.run_dir + "/agent.lock");
  if (!lock) {
    lock.error().hint = "another agent runs in this directory";
    return std::unexpected(lock.error());
  }
  (void)deps.disk.write(config.run_dir + "/agent.pid", std::to_string(deps.process.self()) + "\n",
                        env::Durability::kNone);
  // Left by an agent that was killed in the middle of initdb.
  (void)deps.disk.remove(config.run_dir + "/" + kPasswordFile, env::Durability::kNone);
  Opened out;
  auto text = deps.disk.read(config.state_file, 1 << 20);
  if (text) {
    auto state = control::decode_local_state(*text);
    if (!state) {
      return fail(ErrorCode::kInvalid, config.state_file + ": " + state.error().message,
                  "it says what this member may do after a restart; restore it, or remove it "
                  "together with the data directory");
    }
    out.state = *state;
  } else if (text.error().code != ErrorCode::kNotFound) {
    return std::unexpected(text.error());
  }
  auto shared = std::make_shared<Shared>(std::move(config), deps);
  if (auto done = shared->server.detect_version(); !done) return std::unexpected(done.error());
  out.shell.reset(new Shell(std::move(shared), deps, std::move(*lock)));
  return out;
}

Shell::Shell(std::shared_ptr<Shared> shared, ShellDeps deps, std::unique_ptr<env::FileLock> lock)
    : shared_(std::move(shared)),
      deps_(deps),
      lock_(std::move(lock)),
      parser_(control::Keys(shared_->config.agent.cluster)),
      peers_({shared_->config.agent.cluster, shared_->config.agent.name,
              shared_->config.replication_password},
             deps.http, deps.entropy),
      sample_every_(shared_->config.sampling) {
  shared_->shell = this;
}

Shell::~Shell() {
  shared_->shell = nullptr;
  if (running_.control) running_.control->cancelled = true;
  shared_->slots.cancel();
  deps_.loop.cancel(sample_timer_);
  deps_.loop.cancel(persist_timer_);
}

const NodeConfig& Shell::config() const { return shared_->config; }
std::vector<NoteRecord> Shell::notes() const { return shared_->notes.recent(); }
void Shell::on_exit(std::function<void()> callback) { on_exit_ = std::move(callback); }

void Shell::leave() {
  leaving_ = true;
  shared_->slots.cancel();
}

bool Shell::at_rest() const {
  return guard_ && guard_->attached() && !guard_lost_ && running_.id == 0 && ops_.empty() &&
         kills_.empty() && persists_.empty() && !shared_->slots.looking();
}

std::string Shell::guard_description() const {
  if (!guard_ || !guard_->attached()) return "none";
  const env::GuardReport& report = guard_->last();
  const auto watchdog = [&] {
    switch (report.watchdog) {
      case env::WatchdogState::kReady:
        return ", watchdog ready";
      case env::WatchdogState::kActive:
        return ", watchdog active";
      case env::WatchdogState::kOff:
      case env::WatchdogState::kFailed:
        return "";
    }
    return "";
  };
  return fmt::format("pid {}, {}, memory {}{}", report.guard_pid,
                     report.real_time != 0 ? "real-time" : "ordinary priority",
                     report.locked != 0 ? "locked" : "not locked", watchdog());
}

void Shell::start(const control::LocalState& state, EventSink sink,
                  std::function<void(Status)> ready) {
  sink_ = std::move(sink);
  ready_ = std::move(ready);
  persisted_ = state;
  apply_identity();
  guard_ = std::make_unique<GuardClient>(deps_.loop, deps_.process, config().program,
                                         config().run_dir, guard_handlers());
  if (deps_.process.connect(config().run_dir + "/" + env::kGuardSocketName)) return start_guard();
  // No guard: whatever of PostgreSQL lives has lost it. Killed only where it is ours.
  guard_lost_ = true;
  deps_.pool.submit([shared = shared_] {
    Server& server = shared->server;
    Status done;
    if (server.postmaster_pid() != 0 && !server.disk().exists(server.data(kConfName))) {
      done = fail(ErrorCode::kConflict,
                  shared->config.data_dir + ": a PostgreSQL runs here that Bascule did not start",
                  "stop it first");
    } else {
      done = server.kill_leftovers(kLeftoversWithin);
    }
    shared->deps.loop.post([shared, done = std::move(done)] {
      Shell* shell = shared->shell;
      if (shell == nullptr) return;
      shell->guard_lost_ = false;
      if (done) return shell->start_guard();
      if (shell->ready_) std::exchange(shell->ready_, {})(done);
    });
  });
}

void Shell::perform(control::Effects effects) {
  for (control::Effect& one : effects) {
    std::visit([this](auto& e) { perform_one(std::move(e)); }, one);
  }
}

void Shell::emit(control::Event happened) {
  deps_.loop.post([shared = shared_, happened = std::move(happened)]() mutable {
    if (shared->shell != nullptr) shared->shell->sink_(std::move(happened));
  });
}

void Shell::note(NoteRecord record) {
  record.at = deps_.loop.wall_now();
  record.mono = deps_.loop.now();
  record.member = config().agent.name.str();
  shared_->notes.add(std::move(record));
  deps_.pool.submit([shared = shared_] { shared->notes.write_pending(); });
}

void Shell::remark(std::string what, std::string why, LogLevel level) {
  NoteRecord record;
  record.level = level;
  record.what = std::move(what);
  record.why = std::move(why);
  note(std::move(record));
}

// ---- guard
// ---------------------------------------------------------------------------------------

GuardClient::Handlers Shell::guard_handlers() {
  return {[this](const env::GuardReport& report) { guard_attached(report); },
          [this](const env::GuardReport&) {
            shared_->sampler.forget_stopped();
            slots_prepared_.reset();
          },
          [this](const env::GuardReport&) {
            remark("fenced by the guard", "the agent did not renew its deadline in time");
          },
          [this](const env::GuardReport& report) { guard_exited(report); },
          [this](const std::string& how) { guard_lost(how); },
          [this](env::WatchdogState state, int error) { watchdog_is(state, error); }};
}

void Shell::start_guard() {
  if (auto done = guard_->start(); !done) {
    remark("guard does not start", done.error().message);
    deps_.loop.call_after(kGuardRetry, [shared = shared_] {
      if (shared->shell != nullptr) shared->shell->start_guard();
    });
  }
}

void Shell::guard_attached(const env::GuardReport& report) {
  NoteRecord record;
  record.what = report.postmaster_pid != 0 ? "adopted PostgreSQL" : "guard attached";
  record.why = guard_description();
  if (report.postmaster_pid != 0) {
    record.fields.emplace_back("postmaster", std::to_string(report.postmaster_pid));
  }
  note(std::move(record));
  shared_->server.stopped_on_purpose = 0;
  if (ready_) std::exchange(ready_, {})({});
  if (!kills_.empty()) guard_->kill();
  finish_kills_if_dead();
  sample_now();
  next_op();
}

void Shell::guard_exited(const env::GuardReport& report) {
  shared_->sampler.forget_stopped();
  sample_now();
  if (!kills_.empty()) return finish_kills();
  const uint64_t on_purpose = shared_->server.stopped_on_purpose;
  if (on_purpose != 0 && report.starts <= on_purpose) return;
  std::string how = describe_wait_status(report.wait_status);
  if (report.fenced != 0) how += " (fenced)";
  emit(event::PgExited{std::move(how)});
}

void Shell::guard_lost(const std::string& how) {
  if (std::exchange(guard_lost_, true)) return;
  const bool ran = guard_->last().state != env::GuardState::kIdle;
  if (running_.control) running_.control->cancelled = true;
  deps_.pool.submit([shared = shared_, how, ran] {
    // Nothing else can be decided before they are dead.
    while (!shared->server.kill_leftovers(kLeftoversWithin)) {
    }
    shared->deps.loop.post([shared, how, ran] {
      if (shared->shell != nullptr) shared->shell->leftovers_killed(how, ran);
    });
  });
}

void Shell::leftovers_killed(const std::string& how, bool ran) {
  guard_lost_ = false;
  shared_->sampler.forget_stopped();
  shared_->server.stopped_on_purpose = 0;
  remark("guard lost", how);
  emit(event::GuardLost{how});
  if (!kills_.empty()) {
    finish_kills();
  } else if (ran) {
    emit(event::PgExited{"killed: the guard was lost"});
  }
  // At once, unless it dies again and again.
  const MonoTime now = deps_.loop.now();
  const bool again = guard_lost_at_ != MonoTime{} && now - guard_lost_at_ < kGuardStable;
  guard_lost_at_ = now;
  deps_.loop.call_after(again ? kGuardRetry : Nanos::zero(), [shared = shared_] {
    if (shared->shell != nullptr) shared->shell->start_guard();
  });
}

void Shell::watchdog(Millis ttl, std::function<void(bool)> usable) {
  watchdog_usable_ = std::move(usable);
  const WatchdogConfig& wanted = config().watchdog;
  if (const auto times = watchdog_times(ttl)) return guard_->watch(wanted.device, *times);
  guard_->watch("", {});
  remark("no watchdog", fmt::format("ttl: {} ms is too short for one", ttl.count()));
  watchdog_usable_(false);
}

void Shell::watchdog_is(env::WatchdogState state, int error) {
  if (!watchdog_usable_ || state == env::WatchdogState::kOff) return;
  const bool failed = state == env::WatchdogState::kFailed;
  const WatchdogConfig& wanted = config().watchdog;
  // Most machines have none, and nobody asked for it.
  const bool absent = failed && error == ENOENT && wanted.mode == WatchdogConfig::Mode::kAutomatic;
  if (failed && !absent) {
    remark("no watchdog", fmt::format("{}: {}", wanted.device, strerror(error)));
  } else if (state == env::WatchdogState::kActive) {
    NoteRecord record;
    record.what = "watchdog runs";
    record.why = wanted.device;
    note(std::move(record));
  }
  watchdog_usable_(!failed);
}

void Shell::perform_one(effect::ArmGuard&& e) { guard_->arm(e.deadline); }
void Shell::perform_one(effect::DisarmGuard&&) { guard_->disarm(); }

// ---- operations
// ----------------------------------------------------------------------------------

void Shell::perform_one(effect::StartOp&& e) {
  if (std::holds_alternative<op::Kill>(e.op)) return begin_kill(e.id);
  // What the agent wants does not wait for a slot of somebody else's.
  if (running_.id == kOwnOp && !slot_troubles_.empty()) running_.control->cancelled = true;
  ops_.push_back(std::move(e));
  next_op();
}

void Shell::begin_kill(control::OpId id) {
  kills_.push_back(id);
  if (running_.control) running_.control->cancelled = true;
  for (const effect::StartOp& waiting : std::exchange(ops_, {})) {
    if (waiting.id == kOwnOp) continue;
    emit(event::OpDone{waiting.id, fail(ErrorCode::kUnavailable, "cancelled by kill")});
  }
  if (!guard_->attached()) return;  // done when its leftovers are dead, or when it is back
  guard_->kill();
  guard_->when_settled([shared = shared_] {
    if (shared->shell != nullptr) shared->shell->finish_kills_if_dead();
  });
}

void Shell::finish_kills_if_dead() {
  if (guard_->attached() && guard_->last().state == env::GuardState::kIdle) finish_kills();
}

void Shell::finish_kills() {
  for (const control::OpId id : std::exchange(kills_, {})) emit(event::OpDone{id, OpData{}});
  next_op();
}

void Shell::next_op() {
  if (ops_.empty() || running_.id != 0 || !kills_.empty() || !guard_->attached()) return;
  const effect::StartOp& next = ops_.front();
  running_ = {next.id, std::string(control::op_name(next.op)), std::make_shared<OpControl>()};
  guard_->when_settled([shared = shared_] {
    if (shared->shell != nullptr) shared->shell->run_in_pool();
  });
}

void Shell::run_in_pool() {
  if (running_.id == 0 || ops_.empty() || ops_.front().id != running_.id) {
    running_ = {};  // killed while it waited for the guard
    return next_op();
  }
  running_.control->begun = deps_.loop.now();
  shared_->slots.cancel();
  shared_->sampler.forget_stopped();
  deps_.pool.submit([shared = shared_, control = running_.control, name = running_.name,
                     e = std::move(ops_.front())] {
    OpContext context{
        shared->server, *control,
        [&shared](std::string text) { shared->sampler.set_progress(std::move(text)); },
        [&shared](std::string what, std::string why) {
          shared->remark(LogLevel::kWarn, std::move(what), std::move(why));
        },
        &shared->slots};
    Result<OpData> result = run_op(context, e.op);
    const bool looked = result && std::holds_alternative<op::EnsureSlots>(e.op);
    shared->deps.loop.post([shared, id = e.id, name, looked, result = std::move(result),
                            troubles = std::move(context.slot_troubles)]() mutable {
      if (shared->shell == nullptr) return;
      if (looked) shared->shell->permanent_slots_looked_at(std::move(troubles));
      shared->shell->op_done(id, name, std::move(result));
    });
  });
  ops_.pop_front();
}

void Shell::op_done(control::OpId id, const std::string& name, Result<OpData> result) {
  running_ = {};
  shared_->sampler.forget_stopped();
  if (result) {
    log(LogLevel::kDebug, config().agent.name.str(), "operation done",
        {{"op", name}, {"position", result->position.to_string()}});
  } else {
    log(LogLevel::kWarn, config().agent.name.str(), "operation failed",
        {{"op", name}, {"error", result.error().to_string()}});
  }
  if (id != kOwnOp) emit(event::OpDone{id, std::move(result)});
  sample_now();
  next_op();
}

// ---- store, state, notes
// -------------------------------------------------------------------------

void Shell::perform_one(effect::ReadStore&& e) {
  deps_.store.read(
      control::Keys(config().agent.cluster).prefix,
      [shared = shared_, id = e.id](Result<store::Snapshot> result) {
        if (shared->shell == nullptr) return;
        shared->shell->emit(event::StoreRead{id, shared->shell->parser_.parse(std::move(result))});
      });
}

void Shell::perform_one(effect::CommitStore&& e) {
  deps_.store.commit(std::move(e.txn), [shared = shared_, id = e.id](store::TxnResult result) {
    if (shared->shell == nullptr) return;
    shared->shell->emit(event::StoreCommitted{id, std::move(result)});
  });
}

// Isolated as soon as an intent is asked for, and until its removal is durable.
void Shell::apply_identity() {
  const control::LocalState& newest = persists_.empty() ? persisted_ : persists_.back().state;
  bool intent = persisted_.ballot_intent.has_value();
  for (const effect::Persist& p : persists_) intent |= p.state.ballot_intent.has_value();
  shared_->server.set_identity(newest.incarnation, intent);
}

void Shell::perform_one(effect::Persist&& e) {
  persists_.push_back(std::move(e));
  apply_identity();
  if (persists_.size() == 1) next_persist();
}

void Shell::next_persist() {
  persist_timer_ = env::TimerId::kNone;
  if (persists_.empty()) return;
  deps_.pool.submit([shared = shared_, text = control::encode(persists_.front().state)] {
    Status done = shared->deps.disk.write(shared->config.state_file, text, env::Durability::kFsync);
    shared->deps.loop.post([shared, done = std::move(done)] {
      if (shared->shell != nullptr) shared->shell->persisted(done);
    });
  });
}

void Shell::persisted(const Status& status) {
  if (!status) {
    remark("state not persisted", status.error().message);
    persist_timer_ = deps_.loop.call_after(kPersistRetry, [this] { next_persist(); });
    return;
  }
  persisted_ = std::move(persists_.front().state);
  const control::RequestId id = persists_.front().id;
  persists_.pop_front();
  apply_identity();
  emit(event::PersistDone{id});
  next_persist();
}

void Shell::perform_one(effect::Note&& e) {
  NoteRecord record;
  record.level = e.level;
  record.what = std::move(e.what);
  record.why = std::move(e.why);
  record.fields = std::move(e.fields);
  note(std::move(record));
}

// ---- other agents ------------------------------------------------------------------------------

void Shell::perform_one(effect::AskPeer&& e) {
  peers_.ask(e.member, e.url, e.request,
             [shared = shared_, id = e.id](control::PeerOutcome outcome, control::PeerReply reply) {
               if (shared->shell == nullptr) return;
               shared->shell->emit(event::PeerAnswered{id, outcome, std::move(reply)});
             });
}

void Shell::peer_asks(const std::string& sealed, std::function<void(Result<std::string>)> done) {
  auto opened = peers_.open(sealed);
  if (!opened) return done(std::unexpected(opened.error()));
  const uint64_t token = next_token_++;
  const control::PeerRequest request = opened->request;
  questions_[token] = {std::move(*opened), std::move(done)};
  emit(event::PeerAsked{token, request});
}

void Shell::perform_one(effect::AnswerPeer&& e) {
  const auto found = questions_.find(e.token);
  if (found == questions_.end()) return;
  const Question question = std::move(found->second);
  questions_.erase(found);
  question.done(peers_.seal(question.opened, e.reply));
}

void Shell::perform_one(effect::Exit&&) {
  if (guard_->attached() && guard_->last().state == env::GuardState::kIdle) guard_->end();
  if (on_exit_) deps_.loop.post([callback = on_exit_] { callback(); });
}

// ---- sampling
// ------------------------------------------------------------------------------------

void Shell::perform_one(effect::SetSampling&& e) {
  sample_every_ = std::max(e.every, kSamplingMin);
  sample_now();
}

void Shell::sample_now() {
  if (!guard_ || !guard_->attached()) return;  // guard_attached() comes here again
  if (sampling_) {
    sample_again_ = true;
    return;
  }
  sampling_ = true;
  sample_again_ = false;
  deps_.loop.cancel(std::exchange(sample_timer_, env::TimerId::kNone));
  deps_.pool.submit([shared = shared_, postmaster = guard_->last().postmaster_pid,
                     processes = guard_->last().state != env::GuardState::kIdle] {
    control::PgStatus status = shared->sampler.sample(postmaster, processes);
    shared->deps.loop.post([shared, status = std::move(status)]() mutable {
      if (shared->shell != nullptr) shared->shell->sampled(std::move(status));
    });
  });
}

void Shell::sampled(control::PgStatus status) {
  sampling_ = false;
  maybe_prepare_slots(status);
  maybe_retry_permanent_slots(status);
  maybe_reload(status);
  maybe_probe_writes(status);
  maybe_keep_slots(status);
  status.write_waits = shared_->write_probe.waits();
  emit(event::Observed{std::move(status)});
  if (sample_again_) return sample_now();
  sample_timer_ = deps_.loop.call_after(sample_every_, [this] {
    sample_timer_ = env::TimerId::kNone;
    sample_now();
  });
}

void Shell::want_parameters(std::map<std::string, std::string> parameters) {
  shared_->server.want_parameters(std::move(parameters));
}

// The agent has parameters read when they are others than it had read. A start may have written
// some in between, of which it does not know.
void Shell::maybe_reload(const control::PgStatus& status) {
  const bool serves = status.run == control::PgRun::kPrimary ||
                      (status.run == control::PgRun::kStandby && status.receiver_streaming);
  if (!serves || leaving_ || running_.id != 0 || !ops_.empty()) return;
  if (!shared_->server.started_with_others()) return;
  ops_.push_back({kOwnOp, op::Reload{*shared_->server.wanted_parameters()}});
  next_op();
}

void Shell::maybe_probe_writes(const control::PgStatus& status) {
  const bool primary = status.run == control::PgRun::kPrimary;
  if (!shared_->write_probe.due(primary && running_.id == 0)) return;
  deps_.pool.submit([shared = shared_] { shared->write_probe.run(); });
}

}  // namespace bascule::node
