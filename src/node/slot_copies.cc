#include "node/slot_copies.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "control/json_fields.h"

namespace bascule::node {
namespace {

// src/backend/replication/slot.c: magic, checksum of all behind it, version, length of what
// follows, which begins with the slot's name.
constexpr uint32_t kMagic = 0x1051CA1;
constexpr size_t kChecksummedFrom = 8;
constexpr size_t kHeader = 16;
constexpr size_t kNameBytes = 64;
// A step decodes from the slot's restart_lsn on; several short ones let others in between.
constexpr uint64_t kStepBytes = 256 << 20;

uint32_t number_at(std::string_view bytes, size_t at) {
  uint32_t out = 0;  // written by PostgreSQL of this kind of machine
  std::memcpy(&out, bytes.data() + at, sizeof out);
  return out;
}

// CRC-32C, reflected.
uint32_t crc32c(std::string_view bytes) {
  uint32_t crc = ~uint32_t{0};
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78u : 0);
  }
  return ~crc;
}

SlotCopy judged(SlotCopy copy, const LogicalSlot* there, const LogicalSlot* here,
                const PrimaryLook& primary) {
  const auto unsound = [](std::string why) { return SlotCopy{.why = std::move(why)}; };
  if (here == nullptr) return unsound("no copy here");
  if (there == nullptr) return unsound("the primary has no such slot");
  if (!primary.held || primary.session.empty()) {
    return unsound("hot_standby_feedback has not reached the primary");
  }
  if (here->confirmed > there->confirmed) return unsound("it is ahead of the primary's slot");
  if (copy.reach == 0) {
    copy.reach = at_most(there->catalog_xmin, *primary.held) ? *primary.held : there->catalog_xmin;
    copy.held_at = primary.insert;
  }
  copy.sound = false;
  copy.why = here->problem;
  if (!copy.why.empty()) return copy;
  if (!at_most(copy.reach, here->catalog_xmin)) {
    copy.why = fmt::format("needs catalog rows from transaction {} on, proven from {} on",
                           here->catalog_xmin, copy.reach);
  } else if (primary.redo < copy.held_at) {
    copy.why = "waits for a checkpoint of the primary";
  } else {
    copy.sound = true;
  }
  return copy;
}

const LogicalSlot* find(const LogicalSlots& slots, const std::string& name) {
  const auto found = slots.find(name);
  return found == slots.end() ? nullptr : &found->second;
}

constexpr size_t kCopiesMax = 1000;

}  // namespace

static void fields(auto& f, control::Of<SlotCopy> auto& c) {
  f.boolean("sound", c.sound);
  f.text("why", c.why);
  f.number("reach", c.reach);
  f.lsn("heldAt", c.held_at);
}

static void fields(auto& f, control::Of<SlotLedger> auto& l) {
  f.text("incarnation", l.incarnation);
  f.number("timeline", l.timeline.value);
  f.text("session", l.session);
  f.boolean("original", l.original);
  f.lsn("covered", l.covered);
  f.object_map("copies", kCopiesMax, l.copies);
}

std::string encode(const SlotLedger& ledger) { return control::write_record(ledger); }
Result<SlotLedger> decode_slot_ledger(std::string_view json) {
  return control::read_record<SlotLedger>(json, "ledger of slots");
}

bool at_most(Xid a, Xid b) { return static_cast<int32_t>(a - b) <= 0; }

SlotLedger look_again(const SlotLedger& before, const std::string& incarnation,
                      const PrimaryLook& primary, const LogicalSlots& here,
                      const std::set<std::string>& wanted) {
  SlotLedger after{incarnation, primary.timeline, primary.session, false, primary.insert, {}};
  const bool goes_on = before.incarnation == incarnation && !before.original &&
                       before.timeline == primary.timeline && before.session == primary.session;
  for (const std::string& name : wanted) {
    const auto known = before.copies.find(name);
    const SlotCopy copy = goes_on && known != before.copies.end() ? known->second : SlotCopy{};
    after.copies[name] = judged(copy, find(primary.slots, name), find(here, name), primary);
  }
  return after;
}

SlotLedger originals(const std::string& incarnation, Timeline timeline, const LogicalSlots& here) {
  SlotLedger out{incarnation, timeline, "", true, {}, {}};
  for (const auto& [name, slot] : here) out.copies[name] = {.sound = true};
  return out;
}

std::string why_unsound(const SlotLedger& ledger, const BeforePromotion& at,
                        const std::string& name, const LogicalSlot& here) {
  const auto found = ledger.copies.find(name);
  if (found == ledger.copies.end()) return "nothing is known of it";
  if (ledger.incarnation != at.incarnation) return "what is known of it was of an earlier copy";
  if (ledger.timeline != at.timeline) {
    return fmt::format("proven on timeline {}, this is {}", ledger.timeline.value,
                       at.timeline.value);
  }
  if (!found->second.sound) return found->second.why;
  if (!here.problem.empty()) return here.problem;
  // What came from an archive may have been written while nothing was held for us.
  if (!ledger.original && at.replayed > std::max(ledger.covered, at.streamed)) {
    return fmt::format("WAL up to {} did not come by replication", at.replayed.to_string());
  }
  return {};
}

std::optional<Lsn> advance_to(const LogicalSlot& primary, const LogicalSlot& here, Lsn replayed) {
  const Lsn target =
      std::min({primary.confirmed, replayed, Lsn{here.confirmed.value + kStepBytes}});
  // Also when it is there already: that shows whether its WAL can be read.
  if (target < here.confirmed || (target == here.confirmed && here.problem.empty())) return {};
  return target;
}

Status check_slot_state(std::string_view bytes, std::string_view slot) {
  const auto damaged = [](const char* what) {
    return fail(ErrorCode::kInvalid, fmt::format("slot's state file: {}", what));
  };
  if (bytes.size() < kHeader + kNameBytes || bytes.size() > 4096) return damaged("its size");
  if (number_at(bytes, 0) != kMagic) return damaged("it is none");
  if (number_at(bytes, 12) != bytes.size() - kHeader) return damaged("it is not whole");
  if (number_at(bytes, 4) != crc32c(bytes.substr(kChecksummedFrom))) return damaged("checksum");
  const std::string_view name = bytes.substr(kHeader, kNameBytes);
  if (name.substr(0, name.find('\0')) != slot) return damaged("it is another slot's");
  return {};
}

}  // namespace bascule::node
