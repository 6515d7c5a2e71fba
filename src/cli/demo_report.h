// What the demo found, for people and for machines. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/demo_events.h"
#include "cli/demo_ledger.h"

namespace bascule::cli {

enum class DemoFault { kPostmaster, kHost };

struct DemoPhase {
  std::string kind;  // "kill", "switchover"
  MonoTime at{};     // kill sent, switchover asked for
  MonoTime until{};  // every member streams again
  std::string from;  // primary before
  std::string to;    // and after
  std::vector<DemoEvent> events;
};

// When each step of a change of leader was reached, in ms after the phase began; -1: not seen.
struct Steps {
  double detected = -1;  // somebody knew that the old primary had gone (kill)
  double fenced = -1;    // the old primary can't acknowledge any more
  double elected = -1;
  double promoted = -1;
  double routed = -1;  // the proxy sends writes to the new primary
  double first_write = -1;
};
Steps steps_of(const DemoPhase& phase);
std::string render_steps(const DemoPhase& phase);

struct PhaseResult {
  double gap_ms = 0;         // all clients together
  double client_gap_ms = 0;  // the worst client
  std::vector<ClientError> errors;
  size_t errors_of_one_client = 0;  // at most
};
PhaseResult measure(const Ledger& ledger, const DemoPhase& phase);

struct DemoReport {
  int clients = 0;
  DemoFault fault = DemoFault::kPostmaster;
  std::vector<DemoPhase> phases;
  MonoTime begun{};
  MonoTime ended{};
  Ledger ledger;
  Verdict verdict;
};
std::string render_report(const DemoReport& report);
nlohmann::ordered_json report_json(const DemoReport& report);

// "  +  12 ms  n1     detected    PostgreSQL is gone: signal 9"
std::string render_event(const DemoEvent& event, MonoTime zero);

}  // namespace bascule::cli
