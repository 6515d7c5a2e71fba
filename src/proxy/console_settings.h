// SHOW CONFIG and SET: settings of a running proxy under PgBouncer's names and in its units
// (seconds, with fractions). Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "proxy/config.h"

namespace bascule::proxy {

// key, value, default, changeable
std::vector<std::vector<std::optional<std::string>>> config_rows(const ProxyConfig& config,
                                                                 const ProxyConfig& defaults);

// kNotFound: no such setting; kInvalid: not such a value; kConflict: not while it runs.
Status set_config(ProxyConfig& config, std::string_view name, std::string_view value);

}  // namespace bascule::proxy
