// The body of PATCH and PUT /config as keys and values of `bascule config set`. Pure.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/result.h"

namespace bascule::api {

// {"ttl": "10s", "parameters": {"work_mem": "64MB", "jit": null}}: null takes one away, as an empty
// value. What GET /config answers is understood as well, names and shapes: {"ttlMs": 10000,
// "slots": {"cdc": {"plugin": "pgoutput", "database": "app"}}}. Whether a key exists and its value
// is good is not looked at. kInvalid: a shape that is neither's, nothing, too much, or one key
// under both its names.
Result<std::map<std::string, std::string>> config_changes(const nlohmann::json& body);

}  // namespace bascule::api
