#include "cli/query_analysis.h"

#include <nlohmann/json.hpp>

#include "sql/query_report.h"

namespace bascule::cli {
namespace {

using sql::QueryReport;

const char* name_of(QueryReport::Complexity complexity) {
  switch (complexity) {
    case QueryReport::Complexity::kSimple:
      return "simple";
    case QueryReport::Complexity::kModerate:
      return "moderate";
    case QueryReport::Complexity::kComplex:
      return "complex";
  }
  return "complex";
}

const char* recommendation_of(const QueryReport& report) {
  if (report.is_write) return "Send it to the primary (writer port).";
  if (!report.is_read) return "Send it where its session is: it is about session or transaction.";
  if (report.reasons.empty()) return "A replica may answer it (reader port or splitting port).";
  return "Send it to the primary unless you know that it writes nothing; a splitting port decides "
         "by the catalog.";
}

}  // namespace

Result<std::string> analyze_query(std::string_view sql) {
  const auto report = sql::report_query(sql);
  if (!report) return std::unexpected(report.error());
  const nlohmann::ordered_json out = {{"query", sql},
                                      {"analysis",
                                       {{"isRead", report->is_read},
                                        {"isWrite", report->is_write},
                                        {"estimatedComplexity", name_of(report->complexity)},
                                        {"tables", report->tables},
                                        {"functions", report->functions},
                                        {"reasons", report->reasons}}},
                                      {"recommendation", recommendation_of(*report)}};
  return out.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace bascule::cli
