#include "sim/cluster.h"

#include <algorithm>

#include "control/election.h"
#include "sim/nemesis.h"

namespace bascule::sim {

using namespace control;

std::string_view to_string(Profile profile) {
  switch (profile) {
    case Profile::kBlips:
      return "blips";
    case Profile::kSingle:
      return "single";
    case Profile::kStorm:
      return "storm";
    case Profile::kAimed:
      return "aimed";
    case Profile::kLong:
      return "long";
  }
  return "?";
}

namespace {
constexpr double kByHand = 0.1;
}

Plan draw_plan(uint64_t seed) {
  Prng r = Prng::stream(seed, "plan");
  Plan p;
  p.seed = seed;
  const uint64_t kind = r.below(100);
  p.profile = kind < 8    ? Profile::kBlips
              : kind < 30 ? Profile::kSingle
              : kind < 65 ? Profile::kStorm
                          : Profile::kAimed;
  const uint64_t size = r.below(100);
  p.nodes = size < 12 ? 2 : size < 88 ? 3 : size < 95 ? 4 : 5;
  ClusterConfig& c = p.config;
  c.ttl = r.chance(0.25) ? Millis(2000) : Millis(5000);
  c.sync_mode = r.chance(0.7) ? SyncMode::kOn : SyncMode::kOff;
  c.sync_strict = r.chance(0.25);
  Prng quorum = Prng::stream(seed, "plan: quorum");
  if (c.sync_mode == SyncMode::kOn && quorum.chance(0.35)) {
    c.sync_mode = SyncMode::kQuorum;
    c.sync_count = 1 + quorum.below(2);
  }
  Prng peers = Prng::stream(seed, "plan: peers");
  c.early_takeover = peers.chance(0.4);
  c.failsafe = peers.chance(0.6);
  c.blip_tolerance = Millis(peers.between(1500, 3000));
  Prng regions = Prng::stream(seed, "plan: regions");
  if (regions.chance(0.2)) {
    c.region_relays = true;
    for (int host = 0; host < p.nodes; ++host) p.regions.push_back(regions.chance(0.4) ? "a" : "b");
  }
  Prng places = Prng::stream(seed, "plan: sync region");
  if (places.chance(0.15)) {
    c.sync_region = places.chance(0.5) ? SyncRegion::kOther : SyncRegion::kSame;
    p.regions.resize(static_cast<size_t>(p.nodes), "a");
    for (std::string& region : p.regions) region = places.chance(0.5) ? "a" : "b";
  }
  Prng clients = Prng::stream(seed, "plan: clients");
  if (clients.chance(0.7)) {  // calm ones: a commit every 100 ms, not every 30
    p.workload.think_low = millis(100);
    p.workload.think_high = millis(900);
  }
  Prng following = Prng::stream(seed, "plan: following");
  if (p.profile != Profile::kBlips && following.chance(0.06)) {
    p.follows = true;
    c.standby_cluster = StandbyCluster{"elsewhere", 5432, "", ""};
  }
  const uint64_t crash = r.below(3);
  c.on_crash = crash == 0   ? OnCrash::kFailover
               : crash == 1 ? OnCrash::kRestart
                            : OnCrash::kRestartThenFailover;
  c.maximum_lag_bytes = r.chance(0.5) ? 64 << 10 : 16 << 20;
  c.rejoin_timeout = Millis(r.between(4000, 12000));
  c.promote_timeout = Millis(r.between(3000, 10000));
  p.fault_time = millis(r.between(12000, 30000));
  p.wal_keep_bytes = r.chance(0.2) ? 64 << 10 : 1 << 20;
  p.clock_error = r.chance(0.5) ? static_cast<double>(r.between(5, 50)) / 1000 : 0;
  p.store.client_timeout = millis(r.chance(0.5) ? 1000 : r.between(300, 2500));
  if (p.profile == Profile::kBlips) {
    p.store.client_timeout = millis(r.between(300, 600));
    c.ttl = Millis(5000);
    p.shell.op_fails = p.shell.op_unknown = 0;
  } else {
    p.shell.op_fails = static_cast<double>(r.below(4)) / 100;
    p.shell.op_unknown = static_cast<double>(r.below(3)) / 100;
    p.damage_store = r.chance(0.02);
    p.by_hand = !p.follows && Prng::stream(seed, "plan: by hand").chance(kByHand);
  }
  return p;
}

Plan draw_long_plan(uint64_t seed) {
  Plan p = draw_plan(seed);
  Prng r = Prng::stream(seed, "plan: long");
  p.profile = Profile::kLong;
  static constexpr Millis kTtls[] = {Millis(5000), Millis(10000), Millis(30000)};
  p.config.ttl = kTtls[r.below(std::size(kTtls))];
  p.fault_time = std::chrono::minutes(r.between(60, 300));
  p.workload = Workload{millis(2000), millis(20000), 1, 1, true};
  p.shell.unchanged_sample = millis(1000);
  p.damage_store = false;
  p.by_hand = false;
  return p;
}

namespace {
struct Mutation {
  std::string name;
  bool UnsafeMutations::* flag;
};
const std::vector<Mutation>& mutations() {
  static const std::vector<Mutation> all = {
      {"skip_fence", &UnsafeMutations::skip_fence},
      {"ignore_ballots", &UnsafeMutations::ignore_ballots},
      {"promote_shorter_log", &UnsafeMutations::promote_shorter_log},
      {"renew_after_deadline", &UnsafeMutations::renew_after_deadline},
      {"skip_receiver_stop", &UnsafeMutations::skip_receiver_stop},
      {"sync_before_record", &UnsafeMutations::sync_before_record},
      {"reuse_timeline", &UnsafeMutations::reuse_timeline},
      {"short_quorum", &UnsafeMutations::short_quorum},
      {"early_without_voters", &UnsafeMutations::early_without_voters},
      {"early_when_alone", &UnsafeMutations::early_when_alone},
      {"failsafe_unpledged", &UnsafeMutations::failsafe_unpledged},
      {"pledge_with_ballot", &UnsafeMutations::pledge_with_ballot},
      {"ballot_despite_pledge", &UnsafeMutations::ballot_despite_pledge},
      {"force_despite_pledges", &UnsafeMutations::force_despite_pledges},
      {"trust_leaders_clock", &UnsafeMutations::trust_leaders_clock},
      {"forward_cancelled_waits", &UnsafeMutations::forward_cancelled_waits},
  };
  return all;
}
}  // namespace

const std::vector<std::string>& mutation_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> n;
    for (const Mutation& m : mutations()) n.push_back(m.name);
    return n;
  }();
  return names;
}

