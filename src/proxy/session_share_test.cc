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

TEST_F(SharedSessionTest, DeallocateAllOfAnExecutedStatementIsNoticed) {
  from_client(prepare("s", "select 1"));
  told(parsed() + ready());
  from_client(query_of("execute hidden"));  // of `deallocate all`
  told(complete("DEALLOCATE ALL", TransactionStatus::kIdle));
  EXPECT_EQ(session.prepared_count(), 0u);
  EXPECT_EQ(state.statements.size(), 0u);
}

TEST_F(SharedSessionTest, TheUnnamedStatementFollowsAcrossSyncs) {
  from_client(prepare("", "select 1"));
  told(parsed() + ready());
  to_another_server();
  EXPECT_THAT(sent(execute("")), ElementsAre("P  select 1", "B ", "E", "S"));
  EXPECT_EQ(told(parsed() + bound_and_done() + ready()), "2 C Z(I)");
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
