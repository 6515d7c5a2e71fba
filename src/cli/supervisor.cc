#include "cli/supervisor.h"

#include <signal.h>

#include <algorithm>
#include <charconv>

#include "base/log.h"

namespace bascule::cli {

Supervisor::Supervisor(env::Loop& loop, env::Process& process, env::Disk& disk,
                       std::vector<SupervisedProcess> processes)
    : loop_(loop), process_(process), disk_(disk) {
  for (SupervisedProcess& spec : processes) {
    Child child;
    child.spec = std::move(spec);
    children_.push_back(std::move(child));
  }
}

Supervisor::~Supervisor() {
  for (Child& child : children_) {
    if (child.handle) loop_.unwatch(child.handle->fd());
    loop_.cancel(child.timer);
  }
  loop_.cancel(kill_timer_);
}

void Supervisor::start() {
  for (Child& child : children_) {
    child.handle = adopt(child.spec);
    if (child.handle) {
      log(LogLevel::kInfo, "supervisor", "adopted",
          {{"process", child.spec.name}, {"pid", child.handle->pid()}});
      child.started = loop_.now();
      watch(child);
    } else {
      launch(child);
    }
  }
}

std::unique_ptr<env::ProcessHandle> Supervisor::adopt(const SupervisedProcess& spec) {
  const auto text = disk_.read(spec.pid_file, 64);
  if (!text) return nullptr;
  env::Pid pid = 0;
  std::from_chars(text->data(), text->data() + text->size(), pid);
  if (pid <= 1) return nullptr;
  auto handle = process_.open(pid);
  // The number may belong to a stranger by now. Opened first, then looked at: it can't change.
  if (!handle || !(*handle)->alive()) return nullptr;
  std::string wanted;
  for (size_t i = 1; i < spec.argv.size(); ++i) wanted += " " + spec.argv[i];
  if (!process_.title(pid).ends_with(wanted)) return nullptr;
  return std::move(*handle);
}

void Supervisor::launch(Child& child) {
  child.timer = env::TimerId::kNone;
  if (stopping_ || child.handle) return;
  if (disk_.exists(child.spec.hold_file)) {
    launch_later(child, kRestartAfterMin);
    return;
  }
  env::Command command;
  command.argv = child.spec.argv;
  auto handle = process_.spawn_detached(command, child.spec.log_file);
  if (!handle) {
    log(LogLevel::kError, "supervisor", "cannot start",
        {{"process", child.spec.name}, {"reason", handle.error().to_string()}});
    child.pause = std::min(child.pause * 2, kRestartAfterMax);
    launch_later(child, child.pause);
    return;
  }
  child.handle = std::move(*handle);
  child.started = loop_.now();
  if (child.spec.pid_file_by == SupervisedProcess::PidFileBy::kSupervisor) {
    const std::string text = std::to_string(child.handle->pid()) + "\n";
    (void)disk_.write(child.spec.pid_file, text, env::Durability::kNone);
  }
  log(LogLevel::kInfo, "supervisor", "started",
      {{"process", child.spec.name}, {"pid", child.handle->pid()}});
  watch(child);
}

void Supervisor::watch(Child& child) {
  loop_.watch(child.handle->fd(), env::kReadable, [this, &child](uint32_t) { on_exit(child); });
}

void Supervisor::on_exit(Child& child) {
  if (!child.handle || child.handle->alive()) return;
  loop_.unwatch(child.handle->fd());
  const env::Pid pid = child.handle->pid();
  child.handle.reset();
  if (stopping_) {
    log(LogLevel::kInfo, "supervisor", "ended", {{"process", child.spec.name}, {"pid", pid}});
    loop_.post([this] { stop_next_group(); });
    return;
  }
  if (loop_.now() - child.started >= kStableAfter) child.pause = kRestartAfterMin;
  log(LogLevel::kWarn, "supervisor", "ended unasked",
      {{"process", child.spec.name}, {"pid", pid}, {"restart_in_ms", child.pause.count()}});
  launch_later(child, child.pause);
  child.pause = std::min(child.pause * 2, kRestartAfterMax);
}

void Supervisor::launch_later(Child& child, Millis pause) {
  child.timer = loop_.call_after(pause, [this, &child] { launch(child); });
}

void Supervisor::stop(std::vector<std::vector<std::string>> groups, std::function<void()> done) {
  if (stopping_) return kill_all();
  stopping_ = true;
  done_ = std::move(done);
  std::vector<std::string> rest;
  for (Child& child : children_) {
    loop_.cancel(child.timer);
    const bool named = std::ranges::any_of(groups, [&](const auto& group) {
      return std::ranges::find(group, child.spec.name) != group.end();
    });
    if (!named) rest.push_back(child.spec.name);
  }
  groups.push_back(std::move(rest));
  std::ranges::reverse(groups);
  groups_ = std::move(groups);
  groups_.emplace_back();  // as if one had just ended
  stop_next_group();
}

void Supervisor::stop_next_group() {
  const auto still_running = [&](const std::string& name) {
    return std::ranges::any_of(children_,
                               [&](Child& c) { return c.spec.name == name && c.handle; });
  };
  while (!groups_.empty() && !std::ranges::any_of(groups_.back(), still_running)) {
    groups_.pop_back();
    loop_.cancel(kill_timer_);
    if (groups_.empty()) break;
    for (Child& child : children_) {
      const bool ours = std::ranges::find(groups_.back(), child.spec.name) != groups_.back().end();
      if (ours && child.handle) (void)child.handle->signal(SIGTERM);
    }
    kill_timer_ = loop_.call_after(kStopTimeout, [this] { kill_all(); });
  }
  if (groups_.empty() && done_) std::exchange(done_, nullptr)();
}

void Supervisor::kill_all() {
  for (Child& child : children_) {
    if (!child.handle) continue;
    log(LogLevel::kWarn, "supervisor", "killing what did not stop",
        {{"process", child.spec.name}, {"pid", child.handle->pid()}});
    (void)child.handle->signal(SIGKILL);
  }
}

}  // namespace bascule::cli
