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
    send(sql);
    tags({tag});
  }
  // One message with all of it.
  void send(std::string_view sql) {
    const auto changes = parse_state_changes(sql);
    ASSERT_TRUE(changes);
    ++sent;
    for (const StateChange& c : *changes) {
      if (c.kind == StateChange::Kind::kDeallocate) {
        memory.deallocate_sent(sent, c.statement, c.name);
      } else {
        memory.stage(sent, c);
      }
    }
  }
  void tags(std::initializer_list<std::string_view> all, Block after = Block::kNone) {
    for (const std::string_view tag : all) memory.on_tag(sent, tag);
    memory.skipped((answered = sent) + 1);
    memory.on_ready(after);
  }
  void run_all(std::string_view sql, std::initializer_list<std::string_view> all,
               Block after = Block::kNone) {
    send(sql);
    tags(all, after);
  }
  std::string settings() const {
    std::string list;
    const SettingsRef wanted = memory.wanted(table);
    for (const Setting& s : wanted->list) list += s.name + ";";
    return list;
  }
  void prepare(std::string_view name, std::string_view sql) {
    std::string message;
    pgwire::append_parse(message, name, sql);
    memory.parse_sent(++sent, name, {message, {}, {}, nullptr});
  }
  mutable SettingsTable table;
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
  run_all("SET a = 1", {"SET"}, Block::kOpen);
  run_all("", {"ROLLBACK"});  // of a text that nobody looked into
  EXPECT_TRUE(memory.empty());
  EXPECT_EQ(memory.pin(), Pin::kNone);
}

TEST_F(SessionMemoryTest, SettingOfACommittedTransactionCounts) {
  run_all("SET a = 1", {"SET"}, Block::kOpen);
  run_all("", {"COMMIT"});
  EXPECT_THAT(memory.script().bytes, HasSubstr("SET a = 1"));
}

TEST_F(SessionMemoryTest, TransactionsWithinOneTextAreFollowed) {
  run_all("begin; set a = 1; rollback; set b = 2", {"BEGIN", "SET", "ROLLBACK", "SET"});
  EXPECT_EQ(settings(), "b;");
  run_all("begin; set c = 1; commit; select 1", {"BEGIN", "SET", "COMMIT", "SELECT 1"});
  EXPECT_EQ(settings(), "b;c;");
  run_all("set d = 1; begin; rollback", {"SET", "BEGIN", "ROLLBACK"});  // one transaction
  EXPECT_EQ(settings(), "b;c;");
  EXPECT_EQ(memory.pin(), Pin::kNone);
}

TEST_F(SessionMemoryTest, ErrorTakesBackOnlyTheTransactionThatItMet) {
  send("begin; set a = 1; commit; set b = 2; select 1/0");
  for (const char* tag : {"BEGIN", "SET", "COMMIT", "SET"}) memory.on_tag(sent, tag);
  memory.on_error(sent);
  memory.skipped((answered = sent) + 1);
  memory.on_ready(Block::kNone);
  EXPECT_EQ(settings(), "a;");
}

TEST_F(SessionMemoryTest, ErrorAfterASavepointLeavesWhatWasSetBeforeIt) {
  send("begin; set a = 1; savepoint s; set b = 2; select 1/0");
  for (const char* tag : {"BEGIN", "SET", "SAVEPOINT", "SET"}) memory.on_tag(sent, tag);
  memory.on_error(sent);
  memory.skipped((answered = sent) + 1);
  memory.on_ready(Block::kOpen);
  run_all("rollback to s", {"ROLLBACK"}, Block::kOpen);
  run_all("commit", {"COMMIT"});
  EXPECT_EQ(settings(), "a;");
  EXPECT_EQ(memory.pin(), Pin::kNone);
}

TEST_F(SessionMemoryTest, SavepointsDecideWhichSettingsStay) {
  run_all("begin; set a = 1; savepoint s", {"BEGIN", "SET", "SAVEPOINT"}, Block::kOpen);
  run_all("set b = 1; savepoint t; set c = 1; release t", {"SET", "SAVEPOINT", "SET", "RELEASE"},
          Block::kOpen);
  run_all("rollback to savepoint s; set c = 2", {"ROLLBACK", "SET"}, Block::kOpen);
  run_all("end", {"COMMIT"});
  EXPECT_EQ(settings(), "a;c;");
}

TEST_F(SessionMemoryTest, UnknownSavepointIsOlderThanEverySetting) {
  run_all("SET a = 1", {"SET"}, Block::kOpen);
  run_all("rollback to old", {"ROLLBACK"}, Block::kOpen);
  run_all("commit", {"COMMIT"});
  EXPECT_TRUE(memory.empty());
}

