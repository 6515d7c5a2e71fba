// Any text gets a verdict without harm: the same for its key as for itself, never "read" where a
// function that writes is called, where there is no catalog or where the scan refuses the text.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "fuzz/check.h"
#include "sql/analysis.h"
#include "sql/catalog.h"
#include "sql/query_report.h"
#include "sql/text_scan.h"
#include "sql/written_tables.h"

using namespace bascule::sql;

namespace {

Catalog small_catalog() {
  Catalog::Builder builder;
  const char* const rows[][4] = {
      {"f", "public", "harmless", "s"}, {"f", "public", "harmful", "u"}, {"r", "public", "t", "s"},
      {"r", "public", "v", "u"},        {"o", "", "@#@", "u"},           {"z", "", "", ""}};
  for (const auto& row : rows) (void)builder.add(row[0], row[1], row[2], row[3]);
  auto built = std::move(builder).build();
  BASCULE_FUZZ_CHECK(built.has_value());
  return std::move(*built);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Catalog kKnown = small_catalog();
  static const Catalog kNothing;
  const std::string_view sql(reinterpret_cast<const char*>(data), size);

  std::string key;
  const TextScan scan = scan_text(sql, key);
  BASCULE_FUZZ_CHECK(key.size() <= sql.size() + 1);
  BASCULE_FUZZ_CHECK(scan.hints.affinity.size() <= kAffinityBytesMax);

  const Analysis verdict = analyse(sql, kKnown);
  BASCULE_FUZZ_CHECK(verdict.subject.size() <= 64);
  BASCULE_FUZZ_CHECK(verdict == analyse(sql, kKnown));
  if (scan.problem != ScanProblem::kNone) BASCULE_FUZZ_CHECK(verdict.kind == Kind::kPrimary);
  if (verdict.kind == Kind::kRead) {
    BASCULE_FUZZ_CHECK(analyse_key(key, kKnown).kind == Kind::kRead);
    const bool quotes = key.find_first_of("'\"$") != std::string::npos;
    BASCULE_FUZZ_CHECK(quotes || key.find("harmful(") == std::string::npos);
  }
  const bool empty = key.find_first_not_of(" \t\r\n\f\v;") == std::string::npos;
  BASCULE_FUZZ_CHECK(empty || analyse(sql, kNothing).kind != Kind::kRead);
  if (scan.problem == ScanProblem::kNone) {
    const Written written = written_tables(key);
    BASCULE_FUZZ_CHECK(!written.unreadable || written.tables.empty());
    const auto report = report_query(sql);
    BASCULE_FUZZ_CHECK(written.unreadable == !report.has_value());
    BASCULE_FUZZ_CHECK(!report || !report->is_read || !report->is_write);
  }

  const Analysis careful = analyse(sql, kKnown, Strings::kNonstandard);
  if (careful.kind == Kind::kRead) BASCULE_FUZZ_CHECK(verdict.kind == Kind::kRead);
  return 0;
}
