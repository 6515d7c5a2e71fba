#include "sim/monitor_cluster.h"

#include <algorithm>

#include "monitor/proxy_permit.h"
#include "sim/monitor_model.h"

namespace bascule::sim {
namespace {

constexpr Nanos kCloudEvery = millis(500);
constexpr Nanos kProxyReadEvery = millis(200);
constexpr Nanos kWriteEvery = millis(60);

int database_index(const NodeName& name) { return name.empty() ? -1 : name.str().back() - '0'; }

}  // namespace

NodeName monitor_database_name(int host) {
  return NodeName::parse("db" + std::to_string(host)).value();
}

MonitorPlan draw_monitor_plan(uint64_t seed) {
  Prng random = Prng::stream(seed, "monitor-plan");
  MonitorPlan plan;
  plan.seed = seed;
  plan.monitors = static_cast<int>(random.between(1, 3));
  plan.databases = static_cast<int>(random.between(2, 3));
  plan.interval = Millis(random.between(4, 15) * 100);
  plan.threshold = static_cast<int>(random.between(2, 4));
  plan.lease_ttl = Millis(random.between(2, 6) * 1000);
  plan.permit = Millis(random.between(1, 4) * 1000);
  plan.blips_only = random.chance(0.15);
  plan.store_faults = random.chance(0.4);
  plan.faults = static_cast<int>(random.between(1, 20));
  plan.stream_every = millis(random.between(20, 600));
  return plan;
}

MonitorCluster::MonitorCluster(MonitorPlan plan, bool trace)
    : plan_(plan),
      world_(plan.seed),
      store_(world_),
      keys_("db"),
      random_(Prng::stream(plan.seed, "monitor-cluster")) {
  world_.set_tracing(trace);
  for (int host = 0; host < kEndpoints; ++host) {
    HostClock& clock = world_.clock(host);
    clock.offset_ns = random_.between(1'000'000'000, 1'000'000'000'000);
    clock.rate = 1.0 + static_cast<double>(random_.between(-1000, 1000)) / 1e6;
  }
  store_.on_applied = [this](const store::Txn& txn, store::Revision, Endpoint by) {
    on_applied(txn, by);
  };
}

MonitorCluster::~MonitorCluster() = default;

control::ClusterView MonitorCluster::parse(control::ClusterParser& parser,
                                           store::Snapshot snapshot) const {
  std::erase_if(snapshot.entries,
                [](const store::Entry& e) { return e.key.ends_with("monitor/health"); });
  return parser.parse(snapshot);
}

control::ClusterView MonitorCluster::truth() { return parse(parser_, *store_.snapshot()); }

MonitorRunResult MonitorCluster::run() {
  for (int i = 0; i < plan_.databases; ++i) {
    auto& db = *databases_.emplace_back(std::make_unique<Database>());
    db.process = world_.spawn(i);
    db.in_recovery = i != 0;
    world_.after(plan_.stream_every, ProcessId::kWorld, [this, i] { stream(i); });
  }
  for (int i = 0; i < plan_.monitors; ++i) {
    monitors_.push_back(std::make_unique<MonitorProcess>());
    start_monitor(i);
  }
  for (int i = 0; i < kProxies; ++i) {
    auto& proxy = *proxies_.emplace_back(std::make_unique<Proxy>());
    proxy.process = world_.spawn(kFirstProxy + i);
    proxy.id = "p" + std::to_string(i);
    proxy_read(i);
    proxy_write(i);
  }
  world_.after(kCloudEvery, ProcessId::kWorld, [this] { cloud(); });
  plan_faults();
  const SimTime healed = plan_.fault_time;
  world_.at(healed, ProcessId::kWorld, [this] { heal_all(); });
  if (world_.run_until(healed + plan_.quiet_time)) check_liveness();
  return {world_.violations(), world_.counts(), world_.hash(), acknowledged_.size()};
}

// ---- databases
// -----------------------------------------------------------------------------------

void MonitorCluster::stream(int host) {
  world_.after(plan_.stream_every, ProcessId::kWorld, [this, host] { stream(host); });
  Database& db = *databases_[static_cast<size_t>(host)];
  if (!db.alive || !db.in_recovery || db.upstream == host || world_.frozen(host)) return;
  const Database& up = *databases_[static_cast<size_t>(db.upstream)];
  if (!up.alive || world_.frozen(db.upstream) || !world_.both_ways(host, db.upstream)) return;
  const bool parted =
      db.log.size() > up.log.size() || !std::equal(db.log.begin(), db.log.end(), up.log.begin());
  if (parted) return;  // the receiver is told that its timeline forked before
  db.log.insert(db.log.end(), up.log.begin() + static_cast<std::ptrdiff_t>(db.log.size()),
                up.log.end());
  db.timeline = up.timeline;
  db.heard_from_upstream = world_.now();
}

void MonitorCluster::rebuild(int host, int from) {
  Database& db = *databases_[static_cast<size_t>(host)];
  const Database& source = *databases_[static_cast<size_t>(from)];
  db.log = source.log;
  db.timeline = source.timeline;
  db.upstream = from;
  db.in_recovery = true;
  db.read_only = source.read_only;  // the setting is copied with the rest
  world_.count("cloud.rebuilt");
}

// Follows whom the record names; what can't follow is rebuilt.
void MonitorCluster::cloud() {
  world_.after(kCloudEvery, ProcessId::kWorld, [this] { cloud(); });
  const auto view = truth();
  if (!view.leader || view.leader->value.phase != control::LeaderPhase::kRunning) return;
  const int primary = database_index(view.leader->value.holder);
  const Database& up = *databases_[static_cast<size_t>(primary)];
  if (!up.alive || up.in_recovery || world_.frozen(primary)) return;
  for (int host = 0; host < plan_.databases; ++host) {
    Database& db = *databases_[static_cast<size_t>(host)];
    if (host == primary || !db.alive || world_.frozen(host)) continue;
    const bool prefix =
        db.log.size() <= up.log.size() && std::equal(db.log.begin(), db.log.end(), up.log.begin());
    if (db.in_recovery && prefix) {
      db.upstream = primary;
      db.rebuild_at = SimTime{-1};
    } else if (db.rebuild_at < SimTime{0}) {
      db.rebuild_at = world_.now() + random_ms(random_, 5'000, 20'000);
    } else if (world_.now() >= db.rebuild_at) {
      rebuild(host, primary);
      db.rebuild_at = SimTime{-1};
    }
  }
}

// ---- proxies
// -------------------------------------------------------------------------------------

void MonitorCluster::proxy_read(int index) {
  Proxy& p = *proxies_[static_cast<size_t>(index)];
  world_.after(kProxyReadEvery, p.process, [this, index] { proxy_read(index); });
  if (p.reading) return;
  p.reading = true;
  const Endpoint host = kFirstProxy + index;
  const MonoTime begun = world_.local(host);
  store_.read(host, p.process, [this, index, begun](Result<SnapshotPtr> result) {
    proxies_[static_cast<size_t>(index)]->reading = false;
    if (!result) return;
    proxy_act(index, parse(proxies_[static_cast<size_t>(index)]->parser, **result), begun);
  });
}

void MonitorCluster::proxy_act(int index, const control::ClusterView& view, MonoTime begun) {
  Proxy& p = *proxies_[static_cast<size_t>(index)];
  if (!view.leader || view.leader->value.epoch.value < p.epoch) return;
  const auto& leader = view.leader->value;
  const bool open = leader.phase == control::LeaderPhase::kRunning ||
                    leader.phase == control::LeaderPhase::kDraining;
  const int primary = open ? database_index(leader.holder) : -1;
  if (!open || p.epoch != leader.epoch.value) p.transactions = 0;  // connections are dropped
  p.epoch = leader.epoch.value;
  p.primary = open ? std::optional(primary) : std::nullopt;
  p.draining = leader.phase == control::LeaderPhase::kDraining;
  if (const auto until = monitor::proxy_permit(view, p.id, begun)) p.permit_until = *until;
  p.acts_by = view.leader_revision;
  const auto mine = view.monitor ? view.monitor->proxies.find(p.id)
                                 : decltype(view.monitor->proxies.find(p.id)){};
  const bool known = view.monitor && mine != view.monitor->proxies.end();
  p.registered_as = known ? mine->second.acts_by : 0;
  if (!known || p.registered_as != p.acts_by) proxy_ack(index);
}

void MonitorCluster::proxy_ack(int index) {
  Proxy& p = *proxies_[static_cast<size_t>(index)];
  if (p.acking || (p.draining && p.transactions > 0)) return;
  p.acking = true;
  store::Txn txn;
  txn.writes.push_back({control::MonitorKeys(keys_.prefix).proxy(p.id),
                        control::encode(control::ProxyAck{p.id, p.acts_by})});
  store_.commit(kFirstProxy + index, p.process, std::move(txn), [this, index](store::TxnResult) {
    proxies_[static_cast<size_t>(index)]->acking = false;
  });
}

// One statement: to the primary of the route, there in an instant, and back. What comes after the
// permit, or after the route was replaced, is not believed.
void MonitorCluster::proxy_write(int index) {
  Proxy& p = *proxies_[static_cast<size_t>(index)];
  world_.after(random_ms(random_, 20, 100), p.process, [this, index] { proxy_write(index); });
  const Endpoint host = kFirstProxy + index;
  if (!p.primary || p.draining || world_.local(host) >= p.permit_until) return;
  const int target = *p.primary;
  const uint64_t epoch = p.epoch;
  const uint64_t commit = next_commit_++;
  ++p.transactions;
  world_.send(host, target, databases_[static_cast<size_t>(target)]->process,
              [this, index, target, epoch, commit] {
                Database& db = *databases_[static_cast<size_t>(target)];
                if (!db.alive || db.in_recovery || db.read_only) return;
                db.log.push_back(commit);
                world_.send(target, kFirstProxy + index,
                            proxies_[static_cast<size_t>(index)]->process,
                            [this, index, epoch, commit] { acknowledge(index, commit, epoch); });
              });
}

void MonitorCluster::acknowledge(int index, uint64_t commit, uint64_t epoch) {
  Proxy& p = *proxies_[static_cast<size_t>(index)];
  if (p.epoch == epoch && p.transactions > 0) --p.transactions;
  if (!p.primary || p.epoch != epoch) return;
  if (world_.local(kFirstProxy + index) >= p.permit_until) {
    world_.count("proxy.too_late");
    return;
  }
  if (epoch < highest_epoch_) {
    world_.violation("one_writer", fmt::format("an acknowledgement of epoch {} after one of {}",
                                               epoch, highest_epoch_));
  }
  highest_epoch_ = std::max(highest_epoch_, epoch);
  acknowledged_[commit] = epoch;
}

}  // namespace bascule::sim
