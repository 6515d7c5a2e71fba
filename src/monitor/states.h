// The states of the failover manager (requirement D1), as one table: the first row whose condition
// holds is the state. Pure.
#pragma once

#include <span>
#include <string_view>

#include "control/monitor_records.h"

namespace bascule::monitor {

struct Facts {
  bool knows_cluster = false;  // the records were read lately, and there is or was a primary
  bool any_answers = false;    // at least one endpoint is up
  bool under_way = false;      // an operation is
  bool returning = false;      // an endpoint that was lost answers again and is not in order yet
  bool just_failed_over = false;
  bool primary_healthy = false;
  bool all_healthy = false;  // every endpoint is, and plays its role
};

struct StateRule {
  control::MonitorState state;
  bool (*holds)(const Facts&);
  std::string_view when;  // for documentation
};

std::span<const StateRule> state_rules();
control::MonitorState state_of(const Facts& facts);

}  // namespace bascule::monitor
