#include "node/guard_client.h"

#include <signal.h>

#include <algorithm>
#include <utility>

namespace bascule::node {
namespace {

constexpr Millis kAttachRetry = 5ms;
constexpr Millis kAttachWithin = 5000ms;
constexpr Nanos kAnswerWithin = 1s;
constexpr Nanos kAnswerWithinMin = 100ms;

}  // namespace

GuardClient::GuardClient(env::Loop& loop, env::Process& process, std::string program,
                         std::string run_dir, Handlers handlers)
    : loop_(loop),
      process_(process),
      program_(std::move(program)),
      run_dir_(std::move(run_dir)),
      handlers_(std::move(handlers)) {}

GuardClient::~GuardClient() {
  if (socket_) loop_.unwatch(socket_->fd());
  if (guard_) loop_.unwatch(guard_->fd());
  loop_.cancel(answer_timer_);
  loop_.cancel(attach_timer_);
}

Status GuardClient::start() {
  attach_until_ = loop_.now() + kAttachWithin;
  ending_ = false;
  active_ = true;
  auto socket = process_.connect(run_dir_ + "/" + env::kGuardSocketName);
  if (socket) {
    socket_ = std::move(*socket);
    watch_socket();
    return {};
  }
  env::Command command;
  command.argv = {program_, "guard", "--run-dir", run_dir_};
  command.directory = "/";
  auto spawned = process_.spawn_detached(command, run_dir_ + "/guard.log");
  if (!spawned) return std::unexpected(spawned.error());
  try_attach();
  return {};
}

// The guard says by its socket that it is ready; nothing else tells us, hence the short retry.
void GuardClient::try_attach() {
  attach_timer_ = env::TimerId::kNone;
  auto socket = process_.connect(run_dir_ + "/" + env::kGuardSocketName);
  if (socket) {
    socket_ = std::move(*socket);
    watch_socket();
    return;
  }
  if (loop_.now() >= attach_until_) {
    lose("did not start: " + socket.error().message + "; see " + run_dir_ + "/guard.log");
    return;
  }
  attach_timer_ = loop_.call_after(kAttachRetry, [this] { try_attach(); });
}

void GuardClient::watch_socket() {
  known_ = false;
  auto guard = process_.open(socket_->peer());
  if (!guard) return lose("ended at once");
  guard_ = std::move(*guard);
  loop_.watch(socket_->fd(), env::kReadable, [this](uint32_t) { on_readable(); });
  loop_.watch(guard_->fd(), env::kReadable, [this](uint32_t) { lose("process ended"); });
  if (deadline_ns_ != 0) ask(env::GuardAsk::kArm, deadline_ns_);
  if (!watchdog_.empty()) ask_for_watchdog();
  ask(env::GuardAsk::kStatus);
  on_readable();
}

void GuardClient::on_readable() {
  while (socket_) {
    auto packet = socket_->receive();
    if (!packet) return lose(packet.error().message);
    if (!*packet) return;
    const auto report = env::from_packet<env::GuardReport>(**packet);
    if (!report) return lose("speaks another version");
    on_report(*report);
  }
}

void GuardClient::on_report(const env::GuardReport& report) {
  const env::GuardReport before = std::exchange(last_, report);
  if (report.says == env::GuardSays::kAnswer && report.id == watchdog_asked_ && report.error != 0) {
    handlers_.watchdog(env::WatchdogState::kFailed, report.error);
  } else if (report.watchdog != before.watchdog || report.watchdog_error != before.watchdog_error) {
    handlers_.watchdog(report.watchdog, report.watchdog_error);
  }
  switch (report.says) {
    case env::GuardSays::kAnswer: {
      answered_ = std::max(answered_, report.id);
      if (answered_ + 1 != next_id_) return;
      loop_.cancel(std::exchange(answer_timer_, env::TimerId::kNone));
      if (!known_) {
        known_ = true;
        adopt_deadline(report);
        handlers_.attached(report);
      }
      return settle();
    }
    case env::GuardSays::kStarted:
      return handlers_.started(report);
    case env::GuardSays::kFenced:
      return handlers_.fenced(report);
    case env::GuardSays::kExited:
      return handlers_.exited(report);
  }
}

// An earlier agent's deadline goes on for the PostgreSQL that it was set for. Without one it is
// without meaning, and would only refuse the next start.
void GuardClient::adopt_deadline(const env::GuardReport& report) {
  if (deadline_ns_ != 0 || report.deadline_ns == 0) return;
  if (report.state == env::GuardState::kIdle) return ask(env::GuardAsk::kDisarm);
  deadline_ns_ = report.deadline_ns;
}

void GuardClient::settle() {
  if (!attached() || answered_ + 1 != next_id_) return;
  for (env::Callback& callback : std::exchange(waiting_, {})) callback();
}

void GuardClient::ask(env::GuardAsk what, int64_t deadline_ns) {
  env::GuardRequest request;
  request.ask = what;
  request.deadline_ns = deadline_ns;
  ask(request, {});
}

void GuardClient::ask(env::GuardRequest request, std::string_view rest) {
  if (!socket_) return;
  request.id = next_id_++;
  if (auto sent = socket_->send(env::to_packet(request, rest)); !sent) {
    // Posted, so that a caller is not called back from within its own call.
    loop_.post([this, how = sent.error().message] { lose(how); });
    return;
  }
  if (answer_timer_ != env::TimerId::kNone) return;
  Nanos within = kAnswerWithin;
  if (request.ask == env::GuardAsk::kArm) {
    const Nanos left = MonoTime(Nanos(request.deadline_ns)) - loop_.now();
    within = std::clamp(left / 2, kAnswerWithinMin, kAnswerWithin);
  }
  answer_timer_ = loop_.call_after(within, [this] {
    answer_timer_ = env::TimerId::kNone;
    lose("does not answer");
  });
}

void GuardClient::arm(MonoTime deadline) {
  deadline_ns_ = deadline.time_since_epoch().count();
  ask(env::GuardAsk::kArm, deadline_ns_);
}

void GuardClient::disarm() {
  deadline_ns_ = 0;
  ask(env::GuardAsk::kDisarm);
}

void GuardClient::watch(const std::string& device, WatchdogTimes times) {
  watchdog_ = device;
  watchdog_times_ = times;
  ask_for_watchdog();
}

void GuardClient::ask_for_watchdog() {
  watchdog_asked_ = next_id_;
  env::GuardRequest request;
  request.ask = env::GuardAsk::kWatch;
  request.signal = static_cast<int32_t>(watchdog_times_.timeout.count());
  request.deadline_ns = Nanos(watchdog_times_.reset_after).count();
  ask(request, watchdog_);
}

void GuardClient::when_settled(env::Callback callback) {
  waiting_.push_back(std::move(callback));
  loop_.post([this] { settle(); });
}

void GuardClient::kill() { ask(env::GuardAsk::kKill); }

void GuardClient::end() {
  ending_ = true;
  ask(env::GuardAsk::kEnd);
}

void GuardClient::lose(std::string how) {
  if (!std::exchange(active_, false)) return;
  loop_.cancel(std::exchange(answer_timer_, env::TimerId::kNone));
  if (socket_) loop_.unwatch(socket_->fd());
  if (guard_) {
    loop_.unwatch(guard_->fd());
    // One that hangs would hold guard.lock and its children; the postmaster gets SIGQUIT thereby.
    if (!ending_) (void)guard_->signal(SIGKILL);
  }
  socket_.reset();
  guard_.reset();
  known_ = false;
  answered_ = next_id_ - 1;
  if (!ending_) handlers_.lost(std::move(how));
}

}  // namespace bascule::node
