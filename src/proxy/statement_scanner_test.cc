#include "proxy/statement_scanner.h"

#include <gtest/gtest.h>

namespace bascule::proxy {
namespace {

Effects scan(std::string_view sql) {
  StatementScanner scanner;
  scanner.begin();
  scanner.feed(sql);
  const Effects whole = scanner.finish();
  // The verdict must not depend on how the text is cut.
  scanner.begin();
  for (const char c : sql) scanner.feed({&c, 1});
  const Effects bytes = scanner.finish();
  EXPECT_EQ(whole.pin, bytes.pin) << sql;
  EXPECT_EQ(whole.transaction, bytes.transaction) << sql;
  EXPECT_EQ(whole.statements, bytes.statements) << sql;
  EXPECT_EQ(whole.may_write, bytes.may_write) << sql;
  return whole;
}

TEST(StatementScanner, SeesWhatPinsASession) {
  EXPECT_EQ(scan("CREATE TEMP TABLE t (a int)").pin, Pin::kTemporary);
  EXPECT_EQ(scan("create or replace local temporary view v as select 1").pin, Pin::kTemporary);
  EXPECT_EQ(scan("SELECT 1 INTO TEMP t").pin, Pin::kTemporary);
  EXPECT_EQ(scan("SELECT 1 INTO LOCAL TEMPORARY t").pin, Pin::kTemporary);
  EXPECT_EQ(scan("LISTEN jobs").pin, Pin::kListen);
  EXPECT_EQ(scan("PREPARE a AS SELECT 1").pin, Pin::kPrepare);
  EXPECT_EQ(scan("DECLARE c CURSOR WITH HOLD FOR SELECT 1").pin, Pin::kHoldCursor);
  EXPECT_EQ(scan("select Pg_Advisory_Lock(1)").pin, Pin::kAdvisoryLock);
  EXPECT_EQ(scan("SELECT pg_catalog.pg_try_advisory_lock(1)").pin, Pin::kAdvisoryLock);
  EXPECT_EQ(scan("select set_config('a.b','c',false)").pin, Pin::kSetConfig);
  EXPECT_EQ(scan("load 'auto_explain'").pin, Pin::kLoad);
  EXPECT_EQ(scan("select 1; /* x */ listen a").pin, Pin::kListen);
}

TEST(StatementScanner, DoesNotPinForWordsInQuotesCommentsAndNames) {
  EXPECT_EQ(scan("INSERT INTO sensor (temp, temporary) VALUES (1, 'listen')").pin, Pin::kNone);
  EXPECT_EQ(scan("CREATE TABLE temp (a int)").pin, Pin::kNone);
  EXPECT_EQ(scan("select 'it''s pg_advisory_lock(1)'").pin, Pin::kNone);
  EXPECT_EQ(scan("select e'\\' pg_advisory_lock '").pin, Pin::kNone);
  EXPECT_EQ(scan("select 1 -- ; listen a").pin, Pin::kNone);
  EXPECT_EQ(scan("select /* ; listen a /* nested */ ; listen b */ 1").pin, Pin::kNone);
  EXPECT_EQ(scan("select \"pg_advisory_locks\" from t").pin, Pin::kNone);
  EXPECT_EQ(scan("select pg_advisory_xact_lock(1)").pin, Pin::kNone);
  EXPECT_EQ(scan("DECLARE c CURSOR FOR SELECT 1").pin, Pin::kNone);
  EXPECT_EQ(scan("PREPARE TRANSACTION 'a'").pin, Pin::kNone);
}

TEST(StatementScanner, FollowsTheTransaction) {
  EXPECT_EQ(scan("begin").transaction, TransactionEffect::kOpens);
  EXPECT_EQ(scan("START TRANSACTION READ ONLY").transaction, TransactionEffect::kOpens);
  EXPECT_EQ(scan("COMMIT;").transaction, TransactionEffect::kCloses);
  EXPECT_EQ(scan("begin; insert into t values (1); commit").transaction,
            TransactionEffect::kCloses);
  EXPECT_EQ(scan("commit; begin").transaction, TransactionEffect::kOpens);
  EXPECT_EQ(scan("ROLLBACK TO SAVEPOINT a").transaction, TransactionEffect::kNone);
  EXPECT_EQ(scan("COMMIT AND CHAIN").transaction, TransactionEffect::kOpens);
  EXPECT_EQ(scan("COMMIT AND NO CHAIN").transaction, TransactionEffect::kCloses);
  EXPECT_EQ(scan("COMMIT PREPARED 'x'").transaction, TransactionEffect::kNone);
  EXPECT_TRUE(scan("COMMIT PREPARED 'x'").may_write);
}

TEST(StatementScanner, BodyOfAFunctionIsNotTheSessionsText) {
  const Effects e = scan(
      "CREATE FUNCTION f() RETURNS int AS $a$ BEGIN; COMMIT; $b$ $$ $a END; $a$ "
      "LANGUAGE plpgsql; select $1, $2");
  EXPECT_EQ(e.transaction, TransactionEffect::kNone);
  EXPECT_EQ(e.statements, 2);
}

TEST(StatementScanner, TellsReadsFromWrites) {
  EXPECT_FALSE(scan("select 1").may_write);
  EXPECT_FALSE(scan("/* c */ (select 1)").may_write);
  EXPECT_FALSE(scan("with a as (select 1) select * from a").may_write);
  EXPECT_TRUE(scan("with a as (insert into t values (1) returning 1) select * from a").may_write);
  EXPECT_TRUE(scan("select 1 into t").may_write);
  EXPECT_TRUE(scan("explain analyze insert into t values (1)").may_write);
  EXPECT_TRUE(scan("call p()").may_write);
  EXPECT_TRUE(scan("call p()").not_atomic);
  EXPECT_TRUE(scan("vacuum").not_atomic);
  EXPECT_FALSE(scan("insert into t values (1)").not_atomic);
  EXPECT_TRUE(scan("frobnicate").may_write);
}

TEST(StatementScanner, OnlyHarmlessStatementsHaveNoEffect) {
  EXPECT_FALSE(scan("begin").has_effect);
  EXPECT_FALSE(scan("set a = 1").has_effect);
  EXPECT_FALSE(scan("").has_effect);
  EXPECT_TRUE(scan("select f()").has_effect);
  EXPECT_TRUE(scan("begin; update t set a = 1").has_effect);
  EXPECT_TRUE(scan("\"x\"").has_effect);
}

TEST(StatementScanner, OneStatementThatEndsAFailedTransaction) {
  EXPECT_TRUE(scan("ROLLBACK").ends_failed);
  EXPECT_TRUE(scan("rollback;").rolls_back);
  EXPECT_TRUE(scan("end work").ends_failed);
  EXPECT_FALSE(scan("end").rolls_back);
  EXPECT_FALSE(scan("rollback to a").ends_failed);
  EXPECT_FALSE(scan("rollback and chain").ends_failed);
  EXPECT_FALSE(scan("rollback; select 1").ends_failed);
}

TEST(StatementScanner, WhatItsWordsDoNotTellIsUnclear) {
  for (const char* sql :
       {"do $$ begin set work_mem = 1; end $$", "DO $a$ begin EXECUTE f(); end $a$",
        "do 'begin listen x; end'", "do $$ begin perform pg_try_advisory_lock(1); end $$",
        "do $$ create TEMP table t () $$; create temp table u ()",
        "select \"set_config\"('a', 'b', false)", "select pg_catalog.\"pg_advisory_lock\"(1)",
        "update pg_settings set setting = 1", "explain analyze create temp table t as select 1",
        "select 1 into pg_temp.t"}) {
    EXPECT_EQ(scan(sql).pin, Pin::kUnclear) << sql;
  }
  for (const char* sql :
       {"do $$ begin perform 1; end $$", "select * from pg_settings", "select \"temp\" from t",
        "create function f() returns int as $$ set work_mem = 1 $$ language sql",
        "do $$ begin null; end $$; set work_mem = 1"}) {
    EXPECT_EQ(scan(sql).pin, Pin::kNone) << sql;
  }
}

}  // namespace
}  // namespace bascule::proxy
