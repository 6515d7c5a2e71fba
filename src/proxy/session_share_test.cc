// Sessions that share servers: what a server gets in front of a client's messages, and what the
// client gets of the answers.
#include <gmock/gmock.h>

#include <string>
#include <vector>

#include "proxy/session_testing.h"

namespace bascule::proxy {
namespace {

using pgwire::TransactionStatus;
using testing::ElementsAre;

// The messages with the text that matters: "Q select 1", "P _bascule_1 select 1", "B _bascule_1".
std::vector<std::string> messages(std::string_view bytes) {
  std::vector<std::string> out;
  while (!bytes.empty()) {
    const pgwire::Frame frame = pgwire::peek_frame(bytes, pgwire::kMaxPayload);
    std::string text(1, frame.type);
    if (frame.type == 'Q') {
      text += " " + std::string(*pgwire::parse_query(frame.payload));
    } else if (frame.type == 'P') {
      const auto parse = pgwire::parse_parse(frame.payload);
      text += " " + std::string(parse->statement) + " " + std::string(parse->sql);
    } else if (frame.type == 'B') {
      text += " " + std::string(pgwire::parse_bind(frame.payload)->statement);
    } else if (frame.type == 'C' || frame.type == 'D') {
      text += " " + std::string(pgwire::parse_target(frame.payload)->name);
    }
    out.push_back(std::move(text));
    bytes.remove_prefix(frame.size());
  }
  return out;
}

// What a Describe of a statement is answered with: one column, of this name.
std::string described(char column) {
  std::string out("t\0\0\0\6\0\0T\0\0\0\x1a\0\1", 14);
  out += column;
  return out + std::string("\0\0\0\0\0\0\0\0\0\0\x17\0\4\xff\xff\xff\xff\0\0", 19);
}

class SharedSessionTest : public SessionTest {
 public:
  SharedSessionTest() : SessionTest(PoolMode::kTransaction) {}

