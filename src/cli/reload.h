// What a daemon that runs can take over from its file, read again at SIGHUP: tags, priority and
// hooks of the node, the API's tokens, the log's level, and what the proxy says of itself. Pure.
#pragma once

#include <string>
#include <vector>

#include "cli/config.h"

namespace bascule::cli {

// Keys whose change needs a restart of the daemon, which PostgreSQL does not notice. Without the
// proxy's (proxy::Proxy::reload() looks at those).
std::vector<std::string> changes_that_need_a_restart(const DaemonConfig& running,
                                                     const DaemonConfig& wanted);

// In the log: that it was reloaded, and what stays as it was.
void tell_of_reload(const std::string& who, const DaemonConfig& running,
                    const DaemonConfig& wanted);

}  // namespace bascule::cli
