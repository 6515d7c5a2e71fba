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

}  // namespace bascule::cli
