#include "cli/task.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/config_change.h"

namespace bascule::cli {
namespace {

using api::Command;
using control::StepState;
using ::testing::HasSubstr;

NodeName name(std::string_view text) { return *NodeName::parse(text); }
const WallTime kNoon{std::chrono::days(20000) + std::chrono::hours(12)};
const control::Keys kKeys("main");

control::ClusterView three() {
  control::ClusterView view;
  control::LeaderRecord leader;
  leader.holder = name("n1");
  leader.phase = control::LeaderPhase::kRunning;
  view.leader = {leader, 5};
  view.config = {control::ClusterConfig{}, 3};
  for (const char* who : {"n1", "n2", "n3"}) {
    control::MemberRecord m;
    m.name = name(who);
    m.state = "streaming";
    m.region = who[1] == '3' ? "us" : "eu";
    view.members[m.name] = m;
  }
  return view;
}

Command command(Command::Kind kind, std::vector<NodeName> members = {}) {
  Command c;
  c.kind = kind;
  c.members = std::move(members);
  c.by = "me";
  return c;
}

control::TaskRecord asked(const Result<store::Txn>& txn) {
  return *control::decode_task(*txn->writes.at(0).value);
}

TEST(OpenTask, AllMembersUnlessSomeAreNamed) {
  const auto all = open_task(three(), kKeys, command(Command::Kind::kRestart), "a", kNoon);
  ASSERT_TRUE(all) << all.error().to_string();
  EXPECT_EQ(asked(all).steps.size(), 3u);
  const auto one =
      open_task(three(), kKeys, command(Command::Kind::kReload, {name("n2")}), "b", kNoon);
  EXPECT_EQ(asked(one).steps.size(), 1u);
  EXPECT_EQ(asked(one).kind, control::TaskKind::kReload);
}

TEST(OpenTask, RefusesStrangersTheLeadersDataThePastAndAPausedCluster) {
  auto view = three();
  const auto refusal = [&](Command c) {
    const auto txn = open_task(view, kKeys, c, "a", kNoon);
    return txn ? std::string() : txn.error().to_string();
  };
  EXPECT_THAT(refusal(command(Command::Kind::kRestart, {name("x")})), HasSubstr("no member"));
  EXPECT_THAT(refusal(command(Command::Kind::kReinit, {name("n1")})), HasSubstr("is the leader"));
  Command late = command(Command::Kind::kRestart);
  late.at = kNoon - 1s;
  EXPECT_THAT(refusal(late), HasSubstr("over already"));
  late.at = kNoon + std::chrono::days(400);
  EXPECT_THAT(refusal(late), HasSubstr("too far ahead"));
  view.paused = true;
  EXPECT_THAT(refusal(command(Command::Kind::kRestart)), HasSubstr("paused"));
}

TEST(OpenTask, AScheduledSwitchoverNeedsATargetThatMayLead) {
  auto view = three();
  const auto refusal = [&](const std::string& candidate, const std::string& region) {
    Command c = command(Command::Kind::kSwitchover);
    c.at = kNoon + 1h;
    if (!candidate.empty()) c.candidate = name(candidate);
    c.region = region;
    const auto txn = open_task(view, kKeys, c, "a", kNoon);
    return txn ? std::string() : txn.error().to_string();
  };
  EXPECT_EQ(refusal("", ""), "");
  EXPECT_EQ(refusal("n2", ""), "");
  EXPECT_EQ(refusal("", "us"), "");
  EXPECT_THAT(refusal("n22", ""), HasSubstr("no member \"n22\""));
  EXPECT_THAT(refusal("n1", ""), HasSubstr("the leader already"));
  EXPECT_THAT(refusal("", "asia"), HasSubstr("Regions: eu, us"));
  EXPECT_THAT(refusal("", "eu"), HasSubstr("is of region eu already"));
  view.members.at(name("n2")).state = "stopped";
  EXPECT_EQ(refusal("n2", ""), "") << "it may stream again by then";
  view.members.at(name("n2")).nofailover = true;
  EXPECT_THAT(refusal("n2", ""), HasSubstr("nofailover"));
  view.members.at(name("n3")).nofailover = true;
  EXPECT_THAT(refusal("", "us"), HasSubstr("nobody of region \"us\" may lead"));
}

TEST(OpenTask, NobodyCarriesTasksOutWhereAMonitorLeads) {
  auto view = three();
  view.monitor.emplace();
  using Kind = Command::Kind;
  for (const Kind kind :
       {Kind::kRestart, Kind::kReload, Kind::kReinit, Kind::kRemove, Kind::kSwitchover}) {
    Command c = command(kind, {name("n2")});
    if (kind == Kind::kSwitchover) c.at = kNoon + 1h;
    const auto txn = open_task(view, kKeys, c, "a", kNoon);
    ASSERT_FALSE(txn);
    EXPECT_THAT(txn.error().to_string(), HasSubstr("a monitor leads this cluster"));
  }
}

TEST(OpenTask, OnlyTheNewestThatEndedAreKept) {
  auto view = three();
  for (int i = 0; i < 25; ++i) {
    control::TaskRecord task;
    task.id = "t" + std::to_string(i);
    task.outcome = "done";
    task.asked_at = kNoon - std::chrono::hours(100 - i);
    view.tasks[task.id] = {task, 1};
  }
  const auto txn = open_task(view, kKeys, command(Command::Kind::kRestart), "new", kNoon);
  ASSERT_TRUE(txn);
  EXPECT_EQ(txn->writes.size(), 1u + 6u);
  EXPECT_EQ(txn->writes[1].key, kKeys.task("t0"));
  EXPECT_FALSE(txn->writes[1].value);
}

TEST(CancelTasks, ScheduledOnesByKindAnyOpenOneById) {
  auto view = three();
  control::TaskRecord task;
  task.id = "s1";
  task.kind = control::TaskKind::kSwitchover;
  task.at = kNoon;
  view.tasks["s1"] = {task, 7};
  task.id = "r1";
  task.kind = control::TaskKind::kRestart;
  task.at = {};
  task.steps = {{name("n1"), StepState::kRunning, ""}};
  view.tasks["r1"] = {task, 8};
  Command cancel = command(Command::Kind::kCancel);
  auto done = cancel_tasks(view, kKeys, cancel);
  ASSERT_TRUE(done);
  EXPECT_EQ(done->ids, "s1");
  EXPECT_EQ(done->txn.compares[0].revision, 7u);
  cancel.cancels = Command::Kind::kRestart;
  EXPECT_FALSE(cancel_tasks(view, kKeys, cancel)) << "it has begun";
  cancel.id = "r1";
  EXPECT_TRUE(cancel_tasks(view, kKeys, cancel));
}

TEST(CandidateOfRegion, TheBestThatMayLead) {
  auto view = three();
  EXPECT_EQ(*candidate_of_region(view, "us"), name("n3"));
  EXPECT_FALSE(candidate_of_region(view, "eu")) << "the leader's";
  EXPECT_THAT(candidate_of_region(view, "asia").error().to_string(), HasSubstr("eu, us"));
  view.members.at(name("n3")).nofailover = true;
  EXPECT_FALSE(candidate_of_region(view, "us"));
}

TEST(ParseWhen, FormsOfATime) {
  EXPECT_EQ(*parse_when("+90s", kNoon), kNoon + 90s);
  EXPECT_EQ(*parse_when("12:30", kNoon), kNoon + 30min);
  EXPECT_EQ(*parse_when("11:30", kNoon), kNoon + std::chrono::hours(24) - 30min) << "tomorrow";
  EXPECT_EQ(*parse_when(to_iso8601(kNoon), kNoon), kNoon);
  EXPECT_EQ(*parse_when("2024-10-04T14:00:00+02:00", kNoon), kNoon);
  for (const char* bad : {"", "noon", "+", "+90", "25:00", "12:60", "2024-13-01T00:00:00Z",
                          "2024-10-04T12:00:00Zx"}) {
    EXPECT_FALSE(parse_when(bad, kNoon)) << bad;
  }
}

TEST(ConfigChange, ParametersAndSlotsByName) {
  auto view = three();
  view.config->value.parameters = {{"jit", "off"}};
  // What is refused comes back as the region's name.
  const auto change = [&](std::map<std::string, std::string> wanted) {
    const auto txn = change_config(view, {"main", std::move(wanted), "me", kNoon, false}, {});
    if (txn) return *control::decode_config(*txn->writes[0].value);
    control::ClusterConfig refused;
    refused.primary_region = txn.error().to_string();
    return refused;
  };
  const auto good = change({{"parameters.work_mem", "1MB"},
                            {"parameters.jit", ""},
                            {"slots.cdc", "logical:app:pgoutput"},
                            {"slots.arch", "physical"}});
  EXPECT_EQ(good.parameters, (std::map<std::string, std::string>{{"work_mem", "1MB"}}));
  EXPECT_EQ(good.slots.at("cdc").plugin, "pgoutput");
  EXPECT_EQ(good.slots.at("cdc").database, "app");
  EXPECT_FALSE(good.slots.at("arch").logical());
  EXPECT_THAT(change({{"parameters.fsync", "off"}}).primary_region,
              HasSubstr("managed by Bascule"));
  EXPECT_THAT(change({{"parameters.wal_level", "minimal"}}).primary_region, HasSubstr("wal_level"));
  EXPECT_THAT(change({{"slots.bascule_x", "physical"}}).primary_region, HasSubstr("Bascule's"));
  EXPECT_THAT(change({{"slots.x", "logical:app"}}).primary_region, HasSubstr("expected physical"));
}

}  // namespace
}  // namespace bascule::cli
