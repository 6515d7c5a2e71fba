#include "node/hooks.h"

#include <fmt/format.h>

#include <algorithm>

namespace bascule::node {
namespace {

using Role = RoleWatch::Role;
using control::PgRun;
using control::Phase;

constexpr size_t kLinesShown = 20;
constexpr size_t kLineBytesMax = 500;
constexpr size_t kOutputBytesMax = 16 << 10;

std::string upper(std::string_view name) {
  std::string out(name);
  std::ranges::transform(out, out.begin(),
                         [](unsigned char c) { return static_cast<char>(toupper(c)); });
  return out;
}

}  // namespace

std::string_view to_string(Role role) {
  switch (role) {
    case Role::kPrimary:
      return "primary";
    case Role::kReplica:
      return "replica";
    case Role::kNone:
    case Role::kUnknown:
      break;
  }
  return "none";
}

RoleWatch::Change RoleWatch::observe(Phase phase, const control::PgStatus& postgres) {
  Role now = role_;
  switch (postgres.run) {
    case PgRun::kStopped:
      now = Role::kNone;
      break;
    case PgRun::kPrimary:
      if (phase == Phase::kLeading || phase == Phase::kDraining) now = Role::kPrimary;
      break;
    case PgRun::kStandby:
      if (phase == Phase::kFollowing || phase == Phase::kStandbyLeading) now = Role::kReplica;
      break;
    case PgRun::kStarting:
    case PgRun::kUnresponsive:
      break;
  }
  Change change;
  change.from = std::exchange(role_, now);
  change.to = now;
  const bool up = now == Role::kPrimary || now == Role::kReplica;
  const bool was_up = change.from == Role::kPrimary || change.from == Role::kReplica;
  change.started = up && !was_up;
  change.stopped = was_up && !up;
  change.restarted = change.started && now == before_;
  if (change.stopped) before_ = change.from;
  return change;
}

struct Hooks::Shared {
  HookConfig config;  // loop's thread
  env::BlockingPool& pool;
  env::Process& process;
  const env::Clock& clock;
  Say say;
  std::mutex mutex;
  std::deque<Job> waiting;     // guarded by mutex
  bool running = false;        // likewise
  std::function<void()> idle;  // likewise
};

Hooks::Hooks(HookConfig config, env::BlockingPool& pool, env::Process& process,
             const env::Clock& clock, Say say)
    : shared_(
          new Shared{std::move(config), pool, process, clock, std::move(say), {}, {}, false, {}}) {}

Hooks::~Hooks() {
  const std::lock_guard lock(shared_->mutex);
  shared_->waiting.clear();
  shared_->idle = {};
  shared_->say = [](const NoteRecord&) {};
}

void Hooks::configure(HookConfig config) { shared_->config = std::move(config); }

Millis Hooks::timeout() const { return shared_->config.timeout; }

void Hooks::when_idle(std::function<void()> done) {
  {
    const std::lock_guard lock(shared_->mutex);
    if (shared_->running) {
      shared_->idle = std::move(done);
      return;
    }
  }
  done();
}

void Hooks::fire(const std::string& event, HookFacts facts) {
  const HookConfig& c = shared_->config;
  const auto& argv = event == "role_change" ? c.on_role_change
                     : event == "start"     ? c.on_start
                     : event == "restart"   ? c.on_restart
                     : event == "reload"    ? c.on_reload
                                            : c.on_stop;
  if (argv.empty()) return;
  {
    const std::lock_guard lock(shared_->mutex);
    if (shared_->waiting.size() >= kWaitingMax) shared_->waiting.pop_front();
    shared_->waiting.push_back({event, argv, std::move(facts), c.timeout});
    if (std::exchange(shared_->running, true)) return;
  }
  shared_->pool.submit([shared = shared_] { run_next(shared); });
}

void Hooks::run_next(const std::shared_ptr<Shared>& shared) {
  for (;;) {
    Job job;
    std::function<void()> idle;
    {
      const std::lock_guard lock(shared->mutex);
      if (shared->waiting.empty()) {
        shared->running = false;
        idle = std::exchange(shared->idle, {});
      } else {
        job = std::move(shared->waiting.front());
        shared->waiting.pop_front();
      }
    }
    if (job.argv.empty()) {
      if (idle) idle();
      return;
    }
    env::Command command;
    command.argv = job.argv;
    command.environment.push_back("BASCULE_EVENT=" + job.event);
    for (const auto& [name, value] : job.facts) {
      command.environment.push_back(fmt::format("BASCULE_{}={}", upper(name), value));
    }
    const MonoTime begun = shared->clock.now();
    command.deadline = begun + job.timeout;
    std::string output;  // also of one that is killed
    command.on_output = [&output](std::string_view piece) {
      if (output.size() < kOutputBytesMax) output += piece;
    };
    const auto done = shared->process.run(command);
    NoteRecord note;
    note.what = "hook";
    note.level = done && done->ok() ? LogLevel::kInfo : LogLevel::kWarn;
    note.why = done ? done->how() : done.error().to_string();
    note.fields = {{"event", job.event},
                   {"command", job.argv.front()},
                   {"ms", std::to_string(to_ms(shared->clock.now() - begun))}};
    size_t lines = 0;
    for (size_t at = 0; at < output.size() && lines < kLinesShown; ++lines) {
      const size_t end = std::min(output.find('\n', at), output.size());
      note.fields.emplace_back("output", output.substr(at, std::min(end - at, kLineBytesMax)));
      at = end + 1;
    }
    Say say;
    {
      const std::lock_guard lock(shared->mutex);
      say = shared->say;
    }
    say(std::move(note));
  }
}

}  // namespace bascule::node
