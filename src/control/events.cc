#include "control/events.h"

#include "control/json_fields.h"

namespace bascule::control {

std::string_view op_name(const Op& op) {
  static constexpr std::string_view kNames[] = {
      "init_db",           "start_primary",   "start_standby", "set_upstream",
      "stop_receiver",     "promote",         "kill",          "checkpoint",
      "clean_stop",        "verify_received", "set_sync",      "ensure_slots",
      "terminate_senders", "rewind",          "clone",         "reload"};
  static_assert(std::size(kNames) == std::variant_size_v<Op>);
  return kNames[op.index()];
}

static void fields(auto& f, Of<LocalState> auto& s) {
  f.text("incarnation", s.incarnation);
  f.text("storeIdentity", s.store_identity);
  f.number("highestRevision", s.highest_revision);
  f.number("highestEpoch", s.highest_epoch.value);
  f.number("seed", s.seed);
  f.number("ledEpoch", s.led_epoch.value);
  f.lsn("ledBegan", s.led_origin.at);
  f.number("ledBeganMark", s.led_origin.mark);
  f.position("highWater", s.high_water);
  f.number("rewinding", s.rewinding.value);
  f.boolean("bootstrapping", s.bootstrapping);
  f.text("task", s.task);
  f.text("taskResult", s.task_result);
  f.optional("ballotIntent", s.ballot_intent);
}

std::string encode(const LocalState& s) { return write_record(s); }
Result<LocalState> decode_local_state(std::string_view text) {
  return read_record<LocalState>(text, "local state");
}

}  // namespace bascule::control
