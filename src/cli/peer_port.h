// What agents ask each other, from a thread of the API's server to the agent's loop and back.
#pragma once

#include <functional>
#include <string>

#include "base/result.h"
#include "cli/platform.h"
#include "node/node.h"

namespace bascule::cli {

// Blocks for half a second at most; kTimeout: the agent has not answered. `platform` and `node`
// must outlive it.
std::function<Result<std::string>(std::string sealed)> peer_port(const Platform& platform,
                                                                 node::Node& node);

}  // namespace bascule::cli
