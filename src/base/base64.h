// base64 (RFC 4648, section 4). Pure; any thread.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace bascule {

std::string base64_encode(std::string_view bytes);
// Strict: padding required, no white space, no stray bits.
Result<std::string> base64_decode(std::string_view text);

}  // namespace bascule
