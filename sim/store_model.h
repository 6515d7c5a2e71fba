// The coordination store in the simulated world: linearizable, with replies that are late or lost,
// requests that are applied long after their sender was told "unknown", watches that come late,
// outages, and the two disasters of people: wiped, and restored from an older backup.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
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

// Shared, because between two transactions everybody reads the same.
using SnapshotPtr = std::shared_ptr<const store::Snapshot>;

class StoreModel {
 public:
  using ReadDone = std::move_only_function<void(Result<SnapshotPtr>)>;
  using TxnDone = std::move_only_function<void(store::TxnResult)>;

  explicit StoreModel(World& world);

  // Callbacks run as `caller`, once, at the latest after client_timeout, if it still lives.
  void read(Endpoint from, ProcessId caller, ReadDone done);
  void commit(Endpoint from, ProcessId caller, store::Txn txn, TxnDone done);
  // Spurious and coalesced calls are possible; runs as `caller` as long as that lives.
  void watch(Endpoint from, ProcessId caller, std::function<void()> changed);

  StoreFaults& faults() { return faults_; }
  void set_outage(bool on) { outage_ = on; }
  bool outage() const { return outage_; }
  void wipe();  // empty, new identity
  // As of so many transactions ago (256 at most), same identity.
  void rollback(size_t transactions);
  bool damaged() const { return damaged_; }  // wiped or rolled back at any time

  // The truth, for checkers and operators.
  const std::map<std::string, store::Entry>& entries() const { return entries_; }
  const std::string* value(const std::string& key) const;
  store::Revision revision() const { return revision_; }
  store::Revision revision_of(const std::string& key) const;
  SnapshotPtr snapshot() const;  // the same pointer until something changes
  // Called right after a transaction was applied.
  std::function<void(const store::Txn&, store::Revision, Endpoint by)> on_applied;
  store::TxnResult apply(const store::Txn& txn, Endpoint by);

 private:
  struct Watch {
    Endpoint from;
    ProcessId caller;
    std::function<void()> changed;
    SimTime leaves_at{0};  // a hint that waits for it tells of later changes, too
  };
  // A request that is answered once: by its reply, or by its time.
  struct Call {
    Call(Endpoint f, ProcessId c) : from(f), caller(c) {}
    virtual ~Call() = default;
    virtual bool open() const = 0;
    virtual void give_up() = 0;
    Endpoint from;
    ProcessId caller;
  };
  template <typename Value>
  struct CallFor;
  struct Due {
    SimTime at;
    std::shared_ptr<Call> call;
  };
  void expect(std::shared_ptr<Call> call);
  void expire_at(SimTime at);
  void expire();
  void write(const store::Txn& txn);
  void notify();
  Nanos service_time();
  template <typename Value>
  void answer(std::shared_ptr<CallFor<Value>> call, Value value);

  World& world_;
  Prng random_;
  StoreFaults faults_;
  std::map<std::string, store::Entry> entries_;
  // What each of the last transactions replaced, for rollback(); revision 0: nothing was there.
  using Replaced = std::vector<store::Entry>;
  static constexpr size_t kRemembered = 256;
  std::deque<Replaced> log_;
  store::Revision revision_ = 0;
  std::string identity_ = "store-1";
  int identities_ = 1;
  bool outage_ = false;
  bool damaged_ = false;
  std::vector<Watch> watches_;
  std::deque<Due> due_;  // calls by the time that they are given up at
  uint64_t expiry_ = 0;  // the event that watches over them
  mutable SnapshotPtr snapshot_;
};

}  // namespace bascule::sim