std::string apply_mutation(Plan& plan, std::string_view name) {
  for (const Mutation& m : mutations()) {
    if (m.name == name) {
      plan.unsafe.*m.flag = true;
      return {};
    }
  }
  return fmt::format("there is no mutation \"{}\"; there are: {}", name,
                     fmt::join(mutation_names(), ", "));
}

Cluster::Cluster(const Plan& plan, bool tracing)
    : plan_(plan),
      world_(plan.seed),
      store_(world_),
      keys_("sim"),
      decoded_(store_, keys_),
      fabric_{world_, observers_, {}, {}},
      truth_{world_, store_, decoded_, keys_, plan_.config, members_} {
  truth_.follows = plan.follows;
  world_.set_tracing(tracing);
  world_.listen_only_to(plan.only_checkers);
  store_.faults() = plan.store;
  fabric_.wal_keep_bytes = plan.wal_keep_bytes;
  fabric_.slow_reloads = plan.slow_reloads;
  fabric_.calm = plan.profile == Profile::kLong;
  store_.on_applied = [this](const store::Txn& txn, store::Revision revision, Endpoint by) {
    if (world_.tracing()) {
      for (const store::Write& w : txn.writes) {
        if (w.key == keys_.leader() && w.value)
          world_.trace("store r{} leader {}", revision, *w.value);
        else
          world_.trace("store r{} by {} {}", revision, by, w.key.substr(keys_.prefix.size()));
      }
    }
    observers_.store_applied(txn, revision, by);
  };
  observers_.checkers = all_checkers(truth_);
  Prng r = world_.stream("cluster");
  for (Endpoint e = 0; e < kEndpoints; ++e) {
    HostClock& clock = world_.clock(e);
    clock.offset_ns = r.between(1'000'000'000, 1'000'000'000'000);
    if (plan.clock_error > 0) {
      clock.rate = 1 + plan.clock_error * static_cast<double>(r.between(-1000, 1000)) / 1000;
    }
  }
  fabric_.servers.resize(kHostsMax, nullptr);
  for (Endpoint host = 0; host < plan.nodes; ++host) {
    AgentConfig config;
    config.cluster = "sim";
    config.name = *NodeName::parse(fmt::format("n{}", host + 1));
    config.host = fmt::format("10.0.0.{}", host + 1);
    config.port = 5432;
    config.api_url = fmt::format("http://10.0.0.{}:8008", host + 1);
    if (plan.tags_and_priorities) {
      config.priority = r.chance(0.2) ? 50 : 100;
      // Never everybody: somebody must be electable.
      config.nofailover = host >= 2 && r.chance(0.12);
    }
    config.nofailover = config.nofailover || config.name.str() == plan.may_not_lead;
    if (static_cast<size_t>(host) < plan.regions.size()) {
      config.region = plan.regions[static_cast<size_t>(host)];
    }
    config.initial = plan.config;
    members_.push_back(std::make_unique<Member>(world_, store_, decoded_, fabric_, observers_, host,
                                                std::move(config), plan.unsafe));
    members_.back()->faults() = plan.shell;
    members_.back()->find_peer = [this](const NodeName& name) -> Member* {
      const auto found =
          std::ranges::find_if(members_, [&](const auto& m) { return m->name() == name; });
      return found == members_.end() ? nullptr : found->get();
    };
    fabric_.servers[static_cast<size_t>(host)] = &members_.back()->pg();
  }
  fabric_.host_of = [this](const NodeName& name) -> std::optional<Endpoint> {
    for (const auto& m : members_) {
      if (m->name() == name) return m->host();
    }
    return followed_ && name == followed_cluster() ? std::optional(Followed::kHost) : std::nullopt;
  };
  if (plan.follows) followed_ = std::make_unique<Followed>(fabric_);
  clients_ = std::make_unique<Clients>(truth_, observers_, plan.workload, plan.unsafe);
  if (!plan.consumer.on) return;
  observers_.checkers.push_back(make_consumers(truth_));
  consumer_ = std::make_unique<FailoverSlot>(truth_, observers_, plan.consumer);
  fabric_.consumer = consumer_.get();
}

Cluster::~Cluster() = default;

void Cluster::boot() {
  Prng r = world_.stream("boot");
  for (auto& m : members_) {
    world_.after(random_ms(r, 0, 800), ProcessId::kWorld, [member = m.get()] { member->boot(); });
  }
  clients_->start();
  if (consumer_) consumer_->start();
  if (!followed_) return;
  std::vector<NodeName> names;
  for (const auto& m : members_) names.push_back(m->name());
  followed_->start(names);
}

bool Cluster::run_until(const std::function<bool()>& condition, Nanos bound) {
  const SimTime end = world_.now() + bound;
  while (world_.now() < end) {
    if (!run_for(millis(100))) return false;
    if (condition()) return true;
  }
  return false;
}

Member* Cluster::leader() {
  for (auto& m : members_) {
    const Phase phase = m->agent() != nullptr ? m->agent()->phase() : Phase::kStarting;
    if (phase == Phase::kLeading || phase == Phase::kStandbyLeading) return m.get();
  }
  return nullptr;
}

bool Cluster::writable() {
  const Member* l = truth_.leading();
  return l != nullptr && l->pg().accepts_writes() &&
         world_.now() - clients_->last_proxied_ack() <
             std::max(millis(2000), plan_.workload.think_high + millis(500));
}

bool Cluster::follows() {
  return std::ranges::count_if(members_,
                               [](const auto& m) {
                                 return m->agent() != nullptr &&
                                        m->agent()->phase() == Phase::kStandbyLeading;
                               }) == 1 &&
         std::ranges::all_of(members_, [](const auto& m) { return m->pg().receiver_streaming(); });
}

bool Cluster::settled() {
  if (!writable()) return false;
  const Member* l = truth_.leading();
  for (const auto& m : members_) {
    if (m.get() == l) continue;
    if (m->agent() == nullptr || m->agent()->phase() != Phase::kFollowing ||
        !m->pg().receiver_streaming()) {
      return false;
    }
    // One whose disk hangs has not heard of the leader yet.
    if (m->pg().data().timeline != l->pg().data().timeline) return false;
  }
  const ClusterView& view = truth_.view();
  if (view.request && view.request->value.outcome.empty()) return false;
  for (const auto& [id, task] : view.tasks) {
    // A removal waits for as long as commits need the member.
    if (task.value.outcome.empty() && task.value.kind != TaskKind::kRemove) return false;
  }
  const SyncMode mode = view.config ? view.config->value.sync_mode : plan_.config.sync_mode;
  return mode == SyncMode::kOff || members_.size() < 2 || !l->pg().sync_setting().empty();
}

// Nobody is safe for every generation, and somebody would be if nobody had been promoted by hand:
// liveness is not promised (invariant 5), and ADR 0027 leaves it to an operator's force.
bool Cluster::left_to_operator() {
  if (!world_.violations().empty()) return false;
  ClusterView without = truth_.view();
  const auto somebody = [](const Election& e) {
    return std::ranges::any_of(e.ranking, &Candidate::safe);
  };
  if (somebody(elect(without))) return false;
  for (const auto& m : members_) {
    const auto ballot = without.ballots.find(m->name());
    const auto& wal = m->pg().data().wal;
    const auto begun = std::ranges::find(wal, true, &WalRecord::by_hand);
    if (ballot == without.ballots.end() || begun == wal.end() || begun == wal.begin()) continue;
    const WalRecord& last = *std::prev(begun);
    ballot->second.value.position = {Timeline{last.timeline}, Lsn{last.end}};
    ballot->second.value.origin = {};
  }
  return somebody(elect(without));
}

void Cluster::force_what_was_promoted() {
  if (const auto& open = truth_.view().request; open && open->value.outcome.empty()) {
    RequestRecord cancelled = open->value;
    cancelled.outcome = "cancelled";
    store_.apply(store::Txn{{}, {{keys_.request(), encode(cancelled)}}}, kDirectClients);
  }
  for (const auto& m : members_) {
    const bool it = std::ranges::any_of(m->pg().data().wal, &WalRecord::by_hand);
    if (!it || !request(RequestKind::kFailover, m->name(), /*force=*/true, true)) continue;
    world_.count("exception.promoted_by_hand_was_all_there_was");
    return;
  }
}

void Cluster::heal_and_settle() {
  truth_.healed_at = world_.now();
  world_.trace("everything heals");
  // What a ttl above the default takes longer to run out, a client longer to try.
  const Nanos slower = std::max(Nanos{0}, 2 * Nanos(plan_.config.ttl - Millis(5000))) +
                       std::max(Nanos{0}, plan_.workload.think_high - millis(1000));
  const auto writes = [this] {
    return clients_->last_proxied_ack() > truth_.healed_at && writable();
  };
  // A directory that somebody promoted may never become consistent: its start is given up first.
  const Nanos start_given_up = plan_.by_hand ? Nanos(plan_.config.rejoin_timeout * 4) : Nanos{0};
  SimTime limit = world_.now() + millis(45000) + slower + start_given_up;
  if (plan_.by_hand && !run_until(writes, millis(30000) + slower) && left_to_operator()) {
    force_what_was_promoted();
    limit += millis(30000);
  }
  if (!run_until(writes, std::max(Nanos{0}, limit - world_.now()))) {
    if (world_.violations().empty() && !truth_.store_damaged) {
      std::string who;
      for (const auto& m : members_) {
        who +=
            fmt::format("; {} {}", m->name().str(),
                        m->agent() ? fmt::format("{}: {}", control::to_string(m->agent()->phase()),
                                                 m->agent()->reason())
                                   : "agent down");
      }
      world_.violation("liveness", fmt::format("no writable primary {} s after everything healed{}",
                                               to_ms(world_.now() - truth_.healed_at) / 1000, who));
    }
    return;
  }
  world_.count("healing.writable_ms",
               static_cast<uint64_t>(to_ms(world_.now() - truth_.healed_at)));
  if (!run_until([this] { return settled(); }, millis(90000))) {
    if (world_.violations().empty() && !truth_.store_damaged) {
      std::string who;
      for (const auto& m : members_) {
        who +=
            fmt::format("; {} {}{}", m->name().str(),
                        m->agent() ? fmt::format("{}: {}", control::to_string(m->agent()->phase()),
                                                 m->agent()->reason())
                                   : "agent down",
                        m->pg().receiver_streaming() ? " (streams)" : "");
      }
      world_.violation("liveness",
                       "the cluster has not come together 90 s after it was writable" + who);
    }
    return;
  }
  world_.count("healing.settled");
  run_for(millis(2000));
}

RunResult Cluster::finish() {
  clients_->stop();
  if (world_.tracing()) {
    for (const auto& m : members_) {
      world_.trace("{} {} guard {} | {}", m->name().str(),
                   m->agent() == nullptr
                       ? "no agent"
                       : fmt::format("{}: {}", control::to_string(m->agent()->phase()),
                                     m->agent()->reason()),
                   m->guard_deadline()
                       ? fmt::format("{} ms", to_ms(*m->guard_deadline() - world_.local(m->host())))
                       : "unarmed",
                   m->pg().describe());
    }
  }
  if (world_.violations().empty()) {
    for (auto& c : observers_.checkers) c->finish();
  }
  RunResult result;
  result.seed = plan_.seed;
  result.hash = world_.hash();
  result.events = world_.events_run();
  result.simulated = world_.now();
  result.acknowledged = clients_->acknowledged();
  result.violations = world_.violations();
  result.counts = world_.counts();
  return result;
}

RunResult Cluster::run_standard() {
  world_.count(fmt::format("profile.{}", to_string(plan_.profile)));
  boot();
  if (!run_until([this] { return plan_.follows ? follows() : settled(); }, millis(60000))) {
    if (world_.violations().empty()) {
      world_.violation("liveness", "the cluster has not bootstrapped within 60 s");
    }
    return finish();
  }
  // So that permits, sampling and renewals of everybody are at a random point of their cycle.
  run_for(millis(500 + static_cast<int64_t>(plan_.seed % 977)));
  Nemesis nemesis(*this);
  nemesis.start(world_.now() + plan_.fault_time);
  if (plan_.follows) {
    Prng r = world_.stream("promotion of the cluster");
    world_.after(plan_.fault_time * r.between(5, 95) / 100, ProcessId::kWorld,
                 [this] { change_config([](ClusterConfig& c) { c.standby_cluster.reset(); }); });
  }
  if (run_for(plan_.fault_time)) {
    nemesis.heal_everything();
    heal_and_settle();
  }
  return finish();
}

bool Cluster::request(RequestKind kind, const NodeName& candidate, bool force,
                      bool old_primary_dead) {
  RequestRecord record;
  record.id = fmt::format("req-{}", ++requests_);
  record.kind = kind;
  record.candidate = candidate;
  record.force = force;
  record.old_primary_dead = old_primary_dead;
  record.by = "operator";
  if (const std::string* text = store_.value(keys_.request())) {
    const auto open = decode_request(*text);
    if (open && open->outcome.empty() && !record.confirms(*open)) return false;
  }
  ++truth_.disturbances;
  world_.trace("operator asks for {} {} {}",
               kind == RequestKind::kSwitchover ? "switchover" : "failover", candidate.str(),
               force ? "(forced)" : "");
  store_.apply(store::Txn{{{keys_.request(), store_.revision_of(keys_.request())}},
                          {{keys_.request(), encode(record)}}},
               kDirectClients);
  return true;
}

void Cluster::task(TaskRecord record) {
  record.id = fmt::format("task-{}", ++requests_);
  record.by = "operator";
  ++truth_.disturbances;
  world_.trace("operator asks for {}", encode(record));
  store_.apply(store::Txn{{}, {{keys_.task(record.id), encode(record)}}}, kDirectClients);
}

void Cluster::pause(bool on) {
  world_.trace("operator {} automatic failover", on ? "pauses" : "resumes");
  store_.apply(
      store::Txn{{}, {{keys_.pause(), on ? std::optional<std::string>("{}") : std::nullopt}}},
      kDirectClients);
}

void Cluster::change_config(const std::function<void(ClusterConfig&)>& change) {
  const std::string* text = store_.value(keys_.config());
  if (text == nullptr) return;
  auto config = decode_config(*text);
  if (!config) return;
  change(*config);
  ++truth_.disturbances;
  world_.trace("operator changes the configuration: {}", encode(*config));
  store_.apply(store::Txn{{}, {{keys_.config(), encode(*config)}}}, kDirectClients);
}

}  // namespace bascule::sim
