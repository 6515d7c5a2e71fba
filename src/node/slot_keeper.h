// Copies of the primary's permanent logical slots on its standbys, PostgreSQL 13 to 16: installed
// while the server is down, moved on behind the consumer, proven (slot_copies.h), and dropped
// before a promotion where they are not. From 17 on PostgreSQL does it itself, and this does
// nothing.
//
// Once a second, in the pool. Looks and operations may run at the same time: what they share is the
// ledger. A look that ends late writes down what it saw, of the timeline that it saw it of.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "control/events.h"
#include "node/ops.h"
#include "node/server.h"
#include "node/slot_copies.h"

namespace bascule::node {

class SlotKeeper {
 public:
  using Remark = std::function<void(LogLevel, std::string what, std::string why)>;  // any thread

  SlotKeeper(Server& server, Remark remark);

  // The cluster's permanent slots, and the primary to copy from; none: nobody leads, or we do.
  // Thread-safe.
  void want(const std::map<std::string, control::PermanentSlot>& slots,
            std::optional<control::Upstream> leader);
  // Whether it is time to look; then look() is to be called, in the pool. Thread-safe.
  bool due(const control::PgStatus& status);
  void look();
  void cancel() { cancelled_ = true; }  // a look ends soon. Thread-safe
  bool looking() const;                 // from due() on. Thread-safe

  // By operations, in the pool. Nothing of it keeps a server from starting.
  void install(OpContext& context);
  // Drops what must not survive the promotion of this standby, which stands on `timeline`.
  Status before_promotion(OpContext& context, PgConnection& session, Timeline timeline);

  // For people: each slot's state here. `restart`: a copy needs the server to be down. Thread-safe.
  struct Report {
    std::map<std::string, std::string> slots;
    bool restart = false;
  };
  Report report() const;

 private:
  using Wanted = std::map<std::string, control::PermanentSlot>;  // logical ones

  std::string file() const { return server_.run("slots.json"); }
  Bound within(Nanos time) const;
  Wanted wanted() const;
  std::optional<control::Upstream> leader() const;
  bool relayed() const;
  SlotLedger ledger() const;
  void keep(SlotLedger ledger, Report report);
  Status look_as_primary(PgConnection& session, const Bound& bound);
  Status look_as_standby(PgConnection& session, const Bound& bound);
  void save_what_is_held(PgConnection& session, const Bound& bound);
  Result<PrimaryLook> look_at_primary(const control::Upstream& leader, const Bound& bound);
  void move_on(const PrimaryLook& primary, LogicalSlots& here, Lsn replayed);
  Status drop_lost(PgConnection& session, const LogicalSlots& here, const Bound& bound);
  Status drop_all(PgConnection& session, const Bound& bound);
  Status drop(PgConnection& session, const std::set<std::string>& names, const Bound& bound);
  bool could_be_installed(PgConnection& session, const LogicalSlot& slot, const Bound& bound);
  Status fetch(OpContext& context, const std::string& missing, const control::Upstream& leader);

  Server& server_;
  Remark remark_;
  std::atomic<bool> cancelled_{false};
  std::set<std::string> read_;  // of look(): its WAL was there in this session of replication
  std::string held_, saved_;    // of look(): by whom catalog rows are held; on disk
  MonoTime held_since_{};
  std::optional<PgConnection> parked_;  // of look(): carries out a CHECKPOINT
  mutable std::mutex mutex_;
  bool looking_ = false;  // guarded by mutex_, as what follows
  MonoTime looked_at_{};
  MonoTime relayed_since_{};  // zero: we stream from the primary itself, or not at all
  bool relayed_ = false;      // ... and for long enough that it stays so
  Wanted wanted_;
  std::optional<control::Upstream> leader_;
  SlotLedger ledger_;
  Report report_;
};

}  // namespace bascule::node
