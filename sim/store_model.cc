#include "sim/store_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

namespace bascule::sim {

StoreModel::StoreModel(World& world) : world_(world), random_(world.stream("store")) {}

Nanos StoreModel::service_time() {
  Nanos t = micros(random_.between(200, 3000));
  if (random_.chance(0.02)) t += random_ms(random_, 5, 150);
  return t;
}

namespace {
// A callback that two events race for (reply, time-out): the first one takes it.
template <typename Done>
std::shared_ptr<Done> share(Done done) {
  return std::make_shared<Done>(std::move(done));
}
template <typename Done, typename Value>
void call_once(Done& done, Value&& value) {
  if (!done) return;
  Done run = std::move(done);
  done = nullptr;
  run(std::forward<Value>(value));
}
}  // namespace

template <typename Done, typename Value>
void StoreModel::answer(Endpoint from, ProcessId caller, std::shared_ptr<Done> done, Value value) {
  if (random_.chance(faults_.lose_reply)) {
    world_.count("store.reply_lost");
    return;
  }
  Nanos late{0};
  if (random_.chance(faults_.reply_late)) {
    late = micros(random_.between(0, faults_.reply_late_max.count() / 1000));
    world_.count("store.reply_late");
  }
  auto boxed = std::make_shared<Value>(std::move(value));
  world_.after(late, ProcessId::kWorld, [this, from, caller, done, boxed] {
    // A reply held up by a cut link arrives after it heals: TCP sends again.
    if (!world_.send(kStoreEndpoint, from, caller,
                     [done, boxed] { call_once(*done, std::move(*boxed)); })) {
      world_.after(millis(300), ProcessId::kWorld, [this, from, caller, done, boxed] {
        world_.send(kStoreEndpoint, from, caller,
                    [done, boxed] { call_once(*done, std::move(*boxed)); });
      });
    }
  });
}

void StoreModel::read(Endpoint from, ProcessId caller, ReadDone done) {
  read_key(from, caller, {}, std::move(done));
}

void StoreModel::read_key(Endpoint from, ProcessId caller, std::string key, ReadDone done) {
  auto shared = share(std::move(done));
  world_.after(faults_.client_timeout, caller, [shared] {
    if (*shared)
      call_once(*shared,
                Result<store::Snapshot>(fail(ErrorCode::kUnavailable, "store: no answer")));
  });
  if (random_.chance(faults_.lose_request)) return;
  world_.send(from, kStoreEndpoint, ProcessId::kWorld,
              [this, from, caller, shared, key = std::move(key)]() mutable {
                if (outage_) return;
                world_.after(service_time(), ProcessId::kWorld,
                             [this, from, caller, shared, key = std::move(key)] {
                               if (outage_ || !*shared) return;
                               answer(from, caller, shared,
                                      Result<store::Snapshot>(key.empty() ? snapshot() : one(key)));
                             });
              });
}

void StoreModel::commit(Endpoint from, ProcessId caller, store::Txn txn, TxnDone done) {
  auto shared = share(std::move(done));
  world_.after(faults_.client_timeout, caller, [shared] {
    if (*shared) {
      call_once(*shared, store::TxnResult{store::TxnOutcome::kUnknown, 0, "store: no answer"});
    }
  });
  if (random_.chance(faults_.lose_request)) {
    world_.count("store.request_lost");
    return;
  }
  auto boxed = std::make_shared<store::Txn>(std::move(txn));
  const auto arrive = [this, from, caller, shared, boxed] {
    if (outage_) return;
    world_.after(service_time(), ProcessId::kWorld, [this, from, caller, shared, boxed] {
      if (outage_) return;
      answer(from, caller, shared, apply(*boxed, from));
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

store::TxnResult StoreModel::apply(const store::Txn& txn, Endpoint by) {
  for (const store::Compare& c : txn.compares) {
    if (revision_of(c.key) != c.revision) {
      return store::TxnResult{store::TxnOutcome::kConflict, 0, {}};
    }
  }
  ++revision_;
  for (const store::Write& w : txn.writes) {
    if (w.value) {
      entries_[w.key] = store::Entry{w.key, *w.value, revision_};
    } else {
      entries_.erase(w.key);
    }
  }
  world_.mix(revision_);
  log_.push_back(txn);
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
    if (w.pending || !world_.alive(w.caller)) continue;
    w.pending = true;
    Nanos delay = micros(random_.between(500, 8000));
    if (random_.chance(faults_.watch_late)) {
      world_.count("store.watch_late");
      delay = random_ms(random_, 50, 1000);
    }
    world_.after(delay, ProcessId::kWorld, [this, caller = w.caller] {
      const auto it = std::ranges::find(watches_, caller, &Watch::caller);
      if (it == watches_.end()) return;
      it->pending = false;
      if (!outage_) world_.send(kStoreEndpoint, it->from, caller, it->changed);
    });
  }
}

void StoreModel::wipe() {
  entries_.clear();
  log_.clear();
  revision_ = 0;
  identity_ = fmt::format("store-{}", ++identities_);
  damaged_ = true;
  notify();
}

void StoreModel::rollback(size_t transactions) {
  std::vector<store::Txn> log = std::move(log_);
  log.resize(log.size() - std::min(transactions, log.size()));
  log_.clear();
  entries_.clear();
  revision_ = 0;
  damaged_ = true;
  for (const store::Txn& txn : log) {
    ++revision_;
    for (const store::Write& w : txn.writes) {
      if (w.value) {
        entries_[w.key] = store::Entry{w.key, *w.value, revision_};
      } else {
        entries_.erase(w.key);
      }
    }
  }
  log_ = std::move(log);
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

store::Snapshot StoreModel::one(const std::string& key) const {
  store::Snapshot s{identity_, revision_, {}};
  const auto it = entries_.find(key);
  if (it != entries_.end()) s.entries.push_back(it->second);
  return s;
}

store::Snapshot StoreModel::snapshot() const {
  store::Snapshot s{identity_, revision_, {}};
  s.entries.reserve(entries_.size());
  for (const auto& [key, entry] : entries_) s.entries.push_back(entry);
  return s;
}

}  // namespace bascule::sim
