// One pass over SQL text without parsing it: what a verdict is remembered by, how deep a parse tree
// could become, and what comments ask for. Follows PostgreSQL's lexer with
// standard_conforming_strings = on (https://www.postgresql.org/docs/15/sql-syntax-lexical.html).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace bascule::sql {

// Longer texts are not looked at: they go to the primary.
constexpr size_t kTextBytesMax = 64 * 1024;
// Words, operator characters and brackets: no construct of the grammar nests deeper than the number
// of those. libpg_query writes its tree recursively, and takes 130 bytes of stack for each of these
// tokens at worst (measured over 27 shapes): 1 MiB at this limit; glibc gives a thread 2 MiB at
// least by default. AnalysisTest.TheDeepestTextsThatAreParsedFitASmallStack holds it.
constexpr uint32_t kDepthTokensMax = 8'000;
constexpr size_t kAffinityBytesMax = 64;

// Comments like /* bascule: affinity=game-42 */ and /* bascule: primary */.
struct Hints {
  bool primary = false;
  std::string_view affinity;  // of the text scanned
};

enum class ScanProblem : uint8_t {
  kNone,
  kTooLong,
  kTooDeep,
  kNul,           // a zero byte: not text
  kUnterminated,  // quote, comment or dollar quote
};

struct TextScan {
  ScanProblem problem = ScanProblem::kNone;
  // A backslash in a plain '...' literal: means something else where standard_conforming_strings is
  // off.
  bool plain_backslash = false;
  Hints hints;
};

// Fills `key`: the text with comments as blanks; where it begins with SELECT, WITH, VALUES, TABLE,
// INSERT, UPDATE, DELETE or MERGE numbers as 0 and plain string literals as '': texts of one key
// have the same structure, and get the same verdict. Keeps the capacity of `key`, so that a caller
// who reuses it allocates nothing.
TextScan scan_text(std::string_view sql, std::string& key);

}  // namespace bascule::sql
