#include "sql/query_report.h"

#include <gtest/gtest.h>

namespace bascule::sql {
namespace {

using Complexity = QueryReport::Complexity;
using Names = std::vector<std::string>;

QueryReport report(std::string_view sql) {
  auto result = report_query(sql);
  EXPECT_TRUE(result) << sql;
  return result ? *result : QueryReport();
}

TEST(QueryReport, TellsReadsFromWrites) {
  for (const auto* sql : {"SELECT 1", "VALUES (1)", "TABLE t", "SHOW work_mem", "COPY t TO STDOUT",
                          "EXPLAIN SELECT 1", "WITH a AS (SELECT 1) SELECT * FROM a"}) {
    EXPECT_TRUE(report(sql).is_read && !report(sql).is_write) << sql;
  }
  for (const auto* sql : {"INSERT INTO t VALUES (1)", "WITH a AS (DELETE FROM t) SELECT 1",
                          "CREATE TABLE t ()", "CALL p()", "DO ''", "COPY t FROM STDIN",
                          "SELECT 1 AS a INTO t", "EXPLAIN ANALYZE DELETE FROM t"}) {
    EXPECT_TRUE(report(sql).is_write && !report(sql).is_read) << sql;
    EXPECT_FALSE(report(sql).reasons.empty()) << sql;
  }
  for (const auto* sql : {"BEGIN", "SET a.b = 1", "LISTEN a"}) {
    EXPECT_FALSE(report(sql).is_write || report(sql).is_read) << sql;
  }
}

TEST(QueryReport, NamesTablesAndFunctions) {
  const QueryReport r = report(
      "WITH c AS (SELECT * FROM s.a) SELECT count(*), s.f(1), count(b) FROM c JOIN t ON true");
  EXPECT_EQ(r.tables, (Names{"t", "s.a"}));
  EXPECT_EQ(r.functions, (Names{"count", "s.f"}));
  EXPECT_EQ(r.reasons,
            Names{"it calls s.f, which is not PostgreSQL's: what that does is not known"});
  EXPECT_TRUE(r.is_read);
}

TEST(QueryReport, EstimatesHowMuchThereIsToIt) {
  EXPECT_EQ(report("SELECT * FROM t WHERE a = 1").complexity, Complexity::kSimple);
  EXPECT_EQ(report("SELECT * FROM a JOIN b USING (x) JOIN c USING (y)").complexity,
            Complexity::kModerate);
  EXPECT_EQ(report("WITH a AS (SELECT 1), b AS (SELECT 2) SELECT (SELECT max(x) FROM t) FROM a, b "
                   "GROUP BY 1 UNION SELECT 2")
                .complexity,
            Complexity::kComplex);
}

TEST(QueryReport, RefusesWhatItCantRead) {
  EXPECT_FALSE(report_query("SELEC 1"));
  EXPECT_FALSE(report_query("SELECT 'a"));
  EXPECT_FALSE(report_query(std::string(100'000, ' ')));
}

}  // namespace
}  // namespace bascule::sql
