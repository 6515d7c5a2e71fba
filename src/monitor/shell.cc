#include "monitor/shell.h"

#include <fmt/format.h>

#include "base/log.h"
#include "monitor/database.h"

namespace bascule::monitor {
namespace {

constexpr int kNotificationsMax = 8;
constexpr Millis kNotifyWithin{30000};

}  // namespace

Status validate(const ShellConfig& config) {
  if (auto s = validate(config.monitor); !s) return s;
  for (const EndpointConfig& e : config.monitor.endpoints) {
    if (!config.access.contains(e.name)) {
      return fail(ErrorCode::kInvalid, fmt::format("monitor: {} has no URL", e.name.str()));
    }
  }
  return {};
}

Shell::Shell(ShellConfig config, ShellDeps deps, std::function<WallTime()> wall)
    : config_(std::move(config)),
      deps_(deps),
      wall_(std::move(wall)),
      monitor_(config_.monitor, deps_.loop.now()),
      parser_(control::Keys(config_.monitor.cluster)),
      prefix_(control::Keys(config_.monitor.cluster).prefix) {}

Shell::~Shell() {
  stop();
  *alive_ = false;
  deps_.loop.cancel(timer_);
  if (watch_ != 0) deps_.store.unwatch(watch_);
}

void Shell::start() {
  for (const auto& [name, access] : config_.access) {
    log(LogLevel::kInfo, "monitor", "watching", {{"endpoint", name.str()}, {"url", access.shown}});
  }
  watch_ = deps_.store.watch(prefix_, [this] { step(event::StoreChanged{}); });
  monitor_.set_wall_time(wall_());
  for (Effect& effect : monitor_.start(deps_.loop.now())) {
    std::visit([this](auto& e) { carry_out(e); }, effect);
  }
  arm_timer();
}

void Shell::check_now() { step(event::CheckNow{}); }

void Shell::stop() { stopping_->store(true); }

void Shell::step(const Event& event) {
  monitor_.set_wall_time(wall_());
  for (Effect& effect : monitor_.step(event, deps_.loop.now())) {
    std::visit([this](auto& e) { carry_out(e); }, effect);
  }
  arm_timer();
}

void Shell::arm_timer() {
  deps_.loop.cancel(timer_);
  timer_ = deps_.loop.call_at(monitor_.next_wakeup(), [this] { step(event::Tick{}); });
}

void Shell::carry_out(effect::ReadStore&) {
  const MonoTime begun = deps_.loop.now();
  deps_.store.read(prefix_, [this, begun, alive = alive_](Result<store::Snapshot> result) {
    if (!*alive) return;
    event::StoreRead read;
    read.begun = begun;
    if (result) {
      read.view = parser_.parse(*result);
    } else {
      read.view = std::unexpected(result.error());
    }
    step(read);
  });
}

void Shell::carry_out(effect::CommitStore& effect) {
  deps_.store.commit(std::move(effect.txn),
                     [this, id = effect.id, alive = alive_](store::TxnResult result) {
                       if (*alive) step(event::StoreCommitted{id, std::move(result)});
                     });
}

void Shell::carry_out(effect::Probe& effect) {
  // References into config_ and the loop: the pool has ended before this object is destroyed.
  const EndpointConfig& endpoint = *config_.monitor.endpoint(effect.endpoint);
  const Access& access = config_.access.at(effect.endpoint);
  deps_.pool.submit([this, effect, &endpoint, &access, stopping = stopping_, alive = alive_] {
    const Database database(endpoint, access, deps_.loop, deps_.process,
                            [stopping] { return stopping->load(); });
    event::Probed done = database.probe(effect.deadline);
    done.id = effect.id;
    done.endpoint = effect.endpoint;
    deps_.loop.post([this, alive, done = std::move(done)] {
      if (*alive) step(done);
    });
  });
}

void Shell::carry_out(effect::Act& effect) {
  const EndpointConfig& endpoint = *config_.monitor.endpoint(effect.endpoint);
  const Access& access = config_.access.at(effect.endpoint);
  deps_.pool.submit([this, effect, &endpoint, &access, stopping = stopping_, alive = alive_] {
    const Database database(endpoint, access, deps_.loop, deps_.process,
                            [stopping] { return stopping->load(); });
    event::ActionDone done{effect.id, database.act(effect.kind, effect.not_after, effect.deadline)};
    deps_.loop.post([this, alive, done = std::move(done)] {
      if (*alive) step(done);
    });
  });
}

void Shell::carry_out(effect::Note& effect) {
  if (on_note_) on_note_(effect);
  notify(effect);
}

// Telling people never delays a failover: it is the pool's, and what is too much is left out.
void Shell::notify(const effect::Note& note) {
  if (config_.notify_command.empty()) return;
  if (notifying_ >= kNotificationsMax) {
    log(LogLevel::kWarn, "monitor", "not notified", {{"reason", "too many are under way"}});
    return;
  }
  env::Command command;
  command.argv = config_.notify_command;
  command.environment = {"BASCULE_EVENT=" + note.what, "BASCULE_REASON=" + note.why,
                         "BASCULE_CLUSTER=" + config_.monitor.cluster,
                         "BASCULE_MONITOR=" + config_.monitor.name};
  for (const auto& [key, value] : note.fields) {
    std::string name = "BASCULE_";
    for (const char c : key) name += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    command.environment.push_back(name + "=" + value);
  }
  command.cancelled = [stopping = stopping_] { return stopping->load(); };
  command.deadline = deps_.loop.now() + kNotifyWithin;
  ++notifying_;
  deps_.pool.submit([this, command = std::move(command), alive = alive_] {
    const auto finished = deps_.process.run(command);
    const std::string problem = !finished        ? finished.error().to_string()
                                : finished->ok() ? ""
                                                 : finished->how();
    deps_.loop.post([this, alive, problem] {
      if (!*alive) return;
      --notifying_;
      if (problem.empty()) return;
      log(LogLevel::kWarn, "monitor", "notify command failed", {{"reason", problem}});
    });
  });
}

}  // namespace bascule::monitor
