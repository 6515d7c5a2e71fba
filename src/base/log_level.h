// The level of the log of a process that runs. Thread-safe.
#pragma once

#include "base/log.h"

namespace bascule {

void set_log_level(LogLevel level);

}  // namespace bascule
