// Times as people and other programs write them.
#pragma once

#include <optional>
#include <string_view>

#include "base/time.h"

namespace bascule {

// "2026-11-21T11:18:00Z", with a fraction or an offset ("+01:00") if it has one; a date and time
// without a zone are UTC. None: it is not of that form.
std::optional<WallTime> parse_iso8601(std::string_view text);

}  // namespace bascule
