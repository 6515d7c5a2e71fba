#include "cli/demo_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

namespace bascule::cli {
namespace {

using nlohmann::ordered_json;

double ms(Nanos time) { return std::chrono::duration<double, std::milli>(time).count(); }

// Errors outside every kill and switchover: there should be none.
size_t errors_elsewhere(const DemoReport& report) {
  size_t inside = 0;
  for (const DemoPhase& phase : report.phases)
    inside += measure(report.ledger, phase).errors.size();
  return report.ledger.errors({report.begun, report.ended}).size() - inside;
}

std::vector<PhaseResult> results_of(const DemoReport& report, const std::string& kind) {
  std::vector<PhaseResult> out;
  for (const DemoPhase& phase : report.phases) {
    if (phase.kind == kind) out.push_back(measure(report.ledger, phase));
  }
  return out;
}

struct Summary {
  std::vector<double> gaps;
  double client_gap_max = 0;
  size_t errors = 0;
  size_t errors_of_one_client = 0;
};
Summary summarize(const std::vector<PhaseResult>& results) {
  Summary out;
  for (const PhaseResult& result : results) {
    out.gaps.push_back(result.gap_ms);
    out.client_gap_max = std::max(out.client_gap_max, result.client_gap_ms);
    out.errors += result.errors.size();
    out.errors_of_one_client = std::max(out.errors_of_one_client, result.errors_of_one_client);
  }
  return out;
}

std::string gap_line(const std::string& title, const Summary& summary) {
  const Statistics gaps = statistics(summary.gaps);
  const std::string all =
      summary.gaps.size() == 1
          ? fmt::format("{:.0f} ms", gaps.maximum)
          : fmt::format("median {:.0f} ms, maximum {:.0f} ms", gaps.median, gaps.maximum);
  return fmt::format("  longest write gap, {:<12}{}  (worst single client {:.0f} ms)\n",
                     title + ":", all, summary.client_gap_max);
}

ordered_json steps_json(const DemoPhase& phase) {
  const Steps s = steps_of(phase);
  ordered_json out = ordered_json::object();
  const std::pair<const char*, double> all[] = {
      {"detected", s.detected}, {"fenced", s.fenced}, {"elected", s.elected},
      {"promoted", s.promoted}, {"routed", s.routed}, {"firstWrite", s.first_write}};
  for (const auto& [name, value] : all) {
    if (value >= 0) out[name] = value;
  }
  return out;
}

ordered_json summary_json(const Summary& summary) {
  const Statistics gaps = statistics(summary.gaps);
  return {{"count", summary.gaps.size()},
          {"gapsMs", summary.gaps},
          {"gapMedianMs", gaps.median},
          {"gapMaxMs", gaps.maximum},
          {"clientGapMaxMs", summary.client_gap_max},
          {"errors", summary.errors},
          {"errorsOfOneClientMax", summary.errors_of_one_client}};
}

std::string sample_errors(const std::vector<PhaseResult>& results) {
  std::map<std::string, int> counts;
  for (const PhaseResult& result : results) {
    for (const ClientError& error : result.errors) ++counts[error.what];
  }
  std::string out;
  for (const auto& [what, count] : counts) {
    out += fmt::format("      {} x {}\n", count, what.substr(0, 110));
  }
  return out;
}

}  // namespace

PhaseResult measure(const Ledger& ledger, const DemoPhase& phase) {
  PhaseResult result;
  const Ledger::Window window{phase.at, phase.until};
  result.gap_ms = ms(ledger.longest_gap(window));
  result.client_gap_ms = ms(ledger.longest_client_gap(window));
  result.errors = ledger.errors(window);
  std::map<int, size_t> by_client;
  for (const ClientError& error : result.errors) {
    result.errors_of_one_client = std::max(result.errors_of_one_client, ++by_client[error.client]);
  }
  return result;
}

Steps steps_of(const DemoPhase& phase) {
  Steps steps;
  const auto first = [&](double& slot, const DemoEvent& event) {
    if (slot < 0) slot = ms(event.at - phase.at);
  };
  for (const DemoEvent& event : phase.events) {
    const bool proxy = event.member.ends_with("proxy");
    // The record is vacant only once its holder can't acknowledge anything any more.
    if (event.what == "detected") first(steps.detected, event);
    if (event.what == "fenced" || event.what == "vacated") first(steps.fenced, event);
    if (event.what == "elected") first(steps.elected, event);
    if (event.what == "promoted") first(steps.promoted, event);
    if (proxy && event.what == "routing" && steps.elected >= 0) first(steps.routed, event);
    if (event.what == "first write") first(steps.first_write, event);
  }
  return steps;
}

std::string render_steps(const DemoPhase& phase) {
  const Steps s = steps_of(phase);
  std::string out;
  const auto add = [&](const char* name, double value) {
    if (value < 0) return;
    out += fmt::format("{}{} {:.0f}", out.empty() ? "  " : " → ", name, value);
  };
  if (phase.kind == "kill") add("detected", s.detected);
  add("fenced", s.fenced);
  add("elected", s.elected);
  add("promoted", s.promoted);
  add("routed", s.routed);
  add("first write", s.first_write);
  return out + " ms";
}

std::string render_event(const DemoEvent& event, MonoTime zero) {
  std::string why = event.why;
  for (char& c : why) {
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  }
  return fmt::format("  {:>+7.0f} ms  {:<8}{:<25}{}", ms(event.at - zero), event.member, event.what,
                     why);
}

std::string render_report(const DemoReport& report) {
  const auto kills = results_of(report, "kill");
  const auto switchovers = results_of(report, "switchover");
  const Summary kill = summarize(kills);
  const Summary switchover = summarize(switchovers);
  const Verdict& verdict = report.verdict;
  std::string out = "\nVerdict\n";
  out += gap_line("kill", kill);
  out += gap_line("switchover", switchover);
  out += fmt::format(
      "  errors seen by {} clients:       {} at {} kill{}, {} at {} switchover{}, {} otherwise\n",
      report.clients, kill.errors, kills.size(), kills.size() == 1 ? "" : "s", switchover.errors,
      switchovers.size(), switchovers.size() == 1 ? "" : "s", errors_elsewhere(report));
  out += sample_errors(kills) + sample_errors(switchovers);
  out += fmt::format("  acknowledged writes:            {}, checked row by row\n",
                     verdict.acknowledged);
  out += fmt::format("  lost:                           {}\n", verdict.lost.size());
  out += fmt::format("  duplicated:                     {}\n", verdict.duplicated.size());
  out += verdict.ok() ? "\nNothing that was acknowledged was lost.\n"
                      : "\nFAILED: acknowledged writes were lost or duplicated.\n";
  return out;
}

ordered_json report_json(const DemoReport& report) {
  const Verdict& verdict = report.verdict;
  ordered_json out = {{"ok", verdict.ok()},
                      {"clients", report.clients},
                      {"fault", report.fault == DemoFault::kHost ? "host" : "postmaster"},
                      {"acknowledged", verdict.acknowledged},
                      {"lost", verdict.lost.size()},
                      {"duplicates", verdict.duplicated.size()},
                      {"errors", {{"otherwise", errors_elsewhere(report)}}},
                      {"kill", summary_json(summarize(results_of(report, "kill")))},
                      {"switchover", summary_json(summarize(results_of(report, "switchover")))},
                      {"runs", ordered_json::array()}};
  for (const DemoPhase& phase : report.phases) {
    const PhaseResult result = measure(report.ledger, phase);
    ordered_json run = {{"kind", phase.kind},
                        {"from", phase.from},
                        {"to", phase.to},
                        {"gapMs", result.gap_ms},
                        {"clientGapMs", result.client_gap_ms},
                        {"recoveredMs", ms(phase.until - phase.at)},
                        {"stepsMs", steps_json(phase)},
                        {"errors", ordered_json::array()},
                        {"events", ordered_json::array()}};
    for (const ClientError& error : result.errors) {
      run["errors"].push_back(
          {{"client", error.client}, {"atMs", ms(error.at - phase.at)}, {"what", error.what}});
    }
    for (const DemoEvent& event : phase.events) {
      run["events"].push_back({{"atMs", ms(event.at - phase.at)},
                               {"member", event.member},
                               {"what", event.what},
                               {"why", event.why}});
    }
    out["runs"].push_back(run);
  }
  return out;
}

}  // namespace bascule::cli
