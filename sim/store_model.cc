#include "sim/store_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <ranges>
#include <utility>

namespace bascule::sim {

StoreModel::StoreModel(World& world) : world_(world), random_(world.stream("store")) {}

Nanos StoreModel::service_time() {
  Nanos t = micros(random_.between(200, 3000));
  if (random_.chance(0.02)) t += random_ms(random_, 5, 150);
  return t;
}

namespace {
Result<SnapshotPtr> given_up(Result<SnapshotPtr>*) {
  return fail(ErrorCode::kUnavailable, "store: no answer");
}
store::TxnResult given_up(store::TxnResult*) {
  return {store::TxnOutcome::kUnknown, 0, "store: no answer"};
}
}  // namespace

template <typename Value>
struct StoreModel::CallFor : Call {
  using Done = std::move_only_function<void(Value)>;
  CallFor(Endpoint f, ProcessId c, Done d) : Call(f, c), done(std::move(d)) {}
  bool open() const override { return static_cast<bool>(done); }
  void give_up() override { end(given_up(static_cast<Value*>(nullptr))); }
  void end(Value value) {
    if (done) std::exchange(done, nullptr)(std::move(value));
  }
  Done done;
  Value reply{};
};

// One event watches over all calls: nearly every one is answered long before its time.
void StoreModel::expect(std::shared_ptr<Call> call) {
  const SimTime at = world_.now() + faults_.client_timeout;
  const auto later = std::ranges::upper_bound(due_, at, {}, &Due::at);
  const bool first = later == due_.begin();
  due_.insert(later, Due{at, std::move(call)});
  if (first) expire_at(at);
}

void StoreModel::expire_at(SimTime at) {
  world_.at(at, ProcessId::kWorld, [this, token = ++expiry_] {
    if (token == expiry_) expire();
  });
}

void StoreModel::expire() {
  while (!due_.empty() && (due_.front().at <= world_.now() || !due_.front().call->open())) {
    const std::shared_ptr<Call> call = std::move(due_.front().call);
    due_.pop_front();
    if (call->open()) world_.at(world_.now(), call->caller, [call] { call->give_up(); });
  }
  if (!due_.empty()) expire_at(due_.front().at);
}

template <typename Value>
void StoreModel::answer(std::shared_ptr<CallFor<Value>> call, Value value) {
  if (random_.chance(faults_.lose_reply)) {
    world_.count("store.reply_lost");
    return;
  }
  call->reply = std::move(value);
  const auto reply = [this, call] {
    const auto end = [call] { call->end(std::move(call->reply)); };
    if (world_.send(kStoreEndpoint, call->from, call->caller, end)) return;
    // A reply held up by a cut link arrives after it heals: TCP sends again.
    world_.after(millis(300), ProcessId::kWorld,
                 [this, call, end] { world_.send(kStoreEndpoint, call->from, call->caller, end); });
  };
  if (!random_.chance(faults_.reply_late)) return reply();
  world_.count("store.reply_late");
  world_.after(micros(random_.between(0, faults_.reply_late_max.count() / 1000)), ProcessId::kWorld,
               reply);
}

void StoreModel::read(Endpoint from, ProcessId caller, ReadDone done) {
  auto call = std::make_shared<CallFor<Result<SnapshotPtr>>>(from, caller, std::move(done));
  expect(call);
  if (random_.chance(faults_.lose_request)) return;
  world_.send(
      from, kStoreEndpoint, ProcessId::kWorld,
      [this, call] {
        if (!outage_ && call->open()) answer<Result<SnapshotPtr>>(call, snapshot());
      },
      service_time());
}

void StoreModel::commit(Endpoint from, ProcessId caller, store::Txn txn, TxnDone done) {
  auto call = std::make_shared<CallFor<store::TxnResult>>(from, caller, std::move(done));
  expect(call);
  if (random_.chance(faults_.lose_request)) {
    world_.count("store.request_lost");
    return;
  }
  const auto arrive = [this, call, txn = std::make_shared<store::Txn>(std::move(txn))] {
    if (outage_) return;
    world_.after(service_time(), ProcessId::kWorld, [this, call, txn] {
      if (!outage_) answer(call, apply(*txn, call->from));
    });
  };
  if (random_.chance(faults_.apply_late)) {
    // Waits in some queue on the way: a proxy of the store, a member of it that lost its leader.
    world_.count("store.applied_late");
    world_.after(micros(random_.between(0, faults_.apply_late_max.count() / 1000)),
                 ProcessId::kWorld, arrive);
    return;
  }
  world_.send(from, kStoreEndpoint, ProcessId::kWorld, arrive);
}

void StoreModel::write(const store::Txn& txn) {
  snapshot_.reset();
  ++revision_;
  if (log_.size() == kRemembered) log_.pop_front();
  Replaced& replaced = log_.emplace_back();
  replaced.reserve(txn.writes.size());
  for (const store::Write& w : txn.writes) {
    const auto it = entries_.find(w.key);
    if (it == entries_.end()) {
      replaced.push_back(store::Entry{w.key, {}, 0});
      if (w.value) entries_.emplace(w.key, store::Entry{w.key, *w.value, revision_});
      continue;
    }
    replaced.push_back(std::move(it->second));
    if (w.value) {
      it->second = store::Entry{w.key, *w.value, revision_};
    } else {
      entries_.erase(it);
    }
  }
}

store::TxnResult StoreModel::apply(const store::Txn& txn, Endpoint by) {
  for (const store::Compare& c : txn.compares) {
    if (revision_of(c.key) != c.revision) {
      return store::TxnResult{store::TxnOutcome::kConflict, 0, {}};
    }
  }
  write(txn);
  world_.mix(revision_);
  if (on_applied) on_applied(txn, revision_, by);
  notify();
  return store::TxnResult{store::TxnOutcome::kCommitted, revision_, {}};
}

void StoreModel::watch(Endpoint from, ProcessId caller, std::function<void()> changed) {
  std::erase_if(watches_, [this](const Watch& w) { return !world_.alive(w.caller); });
  watches_.push_back(Watch{from, caller, std::move(changed)});
}

void StoreModel::notify() {
  for (Watch& w : watches_) {
    if (w.leaves_at > world_.now() || !world_.alive(w.caller)) continue;
    Nanos delay = micros(random_.between(500, 8000));
    if (random_.chance(faults_.watch_late)) {
      world_.count("store.watch_late");
      delay = random_ms(random_, 50, 1000);
    }
    w.leaves_at = world_.now() + delay;
    const auto hint = [this, changed = w.changed] {
      if (!outage_) changed();
    };
    world_.send(kStoreEndpoint, w.from, w.caller, hint, delay);
  }
}

void StoreModel::wipe() {
  snapshot_.reset();
  entries_.clear();
  log_.clear();
  revision_ = 0;
  identity_ = fmt::format("store-{}", ++identities_);
  damaged_ = true;
  notify();
}

void StoreModel::rollback(size_t transactions) {
  damaged_ = true;
  snapshot_.reset();
  for (; transactions > 0 && !log_.empty(); --transactions, --revision_) {
    Replaced replaced = std::move(log_.back());
    log_.pop_back();
    for (store::Entry& e : replaced | std::views::reverse) {  // a key may be written twice
      if (e.revision == 0) {
        entries_.erase(e.key);
      } else {
        const std::string key = e.key;
        entries_.insert_or_assign(key, std::move(e));
      }
    }
  }
  notify();
}

const std::string* StoreModel::value(const std::string& key) const {
  const auto it = entries_.find(key);
  return it == entries_.end() ? nullptr : &it->second.value;
}

store::Revision StoreModel::revision_of(const std::string& key) const {
  const auto it = entries_.find(key);
  return it == entries_.end() ? 0 : it->second.revision;
}

SnapshotPtr StoreModel::snapshot() const {
  if (snapshot_) return snapshot_;
  auto s = std::make_shared<store::Snapshot>(identity_, revision_, std::vector<store::Entry>{});
  s->entries.reserve(entries_.size());
  for (const auto& [key, entry] : entries_) s->entries.push_back(entry);
  return snapshot_ = std::move(s);
}

}  // namespace bascule::sim
