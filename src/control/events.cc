#include "control/events.h"

#include <nlohmann/json.hpp>

#include "control/json_reader.h"

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

std::string encode(const LocalState& s) {
  nlohmann::json j{
      {"incarnation", s.incarnation},
      {"storeIdentity", s.store_identity},
      {"highestRevision", s.highest_revision},
      {"highestEpoch", s.highest_epoch.value},
      {"seed", s.seed},
      {"ledEpoch", s.led_epoch.value},
      {"bootstrapping", s.bootstrapping},
      {"task", s.task},
      {"taskResult", s.task_result},
      {"highWater",
       {{"timeline", s.high_water.timeline.value}, {"lsn", s.high_water.lsn.to_string()}}}};
  if (s.ballot_intent) j["ballotIntent"] = *s.ballot_intent;
  return j.dump();
}

Result<LocalState> decode_local_state(std::string_view text) {
  JsonReader r(text, "local state");
  LocalState s;
  r.text("incarnation", s.incarnation);
  r.text("storeIdentity", s.store_identity);
  r.number("highestRevision", s.highest_revision);
  r.number("highestEpoch", s.highest_epoch.value);
  r.number("seed", s.seed);
  r.number("ledEpoch", s.led_epoch.value);
  r.position("highWater", s.high_water);
  r.boolean("bootstrapping", s.bootstrapping);
  r.text("task", s.task);
  r.text("taskResult", s.task_result);
  Revision intent = 0;
  r.number("ballotIntent", intent);
  if (intent != 0) s.ballot_intent = intent;
  return r.finish(std::move(s));
}

}  // namespace bascule::control
