// When is a standby's copy of a logical slot as good as the slot itself? PostgreSQL 13 to 16, whose
// standbys don't keep such copies by themselves (ADR 0028). Pure.
//
// A copy is sound once nothing that it still needs can have been vacuumed, nor will be:
//   - what the primary removed until it was seen that our physical slot holds catalog rows there,
//     is older than what the slot itself needed at that moment: the copy has to have come so far;
//   - from then on our physical slot holds what the copy needs (hot_standby_feedback), also after
//     a crash of the primary: a checkpoint has written it to disk.
// Each proof is of one timeline (so of one epoch), one incarnation of this member, and one session
// of replication: a slot that was dropped and made again in between would have held nothing.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/types.h"

namespace bascule::node {

using Xid = uint32_t;  // circular, see TransactionIdPrecedesOrEquals
bool at_most(Xid a, Xid b);

// As pg_replication_slots shows it.
struct LogicalSlot {
  Xid catalog_xmin = 0;
  Lsn restart, confirmed;
  std::string problem{};  // why it can't be read or advanced; empty: it can
  bool operator==(const LogicalSlot&) const = default;
};
using LogicalSlots = std::map<std::string, LogicalSlot>;

struct PrimaryLook {
  Timeline timeline;
  std::string session;      // its start, and the walsender that has our physical slot; empty: none
  std::optional<Xid> held;  // catalog_xmin of our physical slot
  Lsn insert;               // end of WAL
  Lsn redo;                 // where the last complete checkpoint began
  LogicalSlots slots;
};

struct SlotCopy {
  bool sound = false;
  std::string why{};  // it is not
  Xid reach = 0;      // its catalog_xmin has to come so far (0: not known yet) ...
  Lsn held_at{};      // ... and a checkpoint to begin behind this
  bool operator==(const SlotCopy&) const = default;
};

// What is known of the copies here; survives the agent (beside the state file).
struct SlotLedger {
  std::string incarnation;  // that it is of
  Timeline timeline;        // of the primary whose slots are copied
  std::string session;
  bool original = false;  // of a primary: the slots themselves
  Lsn covered;            // WAL up to here was written while the proofs held
  std::map<std::string, SlotCopy> copies;
  bool operator==(const SlotLedger&) const = default;
};
std::string encode(const SlotLedger& ledger);
Result<SlotLedger> decode_slot_ledger(std::string_view json);

// The ledger after both were looked at, the primary first. `here`: the copies on this standby.
SlotLedger look_again(const SlotLedger& before, const std::string& incarnation,
                      const PrimaryLook& primary, const LogicalSlots& here,
                      const std::set<std::string>& wanted);
// Of a primary: its slots are what they are.
SlotLedger originals(const std::string& incarnation, Timeline timeline, const LogicalSlots& here);

// This member, as it is about to be promoted.
struct BeforePromotion {
  std::string incarnation;
  Timeline timeline;
  Lsn replayed;
  Lsn streamed;  // received over replication since the start; 0: nothing
};
// Why the slot `name` may not go into a promotion; empty: it may.
std::string why_unsound(const SlotLedger& ledger, const BeforePromotion& at,
                        const std::string& name, const LogicalSlot& here);

// How far a copy is to be moved on now; nothing: it is there, or may not follow.
std::optional<Lsn> advance_to(const LogicalSlot& primary, const LogicalSlot& here, Lsn replayed);

// A slot's state file, as it came from the primary: of that slot, whole and undamaged. PostgreSQL
// does not start with one that isn't.
Status check_slot_state(std::string_view bytes, std::string_view slot);

}  // namespace bascule::node
