#include "proxy/session_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "pgwire/messages.h"

namespace bascule::proxy {
namespace {

using Block = SessionMemory::Block;
using testing::HasSubstr;
using testing::Not;

class SessionMemoryTest : public testing::Test {
 protected:
  void run(std::string_view sql, std::string_view tag) {
    const auto changes = parse_state_changes(sql);
    ASSERT_TRUE(changes);
    memory.stage(++sent, *changes);
    memory.on_tag(tag);
    memory.skipped(++answered + 1);
    memory.on_ready(Block::kNone, true);
  }
  void prepare(std::string_view name, std::string_view sql) {
    std::string message;
    pgwire::append_parse(message, name, sql);
    memory.parse_sent(++sent, name, {message, {}, {}, nullptr});
  }
  SettingsTable table;
  SessionMemory memory{{3, 1000, 3}, table.none()};
  uint64_t sent = 0, answered = 0;
};

TEST_F(SessionMemoryTest, SettingsAreReplayedInOrderAndOnlyTheLastOfAName) {
  run("SET search_path TO a", "SET");
  run("set Statement_Timeout = 5", "SET");
  run("SET SESSION search_path = b, c", "SET");
  const auto script = memory.script();
  EXPECT_EQ(script.ready_count, 1);
  EXPECT_THAT(script.bytes, HasSubstr("set Statement_Timeout = 5;SET SESSION search_path = b, c;"));
  EXPECT_THAT(script.bytes, Not(HasSubstr("TO a")));
}

TEST_F(SessionMemoryTest, ResetForgetsASetting) {
  run("SET a = 1", "SET");
  run("SET b = 2", "SET");
  run("RESET a", "RESET");
  EXPECT_THAT(memory.script().bytes, Not(HasSubstr("a = 1")));
  run("RESET ALL", "RESET");
  EXPECT_TRUE(memory.empty());
}

TEST_F(SessionMemoryTest, SettingOfARolledBackTransactionDoesNotCount) {
  memory.on_ready(Block::kOpen, true);
  memory.stage(++sent, *parse_state_changes("SET a = 1"));
  memory.on_tag("SET");
  memory.on_ready(Block::kOpen, true);
  memory.on_tag("ROLLBACK");
  memory.on_ready(Block::kNone, true);
  EXPECT_TRUE(memory.empty());
  EXPECT_EQ(memory.pin(), Pin::kNone);
}

TEST_F(SessionMemoryTest, SettingOfACommittedTransactionCounts) {
  memory.stage(++sent, *parse_state_changes("SET a = 1"));
  memory.on_tag("SET");
  memory.on_ready(Block::kOpen, true);
  memory.on_tag("COMMIT");
  memory.on_ready(Block::kNone, true);
  EXPECT_THAT(memory.script().bytes, HasSubstr("SET a = 1"));
}

TEST_F(SessionMemoryTest, SavepointRollbackAfterASettingCanNotBeFollowed) {
  memory.stage(++sent, *parse_state_changes("SET a = 1"));
  memory.on_tag("SET");
  memory.on_ready(Block::kOpen, true);
  memory.on_tag("ROLLBACK");
  memory.on_ready(Block::kOpen, true);
  EXPECT_EQ(memory.pin(), Pin::kSettings);
}

TEST_F(SessionMemoryTest, FailedSetDoesNotCount) {
  memory.stage(++sent, *parse_state_changes("SET a = 1"));
  memory.on_error(Block::kNone);
  memory.on_ready(Block::kNone, true);
  EXPECT_TRUE(memory.empty());
}

TEST_F(SessionMemoryTest, SetThatNobodySawPins) {
  memory.on_tag("SET");
  EXPECT_EQ(memory.pin(), Pin::kSettings);
  memory.on_tag("DISCARD ALL");
  EXPECT_EQ(memory.pin(), Pin::kNone);
}

TEST_F(SessionMemoryTest, SetLocalIsConfirmedButNotRemembered) {
  run("SET LOCAL a = 1", "SET");
  run("SET TRANSACTION READ ONLY", "SET");
  EXPECT_TRUE(memory.empty());
  EXPECT_EQ(memory.pin(), Pin::kNone);
}

TEST_F(SessionMemoryTest, PreparedStatementCountsWhenConfirmed) {
  prepare("s1", "select 1");
  EXPECT_NE(memory.find("s1"), nullptr);
  EXPECT_TRUE(memory.empty());
  memory.answered(++answered);
  EXPECT_FALSE(memory.empty());
  EXPECT_THAT(memory.script().bytes, HasSubstr("select 1"));
  memory.close_sent(++sent, "s1");
  EXPECT_EQ(memory.find("s1"), nullptr);
  memory.answered(++answered);
  EXPECT_TRUE(memory.empty());
}

TEST_F(SessionMemoryTest, FailedParseIsForgottenAndTheNextOneIsNotMistakenForIt) {
  prepare("bad", "selec");
  memory.on_error(Block::kNone);
  memory.skipped(++answered + 1);
  memory.on_ready(Block::kNone, true);
  prepare("good", "select 2");
  memory.answered(++answered);
  EXPECT_EQ(memory.find("bad"), nullptr);
  EXPECT_NE(memory.find("good"), nullptr);
}

TEST_F(SessionMemoryTest, TooManyPreparedStatementsPin) {
  for (const char* name : {"a", "b", "c"}) {
    prepare(name, "select 1");
    memory.answered(++answered);
  }
  EXPECT_EQ(memory.pin(), Pin::kNone);
  prepare("d", "select 1");
  memory.answered(++answered);
  EXPECT_EQ(memory.pin(), Pin::kPrepared);
}

TEST_F(SessionMemoryTest, PipelinedStatementsBeyondTheLimitAreNotKeptButPin) {
  for (const char* name : {"a", "b"}) prepare(name, std::string(600, 'x'));
  memory.answered(++answered);
  EXPECT_EQ(memory.pin(), Pin::kNone);
  memory.answered(++answered);
  EXPECT_EQ(memory.pin(), Pin::kPrepared);
}

TEST_F(SessionMemoryTest, DeallocateForgetsOneStatement) {
  prepare("_pg3_0", "select 1");
  memory.answered(++answered);
  run("DEALLOCATE _PG3_0;", "DEALLOCATE");
  EXPECT_TRUE(memory.empty());
}

TEST(ParseStateChanges, GivesUpOnWhatItCanNotSplit) {
  EXPECT_FALSE(parse_state_changes("SET a = $$;$$"));
  EXPECT_FALSE(parse_state_changes("SET a = ';'; SET b = 1"));
  EXPECT_FALSE(parse_state_changes("SET a = 1 -- x"));
  EXPECT_EQ(parse_state_changes("SET a = 'x y';")->size(), 1u);
  EXPECT_EQ(parse_state_changes("CLOSE ALL; UNLISTEN *; RESET ALL;")->size(), 1u);
  EXPECT_EQ(parse_state_changes("set time zone 'UTC'")->front().name, "timezone");
}

}  // namespace
}  // namespace bascule::proxy
