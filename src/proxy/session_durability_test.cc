// Where the level of synchronous_commit is set that a transaction's tables demand.
#include <gmock/gmock.h>

#include <string>
#include <vector>

#include "proxy/session_testing.h"

namespace bascule::proxy {
namespace {

using pgwire::TransactionStatus;
using testing::ElementsAre;

TableDurability rules() {
  return {{{{"", "payments"}, CommitLevel::kRemoteApply}, {{"", "logs"}, CommitLevel::kOff}},
          CommitLevel::kDefault};
}

class LeveledSessionTest : public SessionTest {
 public:
  LeveledSessionTest() : SessionTest(PoolMode::kTransaction) {
    auto reach = std::make_unique<sql::WriteReach>();
    for (const char* table : {"payments", "logs", "users"}) {
      EXPECT_TRUE(reach->add("r", {"public", table}, {}));
    }
    EXPECT_TRUE(reach->add("z", {}, {}));
    slot_.reach = std::move(reach);
    session.set_durability(rules(), &slot_);
  }

  // The texts of Query and Parse that the server gets for a Query.
  std::vector<std::string> texts(std::string_view sql) {
    server.clear();
    query(sql);
    std::vector<std::string> out;
    for (std::string_view rest = server; !rest.empty();) {
      const pgwire::Frame frame = pgwire::peek_frame(rest, pgwire::kMaxPayload);
      if (frame.type == 'Q') out.emplace_back(*pgwire::parse_query(frame.payload));
      rest.remove_prefix(frame.size());
    }
    return out;
  }
  void done(TransactionStatus status, int exchanges = 1) {
    for (int i = 0; i < exchanges; ++i) answer("DONE", status);
  }

 private:
  WriteReachSlot slot_;
};

constexpr auto kIdle = TransactionStatus::kIdle;
constexpr auto kOpen = TransactionStatus::kInTransaction;

TEST_F(LeveledSessionTest, OutsideOfTransactionsItStaysUntilAnotherIsNeeded) {
  EXPECT_THAT(texts("insert into logs values (1)"),
              ElementsAre("SET \"synchronous_commit\" = E'off';", "insert into logs values (1)"));
  done(kIdle, 2);
  EXPECT_THAT(texts("insert into logs values (2)"), ElementsAre("insert into logs values (2)"));
  done(kIdle);
  EXPECT_THAT(texts("select 1"), ElementsAre("select 1"));
  done(kIdle);
  EXPECT_THAT(texts("insert into users values (1)"),
              ElementsAre("RESET \"synchronous_commit\";", "insert into users values (1)"));
}

TEST_F(LeveledSessionTest, InATransactionItIsRaisedForTheRestOfIt) {
  EXPECT_THAT(texts("begin"), ElementsAre("begin"));
  done(kOpen);
  EXPECT_THAT(texts("insert into logs values (1)"),
              ElementsAre("SET LOCAL synchronous_commit = off", "insert into logs values (1)"));
  done(kOpen, 2);
  EXPECT_THAT(
      texts("insert into users values (1)"),
      ElementsAre("SET LOCAL synchronous_commit TO DEFAULT", "insert into users values (1)"));
  done(kOpen, 2);
  EXPECT_THAT(texts("insert into logs values (2)"), ElementsAre("insert into logs values (2)"));
  done(kOpen);
  EXPECT_THAT(texts("insert into payments values (2)"),
              ElementsAre("SET LOCAL synchronous_commit = remote_apply",
                          "insert into payments values (2)"));
}

TEST_F(LeveledSessionTest, AFailedTransactionGetsNothing) {
  texts("begin");
  done(kOpen);
  texts("select 1/0");
  done(TransactionStatus::kFailed);
  EXPECT_THAT(texts("insert into payments values (1)"),
              ElementsAre("insert into payments values (1)"));
}

TEST_F(LeveledSessionTest, APipelinedStatementOfAnotherLevelWaitsForTheOneBefore) {
  std::string pipeline;
  pgwire::append_query(pipeline, "insert into users values (1)");
  const size_t first = pipeline.size();
  pgwire::append_query(pipeline, "insert into payments values (1)");
  const auto taken = from_client(pipeline);
  EXPECT_EQ(taken.consumed, first);
  EXPECT_EQ(taken.next, Session::Next::kBusy);
  done(kIdle);
  EXPECT_EQ(from_client(pipeline.substr(first)).consumed, pipeline.size() - first);
}

TEST_F(LeveledSessionTest, TheNextClientOfTheServerHasItsOwn) {
  texts("insert into payments values (1)");
  done(kIdle, 2);
  session.detach();
  Session second(PortKind::kWriter, PoolMode::kTransaction, kLimits, workspace,
                 workspace.settings.none());
  second.attach(state, *this);
  server.clear();
  std::string bytes;
  pgwire::append_query(bytes, "select 1");
  second.on_client(bytes, Session::Gate::kOpen, *this);
  EXPECT_THAT(server, testing::HasSubstr("RESET \"synchronous_commit\""));
}

}  // namespace
}  // namespace bascule::proxy
