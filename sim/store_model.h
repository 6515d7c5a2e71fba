// The coordination store in the simulated world: linearizable, with replies that are late or lost,
// requests that are applied long after their sender was told "unknown", watches that come late,
// outages, and the two disasters of people: wiped, and restored from an older backup.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "sim/world.h"
#include "store/store.h"

namespace bascule::sim {

struct StoreFaults {
  Nanos client_timeout = millis(1000);  // after which a caller is told "unknown" / "unavailable"
  double lose_request = 0;              // chances, per request
  double lose_reply = 0;
  double apply_late = 0;  // travels up to apply_late_max before it is applied
  Nanos apply_late_max = millis(8000);
  double reply_late = 0;  // applied at once, answered late
  Nanos reply_late_max = millis(4000);
  double watch_late = 0.05;  // by up to a second, as the contract allows
};

class StoreModel {
 public:
  using ReadDone = std::move_only_function<void(Result<store::Snapshot>)>;
  using TxnDone = std::move_only_function<void(store::TxnResult)>;

  explicit StoreModel(World& world);

  // Callbacks run as `caller`, once, at the latest after client_timeout, if it still lives.
  void read(Endpoint from, ProcessId caller, ReadDone done);
  // The same for one key alone: what a proxy needs.
  void read_key(Endpoint from, ProcessId caller, std::string key, ReadDone done);
  void commit(Endpoint from, ProcessId caller, store::Txn txn, TxnDone done);
  // Spurious and coalesced calls are possible; runs as `caller` as long as that lives.
  void watch(Endpoint from, ProcessId caller, std::function<void()> changed);

  StoreFaults& faults() { return faults_; }
  void set_outage(bool on) { outage_ = on; }
  bool outage() const { return outage_; }
  void wipe();                               // empty, new identity
  void rollback(size_t transactions);        // as of so many transactions ago, same identity
  bool damaged() const { return damaged_; }  // wiped or rolled back at any time

  // The truth, for checkers and operators.
  const std::map<std::string, store::Entry>& entries() const { return entries_; }
  const std::string* value(const std::string& key) const;
  store::Revision revision() const { return revision_; }
  store::Revision revision_of(const std::string& key) const;
  store::Snapshot snapshot() const;
  store::Snapshot one(const std::string& key) const;
  // Called right after a transaction was applied.
  std::function<void(const store::Txn&, store::Revision, Endpoint by)> on_applied;
  store::TxnResult apply(const store::Txn& txn, Endpoint by);

 private:
  struct Watch {
    Endpoint from;
    ProcessId caller;
    std::function<void()> changed;
    bool pending = false;
  };
  void notify();
  Nanos service_time();
  template <typename Done, typename Value>
  void answer(Endpoint from, ProcessId caller, std::shared_ptr<Done> done, Value value);

  World& world_;
  Prng random_;
  StoreFaults faults_;
  std::map<std::string, store::Entry> entries_;
  std::vector<store::Txn> log_;  // what was applied, for rollback
  store::Revision revision_ = 0;
  std::string identity_ = "store-1";
  int identities_ = 1;
  bool outage_ = false;
  bool damaged_ = false;
  std::vector<Watch> watches_;
};

}  // namespace bascule::sim
