#include "sim/clients.h"

#include <algorithm>

namespace bascule::sim {

Proxy::Proxy(Truth& truth, Observer& observer, Endpoint me, bool seldom,
             control::UnsafeMutations unsafe)
    : truth_(truth),
      observer_(observer),
      me_(me),
      seldom_(seldom),
      unsafe_(unsafe),
      random_(truth.world.stream(fmt::format("proxy {}", me))) {}

void Proxy::start() {
  process_ = truth_.world.spawn(me_);
  truth_.store.watch(me_, process_, [this] { poll(); });
  poll();
  ask_leader();
}

void Proxy::poll() {
  if (reading_) {
    read_again_ = seldom_;
    return;
  }
  reading_ = true;
  const MonoTime begun = truth_.world.local(me_);
  truth_.store.read(me_, process_, [this, begun](const Result<SnapshotPtr>& read) {
    reading_ = false;
    if (read) seen(begun, *read);
    if (std::exchange(read_again_, false)) return poll();
    poll_later();
  });
}

void Proxy::poll_later() {
  if (seldom_) {
    poll_at_ = truth_.world.now() + poll_every_;
    if (!polling_) poll_at(poll_at_);
    return;
  }
  truth_.world.after(random_ms(random_, 250, 500), process_, [this, token = ++poll_token_] {
    if (token == poll_token_) poll();
  });
}

// One event, that is put off until no look has been for so long.
void Proxy::poll_at(SimTime when) {
  polling_ = true;
  truth_.world.at(when, process_, [this] {
    if (truth_.world.now() < poll_at_) return poll_at(poll_at_);
    polling_ = false;
    poll();
  });
}

// Until the leader may have to be asked for its word.
Nanos Proxy::ask_again() const {
  if (!seldom_ || !route_) return Nanos{0};
  const Nanos due = permit_until_ - route_->ttl * 35 / 100 - truth_.world.local(me_);
  return std::clamp(due, Nanos{0}, millis(1000));  // the ttl may become shorter meanwhile
}

// The permit runs out and the store shows nothing new: in failsafe the leader itself says how long
// it may be believed (control/lease.h).
void Proxy::ask_leader() {
  World& world = truth_.world;
  world.after(ask_again() + random_ms(random_, 200, 300), process_, [this] { ask_leader(); });
  const MonoTime asked = world.local(me_);
  if (!route_ || asked < permit_until_ - route_->ttl * 35 / 100) return;
  const auto it = std::ranges::find_if(
      truth_.members, [this](const auto& m) { return m->name() == route_->holder; });
  if (it == truth_.members.end() || (*it)->agent() == nullptr) return;
  Member* target = it->get();
  const Epoch epoch = route_->epoch;
  world.send(me_, target->host(), target->agent_process(), [this, &world, target, epoch, asked] {
    if (target->agent()->leading_epoch() != epoch) return;
    const control::LeaseWord word{epoch, world.local(target->host()), target->agent()->proved_at(),
                                  target->agent()->deadline()};
    world.send(target->host(), me_, process_, [this, asked, word] {
      if (!route_ || route_->epoch != word.epoch) return;
      auto until = lease_.heard(asked, word);
      if (unsafe_.trust_leaders_clock) until = asked + (word.deadline - word.clock) * 9 / 10;
      if (until) permit_until_ = std::max(permit_until_, *until);
    });
  });
}

void Proxy::seen(MonoTime begun, const SnapshotPtr& snapshot) {
  const MonoTime previous = std::exchange(last_read_begun_, begun);
  const bool first = !std::exchange(read_before_, true);
  const control::SharedView decoded = truth_.decoded.of(snapshot);
  const control::ClusterView& view = *decoded;
  if (seldom_ && view.config) {
    poll_every_ = control::ClusterConfig::renew_every(view.config->value.ttl) * 3 / 2;
  }
  if (view.leader_revision == 0 || view.leader_revision == leader_revision_) return;
  leader_revision_ = view.leader_revision;
  if (!view.leader || view.leader->value.vacant()) {
    route_.reset();
    return;
  }
  route_ = view.leader->value;
  // The change lies between the read that did not show it and the one that does: counting from the
  // earlier one is safe, from the later one is not (the record may be about to expire).
  permit_until_ = first ? begun : previous + route_->ttl * 6 / 10;
}

bool Proxy::permitted() const {
  const bool open = route_ && (route_->phase == control::LeaderPhase::kRunning ||
                               route_->phase == control::LeaderPhase::kDraining ||
                               route_->phase == control::LeaderPhase::kStopping);
  return open && truth_.world.local(me_) < permit_until_;
}

Member* Proxy::write(uint64_t commit, uint32_t bytes, std::function<void(bool)> done) {
  // Draining: new transactions are held; the client tries again.
  if (!permitted() || route_->phase != control::LeaderPhase::kRunning) {
    done(false);
    return nullptr;
  }
  const auto it = std::ranges::find_if(
      truth_.members, [this](const auto& m) { return m->name() == route_->holder; });
  if (it == truth_.members.end()) {
    done(false);
    return nullptr;
  }
  Member* target = it->get();
  const Epoch epoch = route_->epoch;
  World& world = truth_.world;
  world.send(me_, target->host(), target->pg().process(), [=, this, &world] {
    if (truth_.runs_by_hand(target->host())) return done(false);
    target->pg().commit(commit, bytes, [=, this, &world](PostgresModel::Answer answer) {
      const DataDirectory& data = target->pg().data();
      const uint32_t timeline = data.timeline;
      world.send(target->host(), me_, process_, [=, this] {
        if (answer == PostgresModel::Answer::kNo) return done(false);
        // The warning is no acknowledgement: 08007 to the client (proxy/session_server.cc).
        if (answer == PostgresModel::Answer::kHereOnly && !unsafe_.forward_cancelled_waits) {
          truth_.world.count("proxy.cancelled_waits");
          return done(false);
        }
        if (!permitted() || route_->epoch != epoch) {
          truth_.world.count("proxy.withheld");
          return;
        }
        WalRecord record;
        record.commit = commit;
        record.timeline = timeline;
        observer_.proxy_forwarded(me_, record, epoch);
        done(true);
      });
    });
  });
  return target;
}

Clients::Clients(Truth& truth, Observer& observer, Workload workload,
                 control::UnsafeMutations unsafe)
    : truth_(truth),
      workload_(workload),
      random_(truth.world.stream("clients")),
      cancels_(truth.world.stream("clients that cancel")) {
  for (int i = 0; i < kProxies; ++i) {
    proxies_.push_back(
        std::make_unique<Proxy>(truth, observer, kFirstProxy + i, workload.seldom, unsafe));
  }
}

void Clients::start() {
  for (auto& p : proxies_) p->start();
  proxied_ = static_cast<size_t>(workload_.clients_per_proxy) * kProxies;
  clients_.resize(proxied_ + static_cast<size_t>(workload_.direct_clients));
  for (size_t i = 0; i < clients_.size(); ++i) think(i);
}

void Clients::think(size_t client) {
  const Nanos time = micros(
      random_.between(workload_.think_low.count() / 1000, workload_.think_high.count() / 1000));
  truth_.world.after(time, ProcessId::kWorld, [this, client] {
    if (running_) is_direct_client(client) ? direct(client) : proxied(client);
  });
}

void Clients::begin_turn(size_t client, Nanos limit) {
  Client& c = clients_[client];
  ++c.turn;
  c.asked = nullptr;
  c.give_up_at = truth_.world.now() + limit;
  if (!std::exchange(c.watched, true)) watch(client);
}

void Clients::end_turn(size_t client, uint64_t turn, bool acknowledged) {
  Client& c = clients_[client];
  if (acknowledged) ++acknowledged_;
  if (c.turn != turn) return;
  ++c.turn;
  c.give_up_at = SimTime::max();
  // libpq with several hosts and target_session_attrs=read-write tries the next one.
  if (!acknowledged && is_direct_client(client)) {
    c.target = static_cast<Endpoint>(random_.below(truth_.members.size()));
  }
  think(client);
}

// One event a client, at the end of the turn that was under way when it was asked for.
void Clients::watch(size_t client) {
  truth_.world.at(clients_[client].give_up_at, ProcessId::kWorld, [this, client] {
    Client& c = clients_[client];
    if (c.give_up_at <= truth_.world.now()) {
      if (c.asked != nullptr && cancels_.chance(0.5)) cancel(client);
      end_turn(client, c.turn, false);
    }
    c.watched = c.give_up_at != SimTime::max();
    if (c.watched) watch(client);
  });
}

void Clients::cancel(size_t client) {
  const Client& c = clients_[client];
  const Endpoint from = is_direct_client(client)
                            ? kDirectClients
                            : kFirstProxy + static_cast<Endpoint>(client % proxies_.size());
  truth_.world.send(from, c.asked->host(), c.asked->pg().process(),
                    [asked = c.asked, commit = c.commit] { asked->pg().cancel(commit); });
}

void Clients::proxied(size_t client) {
  begin_turn(client, millis(3000));
  const auto bytes = static_cast<uint32_t>(random_.between(100, 4000));
  Client& c = clients_[client];
  c.commit = next_id(0);
  c.asked = proxies_[client % proxies_.size()]->write(
      c.commit, bytes, [this, client, turn = clients_[client].turn](bool acknowledged) {
        const SimTime now = truth_.world.now();
        if (acknowledged) {
          if (last_proxied_ack_ > SimTime{0}) {
            longest_gap_ = std::max(longest_gap_, now - last_proxied_ack_);
          }
          last_proxied_ack_ = now;
        }
        end_turn(client, turn, acknowledged);
      });
}

void Clients::direct(size_t client) {
  begin_turn(client, millis(2000));
  Member* target = truth_.members[static_cast<size_t>(clients_[client].target)].get();
  World& world = truth_.world;
  const uint64_t id = next_id(1);
  clients_[client].commit = id;
  clients_[client].asked = target;
  const auto bytes = static_cast<uint32_t>(random_.between(100, 4000));
  const auto end = [this, client, turn = clients_[client].turn](bool acknowledged) {
    end_turn(client, turn, acknowledged);
  };
  world.send(kDirectClients, target->host(), target->pg().process(), [=, this, &world] {
    if (truth_.runs_by_hand(target->host())) return end(false);
    target->pg().commit(id, bytes, [=, &world](PostgresModel::Answer answer) {
      // It reads its warnings, as one that speaks to PostgreSQL itself must.
      world.send(target->host(), kDirectClients, ProcessId::kWorld,
                 [=] { end(answer == PostgresModel::Answer::kAcknowledged); });
    });
  });
}

}  // namespace bascule::sim
