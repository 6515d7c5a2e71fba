// `bascule analyze-query` and POST /api/database/analyze-query.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace bascule::cli {

// {query, analysis {isRead, isWrite, estimatedComplexity, tables, functions, reasons},
// recommendation} as text. kInvalid: the parser does not understand it.
Result<std::string> analyze_query(std::string_view sql);

}  // namespace bascule::cli
