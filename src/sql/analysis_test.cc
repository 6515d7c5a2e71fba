#include "sql/analysis.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <functional>
#include <string>
#include <thread>

#include "sql/testing.h"

namespace bascule::sql {
namespace {

class AnalysisTest : public testing::Test {
 protected:
  Analysis of(std::string_view sql) const { return analyse(sql, catalog_); }
  void expect_read(std::string_view sql) const { EXPECT_EQ(of(sql).to_string(), "read") << sql; }
  void expect(std::string_view sql, Reason reason, std::string_view subject = "*") const {
    const Analysis analysis = of(sql);
    EXPECT_EQ(analysis.kind, Kind::kPrimary) << sql;
    EXPECT_EQ(describe(analysis.reason), describe(reason)) << sql;
    if (subject != "*") {
      EXPECT_EQ(analysis.subject, subject) << sql;
    }
  }
  const Catalog catalog_ = shop_catalog();
};

TEST_F(AnalysisTest, PlainReadsAreReads) {
  for (const auto* sql : {
           "SELECT 1",
           "select id, name from items where id = 42",
           "SELECT * FROM public.orders o JOIN items i USING (id) LEFT JOIN other.orders x ON true",
           "SELECT count(*) FILTER (WHERE id > 3), max(id) FROM orders GROUP BY ROLLUP (id) "
           "HAVING count(*) > 1 ORDER BY 1 DESC NULLS LAST LIMIT 3 OFFSET 4",
           "WITH a AS (SELECT 1 AS x), b AS (SELECT * FROM a) SELECT * FROM b",
           "WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 9) "
           "SELECT sum(n) FROM t",
           "VALUES (1, 'a'), (2, 'b')",
           "TABLE items",
           "SELECT now(), current_date, current_user, extract(year from now()), 'a' LIKE 'b'",
           "SELECT x::text, CAST($1 AS int), (ARRAY[1,2])[1], ROW(1,2), (o).id FROM orders o, "
           "items",
           "SELECT rank() OVER (PARTITION BY id ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT "
           "ROW) FROM items WINDOW w AS (ORDER BY id)",
           "SELECT * FROM generate_series(1, 3) WITH ORDINALITY AS g(a, b)",
           "SELECT * FROM ROWS FROM (generate_series(1,2), unnest(ARRAY[1,2])) AS t",
           "SELECT * FROM json_to_recordset('[]') AS t(a int, b text)",
           "SELECT CASE WHEN id IS NULL THEN 1 ELSE coalesce(id, 2) END FROM items",
           "SELECT * FROM items WHERE id IN (SELECT id FROM orders) AND EXISTS (SELECT 1)",
           "SELECT * FROM items WHERE id = ANY ('{1,2}') OR id BETWEEN 1 AND 3 OR id IS DISTINCT "
           "FROM 4",
           "SELECT 1 UNION SELECT 2 INTERSECT (SELECT 3 EXCEPT SELECT 4)",
           "SELECT * FROM items TABLESAMPLE system (10) REPEATABLE (3)",
           "SELECT price_of(id), random(), lower(name) FROM items",
           "SELECT xmlelement(name a, 1), xmlforest(id) FROM items",
           "SELECT grouping(id), greatest(1, 2), nullif(1, 2) FROM items GROUP BY GROUPING SETS "
           "((id), ())",
           "SELECT 'nextval(''x'')', $$ delete from items $$",
           "SELECT \"id\" AS \"delete\" FROM \"items\"",
           "SELECT * FROM pg_class",
           "EXPLAIN SELECT * FROM items",
           "EXPLAIN (ANALYZE, BUFFERS) SELECT * FROM items",
           "SELECT 1;",
           ";",
           "",
           "-- nothing\n",
           "SELECT DISTINCT ON (id) * FROM items ORDER BY id USING <",
           "SELECT * FROM items, LATERAL (SELECT * FROM orders WHERE orders.id = items.id) x",
           "SELECT '\\d' FROM items",
       }) {
    expect_read(sql);
  }
}

TEST_F(AnalysisTest, WhatWritesGoesToThePrimary) {
  for (const auto* sql : {"INSERT INTO items VALUES (1)",
                          "UPDATE items SET id = 1",
                          "DELETE FROM items",
                          "MERGE INTO items USING orders ON true WHEN MATCHED THEN DO NOTHING",
                          "TRUNCATE items",
                          "CREATE TABLE x (a int)",
                          "CREATE TEMP TABLE x AS SELECT 1",
                          "DROP TABLE items",
                          "ALTER TABLE items ADD x int",
                          "COPY items FROM STDIN",
                          "COPY (SELECT 1) TO STDOUT",
                          "CALL book(1)",
                          "DO $$ begin end $$",
                          "VACUUM",
                          "ANALYZE items",
                          "REFRESH MATERIALIZED VIEW x",
                          "GRANT SELECT ON items TO x",
                          "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'select 1'",
                          "EXPLAIN ANALYZE DELETE FROM items",
                          "EXPLAIN INSERT INTO items VALUES (1)",
                          "EXPLAIN ANALYZE EXECUTE p",
                          "ALTER SYSTEM SET x = 1",
                          "CREATE TABLE t AS SELECT 1",
                          "IMPORT FOREIGN SCHEMA a FROM SERVER b INTO c",
                          "COMMENT ON TABLE items IS 'x'"}) {
    expect(sql, Reason::kWrites);
  }
  expect("WITH x AS (INSERT INTO items VALUES (1) RETURNING *) SELECT * FROM x",
         Reason::kWritingCte, "InsertStmt");
  expect("SELECT * FROM (WITH x AS (DELETE FROM items RETURNING *) SELECT * FROM x) y",
         Reason::kWritingCte, "DeleteStmt");
  expect("SELECT * INTO x FROM items", Reason::kInto);
  expect("SELECT 1 INTO TEMP x", Reason::kInto);
  expect("SELECT 1 UNION SELECT 2; DELETE FROM items", Reason::kSeveral);
  expect("SELECT 1; SELECT 2", Reason::kSeveral);
}

TEST_F(AnalysisTest, LocksGoToThePrimary) {
  for (const auto* strength : {"UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE"}) {
    expect(std::string("SELECT * FROM items FOR ") + strength, Reason::kLocking);
    expect(std::string("SELECT * FROM (SELECT * FROM items FOR ") + strength +
               " SKIP LOCKED) x, orders",
           Reason::kLocking);
  }
}

TEST_F(AnalysisTest, SessionStateGoesToThePrimary) {
  for (const auto* sql : {"SET search_path = x",
                          "SET LOCAL bascule.other = 1",
                          "RESET ALL",
                          "SHOW server_version",
                          "PREPARE p AS SELECT 1",
                          "EXECUTE p",
                          "DEALLOCATE p",
                          "DISCARD ALL",
                          "LISTEN x",
                          "UNLISTEN *",
                          "NOTIFY x",
                          "LOCK TABLE items",
                          "DECLARE c CURSOR FOR SELECT 1",
                          "FETCH c",
                          "MOVE c",
                          "CLOSE c",
                          "SET CONSTRAINTS ALL DEFERRED",
                          "LOAD 'x'",
                          "CHECKPOINT",
                          "SET TRANSACTION READ ONLY",
                          "SET LOCAL bascule.affinity = 'x'"}) {
    expect(sql, Reason::kSession);
  }
  for (const auto* sql : {"COMMIT", "ROLLBACK", "SAVEPOINT a", "RELEASE a", "ROLLBACK TO a",
                          "PREPARE TRANSACTION 'x'", "COMMIT PREPARED 'x'", "END"}) {
    expect(sql, Reason::kTransaction);
  }
}

TEST_F(AnalysisTest, FunctionsThatMayWriteGoToThePrimary) {
  for (const auto* call : {"nextval('s')",
                           "setval('s', 1)",
                           "currval('s')",
                           "lastval()",
                           "pg_advisory_lock(1)",
                           "pg_try_advisory_xact_lock(1)",
                           "pg_notify('a', 'b')",
                           "set_config('a', 'b', false)",
                           "lo_import('x')",
                           "lo_creat(1)",
                           "lowrite(1, 'x')",
                           "loread(1, 2)",
                           "pg_logical_emit_message(true, 'a', 'b')",
                           "pg_terminate_backend(1)",
                           "pg_reload_conf()",
                           "pg_create_restore_point('x')",
                           "pg_switch_wal()",
                           "query_to_xml('delete from items', true, true, '')",
                           "setseed(0.1)",
                           "pg_catalog.nextval('s')",
                           "pg_read_file('x')",
                           "pg_export_snapshot()"}) {
    expect(std::string("SELECT ") + call, Reason::kVolatile);
    expect(std::string("SELECT * FROM items WHERE id = (SELECT count(*) FROM (SELECT ") + call +
               ") x)",
           Reason::kVolatile);
  }
  expect("SELECT * FROM nextval('s')", Reason::kVolatile, "nextval");
  expect("SELECT id FROM items ORDER BY nextval('s')", Reason::kVolatile, "nextval");
  expect("SELECT id FROM items LIMIT nextval('s')", Reason::kVolatile, "nextval");
  expect("SELECT 1 FROM items GROUP BY id HAVING nextval('s') > 1", Reason::kVolatile, "nextval");
  expect("SELECT count(*) FILTER (WHERE nextval('s') > 1) FROM items", Reason::kVolatile,
         "nextval");
  expect("SELECT CASE WHEN nextval('s') = 1 THEN 1 END", Reason::kVolatile, "nextval");
  expect("VALUES (nextval('s'))", Reason::kVolatile, "nextval");
  expect("SELECT sum(1) OVER (ORDER BY nextval('s')) FROM items", Reason::kVolatile, "nextval");
  expect("SELECT ARRAY[nextval('s')]", Reason::kVolatile, "nextval");
  expect("SELECT (ARRAY[1])[nextval('s')]", Reason::kVolatile, "nextval");
  expect("SELECT lower(x => nextval('s')::text)", Reason::kVolatile, "nextval");
  expect("SELECT * FROM items TABLESAMPLE system (nextval('s'))", Reason::kVolatile, "nextval");
  expect("SELECT * FROM items JOIN orders ON nextval('s') = 1", Reason::kVolatile, "nextval");
  expect("SELECT xmlelement(name x, nextval('s'))", Reason::kVolatile, "nextval");
  expect("SELECT /* x */ \"nextval\"('s')", Reason::kVolatile, "nextval");
  expect("SELECT NextVal('s')", Reason::kVolatile, "nextval");
  expect("SELECT U&\"\\006eextval\"('s')", Reason::kVolatile, "nextval");
  expect("SELECT book(1)", Reason::kVolatile, "book");
  expect("SELECT dblink('', 'delete from x')", Reason::kUnknownFunction, "dblink");
  expect("SELECT public.nothing()", Reason::kUnknownFunction, "nothing");
  expect("SELECT other.lower('x')", Reason::kUnknownFunction, "lower");
  expect("SELECT a.b.c(1)", Reason::kUnknownFunction);
}

TEST_F(AnalysisTest, AVolatileOverloadOfABuiltinMakesTheNameUnsafe) {
  expect("SELECT upper('x')", Reason::kVolatile, "upper");
  expect_read("SELECT pg_catalog.upper('x')");
  expect_read("SELECT lower('x')");
}

TEST_F(AnalysisTest, WhatIsAboutTheServerGoesToThePrimary) {
  for (const auto* sql :
       {"SELECT pg_backend_pid()", "SELECT txid_current()", "SELECT pg_current_xact_id()",
        "SELECT inet_server_addr()", "SELECT * FROM pg_stat_activity",
        "SELECT * FROM pg_catalog.pg_stat_replication", "SELECT * FROM pg_locks",
        "SELECT table_to_xml('numbered', true, true, '')", "SELECT pg_stat_get_numscans(1)"}) {
    expect(sql, Reason::kServerState);
  }
}

TEST_F(AnalysisTest, RelationsMustBeKnownToBeHarmless) {
  expect("SELECT * FROM numbered", Reason::kUnsafeRelation, "numbered");
  expect("SELECT * FROM items, LATERAL (SELECT * FROM public.numbered) x", Reason::kUnsafeRelation);
  expect("SELECT * FROM new_table", Reason::kUnknownRelation, "new_table");
  expect("SELECT * FROM elsewhere.items", Reason::kUnknownRelation, "items");
  expect("SELECT * FROM twin", Reason::kUnsafeRelation, "twin");
  expect_read("SELECT * FROM public.twin");
  expect("SELECT * FROM db.public.items", Reason::kUnknownRelation);
  // A WITH query hides a table of that name, but not everywhere.
  expect("SELECT * FROM numbered, (WITH numbered AS (SELECT 1) SELECT * FROM numbered) x",
         Reason::kUnsafeRelation);
}

TEST_F(AnalysisTest, HiddenCallsAreFound) {
  expect("SELECT items.book FROM items", Reason::kAttribute, "book");
  expect("SELECT (items).book FROM items", Reason::kAttribute, "book");
  expect_read("SELECT book FROM items");  // one name can't be a call
  expect("SELECT 1 <#> 2", Reason::kOperator, "<#>");
  expect("SELECT 1 OPERATOR(public.<#>) 2", Reason::kOperator, "<#>");
  expect("SELECT 1 <#> ANY (SELECT 2)", Reason::kOperator, "<#>");
  expect("SELECT * FROM items ORDER BY id USING <#>", Reason::kOperator, "<#>");
  expect("SELECT 1::checked", Reason::kType, "checked");
  expect("SELECT checked '1'", Reason::kType, "checked");
  expect("SELECT * FROM json_to_recordset('[]') AS t(a public.checked[])", Reason::kType,
         "checked");
  expect("SELECT * FROM items TABLESAMPLE mine (1)", Reason::kConstruct, "TABLESAMPLE");
}

TEST_F(AnalysisTest, WithoutACatalogNothingIsProven) {
  const Catalog none;
  EXPECT_EQ(analyse("SELECT 1", none).reason, Reason::kNoCatalog);
  EXPECT_EQ(analyse("BEGIN READ ONLY", none).kind, Kind::kBeginReadOnly);
}

TEST_F(AnalysisTest, ReadOnlyTransactionsAreRecognised) {
  for (const auto* sql :
       {"BEGIN READ ONLY", "START TRANSACTION READ ONLY", "begin transaction read only;",
        "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY", "BEGIN WORK READ ONLY DEFERRABLE",
        "BEGIN READ WRITE, READ ONLY"}) {
    EXPECT_EQ(of(sql).kind, Kind::kBeginReadOnly) << sql;
  }
  for (const auto* sql :
       {"BEGIN", "START TRANSACTION", "BEGIN READ WRITE", "BEGIN READ ONLY, READ WRITE",
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY",
        "BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE"}) {
    EXPECT_EQ(of(sql).kind, Kind::kBegin) << sql;
  }
  expect("BEGIN READ ONLY; DELETE FROM items", Reason::kSeveral);
}

TEST_F(AnalysisTest, AffinityIsSetBySetAndByComment) {
  EXPECT_EQ(of("SET bascule.affinity = 'game-42'"), (Analysis{Kind::kSetAffinity, {}, "game-42"}));
  EXPECT_EQ(of("set session bascule.affinity to game"), (Analysis{Kind::kSetAffinity, {}, "game"}));
  EXPECT_EQ(of("SET bascule.affinity = 42"), (Analysis{Kind::kSetAffinity, {}, "42"}));
  EXPECT_EQ(of("RESET bascule.affinity"), (Analysis{Kind::kSetAffinity, {}, ""}));
  EXPECT_EQ(of("SET bascule.affinity TO DEFAULT"), (Analysis{Kind::kSetAffinity, {}, ""}));
  EXPECT_EQ(of("SET bascule.affinity = '" + std::string(65, 'x') + "'").kind, Kind::kPrimary);
  std::string key;
  EXPECT_EQ(scan_text("SELECT 1 /* bascule: affinity=game-42 */", key).hints.affinity, "game-42");
  expect("SELECT 1 /* bascule: primary */", Reason::kHint);
  expect("/*bascule:affinity=a, primary*/ SELECT 1", Reason::kHint);
  expect_read("SELECT '/* bascule: primary */'");
}

TEST_F(AnalysisTest, BackslashesInPlainStringsNeedStandardStrings) {
  const auto* sql = "SELECT 'x\\'' || nextval('s')--'";
  EXPECT_EQ(analyse(sql, catalog_, Strings::kNonstandard).reason, Reason::kStrings);
  EXPECT_EQ(analyse("SELECT E'x\\''", catalog_, Strings::kNonstandard).kind, Kind::kRead);
}

TEST_F(AnalysisTest, BrokenTextGoesToThePrimary) {
  expect("SELEC 1", Reason::kSyntax);
  expect("SELECT 'x", Reason::kNotText);
  expect("SELECT /* x", Reason::kNotText);
  expect("SELECT $a$ x", Reason::kNotText);
  expect("SELECT \"x", Reason::kNotText);
  expect(std::string_view("SELECT 1\0; DELETE FROM items", 28), Reason::kNotText);
  expect(std::string_view("SELECT '\0'", 10), Reason::kNotText);
  expect("SELECT " + std::string(kTextBytesMax, '1'), Reason::kTooLong);
}

TEST_F(AnalysisTest, SubjectsAreBounded) {
  const Analysis analysis = of("SELECT \"" + std::string(5000, 'x') + "\"()");
  EXPECT_LE(analysis.subject.size(), 64u);
}

// Runs on a thread with the smallest default stack that glibc gives.
void on_small_stack(const std::function<void()>& work) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 2 << 20);
  pthread_t thread;
  const auto body = [](void* argument) -> void* {
    (*static_cast<const std::function<void()>*>(argument))();
    return nullptr;
  };
  ASSERT_EQ(pthread_create(&thread, &attributes, body,
                           const_cast<void*>(static_cast<const void*>(&work))),
            0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
}

TEST_F(AnalysisTest, TheDeepestTextsThatAreParsedFitASmallStack) {
  struct Shape {
    const char* begin;
    const char* level;
    const char* middle;
    const char* close;
  };
  for (const Shape& shape : {Shape{"SELECT 1", "+1", "", ""},
                             {"SELECT ", "- ", "1", ""},
                             {"SELECT ", "NOT ", "true", ""},
                             {"SELECT ARRAY", "[", "", "]"},
                             {"SELECT ", "(", "1", ")"},
                             {"SELECT ", "f(", "1", ")"},
                             {"SELECT ", "(SELECT ", "1", ")"},
                             {"SELECT ", "(1,", "1", ")"},
                             {"SELECT 1", "::x", "", ""},
                             {"SELECT a", " COLLATE a", "", ""},
                             {"SELECT a", " ISNULL", "", ""},
                             {"SELECT a", " AT TIME ZONE a", "", ""},
                             {"SELECT 1", " UNION SELECT 1", "", ""},
                             {"SELECT 1 FROM a", " CROSS JOIN a", "", ""},
                             {"SELECT ", "CASE WHEN ", "1", " THEN 1 END"},
                             {"SELECT ", "a[", "1", "]"},
                             {"SELECT * FROM ", "(SELECT * FROM ", "a", ") x"},
                             {"SELECT ", "xmlelement(name a,", "1", ")"},
                             {"SELECT ", "coalesce(", "1", ")"}}) {
    for (size_t levels = 9'000; levels >= 500; levels /= 2) {
      std::string sql = shape.begin;
      for (size_t i = 0; i < levels; ++i) sql += shape.level;
      sql += shape.middle;
      for (size_t i = 0; i < levels; ++i) sql += shape.close;
      on_small_stack([&] { EXPECT_NE(of(sql).reason, Reason::kConstruct) << shape.level; });
    }
  }
}

TEST_F(AnalysisTest, ManyThreadsMayAnalyse) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < 300; ++i) {
        const std::string sql = "SELECT * FROM items WHERE id = " + std::to_string(i) +
                                (t % 2 == 0 ? "" : " FOR UPDATE");
        EXPECT_EQ(of(sql).reason, t % 2 == 0 ? Reason::kNone : Reason::kLocking);
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace bascule::sql
