#include "proxy/console_protocol.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "pgwire/frames.h"
#include "pgwire/messages.h"

namespace bascule::proxy {
namespace {

using State = ConsoleProtocol::State;

// Types of the messages in `reply`, and takes them off.
std::string take_types(std::string& reply) {
  std::string types;
  for (std::string_view rest = reply; !rest.empty();) {
    const pgwire::Frame frame = pgwire::peek_frame(rest, 1 << 20);
    EXPECT_EQ(frame.state, pgwire::FrameState::kComplete);
    if (frame.state != pgwire::FrameState::kComplete) break;
    types += frame.type;
    rest.remove_prefix(frame.size());
  }
  reply.clear();
  return types;
}

class ConsoleProtocolTest : public testing::Test {
 protected:
  void give(const std::string& bytes) { EXPECT_EQ(protocol.on_bytes(bytes, reply), bytes.size()); }
  void answer(size_t rows = 1) {
    ASSERT_EQ(protocol.state(), State::kRunning);
    ConsoleAnswer a;
    a.tag = "SHOW";
    a.table = ConsoleTable{columns_of(protocol.command().show),
                           std::vector(rows, ConsoleTable::Row{"x"})};
    protocol.finish(a, reply);
  }
  void refuse() {
    ConsoleAnswer a;
    a.error = {"55000", "no"};
    protocol.finish(a, reply);
  }
  static std::string query(std::string_view sql) {
    std::string out;
    pgwire::append_query(out, sql);
    return out;
  }
  static std::string extended(std::string_view sql, std::string_view statement = "") {
    std::string out;
    pgwire::append_parse(out, statement, sql);
    pgwire::append_bind(out, "", statement, {});
    pgwire::append_describe(out, pgwire::Target::kPortal, "");
    pgwire::append_execute(out, "");
    return out;
  }
  static std::string sync() {
    std::string out;
    pgwire::append_sync(out);
    return out;
  }

