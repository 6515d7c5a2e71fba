// From the sections of bascule.yaml to what the roles of the daemon are given. Reads the files of
// secrets, users and rules that they name; errors name the file.
#pragma once

#include "base/result.h"
#include "cli/config.h"
#include "cli/platform.h"
#include "node/config.h"
#include "proxy/proxy.h"

namespace bascule::cli {

// `config.node` is set.
Result<node::NodeConfig> node_config(const DaemonConfig& config, env::Disk& disk);
// `config.proxy` is set.
Result<proxy::ProxyConfig> proxy_config(const DaemonConfig& config, const Platform& platform);

// Where the proxy's events are written: beside the pid file, else beside the store's file, whose
// directory is this daemon's own, else beside the configuration. Absolute.
std::string proxy_events_file(const DaemonConfig& config);
// Commits that this proxy lets be weaker than what this cluster's early take-over relies on, as a
// sentence; empty: none.
std::string weaker_than_early_takeover(const DaemonConfig& config);

}  // namespace bascule::cli
