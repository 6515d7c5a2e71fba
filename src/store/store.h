// Coordination store: what the members of a cluster agree through. Implementations: SQLite (every
// process on one host), later etcd. All of them pass store/contract_test.h.
//
// Guarantees every implementation gives:
//   - A read is linearizable: it shows every transaction that committed before the read was begun.
//   - A transaction is atomic: all its compares hold at one instant and all writes happen, or none.
//   - Revisions are positive and grow with every committed transaction; a key's revision is that of
//     the transaction that last wrote it. An absent key has revision 0.
//   - `identity` names this very store; it changes when the store is created anew.
//   - Outcome kUnknown: the transaction may have been applied, may be applied later, or never.
// Callbacks run on the loop given to the implementation, never inside the call itself.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace bascule::store {

using Revision = uint64_t;

struct Entry {
  std::string key;
  std::string value;
  Revision revision = 0;
  bool operator==(const Entry&) const = default;
};

struct Snapshot {
  std::string identity;
  Revision revision = 0;       // of the store as a whole
  std::vector<Entry> entries;  // sorted by key
};

struct Compare {
  std::string key;
  Revision revision = 0;  // expected; 0: the key must be absent
};

struct Write {
  std::string key;
  std::optional<std::string> value;  // nullopt deletes the key (no error when absent)
};

struct Txn {
  std::vector<Compare> compares;
  std::vector<Write> writes;
};

enum class TxnOutcome { kCommitted, kConflict, kUnknown };

struct TxnResult {
  TxnOutcome outcome = TxnOutcome::kUnknown;
  Revision revision = 0;  // when committed
  std::string error;      // when unknown: what happened
};

// Bounds that every implementation enforces (ErrorCode::kInvalid / kUnknown with a message).
inline constexpr size_t kKeyBytesMax = 512;
inline constexpr size_t kValueBytesMax = 1 << 20;
inline constexpr size_t kTxnItemsMax = 128;

class Store {
 public:
  using ReadCallback = std::move_only_function<void(Result<Snapshot>)>;
  using TxnCallback = std::move_only_function<void(TxnResult)>;
  using WatchCallback = std::function<void()>;

  virtual ~Store() = default;
  // Every entry whose key begins with `prefix`.
  virtual void read(std::string prefix, ReadCallback callback) = 0;
  virtual void commit(Txn txn, TxnCallback callback) = 0;
  // Calls back soon after anything under `prefix` changed (coalesced; spurious calls are allowed;
  // none is lost for longer than a second). It says "look again", nothing more.
  virtual uint64_t watch(std::string prefix, WatchCallback callback) = 0;
  virtual void unwatch(uint64_t id) = 0;
};

}  // namespace bascule::store
