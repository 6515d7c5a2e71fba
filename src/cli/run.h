// `bascule run`: the daemon with the roles that the configuration's sections name.
#pragma once

#include <string>

#include "cli/config.h"
#include "cli/platform.h"

namespace bascule::cli {

// Runs until SIGTERM (the node leaves the cluster in order; a second signal ends at once) or until
// the node can't go on. Returns an ExitCode. `user` overrides the file's.
// kTakeOver: from the daemon of the same configuration that runs already, if one does; it ends when
// its clients have left.
enum class Start { kAlone, kTakeOver };
int run_daemon(const Platform& platform, DaemonConfig config, const std::string& user,
               Start start = Start::kAlone);

}  // namespace bascule::cli
