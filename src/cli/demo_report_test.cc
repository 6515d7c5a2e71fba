#include "cli/demo_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace bascule::cli {
namespace {

using testing::HasSubstr;

MonoTime ms(int64_t value) { return MonoTime(Millis(value)); }

DemoPhase kill_at_1000() {
  DemoPhase phase{"kill", ms(1000), ms(3000), "n1", "n2", {}};
  phase.events = {{ms(1001), "n1", "detected", "signal 9"}, {ms(1002), "proxy", "holding", ""},
                  {ms(1003), "n1", "vacated", ""},          {ms(1100), "n2", "elected", ""},
                  {ms(1200), "n2", "promoted", ""},         {ms(1203), "proxy", "routing", ""},
                  {ms(1250), "clients", "first write", ""}};
  return phase;
}

DemoReport one_kill() {
  DemoReport report;
  report.clients = 2;
  report.begun = ms(0);
  report.ended = ms(4000);
  report.phases = {kill_at_1000()};
  for (int64_t at : {900, 990, 1250, 1300, 1400, 2000, 2900}) {
    report.ledger.add(Acknowledged{0, at, ms(at)});
  }
  report.ledger.add(ClientError{1, ms(1003), "57P01: gone"});
  report.ledger.add(ClientError{1, ms(500), "unrelated"});
  return report;
}

TEST(DemoReport, StepsAreMeasuredFromTheKill) {
  const Steps steps = steps_of(kill_at_1000());
  EXPECT_EQ(steps.detected, 1);
  EXPECT_EQ(steps.fenced, 3);
  EXPECT_EQ(steps.elected, 100);
  EXPECT_EQ(steps.promoted, 200);
  EXPECT_EQ(steps.routed, 203);
  EXPECT_EQ(steps.first_write, 250);
  EXPECT_EQ(
      render_steps(kill_at_1000()),
      "  detected 1 → fenced 3 → elected 100 → promoted 200 → routed 203 → first write 250 ms");
}

TEST(DemoReport, ErrorsOutsideOfKillsAndSwitchoversAreCountedApart) {
  const auto json = report_json(one_kill());
  EXPECT_EQ(json.at("kill").at("errors"), 1);
  EXPECT_EQ(json.at("errors").at("otherwise"), 1);
}

TEST(DemoReport, ALostRowFailsTheVerdict) {
  DemoReport report = one_kill();
  report.verdict = report.ledger.verdict({});
  EXPECT_FALSE(report_json(report).at("ok").get<bool>());
  EXPECT_EQ(report_json(report).at("lost"), 7);
  EXPECT_THAT(render_report(report), HasSubstr("FAILED"));
}

TEST(DemoEvents, ReadsWhatNodesWrite) {
  const auto event = parse_event(
      R"({"wall_ms":1,"mono_ns":5000000,"member":"n1","level":"info","what":"promoted","why":"x","fields":{}})");
  ASSERT_TRUE(event);
  EXPECT_EQ(event->at, ms(5));
  EXPECT_EQ(event->what, "promoted");
  for (const char* bad : {"", "[]", "{}", R"({"mono_ns":"x","member":"n1","what":"y"})"}) {
    EXPECT_FALSE(parse_event(bad)) << bad;
  }
}

}  // namespace
}  // namespace bascule::cli
