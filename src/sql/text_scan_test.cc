#include "sql/text_scan.h"

#include <gtest/gtest.h>

namespace bascule::sql {
namespace {

std::string key_of(std::string_view sql) {
  std::string key;
  EXPECT_EQ(scan_text(sql, key).problem, ScanProblem::kNone) << sql;
  return key;
}

TEST(TextScan, LiteralsOfReadsAndWritesAreTakenOut) {
  EXPECT_EQ(key_of("SELECT a FROM t WHERE b = 12345 AND c = 'it''s'"),
            "SELECT a FROM t WHERE b = 0 AND c = ''");
  EXPECT_EQ(key_of("select 1.50, .5, 1e10, a1, $12, \"b 3\""),
            "select 0.0, .0, 0e10, a1, $12, \"b 3\"");
  EXPECT_EQ(key_of("(VALUES (1))"), "(VALUES (0))");
  EXPECT_EQ(key_of("UPDATE t SET a = 'x' WHERE b = 3"), "UPDATE t SET a = '' WHERE b = 0");
  EXPECT_EQ(key_of("insert into t1 values (2)"), "insert into t1 values (0)");
  EXPECT_EQ(key_of("WITH a AS (SELECT 7) TABLE a"), "WITH a AS (SELECT 0) TABLE a");
}

TEST(TextScan, OtherStatementsAndOtherLiteralsStay) {
  for (const auto* sql : {"SET a = 'b'", "BEGIN", "DO 'begin 1; end'",
                          "SELECT E'a\\'b', B'01', X'1F', N'x', U&'\\0061'",
                          "SELECT $$it's$$, $a$x$b$y$a$, \"it's\""}) {
    EXPECT_EQ(key_of(sql), sql);
  }
}

TEST(TextScan, CommentsBecomeBlanks) {
  EXPECT_EQ(key_of("SELECT/* a /* nested */ b */x--end\nFROM t"), "SELECT x \nFROM t");
  EXPECT_EQ(key_of("SELECT '--', a-/**/-b"), "SELECT '', a- -b");
  EXPECT_EQ(key_of("/* 1 */ SELECT 2"), "  SELECT 0");
}

TEST(TextScan, HintsAreReadFromBlockCommentsOnly) {
  std::string key;
  EXPECT_TRUE(scan_text("/* bascule: primary */ SELECT 1", key).hints.primary);
  EXPECT_FALSE(scan_text("-- bascule: primary\nSELECT 1", key).hints.primary);
  EXPECT_FALSE(scan_text("SELECT '/* bascule: primary */'", key).hints.primary);
  EXPECT_FALSE(scan_text("SELECT $$/* bascule: primary */$$", key).hints.primary);
  EXPECT_EQ(scan_text("SELECT 1/*bascule: affinity= g 1 */", key).hints.affinity, "g 1");
  const std::string long_key = "/* bascule: affinity=" + std::string(65, 'x') + " */ SELECT 1";
  EXPECT_EQ(scan_text(long_key, key).hints.affinity, "");
}

TEST(TextScan, EveryByteIsTheSameWhereverItStands) {
  // The scan takes eight bytes at a time.
  for (int c = 1; c < 256; ++c) {
    const char byte = static_cast<char>(c);
    for (size_t at = 0; at < 20; ++at) {
      const std::string before = "SELECT " + std::string(at, 'a') + " ";
      const std::string sql = before + byte + " b" + std::string(20 - at, ',');
      std::string key;
      const ScanProblem problem = scan_text(sql, key).problem;
      if (byte == '\'' || byte == '"') {
        EXPECT_EQ(problem, ScanProblem::kUnterminated) << sql;
      } else if (byte >= '0' && byte <= '9') {
        EXPECT_EQ(key, before + "0 b" + std::string(20 - at, ','));
      } else {
        EXPECT_EQ(problem, ScanProblem::kNone) << c;
        EXPECT_EQ(key, sql) << c << " at " << at;
      }
    }
  }
}

TEST(TextScan, LiteralsAreTakenOutWhereverTheyStand) {
  for (size_t at = 0; at < 20; ++at) {
    const std::string name(at, 'a');
    EXPECT_EQ(key_of("SELECT " + name + "=12,'x'/*c*/,b1 -- c"), "SELECT " + name + "=0,'' ,b1  ");
    for (const char* prefixed : {"E'\\'12'", "b'12'", "X'12'", "n'12'", "u&'12'", "$$1'2$$"}) {
      const std::string sql = "SELECT " + name + " " + prefixed;
      EXPECT_EQ(key_of(sql), sql);
    }
    EXPECT_EQ(key_of("SELECT " + name + "ae'12',a&'12', $1 a$1 1"),
              "SELECT " + name + "ae'',a&'', $1 a$1 0");
  }
}

TEST(TextScan, WordsAndSignsCountAsDepthAndBlanksDoNot) {
  const auto too_deep = [](std::string_view piece, int times) {
    std::string sql = "SELECT ";  // one word
    for (int i = 0; i < times; ++i) sql += piece;
    std::string key;
    return scan_text(sql, key).problem == ScanProblem::kTooDeep;
  };
  for (const char* one : {"+", "- ", "/ ", "&", "(", "]", ".", "=", "a ", "a,", "abcdefg ", "a1$ ",
                          "\xc3\xa4 ", "e\n", "\x01", "\x7f"}) {
    EXPECT_FALSE(too_deep(one, 7'999)) << one;
    EXPECT_TRUE(too_deep(one, 8'000)) << one;
  }
  for (const char* two : {"a+", "ab.", "e&", "\"a\"("}) {
    EXPECT_FALSE(too_deep(two, 3'999)) << two;
    EXPECT_TRUE(too_deep(two, 4'000)) << two;
  }
  for (const char* none : {" ", ",", "1,", "'a',", "'' "}) EXPECT_FALSE(too_deep(none, 12'000));
}

TEST(TextScan, DepthIsBounded) {
  std::string key;
  std::string deep = "SELECT 1";
  for (int i = 0; i < 8'001; ++i) deep += "+1";
  EXPECT_EQ(scan_text(deep, key).problem, ScanProblem::kTooDeep);
  std::string flat = "SELECT 1 WHERE 1 IN (1";
  for (int i = 0; i < 20'000; ++i) flat += ",12";
  EXPECT_EQ(scan_text(flat + ")", key).problem, ScanProblem::kNone);
}

}  // namespace
}  // namespace bascule::sql
