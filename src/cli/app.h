// The command line as a whole.
#pragma once

#include "cli/platform.h"

namespace bascule::cli {

inline constexpr char kVersion[] = "0.1.0";

// Returns an ExitCode.
int run_cli(int argc, char** argv, const Platform& platform);

}  // namespace bascule::cli