TEST_F(SessionMemoryTest, SavepointRollbackThatNobodyLookedIntoPins) {
  run_all("SET a = 1", {"SET"}, Block::kOpen);
  run_all("", {"ROLLBACK"}, Block::kOpen);
  EXPECT_EQ(memory.pin(), Pin::kSettings);
}

TEST_F(SessionMemoryTest, FailedSetDoesNotCount) {
  send("SET a = 1");
  memory.on_error(sent);
  memory.on_ready(Block::kNone);
  EXPECT_TRUE(memory.empty());
}

TEST_F(SessionMemoryTest, SetThatNobodySawPins) {
  memory.on_tag(++sent, "SET");
  EXPECT_EQ(memory.pin(), Pin::kSettings);
  memory.on_tag(++sent, "DISCARD ALL");
  EXPECT_EQ(memory.pin(), Pin::kNone);
}

TEST_F(SessionMemoryTest, WhatPinsIsUndoneByItsName) {
  run("create temp table t (a int)", "CREATE TABLE");
  EXPECT_EQ(memory.pin(), Pin::kTemporary);
  run("drop table if exists other", "DROP TABLE");
  EXPECT_EQ(memory.pin(), Pin::kTemporary);
  run("drop table T", "DROP TABLE");
  EXPECT_EQ(memory.pin(), Pin::kNone);
  run_all("listen a; listen b; unlisten a", {"LISTEN", "LISTEN", "UNLISTEN"});
  EXPECT_EQ(memory.pin(), Pin::kListen);
  run("unlisten *", "UNLISTEN");
  EXPECT_EQ(memory.pin(), Pin::kNone);
  run("select pg_advisory_lock(1, 2)", "SELECT 1");
  run("select pg_advisory_lock(1, 2)", "SELECT 1");
  run("select pg_advisory_unlock(1, 2)", "SELECT 1");
  EXPECT_EQ(memory.pin(), Pin::kAdvisoryLock);
  run("select pg_advisory_unlock(1, 2)", "SELECT 1");
  EXPECT_EQ(memory.pin(), Pin::kNone);
}

TEST_F(SessionMemoryTest, PinOfARolledBackTransactionDoesNotCountUnlessItIsALock) {
  run_all("begin; create temp table t (a int); rollback", {"BEGIN", "CREATE TABLE", "ROLLBACK"});
  EXPECT_EQ(memory.pin(), Pin::kNone);
  run_all("begin; select pg_advisory_lock(1); rollback", {"BEGIN", "SELECT 1", "ROLLBACK"});
  EXPECT_EQ(memory.pin(), Pin::kAdvisoryLock);
}

TEST_F(SessionMemoryTest, LockOfAStatementThatFailsMayBeHeld) {
  send("select 1; select pg_advisory_lock(1), 1/0");
  memory.on_tag(sent, "SELECT 1");
  memory.on_error(sent);
  memory.on_ready(Block::kNone);
  EXPECT_EQ(memory.pin(), Pin::kAdvisoryLock);
}

TEST_F(SessionMemoryTest, DropDoesNotUnpinWhereAnotherTableMayBeMeant) {
  run("set search_path = public, pg_temp", "SET");
  run("create temp table t (a int)", "CREATE TABLE");
  run("drop table t", "DROP TABLE");
  EXPECT_EQ(memory.pin(), Pin::kTemporary);
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
  memory.on_error(sent);
  memory.skipped(++answered + 1);
  memory.on_ready(Block::kNone);
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

TEST_F(SessionMemoryTest, PrepareOfATextCountsWhenItsTagHasCome) {
  const auto prepare_sql = [&](uint16_t number, std::string_view name) {
    std::string query;
    pgwire::append_query(query, "PREPARE");
    memory.prepare_sent(sent, number, name, {query, {}, {}, nullptr});
  };
  ++sent;
  memory.deallocate_sent(sent, 0, "a");
  prepare_sql(1, "a");
  prepare_sql(2, "b");
  EXPECT_NE(memory.find("b"), nullptr);
  memory.on_tag(sent, "DEALLOCATE");
  memory.on_tag(sent, "PREPARE");
  memory.on_error(sent);
  memory.skipped(sent + 1);
  memory.on_ready(Block::kNone);
  EXPECT_NE(memory.find("a"), nullptr);  // no rollback undoes it
  EXPECT_EQ(memory.find("b"), nullptr);
}

}  // namespace
}  // namespace bascule::proxy
