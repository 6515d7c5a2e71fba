// Asking the person at the terminal.
#pragma once

#include <string_view>

namespace bascule::cli {

// "Type yes to <what>: " on standard error. False, with a hint at --yes, when there is no terminal.
bool confirm(std::string_view what);

}  // namespace bascule::cli
