// History files that only keep a timeline id from being taken. See ops_promote.cc.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "base/types.h"

namespace bascule::node {

class Server;

inline constexpr char kGapText[] = "# reserved by Bascule, never used\n";

// Makes the next promotion of a server on `current` yield `target`. kConflict when it can't: the id
// is not above `current`, or its history exists.
Status fill_gaps(Server& server, Timeline current, Timeline target);

// Before a start: removes gap files above the newest real history.
Status remove_stray_gaps(Server& server);

// The gaps to remove, given ids with real histories and ids of gap files.
std::vector<uint32_t> stray_gaps(const std::vector<uint32_t>& real,
                                 const std::vector<uint32_t>& gaps);

}  // namespace bascule::node
