#include "node/guard_session.h"

#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace bascule::node {
namespace {

constexpr Millis kAnswerWithin = 5000ms;
constexpr Millis kSlice = 50ms;

}  // namespace

std::string describe_wait_status(int wait_status) {
  if (WIFSIGNALED(wait_status)) return "signal " + std::to_string(WTERMSIG(wait_status));
  return "exit " + std::to_string(WEXITSTATUS(wait_status));
}

Result<GuardSession> GuardSession::open(env::Process& process, const env::Clock& clock,
                                        const std::string& run_dir) {
  auto socket = process.connect(run_dir + "/" + env::kGuardSocketName);
  if (!socket) return std::unexpected(socket.error());
  return GuardSession(std::move(*socket), clock);
}

Status GuardSession::drain() {
  for (;;) {
    auto packet = socket_->receive();
    if (!packet) return std::unexpected(packet.error());
    if (!*packet) return {};
    const auto report = env::from_packet<env::GuardReport>(**packet);
    if (!report) return fail(ErrorCode::kInvalid, "guard: speaks another version");
    last_ = *report;
  }
}

Result<env::GuardReport> GuardSession::ask(env::GuardRequest request, std::string_view rest) {
  request.id = next_id_++;
  if (auto sent = socket_->send(env::to_packet(request, rest)); !sent) {
    return std::unexpected(sent.error());
  }
  const MonoTime deadline = clock_->now() + kAnswerWithin;
  while (clock_->now() < deadline) {
    socket_->wait_readable(kSlice);
    for (;;) {
      auto packet = socket_->receive();
      if (!packet) return std::unexpected(packet.error());
      if (!*packet) break;
      const auto report = env::from_packet<env::GuardReport>(**packet);
      if (!report) return fail(ErrorCode::kInvalid, "guard: speaks another version");
      last_ = *report;
      if (report->says != env::GuardSays::kAnswer || report->id != request.id) continue;
      if (report->error == 0) return *report;
      const bool conflict =
          report->error == EBUSY || report->error == ETIME || report->error == ECANCELED;
      return fail(conflict ? ErrorCode::kConflict : ErrorCode::kUnavailable,
                  report->error == ETIME ? std::string("guard: the deadline has passed")
                                         : std::string("guard: ") + strerror(report->error));
    }
  }
  return fail(ErrorCode::kTimeout, "guard: no answer");
}

Result<env::GuardReport> GuardSession::status() { return ask({}); }

Result<env::GuardReport> GuardSession::start(const std::string& log_file,
                                             const std::vector<std::string>& argv,
                                             const std::vector<std::string>& environment,
                                             MonoTime begun) {
  const std::string rest = env::encode_guard_start(log_file, argv, environment);
  if (rest.size() > env::kGuardStartBytesMax) {
    return fail(ErrorCode::kInvalid, "guard: command line too long");
  }
  env::GuardRequest request;
  request.ask = env::GuardAsk::kStart;
  request.deadline_ns = begun.time_since_epoch().count();
  return ask(request, rest);
}

Status GuardSession::signal(int number) {
  env::GuardRequest request;
  request.ask = env::GuardAsk::kSignal;
  request.signal = number;
  if (auto answer = ask(request); !answer) return std::unexpected(answer.error());
  return {};
}

bool GuardSession::exited() {
  if (!drain()) return true;  // the guard is gone, and PostgreSQL with it
  return last_.state == env::GuardState::kIdle;
}

Result<env::GuardReport> GuardSession::wait_exit(MonoTime deadline,
                                                 const std::function<bool()>& cancelled) {
  if (auto now = status(); !now) return now;
  while (last_.state != env::GuardState::kIdle) {
    if (cancelled && cancelled()) return fail(ErrorCode::kUnavailable, "cancelled");
    const Nanos left = deadline - clock_->now();
    if (left <= Nanos::zero()) return fail(ErrorCode::kTimeout, "PostgreSQL did not stop in time");
    socket_->wait_readable(std::min(kSlice, Millis(to_ms(left) + 1)));
    if (auto done = drain(); !done) return std::unexpected(done.error());
  }
  return last_;
}

}  // namespace bascule::node
