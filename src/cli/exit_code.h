// What the commands return to the shell; docs/cli.md promises these numbers to scripts.
#pragma once

#include "base/result.h"

namespace bascule::cli {

enum ExitCode : int {
  kExitOk = 0,
  kExitFailed = 1,
  kExitUsage = 2,
  kExitRefused = 3,
  kExitUnknown = 4,
};

inline int exit_code_of(const Error& error) {
  switch (error.code) {
    case ErrorCode::kInvalid:
      return kExitUsage;
    case ErrorCode::kConflict:
      return kExitRefused;
    case ErrorCode::kTimeout:
    case ErrorCode::kUnknown:
      return kExitUnknown;
    default:
      return kExitFailed;
  }
}

}  // namespace bascule::cli
