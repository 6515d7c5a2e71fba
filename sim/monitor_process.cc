// The shell of a monitor in the simulated world.
#include <algorithm>

#include "sim/monitor_cluster.h"
#include "sim/monitor_model.h"

namespace bascule::sim {
namespace {

constexpr uint64_t kSystemId = 77;
int host_of(const NodeName& name) { return name.str().back() - '0'; }

}  // namespace

void MonitorCluster::start_monitor(int index) {
  MonitorProcess& m = *monitors_[static_cast<size_t>(index)];
  const Endpoint host = kFirstMonitor + index;
  m.process = world_.spawn(host);
  ++m.lives;
  m.failed.clear();
  monitor::MonitorConfig config;
  config.cluster = "db";
  config.name = "m" + std::to_string(index);
  config.instance = fmt::format("{}-{}", config.name, m.lives);
  config.failure_threshold = plan_.threshold;
  config.probe_timeout = Millis{1000};
  config.action_timeout = Millis{4000};
  config.lease_ttl = plan_.lease_ttl;
  config.permit = plan_.permit;
  config.cooldown = Millis{5000};
  config.complete_for = Millis{10000};
  config.promote_timeout = Millis{8000};
  config.catch_up_timeout = Millis{5000};
  config.maximum_lag_bytes = 40 * kBytesPerCommit;
  for (int i = 0; i < plan_.databases; ++i) {
    monitor::EndpointConfig e;
    e.name = monitor_database_name(i);
    e.host = e.name.str();
    e.region = i == 2 ? "b" : "a";
    e.health_interval = plan_.interval;
    e.failover_timeout = Millis{40'000};
    config.endpoints.push_back(e);
  }
  m.monitor.emplace(config, world_.local(host), plan_.unsafe);
  store_.watch(host, m.process, [this, index] { step(index, monitor::event::StoreChanged{}); });
  carry_out(index, m.monitor->start(world_.local(host)));
}

void MonitorCluster::stop_monitor(int index) {
  world_.kill(monitors_[static_cast<size_t>(index)]->process);
}

void MonitorCluster::step(int index, const monitor::Event& event) {
  MonitorProcess& m = *monitors_[static_cast<size_t>(index)];
  if (const auto* probed = std::get_if<monitor::event::Probed>(&event)) {
    int& failed = m.failed[host_of(probed->endpoint)];
    failed = probed->answer == monitor::Answer::kDown ? failed + 1 : 0;
  }
  if (const auto* done = std::get_if<monitor::event::ActionDone>(&event)) note_fence(index, *done);
  m.monitor->set_wall_time(WallTime(Millis(to_ms(world_.now()))));
  carry_out(index, m.monitor->step(event, world_.local(kFirstMonitor + index)));
}

void MonitorCluster::arm(int index) {
  MonitorProcess& m = *monitors_[static_cast<size_t>(index)];
  const uint64_t timer = ++m.timer;
  const SimTime when = world_.clock(kFirstMonitor + index).true_at(m.monitor->next_wakeup());
  world_.at(std::max(when, world_.now() + millis(1)), m.process, [this, index, timer] {
    if (monitors_[static_cast<size_t>(index)]->timer == timer) {
      step(index, monitor::event::Tick{});
    }
  });
}

void MonitorCluster::carry_out(int index, monitor::Effects effects) {
  MonitorProcess& m = *monitors_[static_cast<size_t>(index)];
  const Endpoint host = kFirstMonitor + index;
  for (monitor::Effect& effect : effects) {
    if (std::holds_alternative<monitor::effect::ReadStore>(effect)) {
      const MonoTime begun = world_.local(host);
      store_.read(host, m.process, [this, index, begun](Result<SnapshotPtr> result) {
        monitor::event::StoreRead read{begun, fail(ErrorCode::kTimeout, "no answer")};
        if (result) {
          read.view = parse(monitors_[static_cast<size_t>(index)]->parser, **result);
        }
        step(index, read);
      });
    } else if (auto* commit = std::get_if<monitor::effect::CommitStore>(&effect)) {
      const bool decides = std::ranges::any_of(commit->txn.writes, [](const store::Write& w) {
        return w.key.ends_with("monitor/operation");
      });
      if (decides) m.decided_by = m.failed;
      store_.commit(host, m.process, std::move(commit->txn),
                    [this, index, id = commit->id](store::TxnResult result) {
                      step(index, monitor::event::StoreCommitted{id, std::move(result)});
                    });
    } else if (const auto* p = std::get_if<monitor::effect::Probe>(&effect)) {
      probe(index, *p);
    } else if (const auto* a = std::get_if<monitor::effect::Act>(&effect)) {
      m.fencing = {a->kind == monitor::ActionKind::kFence ? a->id : 0, a->endpoint};
      act(index, *a);
    } else if (const auto* note = std::get_if<monitor::effect::Note>(&effect)) {
      world_.count("note." + note->what);
      std::string fields;
      for (const auto& [k, v] : note->fields) fields += " " + k + "=" + v;
      world_.trace("m{}: {}: {}{}", index, note->what, note->why, fields);
    }
  }
  arm(index);
}

void MonitorCluster::probe(int index, const monitor::effect::Probe& effect) {
  const Endpoint host = kFirstMonitor + index;
  const int target = host_of(effect.endpoint);
  const ProcessId process = monitors_[static_cast<size_t>(index)]->process;
  auto done = std::make_shared<bool>(false);
  const auto failed = [this, index, effect, done] {
    if (std::exchange(*done, true)) return;
    step(index,
         monitor::event::Probed{
             effect.id, effect.endpoint, monitor::Answer::kDown, {}, "no answer", Millis{1000}});
  };
  world_.after(millis(1000), process, failed);
  world_.send(host, target, databases_[static_cast<size_t>(target)]->process,
              [this, index, effect, target, host, process, done, failed] {
                const Database& db = *databases_[static_cast<size_t>(target)];
                if (!db.alive) {
                  world_.send(target, host, process, failed);  // connection refused
                  return;
                }
                monitor::event::Probed out{effect.id, effect.endpoint, monitor::Answer::kOk, {},
                                           "",        Millis{3}};
                auto& s = out.sample;
                s.in_recovery = db.in_recovery;
                s.read_only = db.read_only;
                s.timeline = Timeline{db.timeline};
                s.system_id = kSystemId;
                if (db.in_recovery) {
                  s.received = s.replayed = db.end();
                  s.receiver_silence = Millis(to_ms(world_.now() - db.heard_from_upstream));
                  s.streaming = *s.receiver_silence < Millis{5000};
                } else {
                  s.written = db.end();
                }
                world_.send(target, host, process, [this, index, out, done] {
                  if (!std::exchange(*done, true)) step(index, out);
                });
              });
}

void MonitorCluster::act(int index, const monitor::effect::Act& effect) {
  const Endpoint host = kFirstMonitor + index;
  const int target = host_of(effect.endpoint);
  const ProcessId process = monitors_[static_cast<size_t>(index)]->process;
  auto done = std::make_shared<bool>(false);
  const auto answer = [this, index, effect, done](Result<monitor::ActionData> result) {
    if (std::exchange(*done, true)) return;
    step(index, monitor::event::ActionDone{effect.id, std::move(result)});
  };
  world_.after(millis(4000), process, [answer] { answer(fail(ErrorCode::kTimeout, "no answer")); });
  // The pool's thread gets to it a little later.
  world_.after(random_ms(random_, 0, 20), process,
               [this, index, effect, host, target, process, answer] {
                 if (world_.local(host) > effect.not_after) {
                   answer(fail(ErrorCode::kTimeout, "lease may have run out"));
                   return;
                 }
                 check_lease(index);
                 if (effect.kind == monitor::ActionKind::kPromote) check_promotion(target);
                 if (effect.kind == monitor::ActionKind::kFence) check_fence(target);
                 world_.send(host, target, databases_[static_cast<size_t>(target)]->process,
                             [this, index, effect, host, target, process, answer] {
                               auto result = perform(index, effect);
                               world_.after(random_ms(random_, 5, 400),
                                            databases_[static_cast<size_t>(target)]->process,
                                            [this, host, target, process, answer, result] {
                                              world_.send(target, host, process,
                                                          [answer, result] { answer(result); });
                                            });
                             });
               });
}

Result<monitor::ActionData> MonitorCluster::perform(int, const monitor::effect::Act& effect) {
  Database& db = *databases_[static_cast<size_t>(host_of(effect.endpoint))];
  if (!db.alive) return fail(ErrorCode::kUnavailable, "connection refused");
  switch (effect.kind) {
    case monitor::ActionKind::kPromote:
      world_.count("promotions");
      if (random_.chance(0.1)) return fail(ErrorCode::kUnavailable, "promotion failed");
      if (db.in_recovery) ++db.timeline;
      db.in_recovery = db.read_only = false;
      break;
    case monitor::ActionKind::kFence:
      if (db.in_recovery) return fail(ErrorCode::kConflict, "in recovery");
      if (db.may_not_be_fenced) return fail(ErrorCode::kConflict, "permission denied");
      db.read_only = true;
      break;
    case monitor::ActionKind::kUnfence:
      db.read_only = false;
      break;
  }
  return monitor::ActionData{db.end()};
}

}  // namespace bascule::sim
