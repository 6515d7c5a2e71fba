// The text that Prometheus scrapes (exposition format 0.0.4), from a snapshot. Pure. Names:
// spec/api.md; what is not known is left out rather than reported as 0.
#pragma once

#include <string>

#include "api/snapshot.h"

namespace bascule::api {

inline constexpr const char* kMetricsContentType = "text/plain; version=0.0.4; charset=utf-8";
std::string metrics_text(const Snapshot& snapshot, MonoTime now);

}  // namespace bascule::api