  ConsoleProtocol protocol;
  std::string reply;
};

TEST_F(ConsoleProtocolTest, SimpleQueryIsAnsweredWithColumnsAndRows) {
  give(query("show version"));
  answer(2);
  EXPECT_EQ(take_types(reply), "TDDCZ");
  EXPECT_EQ(protocol.state(), State::kReady);
}

TEST_F(ConsoleProtocolTest, BytesWaitWhileACommandRuns) {
  const std::string two = query("pause") + query("show state");
  const size_t first = protocol.on_bytes(two, reply);
  EXPECT_EQ(first, query("pause").size());
  EXPECT_EQ(protocol.command().verb, ConsoleVerb::kPause);
  EXPECT_EQ(protocol.on_bytes(two.substr(first), reply), 0u);
  refuse();
  EXPECT_EQ(take_types(reply), "EZ");
  give(two.substr(first));
  EXPECT_EQ(protocol.command().show, ConsoleShow::kState);
}

TEST_F(ConsoleProtocolTest, MessagesMayComeByteByByte) {
  const std::string bytes = query("show lists");
  std::string unread;
  for (const char c : bytes) {
    unread += c;
    unread.erase(0, protocol.on_bytes(unread, reply));
  }
  EXPECT_EQ(protocol.state(), State::kRunning);
  EXPECT_TRUE(unread.empty());
}

TEST_F(ConsoleProtocolTest, ExtendedProtocolDescribesTheSameColumns) {
  give(extended("show version"));
  EXPECT_EQ(take_types(reply), "12T");
  answer();
  EXPECT_EQ(take_types(reply), "DC");
  give(sync());
  EXPECT_EQ(take_types(reply), "Z");
}

TEST_F(ConsoleProtocolTest, PreparedStatementsLiveAcrossSyncs) {
  std::string parse;
  pgwire::append_parse(parse, "s", "show version");
  pgwire::append_describe(parse, pgwire::Target::kStatement, "s");
  give(parse + sync());
  EXPECT_EQ(take_types(reply), "1tTZ");
  std::string run;
  pgwire::append_bind(run, "", "s", {});
  pgwire::append_execute(run, "");
  give(run);
  answer();
  EXPECT_EQ(take_types(reply), "2DC");
}

TEST_F(ConsoleProtocolTest, AfterAnErrorEverythingIsSkippedUpToSync) {
  std::string bad;
  pgwire::append_parse(bad, "", "select 1 + 1");
  pgwire::append_bind(bad, "", "", {});
  pgwire::append_execute(bad, "");
  give(bad + sync());
  EXPECT_EQ(take_types(reply), "EZ");
  give(extended("reload"));
  EXPECT_EQ(take_types(reply), "12n");
  refuse();
  std::string more;
  pgwire::append_execute(more, "");
  give(more + sync());
  EXPECT_EQ(take_types(reply), "EZ");
}

TEST_F(ConsoleProtocolTest, ParametersAndBinaryResultsAreRefused) {
  std::string bind;
  pgwire::append_parse(bind, "", "show version");
  const std::optional<std::string_view> one[] = {"1"};
  pgwire::append_bind(bind, "", "", one);
  give(bind + sync());
  EXPECT_EQ(take_types(reply), "1EZ");
  std::string binary;
  pgwire::append_parse(binary, "", "show version");
  binary += std::string("B\0\0\0\x0e\0\0\0\0\0\0\0\1\0\1", 15);
  give(binary + sync());
  EXPECT_EQ(take_types(reply), "1EZ");
}

TEST_F(ConsoleProtocolTest, WhatIsNotThereIsAnError) {
  std::string bytes;
  pgwire::append_bind(bytes, "", "missing", {});
  give(bytes + sync());
  EXPECT_EQ(take_types(reply), "EZ");
  bytes.clear();
  pgwire::append_describe(bytes, pgwire::Target::kPortal, "missing");
  give(bytes + sync());
  EXPECT_EQ(take_types(reply), "EZ");
}

TEST_F(ConsoleProtocolTest, StatementsAreBounded) {
  std::string bytes;
  for (size_t i = 0; i <= ConsoleProtocol::kStatementsMax; ++i) {
    pgwire::append_parse(bytes, "s" + std::to_string(i), "show version");
  }
  give(bytes);
  EXPECT_EQ(take_types(reply), std::string(ConsoleProtocol::kStatementsMax, '1') + "E");
}

TEST_F(ConsoleProtocolTest, GarbageAndGiantsEndIt) {
  for (const std::string& bytes : {std::string("Q\x7f\xff\xff\xff", 5), std::string("Q\0\0\0\1", 5),
                                   std::string("z\0\0\0\4", 5), std::string("B\0\0\0\6\0\0", 7),
                                   std::string("Q\0\0\0\5x", 6)}) {
    ConsoleProtocol p;
    std::string out;
    p.on_bytes(bytes, out);
    EXPECT_EQ(p.state(), State::kEnded);
    EXPECT_EQ(take_types(out), "E");
  }
}

TEST_F(ConsoleProtocolTest, EmptyTextIsAnEmptyQuery) {
  give(query(";"));
  EXPECT_EQ(take_types(reply), "IZ");
}

TEST_F(ConsoleProtocolTest, TerminateEndsIt) {
  std::string bytes;
  pgwire::append_terminate(bytes);
  give(bytes);
  EXPECT_EQ(protocol.state(), State::kEnded);
  EXPECT_TRUE(reply.empty());
}

TEST_F(ConsoleProtocolTest, EveryTableFitsItsColumns) {
  ConsoleSnapshot snapshot;
  snapshot.pools[{"shop", "app"}].pinned["it listens"] = 2;
  snapshot.traffic["shop"].now.queries = 3;
  snapshot.sockets.resize(1);
  const ProxyConfig config;
  Controls controls;
  controls.paused.insert("shop");
  const ConsoleView view{snapshot, config, config, controls, nullptr, {"app"}};
  for (int i = 0; i <= static_cast<int>(ConsoleShow::kVersion); ++i) {
    const ConsoleTable table = table_of(static_cast<ConsoleShow>(i), view);
    for (const auto& row : table.rows) EXPECT_EQ(row.size(), table.columns.size()) << i;
  }
}

}  // namespace
}  // namespace bascule::proxy
