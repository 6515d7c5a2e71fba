// `proxy.durability` in bascule.yaml: how durable commits are, by client.
#pragma once

#include <vector>

#include "cli/yaml_reader.h"
#include "proxy/durability.h"

namespace bascule::cli {

void read_durability(MapReader& proxy, Problems& problems, std::vector<proxy::DurabilityRule>& out);

}  // namespace bascule::cli