  // What the server gets for `bytes`.
  std::vector<std::string> sent(const std::string& bytes) {
    server.clear();
    from_client(bytes);
    return messages(server);
  }
  static std::string prepare(std::string_view name, std::string_view sql) {
    std::string bytes;
    pgwire::append_parse(bytes, name, sql);
    pgwire::append_sync(bytes);
    return bytes;
  }
  static std::string execute(std::string_view name) {
    std::string bytes;
    pgwire::append_bind(bytes, "", name, {});
    pgwire::append_execute(bytes, "");
    pgwire::append_sync(bytes);
    return bytes;
  }
  static std::string query_of(std::string_view sql) {
    std::string bytes;
    pgwire::append_query(bytes, sql);
    return bytes;
  }
  static std::string ready(TransactionStatus status = TransactionStatus::kIdle) {
    std::string bytes;
    pgwire::append_ready_for_query(bytes, status);
    return bytes;
  }
  static std::string parsed() {
    std::string bytes;
    pgwire::append_parse_complete(bytes);
    return bytes;
  }
  static std::string bound_and_done() {
    std::string bytes;
    pgwire::append_bind_complete(bytes);
    pgwire::append_command_complete(bytes, "SELECT 1");
    return bytes;
  }
  static std::string error(std::string_view sqlstate) {
    std::string bytes;
    pgwire::append_error_response(bytes, {.sqlstate = sqlstate, .message = "no"});
    return bytes;
  }
  // What the client gets for `bytes`.
  std::string told(const std::string& bytes) {
    client.clear();
    EXPECT_EQ(from_server(bytes), std::nullopt);
    return summary(client);
  }
  void to_another_server() {
    session.detach();
    other = ServerState{workspace.settings.parameters({}), workspace.settings.none(), {}, {}, 0};
    back = pgwire::FrameScanner(pgwire::kBackendPolicy);
    session.attach(other, *this);
  }
  ServerState other;
};

TEST_F(SharedSessionTest, AStatementHasANameOfTheServersOwn) {
  EXPECT_THAT(sent(prepare("s", "select 1")), ElementsAre("P _bascule_1 select 1", "S"));
  EXPECT_EQ(told(parsed() + ready()), "1 Z(I)");
  EXPECT_THAT(sent(execute("s")), ElementsAre("B _bascule_1", "E", "S"));
  EXPECT_EQ(told(bound_and_done() + ready()), "2 C Z(I)");
}

TEST_F(SharedSessionTest, AServerThatLacksAStatementGetsItFirstAndTheClientDoesNotSeeIt) {
  from_client(prepare("s", "select 1"));
  told(parsed() + ready());
  to_another_server();
  EXPECT_THAT(sent(execute("s")), ElementsAre("P _bascule_1 select 1", "B _bascule_1", "E", "S"));
  EXPECT_EQ(told(parsed() + bound_and_done() + ready()), "2 C Z(I)");
}

TEST_F(SharedSessionTest, WhatTheServerHasIsNotParsedAgainForAnotherClient) {
  from_client(prepare("s", "select 1"));
  told(parsed() + ready());
  session.detach();
  Session second(PortKind::kWriter, PoolMode::kTransaction, kLimits, workspace,
                 workspace.settings.none());
  back = pgwire::FrameScanner(pgwire::kBackendPolicy);
  second.attach(state, *this);
  server.clear();
  second.on_client(prepare("other name", "select 1"), Session::Gate::kOpen, *this);
  EXPECT_THAT(messages(server), ElementsAre("C _bascule_", "S")) << "a Close that does nothing";
  std::string closed;
  pgwire::append_close_complete(closed);
  client.clear();
  second.on_server(closed + ready(), back, Session::Permit::kValid, Session::Writable::kYes, *this);
  EXPECT_EQ(summary(client), "1 Z(I)");
}

TEST_F(SharedSessionTest, SettingsFollowTheClientToItsNextServer) {
  from_client(query_of("set work_mem = '7MB'"));
  told(complete("SET", TransactionStatus::kIdle));
  to_another_server();
  EXPECT_THAT(sent(query_of("select 1")), ElementsAre("Q set work_mem = '7MB';", "Q select 1"));
  EXPECT_EQ(told(complete("SET", TransactionStatus::kIdle) +
                 complete("SELECT 1", TransactionStatus::kIdle)),
            "C Z(I)");
  EXPECT_THAT(sent(query_of("select 2")), ElementsAre("Q select 2")) << "once";
}

TEST_F(SharedSessionTest, AnotherClientsSettingIsTakenBack) {
  state.settings = workspace.settings.settings({make_setting("work_mem", "7MB")});
  EXPECT_THAT(sent(query_of("select 1")), ElementsAre("Q RESET \"work_mem\";", "Q select 1"));
}

TEST_F(SharedSessionTest, AFailedParseLeavesNoName) {
  from_client(prepare("s", "selec 1"));
  EXPECT_EQ(told(error("42601") + ready()), "E(42601) Z(I)");
  EXPECT_THAT(sent(execute("s")), testing::Contains("B s")) << "PostgreSQL says that it is unknown";
}

TEST_F(SharedSessionTest, AnErrorNamesTheStatementThatWasExecutedThoughAnotherHasItsText) {
  from_client(prepare("t", "select $1::int"));
  told(parsed() + ready());
  from_client(prepare("s", "select $1::int"));
  std::string closed, failed;
  pgwire::append_close_complete(closed);
  told(closed + ready());
  EXPECT_THAT(sent(query_of("execute s")), ElementsAre("Q execute _bascule_1"));
  pgwire::append_error_response(failed, {.sqlstate = "42601", .message = "for \"_bascule_1\""});
  client.clear();
  told(failed + ready());
  EXPECT_THAT(client, testing::HasSubstr("for \"s\""));
}

TEST_F(SharedSessionTest, AnotherClientsUnnamedStatementIsNotMetBehindAnError) {
  state.unnamed = 77;
  std::string failing, binding;
  pgwire::append_execute(failing, "nix");
  pgwire::append_bind(binding, "", "", {});
  pgwire::append_sync(binding);
  EXPECT_THAT(sent(failing + binding + binding), ElementsAre("E", "C ", "B ", "S"))
      << "the second waits";
  told(error("34000") + ready());
  EXPECT_THAT(sent(binding), testing::Contains("C "));
}

TEST_F(SharedSessionTest, DeallocateAllOfAnExecutedStatementIsNoticed) {
  from_client(prepare("s", "select 1"));
  told(parsed() + ready());
  from_client(query_of("execute hidden"));  // of `deallocate all`
  told(complete("DEALLOCATE ALL", TransactionStatus::kIdle));
  EXPECT_EQ(session.prepared_count(), 0u);
  EXPECT_EQ(state.statements.size(), 0u);
}

TEST_F(SharedSessionTest, ADeallocateAllThatFailsTakesNothing) {
  from_client(prepare("s", "select 1"));
  told(parsed() + ready());
  from_client(query_of("begin; selec"));
  told(error("42601") + ready(TransactionStatus::kFailed));
  from_client(query_of("deallocate all"));
  EXPECT_EQ(told(error("25P02") + ready(TransactionStatus::kFailed)), "E(25P02) Z(E)");
  EXPECT_THAT(sent(execute("s")), ElementsAre("B _bascule_1", "E", "S"));
}

TEST_F(SharedSessionTest, AParseThatIsSkippedLeavesWhatTheServerHasOfItsText) {
  from_client(query_of("begin"));
  told(complete("BEGIN", TransactionStatus::kInTransaction));
  from_client(prepare("s", "select 1"));
  told(parsed() + ready(TransactionStatus::kInTransaction));
  std::string failing;
  pgwire::append_bind(failing, "", "unknown", {});
  from_client(failing + prepare("t", "select 1"));
  told(error("26000") + ready(TransactionStatus::kFailed));
  EXPECT_THAT(sent(execute("s")), testing::Contains("B _bascule_1"));
}

TEST_F(SharedSessionTest, AfterADiscardAllEverythingIsPreparedAnew) {
  from_client(prepare("s", "select 1"));
  told(parsed() + ready());
  from_client(query_of("discard all"));
  told(complete("DISCARD ALL", TransactionStatus::kIdle));
  EXPECT_THAT(sent(prepare("s", "select 1")), ElementsAre("P _bascule_2 select 1", "S"));
}

TEST_F(SharedSessionTest, TheUnnamedStatementFollowsAcrossSyncs) {
  from_client(prepare("", "select 1"));
  told(parsed() + ready());
  to_another_server();
  EXPECT_THAT(sent(execute("")), ElementsAre("P  select 1", "B ", "E", "S"));
  EXPECT_EQ(told(parsed() + bound_and_done() + ready()), "2 C Z(I)");
}

// The Parse that would have replaced it was skipped: the next batch means the old statement, which
// this server does not have.
TEST_F(SharedSessionTest, AnUnnamedStatementWhoseReplacementWasSkippedIsThereAgain) {
  from_client(prepare("", "select 'old'"));
  told(parsed() + ready());
  to_another_server();
  std::string failing;
  pgwire::append_bind(failing, "", "unknown", {});
  const std::string pipeline = failing + prepare("", "select 'new'") + execute("");
  const auto taken = from_client(pipeline);
  EXPECT_EQ(taken.next, Session::Next::kBusy) << "what the name means is not known yet";
  EXPECT_EQ(told(error("26000") + ready()), "E(26000) Z(I)");
  EXPECT_THAT(sent(pipeline.substr(taken.consumed)),
              ElementsAre("P  select 'old'", "B ", "E", "S"));
}

// The error is known before the Parse that would have replaced it arrives.
TEST_F(SharedSessionTest, AnUnnamedStatementStaysWhenItsReplacementComesBehindAnError) {
  from_client(prepare("", "select 'old'"));
  told(parsed() + ready());
  std::string failing;
  pgwire::append_bind(failing, "", "unknown", {});
  from_client(failing);
  told(error("26000"));
  from_client(prepare("", "select 'new'"));
  told(ready());
  to_another_server();
  EXPECT_THAT(sent(execute("")), ElementsAre("P  select 'old'", "B ", "E", "S"));
}

TEST_F(SharedSessionTest, AnUnnamedStatementStaysWhenAnErrorComesAmidItsReplacement) {
  from_client(prepare("", "select 'old'"));
  told(parsed() + ready());
  std::string failing;
  pgwire::append_bind(failing, "", "unknown", {});
  const std::string parse = prepare("", "select '" + std::string(40'000, 'x') + "'");
  from_client(failing + parse.substr(0, 20'000));
  told(error("26000"));
  from_client(parse.substr(20'000));
  told(ready());
  to_another_server();
  EXPECT_THAT(sent(execute("")), ElementsAre("P  select 'old'", "B ", "E", "S"));
}

TEST_F(SharedSessionTest, BehindACopyThatIsAnsweredAStatementHasTheServersName) {
  from_client(prepare("s", "select 1"));
  told(parsed() + ready());
  from_client(query_of("copy t to stdout"));
  told(std::string("H\0\0\0\7\0\0\0", 8));
  EXPECT_THAT(sent(execute("s")), ElementsAre("B _bascule_1", "E", "S"));
}

TEST_F(SharedSessionTest, BehindTheEndOfCopyDataAStatementHasTheServersName) {
  from_client(prepare("s", "select 1"));
  told(parsed() + ready());
  from_client(query_of("copy t from stdin"));
  told(std::string("G\0\0\0\7\0\0\0", 8));
  const std::string done("c\0\0\0\4", 5);
  EXPECT_THAT(sent(done + execute("s")), ElementsAre("c", "B _bascule_1", "E", "S"));
}

TEST_F(SharedSessionTest, BehindABlindCopyAnswersAreThoseToTheClientsOwnMessages) {
  from_client(prepare("s", "select 1"));
  told(parsed() + ready());
  const std::string done("c\0\0\0\4", 5);
  from_client(query_of("copy t from stdin") + done + prepare("u", "select 1"));
  std::string closed;
  pgwire::append_close_complete(closed);
  EXPECT_EQ(told(std::string("G\0\0\0\7\0\0\0", 8) + complete("COPY 0", TransactionStatus::kIdle) +
                 closed + ready()),
            "G C Z(I) 1 Z(I)");
}

// A RowDescription may come in pieces: a client that was told the columns is still not given
// others.
TEST_F(SharedSessionTest, ColumnsThatCameInPiecesAreVerifiedOnAnotherServer) {
  from_client(prepare("s", "select 1"));
  told(parsed() + ready());
  std::string describe;
  pgwire::append_describe(describe, pgwire::Target::kStatement, "s");
  pgwire::append_sync(describe);
  from_client(describe);
  const std::string answer = described('a') + ready();
  std::string unread;
  client.clear();
  for (const char c : answer) {
    unread += c;
    unread.erase(
        0, session.on_server(unread, back, Session::Permit::kValid, Session::Writable::kYes, *this)
               .consumed);
  }
  EXPECT_EQ(summary(client), "t T Z(I)");
  to_another_server();
  EXPECT_THAT(sent(execute("s")), ElementsAre("P _bascule_1 select 1", "D _bascule_1", "H"));
}

TEST_F(SharedSessionTest, TheUnnamedStatementsColumnsAreComparedAfterDdl) {
  std::string parse;
  pgwire::append_parse(parse, "", "select * from t");
  pgwire::append_describe(parse, pgwire::Target::kStatement, "");
  pgwire::append_sync(parse);
  from_client(parse);
  EXPECT_EQ(told(parsed() + described('a') + ready()), "1 t T Z(I)");
  to_another_server();
  EXPECT_THAT(sent(execute("")), ElementsAre("P  select * from t", "B ", "E", "S"))
      << "nothing has changed: no round trip";
  told(parsed() + bound_and_done() + ready());
  ++*workspace.plans;
  to_another_server();
  server.clear();
  const auto taken = from_client(execute(""));
  EXPECT_EQ(taken.next, Session::Next::kBusy);
  EXPECT_THAT(messages(server), ElementsAre("P  select * from t", "D ", "H"));
  EXPECT_EQ(told(parsed() + described('b')), "");
  EXPECT_THAT(sent(execute("")), ElementsAre("P _bascule_ ?", "E", "S"));
  EXPECT_EQ(told(error("42601") + ready()), "E(0A000) Z(I)");
}

TEST_F(SharedSessionTest, APipelineOfUnnamedStatementsDoesNotWait) {
  std::string pipeline;
  for (int i = 0; i < 3; ++i) {
    pgwire::append_parse(pipeline, "", "select " + std::to_string(i));
    pipeline += execute("");
  }
  EXPECT_EQ(from_client(pipeline).consumed, pipeline.size());
}

}  // namespace
}  // namespace bascule::proxy
