#include "proxy/session_changes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace bascule::proxy {
namespace {

using Kind = StateChange::Kind;
using testing::ElementsAre;
using testing::IsEmpty;

// "set a", "pin lock x,1", ...; "?" if the text can't be followed.
std::vector<std::string> read(const std::vector<StateChange>& changes) {
  static constexpr const char* kKinds[] = {
      "nothing",   "set",        "reset",   "reset all", "set_config", "prepare",
      "execute",   "deallocate", "dealloc", "discard",   "commit",     "rollback",
      "savepoint", "release",    "back to", "pin",       "unpin"};
  static constexpr const char* kPins[] = {"",     "temp",   "listen", "prepare",  "cursor",
                                          "lock", "config", "load",   "settings", "prepared"};
  std::vector<std::string> out;
  for (const StateChange& c : changes) {
    std::string text = kKinds[static_cast<size_t>(c.kind)];
    if (c.pin != Pin::kNone) text += std::string(" ") + kPins[static_cast<size_t>(c.pin)];
    if (!c.name.empty()) text += " " + c.name;
    out.push_back(text);
  }
  return out;
}
std::vector<std::string> read(std::string_view sql) {
  const auto changes = parse_state_changes(sql);
  return changes ? read(*changes) : std::vector<std::string>{"?"};
}

TEST(StateChangesTest, SettingsInAllTheirForms) {
  EXPECT_THAT(read("SET Search_Path TO a"), ElementsAre("set search_path"));
  EXPECT_THAT(read("set session work_mem = '1MB';"), ElementsAre("set work_mem"));
  EXPECT_THAT(read("set \"my\".x = 1"), ElementsAre("set my.x"));
  EXPECT_THAT(read("set time zone 'UTC'; set names 'utf8'; set schema 'a'"),
              ElementsAre("set timezone", "set client_encoding", "set search_path"));
  EXPECT_THAT(read("set time zone local; set role none; set a to default; reset role"),
              ElementsAre("reset timezone", "reset role", "reset a", "reset role"));
  EXPECT_THAT(read("set session authorization bob; reset session authorization"),
              ElementsAre("set session authorization", "reset session authorization"));
  EXPECT_THAT(read("set local a = 1; set transaction read only; set constraints all deferred"),
              ElementsAre("nothing", "nothing", "nothing"));
  EXPECT_THAT(read("reset all"), ElementsAre("reset all"));
}

TEST(StateChangesTest, TextOfASettingIsItsStatementAlone) {
  const auto changes = parse_state_changes("select 1; /* x */ set a = 'x;y' -- z\n; select 2");
  ASSERT_TRUE(changes);
  EXPECT_EQ(changes->front().text, "set a = 'x;y'");
  EXPECT_EQ(changes->front().statement, 1);
}

TEST(StateChangesTest, QuotesAndCommentsHideSemicolons) {
  EXPECT_THAT(read("set a = ';'; set b = E'\\';'; select $x$;set c = 1;$x$; set d = $$;$$"),
              ElementsAre("set a", "set b", "set d"));
  EXPECT_THAT(read("/* set a = 1; /* ; */ */ set b = 1 -- ; set c = 1"), ElementsAre("set b"));
  EXPECT_THAT(read("create rule r as on insert to t do (delete from a; delete from b); set c = 1"),
              ElementsAre("set c"));
}

TEST(StateChangesTest, GivesUpOnWhatItCanNotSplit) {
  EXPECT_THAT(read("set a = 'x\\'; set b = 1"), ElementsAre("?"));
  EXPECT_THAT(read("set a = 'x"), ElementsAre("?"));
  EXPECT_THAT(read("create function f() returns int begin atomic; select 1; end; set a = 1"),
              ElementsAre("?"));
}

TEST(StateChangesTest, NamesOfPreparedStatements) {
  EXPECT_THAT(read("prepare A (int) as select $1; execute a(1); deallocate prepare \"A\""),
              ElementsAre("prepare a", "execute a", "deallocate A"));
  EXPECT_THAT(read("explain (analyze) execute x; create table t as execute y(2)"),
              ElementsAre("execute x", "execute y"));
  EXPECT_THAT(read("deallocate all; discard all"), ElementsAre("dealloc", "discard"));
  EXPECT_THAT(read("create trigger g after insert on t execute function f()"), IsEmpty());
  EXPECT_THAT(read("prepare transaction 'x'"), ElementsAre("commit"));
  const std::string_view sql = "select 1; PREPARE \"a b\" as select 2 ; select 3";
  const StateChange c = parse_state_changes(sql)->front();
  EXPECT_EQ(sql.substr(c.from, c.to - c.from), "\"a b\"");
  EXPECT_EQ(sql.substr(c.to, c.end - c.to), " as select 2");
  EXPECT_EQ(c.name, "a b");
}

TEST(StateChangesTest, Transactions) {
  EXPECT_THAT(read("savepoint a; release savepoint a; rollback work to savepoint B; abort; end"),
              ElementsAre("savepoint a", "release a", "back to b", "rollback", "commit"));
  EXPECT_THAT(read("rollback prepared 'x'; commit prepared 'x'; begin"), IsEmpty());
}

TEST(StateChangesTest, WhatPinsAndWhatUndoesIt) {
  EXPECT_THAT(read("create temp table a (x int); create local temporary view b as select 1"),
              ElementsAre("pin temp a", "pin temp b"));
  EXPECT_THAT(read("create table pg_temp.c (x int); drop table if exists a, pg_temp.c, s.d"),
              ElementsAre("pin temp c", "unpin temp a", "unpin temp c"));
  EXPECT_THAT(read("create temp table a on commit drop as select 1"), ElementsAre("nothing"));
  EXPECT_THAT(read("select 1 into temp a"), ElementsAre("pin temp"));
  EXPECT_THAT(read("discard temp"), ElementsAre("unpin temp"));
  EXPECT_THAT(read("listen a; unlisten a; unlisten *"),
              ElementsAre("pin listen a", "unpin listen a", "unpin listen"));
  EXPECT_THAT(read("declare c no scroll cursor with hold for select 1; close c; close all"),
              ElementsAre("pin cursor c", "unpin cursor c", "unpin cursor"));
  EXPECT_THAT(read("load 'x'"), ElementsAre("pin load"));
}

TEST(StateChangesTest, AdvisoryLocks) {
  EXPECT_THAT(read("select pg_advisory_lock(1, -2); select pg_catalog.pg_advisory_unlock(1,-2)"),
              ElementsAre("pin lock x,1,-2", "unpin lock x,1,-2"));
  EXPECT_THAT(read("select pg_try_advisory_lock_shared('7') as got"), ElementsAre("pin lock s,7"));
  EXPECT_THAT(read("select pg_advisory_unlock_all()"), ElementsAre("unpin lock"));
  EXPECT_THAT(read("select pg_advisory_lock(id) from t"), ElementsAre("pin lock"));
  EXPECT_THAT(read("select pg_advisory_unlock(1) where false"), IsEmpty());
}

TEST(StateChangesTest, SetConfig) {
  EXPECT_THAT(read("select set_config('My.x', 'y', false)"), ElementsAre("set my.x"));
  EXPECT_EQ(parse_state_changes("select set_config('a', 'it''s', false)")->front().text,
            "SELECT pg_catalog.set_config(E'a',E'it''s',false)");
  EXPECT_THAT(read("select set_config('a', $1, true), set_config(x, 'y', true) from t"),
              ElementsAre("nothing", "nothing"));
  EXPECT_THAT(read("select set_config('a', 'b', false), now() as t, set_config('c', 'd', false)"),
              ElementsAre("set a", "set c"));
  for (const char* sql :
       {"select set_config('a', 'b', false) from t", "select set_config(x, 'b', false)",
        "select coalesce(set_config('a', 'b', false), '')", "select set_config('a', 'b', c)",
        "select set_config('a', set_config('b', 'c', false), true)",
        "with x as (select set_config('a', 'b', false)) select 1"}) {
    EXPECT_THAT(read(sql), testing::Contains("pin config")) << sql;
  }
}

TEST(StateChangesTest, ParametersComeFromTheBind) {
  const auto config = parse_state_changes("select set_config('a', $1, $2)");
  ASSERT_TRUE(config);
  const std::string values =
      std::string("\0\2\0\0\0\1\0\2\0\0\0\4mine\0\0\0\1", 20) + std::string("\0\0\0", 3);
  EXPECT_THAT(read(resolve(*config, values)), ElementsAre("set a"));
  EXPECT_EQ(resolve(*config, values).front().text,
            "SELECT pg_catalog.set_config(E'a',E'mine',false)");
  EXPECT_THAT(read(resolve(*config, std::nullopt)), ElementsAre("pin config"));
  EXPECT_THAT(read(resolve(*config, std::string_view(values).substr(0, 9))),
              ElementsAre("pin config"));
  const auto lock = parse_state_changes("select pg_advisory_lock($1)");
  const std::string eight("\0\1\0\1\0\1\0\0\0\10\0\0\0\0\0\0\1\0", 18);
  EXPECT_THAT(read(resolve(*lock, eight)), ElementsAre("pin lock x,256"));
  EXPECT_THAT(read(resolve(*lock, std::nullopt)), ElementsAre("pin lock"));
  EXPECT_THAT(read(resolve(*parse_state_changes("select pg_advisory_unlock($1)"), std::nullopt)),
              IsEmpty());
}

TEST(StateChangesTest, EveryPrefixOfABindIsHarmless) {
  const auto config = parse_state_changes("select set_config($3, $1, $2)");
  const std::string values("\0\0\0\3\0\0\0\1x\0\0\0\1t\377\377\377\377\0\0", 20);
  for (size_t n = 0; n <= values.size(); ++n) {
    EXPECT_THAT(read(resolve(*config, std::string_view(values).substr(0, n))),
                ElementsAre("pin config"));
  }
}

}  // namespace
}  // namespace bascule::proxy
