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
