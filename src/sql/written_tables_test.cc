#include "sql/written_tables.h"

#include <gtest/gtest.h>

#include "sql/text_scan.h"

namespace bascule::sql {
namespace {

Written written(std::string_view sql) {
  std::string key;
  EXPECT_EQ(scan_text(sql, key).problem, ScanProblem::kNone) << sql;
  return written_tables(key);
}

// "schema.name name", "+": may write others as well, "?": unreadable.
std::string names(std::string_view sql) {
  const Written w = written(sql);
  std::string out;
  for (const TableName& t : w.tables) {
    out += (out.empty() ? "" : " ") + (t.schema.empty() ? "" : t.schema + ".") + t.name;
  }
  return out + (w.other ? "+" : "") + (w.unreadable ? "?" : "");
}

TEST(WrittenTables, AreThoseThatAStatementNamesAsItsTarget) {
  EXPECT_EQ(names("INSERT INTO t SELECT * FROM u WHERE a = 'x'"), "t");
  EXPECT_EQ(names("UPDATE s.t SET a = 1 FROM u"), "s.t");
  EXPECT_EQ(names("DELETE FROM ONLY \"T\" USING u"), "T");
  EXPECT_EQ(names("MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE"), "t");
  EXPECT_EQ(names("COPY s.t (a, b) FROM STDIN"), "s.t");
  EXPECT_EQ(names("TRUNCATE a, s.b"), "a s.b");
  EXPECT_EQ(names("INSERT INTO a VALUES (1); INSERT INTO b VALUES (2); DELETE FROM a"), "a b");
}

TEST(WrittenTables, AreFoundInsideOfOtherStatements) {
  EXPECT_EQ(names("WITH x AS (DELETE FROM t RETURNING *) INSERT INTO u SELECT * FROM x"), "u t");
  EXPECT_EQ(names("WITH x AS (UPDATE t SET a = 1 RETURNING *) SELECT * FROM x"), "t");
  EXPECT_EQ(names("EXPLAIN ANALYZE INSERT INTO t VALUES (1)"), "t");
  EXPECT_EQ(names("PREPARE p (int) AS INSERT INTO t VALUES ($1)"), "t");
  EXPECT_EQ(names("COPY (DELETE FROM t RETURNING a) TO STDOUT"), "t");
}

TEST(WrittenTables, ReadsWriteNone) {
  for (const auto* sql : {"SELECT count(*), now() FROM t", "COPY t TO STDOUT", "SHOW work_mem",
                          "SELECT nextval('s')", "DECLARE c CURSOR FOR SELECT 1", "LISTEN a"}) {
    EXPECT_EQ(names(sql), "") << sql;
  }
}

TEST(WrittenTables, WhatMayWriteMoreSaysSo) {
  EXPECT_EQ(names("SELECT pay(1)"), "+");
  EXPECT_EQ(names("SELECT s.lower('a')"), "+") << "not PostgreSQL's";
  EXPECT_EQ(names("INSERT INTO t VALUES (pay(1))"), "t+");
  EXPECT_EQ(names("DO 'begin end'"), "+");
  EXPECT_EQ(names("CALL p()"), "+");
  EXPECT_EQ(names("ALTER TABLE s.t ADD COLUMN a int"), "s.t+");
  EXPECT_EQ(names("SELECT 1 AS a INTO t"), "t+");
  EXPECT_EQ(names("CREATE TABLE t AS SELECT 1"), "t+");
  EXPECT_EQ(names("INSERT INTO"), "?");
}

TEST(WrittenTables, TellsTransactionsAndSettings) {
  EXPECT_TRUE(written("BEGIN").begins);
  EXPECT_TRUE(written("START TRANSACTION READ ONLY").begins);
  EXPECT_TRUE(written("COMMIT").ends);
  EXPECT_TRUE(written("ROLLBACK").ends);
  EXPECT_FALSE(written("SAVEPOINT a").begins);
  EXPECT_TRUE(written("ROLLBACK TO a").goes_back);
  EXPECT_FALSE(written("ROLLBACK TO a").ends);
  EXPECT_TRUE(written("SET LOCAL synchronous_commit TO off").sets_commit);
  EXPECT_TRUE(written("RESET synchronous_commit").sets_commit);
  EXPECT_TRUE(written("RESET ALL").sets_commit);
  EXPECT_TRUE(written("DISCARD ALL").sets_commit);
  EXPECT_FALSE(written("SET work_mem TO '1MB'").sets_commit);
  EXPECT_EQ(written("EXECUTE p(1)").executes, std::vector<std::string>{"p"});
}

}  // namespace
}  // namespace bascule::sql
