#include "proxy/session.h"

#include <gmock/gmock.h>

#include "proxy/session_testing.h"

namespace bascule::proxy {
namespace {

using Gate = Session::Gate;
using Next = Session::Next;
using pgwire::TransactionStatus;
using testing::HasSubstr;
using testing::Not;

TEST_F(SessionTest, RelaysBothWaysWithoutChange) {
  std::string sent;
  pgwire::append_query(sent, "select 1");
  from_client(sent);
  EXPECT_EQ(server, sent);
  EXPECT_TRUE(session.active());
  const std::string reply = complete("SELECT 1", TransactionStatus::kIdle);
  from_server(reply);
  EXPECT_EQ(client, reply);
  EXPECT_TRUE(session.idle());
  EXPECT_EQ(session.transactions(), 1u);
}

TEST_F(SessionTest, BytesOneByOneAreRelayedTheSame) {
  std::string sent, reply = complete("SELECT 1", TransactionStatus::kIdle);
  pgwire::append_parse(sent, "s1", "select 1");
  pgwire::append_bind(sent, "", "s1", {});
  pgwire::append_execute(sent, "");
  pgwire::append_sync(sent);
  std::string unread;
  for (const char c : sent) {
    unread += c;
    unread.erase(0, from_client(unread).consumed);
  }
  EXPECT_EQ(server, sent);
  std::string bytes;
  pgwire::append_parse_complete(bytes);
  pgwire::append_bind_complete(bytes);
  bytes += reply;
  unread.clear();
  for (const char c : bytes) {
    unread += c;
    const auto relayed =
        session.on_server(unread, back, Session::Permit::kValid, Session::Writable::kYes, *this);
    ASSERT_EQ(relayed.lost, std::nullopt);
    unread.erase(0, relayed.consumed);
  }
  EXPECT_EQ(client, bytes);
  EXPECT_TRUE(session.idle());
  EXPECT_THAT(session.script(state).bytes, HasSubstr("select 1"));
}

TEST_F(SessionTest, DetachedSessionAsksForAServerAndTakesNothing) {
  session.detach();
  const auto intake = query("select 1");
  EXPECT_EQ(intake.next, Next::kNeedServer);
  EXPECT_EQ(intake.consumed, 0u);
}

TEST_F(SessionTest, GateHoldsNewTransactionsOnly) {
  run("begin", "BEGIN", TransactionStatus::kInTransaction);
  std::string sent;
  pgwire::append_query(sent, "commit");
  EXPECT_EQ(from_client(sent, Gate::kShut).next, Next::kMore);
  answer("COMMIT");
  EXPECT_EQ(from_client(sent, Gate::kShut).next, Next::kNeedServer);
  EXPECT_EQ(from_client(sent, Gate::kOpen).next, Next::kMore);
}

TEST_F(SessionTest, TerminateNeedsNoServer) {
  std::string bye;
  pgwire::append_terminate(bye);
  EXPECT_EQ(from_client(bye).next, Next::kTerminate);
  session.detach();
  EXPECT_EQ(from_client(bye).next, Next::kTerminate);
  EXPECT_EQ(server, "");
}

TEST_F(SessionTest, LossOfTheServerOfAnIdleSessionIsSilent) {
  run("select 1", "SELECT 1");
  EXPECT_EQ(lose(), "");
  EXPECT_EQ(after, Session::After::kKeep);
  EXPECT_FALSE(session.attached());
  EXPECT_TRUE(session.idle());
}

TEST_F(SessionTest, AutocommitWriteInFlightIsUnknown) {
  query("insert into t values (1)");
  EXPECT_EQ(lose(), "E(08007) Z(I)");
  EXPECT_EQ(query("select 1").next, Next::kNeedServer);
}

TEST_F(SessionTest, AutocommitReadInFlightFailed) {
  query("select 1");
  EXPECT_EQ(lose(), "E(08006) Z(I)");
}

TEST_F(SessionTest, CommitThatDidNotWaitForItsStandbyIsUnknown) {
  query("insert into t values (1)");
  from_server(warning() + complete("INSERT 0 1", TransactionStatus::kIdle));
  EXPECT_EQ(summary(client), "N E(08007) Z(I)");
  EXPECT_EQ(unreplicated, 1);
  client.clear();
  run("begin", "BEGIN", TransactionStatus::kInTransaction);
  query("commit");
  from_server(warning("exec_stmt_raise") + complete("COMMIT", TransactionStatus::kIdle));
  EXPECT_EQ(summary(client), "N C Z(I)");
  EXPECT_EQ(unreplicated, 1);
}

TEST_F(SessionTest, UnreplicatedCommitAmongOtherAnswersIsToldAtTheirEnd) {
  query("insert into t values (1); commit; select 1");
  std::string reply = warning();
  pgwire::append_command_complete(reply, "COMMIT");
  from_server(reply);
  from_server(complete("SELECT 1", TransactionStatus::kIdle));
  EXPECT_EQ(summary(client), "N C C E(08007) Z(I)");
  client.clear();
  std::string batch;
  pgwire::append_parse(batch, "", "insert into t values (1)");
  pgwire::append_bind(batch, "", "", {});
  pgwire::append_execute(batch, "");
  pgwire::append_sync(batch);
  from_client(batch);
  reply.clear();
  pgwire::append_parse_complete(reply);
  pgwire::append_bind_complete(reply);
  pgwire::append_command_complete(reply, "INSERT 0 1");
  from_server(reply);
  reply = warning();
  pgwire::append_ready_for_query(reply, TransactionStatus::kIdle);
  from_server(reply);
  EXPECT_EQ(summary(client), "1 2 C N E(08007) Z(I)");
  EXPECT_EQ(unreplicated, 2);
}

TEST_F(SessionTest, StatementWithoutAnyEffectIsSentAgain) {
  query("begin");
  EXPECT_EQ(lose(), "");
  EXPECT_TRUE(session.wants_retry());
  server.clear();
  attach();
  EXPECT_THAT(server, HasSubstr("begin"));
  answer("BEGIN", TransactionStatus::kInTransaction);
  EXPECT_FALSE(session.idle());
}

TEST_F(SessionTest, WriteThatMetTheShutdownIsSentAgain) {
  query("insert into t values (1)");
  EXPECT_EQ(lose(Loss::kShutdown), "");
  EXPECT_TRUE(session.wants_retry());
}

TEST_F(SessionTest, WriteThatMetACrashIsNotSentAgain) {
  query("insert into t values (1)");
  EXPECT_EQ(lose(Loss::kCrash), "E(08007) Z(I)");
}

TEST_F(SessionTest, StatementThatCommitsInPartsIsNotSentAgain) {
  query("call p()");
  EXPECT_EQ(lose(Loss::kShutdown), "E(08007) Z(I)");
}

TEST_F(SessionTest, StatementWhoseAnswerHasBegunIsNotSentAgain) {
  query("insert into t values (1) returning 1");
  std::string rows;
  pgwire::append_row_description(rows, std::vector<pgwire::Column>{{"a"}});
  from_server(rows);
  EXPECT_EQ(lose(Loss::kShutdown), "E(08007) Z(I)");
}

TEST_F(SessionTest, StatementTooLargeToKeepIsNotSentAgain) {
  query("insert into t values ('" + std::string(9000, 'x') + "')");
  EXPECT_THAT(lose(Loss::kShutdown), HasSubstr("E(40001)"));
}

TEST_F(SessionTest, HalfAMessageDeliveredMeansTheEnd) {
  query("select 1");
  std::string row;
  pgwire::append_data_row(row, std::vector<std::optional<std::string_view>>{"0123456789"});
  from_server(std::string_view(row).substr(0, 10));
  lose();
  EXPECT_EQ(after, Session::After::kClose);
}

TEST_F(SessionTest, StatementInATransactionIsRolledBackAndTheTransactionStaysFailed) {
  run("begin", "BEGIN", TransactionStatus::kInTransaction);
  query("insert into t values (1)");
  EXPECT_EQ(lose(), "E(40001) Z(E)");
  client.clear();
  EXPECT_EQ(query("insert into t values (2)").next, Next::kMore);
  EXPECT_EQ(summary(client), "E(25P02) Z(E)");
  client.clear();
  query("rollback to s");
  EXPECT_EQ(summary(client), "E(25P02) Z(E)");
  client.clear();
  query("rollback");
  EXPECT_EQ(summary(client), "C Z(I)");
  EXPECT_EQ(query("select 1").next, Next::kNeedServer);
}

TEST_F(SessionTest, CommitInFlightIsUnknownAndEndsTheTransaction) {
  run("begin", "BEGIN", TransactionStatus::kInTransaction);
  query("commit");
  EXPECT_EQ(lose(Loss::kShutdown), "E(08007) Z(I)");
}

TEST_F(SessionTest, CommitAfterAnUnreportedLossIsAnError) {
  run("begin", "BEGIN", TransactionStatus::kInTransaction);
  EXPECT_EQ(lose(), "");
  query("commit");
  EXPECT_EQ(summary(client), "E(40001) Z(I)");
}

TEST_F(SessionTest, RollbackAfterAnUnreportedLossIsFine) {
  run("begin", "BEGIN", TransactionStatus::kInTransaction);
  lose();
  query("rollback");
  EXPECT_EQ(summary(client), "C Z(I)");
}

TEST_F(SessionTest, ExtendedRollbackOfALostTransactionIsAnswered) {
  run("begin", "BEGIN", TransactionStatus::kInTransaction);
  lose();
  std::string bytes;
  pgwire::append_parse(bytes, "", "ROLLBACK");
  pgwire::append_bind(bytes, "", "", {});
  pgwire::append_describe(bytes, pgwire::Target::kPortal, "");
  pgwire::append_execute(bytes, "");
  pgwire::append_sync(bytes);
  EXPECT_EQ(from_client(bytes).consumed, bytes.size());
  EXPECT_EQ(summary(client), "1 2 n C Z(I)");
  EXPECT_TRUE(session.idle());
}

TEST_F(SessionTest, ExtendedStatementInALostTransactionFailsOnce) {
  run("begin", "BEGIN", TransactionStatus::kInTransaction);
  lose();
  std::string bytes;
  pgwire::append_parse(bytes, "", "insert into t values (1)");
  pgwire::append_bind(bytes, "", "", {});
  pgwire::append_execute(bytes, "");
  pgwire::append_sync(bytes);
  from_client(bytes);
  EXPECT_EQ(summary(client), "E(40001) Z(E)");
}

TEST_F(SessionTest, EachSyncOfALostPipelineGetsItsReady) {
  std::string bytes;
  for (int i = 0; i < 3; ++i) {
    pgwire::append_parse(bytes, "", "insert into t values (1)");
    pgwire::append_bind(bytes, "", "", {});
    pgwire::append_execute(bytes, "");
    pgwire::append_sync(bytes);
  }
  from_client(bytes);
  EXPECT_EQ(lose(), "E(08007) Z(I) E(08007) Z(I) E(08007) Z(I)");
  EXPECT_TRUE(session.idle());
}

TEST_F(SessionTest, BatchWithoutItsSyncFailsAtOnceAndIsReadyAtTheSync) {
  std::string bytes;
  pgwire::append_parse(bytes, "", "insert into t values (1)");
  pgwire::append_bind(bytes, "", "", {});
  pgwire::append_execute(bytes, "");
  pgwire::append_flush(bytes);
  from_client(bytes);
  from_server(std::string("1\0\0\0\4", 5));
  EXPECT_EQ(lose(), "E(40001)");
  client.clear();
  bytes.clear();
  pgwire::append_execute(bytes, "");
  pgwire::append_sync(bytes);
  from_client(bytes);
  EXPECT_EQ(summary(client), "Z(I)");
}

TEST_F(SessionTest, RestOfAHalfSentQueryIsThrownAway) {
  std::string bytes;
  pgwire::append_query(bytes, "insert into t values ('" + std::string(30'000, 'x') + "')");
  from_client(std::string_view(bytes).substr(0, 20'000));
  EXPECT_EQ(lose(), "E(40001)");
  client.clear();
  from_client(std::string_view(bytes).substr(20'000));
  EXPECT_EQ(summary(client), "Z(I)");
}

TEST_F(SessionTest, ErrorThatWasForwardedIsNotReportedTwice) {
  std::string bytes, error;
  pgwire::append_parse(bytes, "", "selec");
  from_client(bytes);
  pgwire::append_error_response(error, {.sqlstate = "42601", .message = "syntax"});
  from_server(error);
  EXPECT_EQ(lose(), "");
  bytes.clear();
  pgwire::append_sync(bytes);
  from_client(bytes);
  EXPECT_EQ(summary(client), "Z(I)");
}

TEST_F(SessionTest, CopyDataAfterALostCopyIsDropped) {
  query("copy t from stdin");
  from_server(std::string("G\0\0\0\7\0\0\0", 8));
  EXPECT_EQ(lose(), "E(08007) Z(I)");
  std::string bytes;
  pgwire::append_copy_data(bytes, "1\n");
  pgwire::append_copy_done(bytes);
  EXPECT_EQ(from_client(bytes).next, Next::kMore);
  EXPECT_EQ(query("select 1").next, Next::kNeedServer);
}

TEST_F(SessionTest, PinnedSessionIsClosedWithTheReason) {
  run("create temp table a (b int)", "CREATE TABLE");
  EXPECT_EQ(lose(), "E(57P01)");
  EXPECT_THAT(client, HasSubstr("it has temporary tables"));
  EXPECT_EQ(after, Session::After::kClose);
}

TEST_F(SessionTest, DiscardAllUnpins) {
  run("create temp table a (b int)", "CREATE TABLE");
  run("discard all", "DISCARD ALL");
  EXPECT_EQ(lose(), "");
  EXPECT_EQ(after, Session::After::kKeep);
}

TEST_F(SessionTest, FarewellOfAnIdleServerIsSwallowed) {
  std::string error;
  pgwire::append_error_response(
      error, {.severity = "FATAL", .sqlstate = "57P01", .message = "terminating"});
  EXPECT_EQ(from_server(error), Loss::kShutdown);
  EXPECT_EQ(client, "");
}

TEST_F(SessionTest, OtherFatalErrorsReachTheClient) {
  std::string error;
  pgwire::append_error_response(
      error, {.severity = "FATAL", .sqlstate = "25P03", .message = "idle in transaction"});
  EXPECT_EQ(from_server(error), std::nullopt);
  EXPECT_EQ(summary(client), "E(25P03)");
  lose();
  EXPECT_EQ(after, Session::After::kClose);
}

TEST_F(SessionTest, AnswersAfterThePermitAreWithheld) {
  query("insert into t values (1)");
  EXPECT_EQ(
      from_server(complete("INSERT 0 1", TransactionStatus::kIdle), Session::Permit::kExpired),
      Loss::kPermit);
  EXPECT_EQ(client, "");
  EXPECT_EQ(lose(Loss::kPermit), "E(08007) Z(I)");
}

TEST_F(SessionTest, WriteRefusedByAFormerPrimaryIsSentAgain) {
  query("insert into t values (1)");
  std::string error;
  pgwire::append_error_response(error, {.sqlstate = "25006", .message = "read-only"});
  pgwire::append_ready_for_query(error, TransactionStatus::kIdle);
  EXPECT_EQ(from_server(error, Session::Permit::kValid, Session::Writable::kNo), Loss::kReadOnly);
  EXPECT_EQ(lose(Loss::kReadOnly), "");
  EXPECT_TRUE(session.wants_retry());
}

TEST_F(SessionTest, ReadOnlyTransactionOfTheClientsOwnIsItsOwnAffair) {
  query("insert into t values (1)");
  std::string error;
  pgwire::append_error_response(error, {.sqlstate = "25006", .message = "read-only"});
  EXPECT_EQ(from_server(error), std::nullopt);
  EXPECT_EQ(summary(client), "E(25006)");
}

TEST_F(SessionTest, RefusedStatementIsAnsweredOnceAndTheSessionGoesOn) {
  session.detach();
  session.refuse("57P03", "no primary", *this);
  query("select 1");
  EXPECT_EQ(summary(client), "E(57P03) Z(I)");
  EXPECT_EQ(query("select 2").next, Next::kNeedServer);
}

TEST_F(SessionTest, RefusedRetryIsAnsweredAtOnce) {
  query("begin");
  lose();
  session.refuse("57P03", "no primary", *this);
  EXPECT_EQ(summary(client), "E(57P03) Z(I)");
  EXPECT_TRUE(session.idle());
}

TEST_F(SessionTest, BrokenFrameIsReported) {
  EXPECT_EQ(from_client(std::string("Q\0\0\0\1", 5)).next, Next::kBroken);
  EXPECT_EQ(from_client(std::string("!\0\0\0\4", 5)).next, Next::kBroken);
}

TEST_F(SessionTest, AnswerToAHalfSentQueryIsAViolation) {
  std::string bytes;
  pgwire::append_query(bytes, "select 'long'");
  from_client(std::string_view(bytes).substr(0, 10));
  EXPECT_EQ(from_server(complete("SELECT 1", TransactionStatus::kIdle)), Loss::kProtocol);
  lose(Loss::kProtocol);
  from_client(std::string_view(bytes).substr(10));
  EXPECT_TRUE(session.idle());
}

TEST_F(SessionTest, EndlessPipelineIsNotTakenUntilSomeOfItIsAnswered) {
  std::string syncs;
  for (int i = 0; i < 20'000; ++i) pgwire::append_sync(syncs);
  const auto intake = from_client(syncs);
  EXPECT_EQ(intake.next, Next::kBusy);
  EXPECT_EQ(intake.consumed, Session::kPipelineMax * 5);
  EXPECT_TRUE(session.pipeline_full());
  std::string ready;
  pgwire::append_ready_for_query(ready, TransactionStatus::kIdle);
  from_server(ready);
  EXPECT_FALSE(session.pipeline_full());
}

TEST_F(SessionTest, SettingsAndStatementsFollowToTheNextServer) {
  run("set work_mem = '9MB'", "SET");
  std::string bytes;
  pgwire::append_parse(bytes, "s1", "select $1::int");
  pgwire::append_sync(bytes);
  from_client(bytes);
  std::string reply;
  pgwire::append_parse_complete(reply);
  pgwire::append_ready_for_query(reply, TransactionStatus::kIdle);
  from_server(reply);
  EXPECT_EQ(lose(), "");
  const SessionMemory::Script script = session.script(state);
  EXPECT_EQ(script.ready_count, 2);
  EXPECT_EQ(summary(script.bytes), "Q P S");
}

TEST_F(SessionTest, NamedCommitIsKnownForWhatItIs) {
  std::string bytes;
  pgwire::append_parse(bytes, "c", "COMMIT");
  pgwire::append_sync(bytes);
  from_client(bytes);
  std::string reply;
  pgwire::append_parse_complete(reply);
  pgwire::append_ready_for_query(reply, TransactionStatus::kIdle);
  from_server(reply);
  run("begin", "BEGIN", TransactionStatus::kInTransaction);
  bytes.clear();
  pgwire::append_bind(bytes, "", "c", {});
  pgwire::append_execute(bytes, "");
  pgwire::append_sync(bytes);
  from_client(bytes);
  EXPECT_EQ(lose(), "E(08007) Z(I)");
}

}  // namespace
}  // namespace bascule::proxy
