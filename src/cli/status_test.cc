#include "cli/status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/request.h"
#include "cli/table.h"

namespace bascule::cli {
namespace {

using control::ClusterView;
using control::LeaderPhase;
using testing::HasSubstr;
using testing::Not;

NodeName name(const char* text) { return NodeName::parse(text).value(); }

ClusterView three_members() {
  ClusterView view;
  control::LeaderRecord leader;
  leader.holder = name("n1");
  leader.epoch = Epoch{3};
  leader.timeline = Timeline{4};
  leader.phase = LeaderPhase::kRunning;
  view.leader = {leader, 17};
  view.config = {control::ClusterConfig{}, 1};
  for (const char* who : {"n1", "n2", "n3"}) {
    control::MemberRecord member;
    member.name = name(who);
    member.sync_name = std::string(who) + "_abc";
    member.host = "127.0.0.1";
    member.port = 15430 + (who[1] - '0');
    member.role = who == std::string("n1") ? "primary" : "replica";
    member.state = who == std::string("n1") ? "running" : "streaming";
    member.timeline = Timeline{4};
    member.epoch = Epoch{3};
    member.flush_lsn = Lsn{who == std::string("n3") ? 0x5000000u : 0x5002000u};
    view.members[member.name] = member;
  }
  control::Generation generation;
  generation.epoch = Epoch{3};
  generation.leader = name("n1");
  generation.voters = {"n2_abc"};
  generation.quorum = 1;
  view.sync = {control::SyncRecord{{generation}}, 5};
  return view;
}

control::RequestRecord switchover_to(const char* who) {
  control::RequestRecord request;
  request.id = "r1";
  if (who != nullptr) request.candidate = name(who);
  return request;
}

TEST(Table, ColumnsAreAsWideAsTheirWidestCell) {
  Table table({{"A"}, {"Long"}, {"N", Align::kRight}});
  table.add({"x", "é", "1"});
  table.add({"yyy", "", "22"});
  EXPECT_EQ(table.render(),
            "A    Long   N\n"
            "───  ────  ──\n"
            "x    é      1\n"
            "yyy        22\n");
}

TEST(Table, TheLastColumnIsCutToTheTerminal) {
  Table table({{"A"}, {"Reason"}});
  table.add({"x", "a very long reason"});
  EXPECT_THAT(table.render(12), HasSubstr("x  a very l…\n"));
}

TEST(Table, ControlCharactersDoNotReachTheTerminal) {
  Table table({{"A"}});
  table.add({"\x1b[31mred\n"});
  EXPECT_THAT(table.render(), HasSubstr(" [31mred\n"));
}

TEST(StatusView, ShowsRolesLagAndTheSynchronousReplica) {
  const std::string text = render_status(three_members(), "main", {});
  EXPECT_THAT(text, HasSubstr("Cluster main · epoch 3 · leader n1 (running) · timeline 4 · "
                              "sync on (n2) · ttl 5s\n"));
  EXPECT_THAT(text, HasSubstr("n2      127.0.0.1:15432  sync replica  streaming   4     0 B"));
  EXPECT_THAT(text, HasSubstr("n3      127.0.0.1:15433  replica       streaming   4  8.0 kB"));
}

TEST(StatusView, QuorumShowsHowManyOfWhomACommitWaitsFor) {
  ClusterView view = three_members();
  view.config->value.sync_mode = control::SyncMode::kQuorum;
  auto& newest = view.sync->value.generations.back();
  newest.voters = {view.members[name("n2")].sync_name, view.members[name("n3")].sync_name};
  newest.quorum = 2;
  EXPECT_THAT(render_status(view, "main", {}), HasSubstr("· sync quorum (any 1 of n2, n3) ·"));
  const auto sync = status_json(view, "main").at("sync");
  EXPECT_EQ(sync.at("mode"), "quorum");
  EXPECT_EQ(sync.at("acknowledgements"), 1);
  EXPECT_EQ(sync.at("quorum"), 2);
}

TEST(StatusView, AVacantLeaderShowsWhy) {
  ClusterView view = three_members();
  view.leader->value.phase = LeaderPhase::kVacant;
  view.leader->value.holder = {};
  view.leader->value.why = "postmaster of n1 died";
  EXPECT_THAT(render_status(view, "main", {}), HasSubstr("no leader: postmaster of n1 died"));
  EXPECT_TRUE(status_json(view, "main").at("leader").is_null());
}

TEST(StatusView, LagAcrossTimelinesIsUnknown) {
  ClusterView view = three_members();
  view.members[name("n3")].timeline = Timeline{3};
  EXPECT_EQ(lag_bytes(view, view.members[name("n3")]), -1);
  EXPECT_EQ(lag_bytes(view, view.members[name("n2")]), 0);
}

TEST(OperatorRequest, IsWrittenUnderTheConditionThatNoneIsOpenAndNothingPaused) {
  const control::Keys keys("main");
  const auto txn = open_request(three_members(), keys, switchover_to("n2"));
  ASSERT_TRUE(txn) << txn.error().to_string();
  ASSERT_EQ(txn->compares.size(), 2u);
  EXPECT_EQ(txn->compares[0].key, keys.request());
  EXPECT_EQ(txn->compares[0].revision, 0u);
  EXPECT_EQ(txn->compares[1].key, keys.pause());
  EXPECT_EQ(txn->compares[1].revision, 0u);
}

TEST(OperatorRequest, IsRefusedWithTheReason) {
  const control::Keys keys("main");
  const auto refusal = [&](const ClusterView& view, const char* candidate) {
    const auto txn = open_request(view, keys, switchover_to(candidate));
    if (txn) return std::string("accepted");
    EXPECT_EQ(txn.error().code, ErrorCode::kConflict);
    return txn.error().to_string();
  };
  ClusterView view = three_members();
  EXPECT_THAT(refusal(view, "n22"), HasSubstr("no member \"n22\". Did you mean \"n2\"?"));
  EXPECT_THAT(refusal(view, "n1"), HasSubstr("n1 is the leader already"));
  view.members[name("n2")].state = "cloning";
  EXPECT_THAT(refusal(view, "n2"), HasSubstr("n2 is not streaming from the leader: cloning"));
  view.members[name("n3")].nofailover = true;
  EXPECT_THAT(refusal(view, "n3"), HasSubstr("nofailover"));
  view.paused = true;
  EXPECT_THAT(refusal(view, nullptr), HasSubstr("paused"));
  view = three_members();
  view.leader->value.phase = LeaderPhase::kPreparing;
  EXPECT_THAT(refusal(view, nullptr), HasSubstr("the leader n1 is preparing"));
  view = three_members();
  view.request = {switchover_to("n3"), 9};
  EXPECT_THAT(refusal(view, nullptr), HasSubstr("request r1"));
  view.request->value.outcome = "done";
  EXPECT_EQ(refusal(view, nullptr), "accepted");
}

}  // namespace
}  // namespace bascule::cli
